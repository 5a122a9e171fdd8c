// Gives the slot files their blocks in the background, lowest extents first, while the tier serves:
// fallocate in steps, or zeros where the file system refuses that.
// Threading: the I/O thread's.  Waits: never.  Bounds: one step per volume at a time.
#pragma once

#include <string>
#include <vector>

#include "terrace/tier/disk/context_internal.h"

namespace terrace::tier::disk {

class Allocator {
 public:
  explicit Allocator(Context& context);

  // Starts the next step of each volume that needs one.
  void advance();
  // True when the volume's allocated bytes grew or it is now known that they will not for a while.
  [[nodiscard]] bool finish(Purpose purpose, std::uint32_t volume, const Status& status);
  // The medium has no room for more now.
  [[nodiscard]] bool is_full(std::uint32_t volume) const { return states_[volume].is_full; }
  [[nodiscard]] const Status& reason(std::uint32_t volume) const { return states_[volume].reason; }
  [[nodiscard]] bool is_done(std::uint32_t volume) const;
  // Bytes zeroed and bytes to zero, for the log; equal when fallocate did it.
  [[nodiscard]] bool is_zeroing(std::uint32_t volume) const { return states_[volume].is_zeroing; }

 private:
  struct State {
    std::uint64_t reached = 0;  // Bytes; allocated_bytes() is that in whole extents.
    std::uint64_t step = 0;
    bool is_flying = false;
    bool is_zeroing = false;
    bool is_full = false;
    Nanoseconds retry_at{INT64_MIN};
    Status reason;
    unsigned said = 0;  // Tenths of the zeroing in the log.
  };
  void note_progress(std::uint32_t volume);

  Context& context_;
  std::vector<State> states_;
  std::vector<std::byte> zeros_;  // Page-aligned inside.
};

}  // namespace terrace::tier::disk
