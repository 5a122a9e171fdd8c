// Looks at one volume from outside: whether its path still leads to the files that are open,
// whether they were deleted, what room their file system has. Each of these calls takes as long as
// whoever answers for the path: a file server that is away may keep them for ever. So they are made
// by a hand of the volume's own, where the tier was given some, and what was found is fetched
// later; with no hands they are made at once, by who asks. A look that is under way owns all that
// it uses, and touches nothing of the tier: it may outlive it.
//
// Threading: the I/O thread's.  Waits: end(), with a limit; without a hand begin() and ask(), for
// the path.  Bounds: one look of each volume at a time.
// Source: docs/adr/0041-paths-are-looked-at-aside.md.
#pragma once

#include <array>
#include <atomic>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "terrace/base/clock.h"
#include "terrace/base/file.h"
#include "terrace/base/hands.h"
#include "terrace/base/log.h"
#include "terrace/base/mutex.h"
#include "terrace/base/status.h"
#include "terrace/tier/disk/owner_directory_internal.h"
#include "terrace/tier/first_look.h"

namespace terrace::tier::disk {

class Volume;

// The calls of a look.
enum class LookCall : std::uint8_t { kFstat, kLstat, kStat, kFstatvfs, kFadvise };
inline constexpr std::size_t kLookCallCount = 5;
[[nodiscard]] std::string_view to_string(LookCall call);

// What is looked at: with descriptors of its own, so that it may outlive the volume.
struct LookedAt {
  struct File {
    UniqueFd open;
    std::string path;
  };
  std::string directory;
  LockId lock;
  std::array<File, 3> files;  // 0.slots, slots.meta, extents.meta.
};

// What a look found.
struct Sight {
  // False once somebody deleted a file of ours under our feet: then it never comes back.
  bool is_linked = true;
  // Its path leads to the files that are open; else kNotFound, and to what; kIo = of those that are
  // open nobody can say now, and they may come back.
  Status place;
  // Of the file system; 0 and 0 = it does not say.
  std::uint64_t total_bytes = 0;
  std::uint64_t free_bytes = 0;
};
// Empty while `bytes` more leave enough of the file system to its other users; else that in words,
// the same as long as it lasts. Half of what stays free at the start: what the file system itself
// needs for a large file counts against the other half.
[[nodiscard]] std::string lack_of_room(const Sight& sight, std::uint64_t bytes);

class Looker {
 public:
  // Without `hand` each look is made at once. Errors: kExhausted, kIo = no descriptor for it.
  static Result<std::unique_ptr<Looker>> create(const Volume& volume, std::unique_ptr<Hands> hand,
                                                const Clock& clock);

  // Looks, unless it is at it.
  void begin();
  // A look that begins from here on, and first has the system forget what it remembers of the
  // records, if `is_afresh`. It has been made when number() is at least what is returned.
  std::uint64_t ask(bool is_afresh = false);
  // Fetches what was found, if anything came.
  void take();
  // Of the last look that came back: they are counted from 1; 0 = none yet.
  [[nodiscard]] std::uint64_t number() const { return number_; }
  [[nodiscard]] const Sight& sight() const { return sight_; }
  // Of the last one that began.
  [[nodiscard]] std::uint64_t begun() const { return begun_; }
  // How old sight() is, from when its look began.
  [[nodiscard]] Nanoseconds age() const { return clock_.now() - seen_at_; }
  [[nodiscard]] bool is_under_way() const { return is_under_way_; }
  // For how long; 0 = none is.
  [[nodiscard]] Nanoseconds under_way_for() const;
  // The call at which it is, and on what, for people.
  [[nodiscard]] std::string where() const;
  [[nodiscard]] LookCall call() const;

  // Waits for the look that is under way, at most `limit`, and not at all for one that hangs; false
  // = it still is.
  [[nodiscard]] bool end(Nanoseconds limit);
  // Lets go of a look that is under way: its thread ends behind it.
  void leave() { hand_.reset(); }

 private:
  struct Shared;  // With a look that is under way.
  Looker(std::shared_ptr<Shared> shared, std::unique_ptr<Hands> hand, const Clock& clock);
  void start();

  const Clock& clock_;
  const std::shared_ptr<Shared> shared_;
  std::unique_ptr<Hands> hand_;
  Sight sight_;
  std::uint64_t number_ = 0;
  std::uint64_t begun_ = 0;
  std::uint64_t wanted_ = 0;  // A look of this number is asked for.
  bool is_afresh_ = false;    // The next one.
  bool is_under_way_ = false;
  Nanoseconds began_at_{0};
  Nanoseconds seen_at_{INT64_MIN / 2};
};

// Those of all volumes.
class Lookers {
 public:
  // A hand that the system refuses is told, and done without. Errors: as Looker::create().
  static Result<Lookers> create(const std::vector<std::unique_ptr<Volume>>& volumes,
                                const MakeHand& make_hand, const Clock& clock, LogSink& log);
  [[nodiscard]] Looker& operator[](std::size_t volume) { return *all_[volume]; }
  // The last call. Waits for looks that are under way, at most `limit` in all, and not for those
  // that hang. False = one was left to its thread, which the log tells: the volume's files have to
  // stay open, as closing them may hang as well.
  [[nodiscard]] bool end(Nanoseconds limit, LogSink& log);

 private:
  std::vector<std::unique_ptr<Looker>> all_;
};

}  // namespace terrace::tier::disk
