#include "terrace/transfer/in_flight.h"

#include "terrace/base/check.h"

namespace terrace::transfer {

namespace {
constexpr unsigned kTurnShift = 32;
}

InFlight::InFlight(unsigned depth) : places_(depth) {
  for (std::uint32_t i = depth; i > 0; --i) free_.push_back(i - 1);
}

std::uint64_t InFlight::add(std::uint64_t token) {
  TERRACE_CHECK(!free_.empty());
  const std::uint32_t index = free_.back();
  free_.pop_back();
  Place& place = places_[index];
  place.token = token;
  ++place.turn;
  return std::uint64_t{place.turn} << kTurnShift | index;
}

std::optional<std::uint64_t> InFlight::take(std::uint64_t ticket) {
  const std::uint64_t index = ticket & UINT32_MAX;
  if (index >= places_.size()) return std::nullopt;
  Place& place = places_[index];
  const bool is_out = place.turn % 2 == 1;
  if (!is_out || place.turn != ticket >> kTurnShift) return std::nullopt;
  ++place.turn;
  free_.push_back(static_cast<std::uint32_t>(index));
  return place.token;
}

}  // namespace terrace::transfer
