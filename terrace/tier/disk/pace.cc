#include <utility>

#include "terrace/tier/disk/pace_internal.h"

namespace terrace::tier::disk {

namespace {
constexpr Nanoseconds kSpan = seconds(1);  // Busy.
constexpr unsigned kLeastAnswers = 8;      // In a span.
constexpr unsigned kSpansToLearn = 8;      // Before anything is judged.
constexpr double kWeight = 1.0 / 32;       // Of one more span in the norm.
constexpr double kSpeedWeight = 1.0 / 4;
constexpr double kSlowShare = 1.0 / 8;
constexpr double kQuickShare = 1.0 / 3;  // Far enough from kSlowShare not to flap.
constexpr Nanoseconds kSlowAnswer = milliseconds(250);
constexpr Nanoseconds kQuickAnswer = milliseconds(100);
}  // namespace

Pace::Pace(std::size_t volumes, std::size_t places, const Clock& clock)
    : clock_(clock), flights_(places), devices_(volumes) {}

bool Pace::began(std::size_t place, std::uint32_t volume, std::uint64_t bytes) {
  Flight& flight = flights_[place];
  if (flight.volume != UINT32_MAX) return false;
  flight = {clock_.now(), bytes, volume};
  Device& device = devices_[volume];
  if (device.flying++ == 0) device.mark = flight.began;
  return true;
}

std::optional<std::uint32_t> Pace::ended(std::size_t place) {
  const Flight flight = std::exchange(flights_[place], {});
  if (flight.volume == UINT32_MAX) return std::nullopt;
  Device& device = devices_[flight.volume];
  const Nanoseconds now = clock_.now();
  device.busy += now - device.mark;
  device.mark = now;
  --device.flying;
  device.latency += now - flight.began;
  device.bytes += flight.bytes;
  if (++device.answers >= kLeastAnswers && device.busy >= kSpan) judge(device);
  return flight.volume;
}

void Pace::judge(Device& device) {
  const double rate =
      static_cast<double>(device.bytes) * 1e9 / static_cast<double>(device.busy.value());
  const auto answer = Nanoseconds(device.latency.value() / device.answers);
  device.last = rate;
  device.speed = device.speed > 0 ? device.speed + (rate - device.speed) * kSpeedWeight : rate;
  if (device.spans < kSpansToLearn) {
    ++device.spans;
    device.norm += (rate - device.norm) / device.spans;
  } else if (device.is_slow) {
    device.is_slow = rate < device.norm * kQuickShare && answer > kQuickAnswer;
  } else if (rate < device.norm * kSlowShare && answer > kSlowAnswer) {
    device.is_slow = true;
  } else {
    device.norm += (rate - device.norm) * kWeight;
  }
  device.busy = Nanoseconds(0);
  device.latency = Nanoseconds(0);
  device.bytes = 0;
  device.answers = 0;
}

}  // namespace terrace::tier::disk
