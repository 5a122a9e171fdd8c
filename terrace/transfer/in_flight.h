// Which transfers or requests are under way, by tickets that never come twice: what completes under
// a ticket that is not out (again, or late for a place that has another turn by now) is told apart.
// Threading: thread-compatible.  Waits: never.  Bounds: `depth` places, from the start.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

namespace terrace::transfer {

class InFlight {
 public:
  explicit InFlight(unsigned depth);
  // The caller's token gets a place; there has to be one.
  [[nodiscard]] std::uint64_t add(std::uint64_t token);
  // The token, and its place is free again. Nothing when the ticket is not out.
  [[nodiscard]] std::optional<std::uint64_t> take(std::uint64_t ticket);
  [[nodiscard]] unsigned count() const {
    return static_cast<unsigned>(places_.size() - free_.size());
  }

 private:
  struct Place {
    std::uint64_t token = 0;
    std::uint32_t turn = 0;  // Odd = in use.
  };
  std::vector<Place> places_;
  std::vector<std::uint32_t> free_;
};

}  // namespace terrace::transfer
