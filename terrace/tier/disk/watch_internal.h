// Watches the volumes: whether their directories are still there, whoever stands behind their paths
// answers (Looker), and their devices do, to whatever is asked of them (Flights) and as fast as
// they did (Pace), once a second, and tells Health. Threading: the I/O thread's, but for
// visit_metrics().  Waits: never, but for a look where the tier has no hands for it.
#pragma once

#include "terrace/tier/disk/context_internal.h"
#include "terrace/tier/disk/flights_internal.h"
#include "terrace/tier/disk/pace_internal.h"

namespace terrace::tier::disk {

class Watch {
 public:
  explicit Watch(Context& context);

  // A transfer goes to the device, and is back; with `is_answer` = false it did not get there.
  void began(const Ticket& ticket, const transfer::Transfer& transfer);
  void ended(const Ticket& ticket, bool is_answer = true);
  void look();
  // Before anybody is told that a block is there.
  void hide_unreadable();
  // Of each volume, as of the last look: bytes a second of its device while busy, how long a look
  // at its path is under way, and how often what hung. Thread-safe.
  void visit_metrics(MetricVisitor& visitor) const;

 private:
  [[nodiscard]] std::size_t place_of(const Ticket& ticket) const;
  // What a look has found since the last call.
  void note_sight(std::uint32_t volume);
  void note_hang(std::uint32_t volume);
  void note_pace(std::uint32_t volume);

  static constexpr std::size_t kHangCount = kLookCallCount + kHangKindCount;

  Context& context_;
  Pace pace_;
  Flights flights_;
  std::vector<double> speeds_;        // [volume]; 0 = not known, or its last one.
  std::vector<Gauge> shown_;          // The same, for everybody.
  std::vector<std::uint64_t> noted_;  // [volume]: of the look that Health knows of.
  std::vector<Gauge> looking_;        // [volume]: nanoseconds.
  std::vector<std::array<Counter, kHangCount>> hangs_;  // [volume][LookCall, then HangKind].
  static constexpr Nanoseconds kNever{INT64_MIN};
  Nanoseconds next_look_ = kNever;
  // Nobody looked for long: the process was stopped, and the threads through which answers come
  // may have been, too. Until the next look none is said to hang.
  bool is_late_ = false;
};

}  // namespace terrace::tier::disk
