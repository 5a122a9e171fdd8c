// What of each volume is at its device, and since when nothing of it came back, each kind for
// itself: a flush that stalls is no less one where reads are quick. A kind hangs when some of it is
// there and none came back for the limit, until all of it is back.
// Threading: the I/O thread's.  Waits: never.  Memory: 24 B for each volume and kind.
#pragma once

#include <array>
#include <optional>
#include <string>
#include <vector>

#include "terrace/base/clock.h"
#include "terrace/tier/disk/context_internal.h"

namespace terrace::tier::disk {

// A look at a path, and whatever else comes back soon or not.
inline constexpr Nanoseconds kHanging = seconds(10);
// What a sound device may take longer for: to write out what the system kept of a file, to find
// room for one where the file system writes zeros for it.
inline constexpr Nanoseconds kLongHanging = seconds(60);

// As metrics have it.
enum class HangKind : std::uint8_t { kTransfer, kSync, kAllocate };
inline constexpr std::size_t kHangKindCount = 3;
[[nodiscard]] std::string_view to_string(HangKind kind);
[[nodiscard]] HangKind hang_kind_of(Purpose purpose);

class Flights {
 public:
  Flights(std::size_t volumes, const Clock& clock) : clock_(clock), volumes_(volumes) {}

  void began(Purpose purpose, std::uint32_t volume);
  // It came back; with `is_answer` = false it never was there.
  void ended(Purpose purpose, std::uint32_t volume, bool is_answer = true);

  // The kind that hangs, if one does. `is_direct`: its syncs have little to write out.
  [[nodiscard]] std::optional<Purpose> hanging(std::uint32_t volume, bool is_direct);

 private:
  struct Kind {
    std::uint32_t flying = 0;
    bool is_hanging = false;
    Nanoseconds mark{0};  // Of the last answer, or of the first that began after a pause.
  };
  using Kinds = std::array<Kind, kPurposeCount>;

  const Clock& clock_;
  std::vector<Kinds> volumes_;
};

// For people: "fdatasync of slots.meta has not come back for 10 s".
[[nodiscard]] std::string text_of_hang(Purpose purpose, bool is_direct);

}  // namespace terrace::tier::disk
