// How fast each volume's device answers, against its own norm. A device is slow when, while it is
// busy, it moves less than an eighth of the bytes a second that it moved before, and an answer
// takes longer than 250 ms: load alone makes answers late, but not bytes few. Frames alone are
// measured: a sync or a record is no measure of bytes.
// Threading: the I/O thread's.  Waits: never.  Memory: 24 B for each frame that can be under way.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "terrace/base/clock.h"

namespace terrace::tier::disk {

class Pace {
 public:
  // `places`: frames that can be under way at once; the caller numbers them.
  Pace(std::size_t volumes, std::size_t places, const Clock& clock);

  // False = the same place began before, and did not end: nothing new.
  bool began(std::size_t place, std::uint32_t volume, std::uint64_t bytes);
  // Its volume; none = the place did not begin.
  std::optional<std::uint32_t> ended(std::size_t place);

  [[nodiscard]] bool is_slow(std::uint32_t volume) const { return devices_[volume].is_slow; }
  // Bytes a second while busy: usual, and in the last span that was judged. 0 = not known yet.
  [[nodiscard]] double norm(std::uint32_t volume) const { return devices_[volume].norm; }
  // The same of late, in some seconds' busy time: what the next blocks may expect.
  [[nodiscard]] double speed(std::uint32_t volume) const { return devices_[volume].speed; }
  [[nodiscard]] double last(std::uint32_t volume) const { return devices_[volume].last; }

 private:
  struct Flight {
    Nanoseconds began{0};
    std::uint64_t bytes = 0;
    std::uint32_t volume = UINT32_MAX;  // Nothing under way.
  };
  struct Device {
    std::uint32_t flying = 0;
    Nanoseconds mark{0};  // Up to where `busy` counts.
    // Of this span.
    Nanoseconds busy{0};
    Nanoseconds latency{0};  // Sum.
    std::uint64_t bytes = 0;
    unsigned answers = 0;
    double norm = 0;
    double speed = 0;
    double last = 0;
    unsigned spans = 0;
    bool is_slow = false;
  };
  static void judge(Device& device);

  const Clock& clock_;
  std::vector<Flight> flights_;
  std::vector<Device> devices_;
};

}  // namespace terrace::tier::disk
