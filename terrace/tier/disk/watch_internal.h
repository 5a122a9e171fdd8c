// Watches the volumes: whether their directories are still there and their devices answer, once a
// second, and tells Health.
// Threading: the I/O thread's, but for visit_metrics().  Waits: never, but for lstat.
#pragma once

#include "terrace/tier/disk/context_internal.h"
#include "terrace/tier/disk/pace_internal.h"

namespace terrace::tier::disk {

class Watch {
 public:
  explicit Watch(Context& context);

  // A frame's transfer goes to the device, and is back.
  void began(const Ticket& ticket, const transfer::Transfer& transfer);
  void ended(const Ticket& ticket) { pace_.ended(place_of(ticket)); }
  void look();
  // Before anybody is told that a block is there.
  void hide_unreadable();
  // Bytes a second of each volume's device while busy, as of the last look. Thread-safe.
  void visit_metrics(MetricVisitor& visitor) const;

 private:
  [[nodiscard]] std::size_t place_of(const Ticket& ticket) const;
  void note_pace(std::uint32_t volume);

  Context& context_;
  Pace pace_;
  std::vector<double> speeds_;  // [volume]; 0 = not known, or its last one.
  std::vector<Gauge> shown_;    // The same, for everybody.
  static constexpr Nanoseconds kNever{INT64_MIN};
  Nanoseconds next_look_ = kNever;
  // Nobody looked for long: the process was stopped, and the threads through which answers come
  // may have been, too. Until the next look none is said to hang.
  bool is_late_ = false;
};

}  // namespace terrace::tier::disk
