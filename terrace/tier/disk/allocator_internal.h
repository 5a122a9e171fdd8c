// Gives the slot files and slots.meta their blocks in the background, lowest extents first, while
// the tier serves: fallocate in steps, or zeros where the file system refuses that. The records of
// a run get theirs before its frames, so that what was written can also be recorded on a full disk.
// Threading: the I/O thread's.  Waits: never.  Bounds: one step per volume at a time.
#pragma once

#include <string>
#include <vector>

#include "terrace/tier/disk/budget_keeper_internal.h"
#include "terrace/tier/disk/context_internal.h"

namespace terrace::tier::disk {

class Allocator {
 public:
  Allocator(Context& context, BudgetKeeper& budget);

  // Starts the next step of each volume that needs one.
  void advance();
  // No further step: the tier closes, and what is under way should end.
  void stop() { is_stopped_ = true; }
  void finish(Purpose purpose, std::uint32_t volume, const Status& status);
  // The medium has no room for more now.
  [[nodiscard]] bool is_full(std::uint32_t volume) const { return states_[volume].is_full; }
  // It had none at some time: from then on nothing counts on space that is yet to come.
  [[nodiscard]] bool was_full(std::uint32_t volume) const { return states_[volume].was_full; }
  [[nodiscard]] const Status& reason(std::uint32_t volume) const { return states_[volume].reason; }
  [[nodiscard]] bool is_done(std::uint32_t volume) const;
  // Bytes zeroed and bytes to zero, for the log; equal when fallocate did it.
  [[nodiscard]] bool is_zeroing(std::uint32_t volume) const { return states_[volume].is_zeroing; }

 private:
  struct Target {
    std::uint64_t reached = 0;  // Bytes; allocated_bytes() is that in whole extents.
    std::uint64_t step = 0;     // Of the next fallocate, at most.
    std::uint64_t flying = 0;   // Where the step under way ends.
  };
  struct State {
    Target data, meta;
    bool is_flying = false;
    bool is_meta = false;  // The step under way is slots.meta's.
    bool is_zeroing = false;
    bool is_full = false;
    bool was_full = false;
    Nanoseconds retry_at{INT64_MIN};
    Status reason;
    unsigned said = 0;  // Tenths of the zeroing in the log.
    std::uint64_t device = 0;
    // Bytes that files on that device got since the look number `since`, Looker's, began, and
    // before it.
    std::uint64_t since = 0;
    std::uint64_t newer = 0;
    std::uint64_t older = 0;
    std::uint64_t asked = 0;  // A look that is waited for; 0 = none.
  };
  [[nodiscard]] bool is_meta_due(std::uint32_t volume) const;
  [[nodiscard]] bool waits_for_room(std::uint32_t volume);
  void note_growth(std::uint32_t volume, std::uint64_t bytes);
  // Bytes that the last look may not have seen.
  [[nodiscard]] std::uint64_t unseen(std::uint32_t volume) const;
  // Whether what is known of the file system's room may be gone by: it is young, and says yes, or
  // was looked at for just this. If not, somebody goes and looks.
  [[nodiscard]] bool knows_room(std::uint32_t volume, std::uint64_t bytes);
  void note_full(std::uint32_t volume, Status reason);
  void pass_over_records(std::uint32_t volume);
  void start_zeros(std::uint32_t volume, std::uint64_t offset, std::uint64_t bytes);
  void start_fallocate(std::uint32_t volume, std::uint64_t offset, std::uint64_t bytes);
  // Into the file that is being extended.
  void start(std::uint32_t volume, Purpose purpose, std::uint64_t offset,
             transfer::Transfer& transfer);
  void note_progress(std::uint32_t volume);

  Context& context_;
  BudgetKeeper& budget_;
  std::vector<State> states_;
  bool is_stopped_ = false;
  std::vector<std::byte> zeros_;  // Page-aligned inside.
};

}  // namespace terrace::tier::disk
