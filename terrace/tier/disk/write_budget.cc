#include <algorithm>

#include "terrace/tier/disk/write_budget_internal.h"

namespace terrace::tier::disk {

namespace {
constexpr double kDaySeconds = 86'400;
constexpr double kHoursOfDay = 24;
// Of a full bucket: an account every four minutes, at the fastest that lasts.
constexpr double kPromiseShare = 1.0 / 16;
constexpr Nanoseconds kRetryTime = seconds(10);

double filling(std::uint64_t bytes_per_day, double elapsed_seconds) {
  return static_cast<double>(bytes_per_day) * (kHoursOfDay - 1) / kHoursOfDay * elapsed_seconds /
         kDaySeconds;
}
}  // namespace

bool WriteAccounts::is_whole() const {
  if (has_unread || copies.empty()) return false;
  const WriteAccount& first = copies.front();
  return copies.size() == first.copies &&
         std::ranges::all_of(copies, [&](const WriteAccount& copy) {
           return copy.set == first.set && copy.copies == first.copies;
         });
}

WriteBudget::WriteBudget(const Options& options, const WriteAccounts& saved, Nanoseconds now,
                         std::int64_t wall_seconds)
    : options_(options),
      depth_(std::max(static_cast<double>(options.bytes_per_day) / kHoursOfDay,
                      static_cast<double>(options.block_bytes))),
      promise_(std::max(depth_ * kPromiseShare, static_cast<double>(options.block_bytes))),
      filled_at_(now) {
  const auto most = static_cast<double>(options.bytes_per_day);
  if (saved.is_whole()) level_ = depth_;
  for (const WriteAccount& copy : saved.copies) {
    const auto away = static_cast<double>(
        wall_seconds > copy.wall_seconds ? wall_seconds - copy.wall_seconds : 0);
    const double level = static_cast<double>(copy.level) + filling(options.bytes_per_day, away);
    level_ = std::min(level_, std::clamp(level, -most, depth_));
  }
}

void WriteBudget::fill(Nanoseconds now) {
  if (now <= filled_at_) return;
  const double elapsed = static_cast<double>((now - filled_at_).value()) * 1e-9;
  level_ = std::min(depth_, level_ + filling(options_.bytes_per_day, elapsed));
  filled_at_ = now;
}

bool WriteBudget::may_take(std::uint64_t bytes, Nanoseconds now) {
  if (options_.bytes_per_day == 0) return true;
  fill(now);
  return !is_over_ && level_ >= static_cast<double>(bytes) && taken_ + bytes <= promised_;
}

void WriteBudget::take(std::uint64_t bytes, Nanoseconds now) {
  if (options_.bytes_per_day == 0) return;
  fill(now);
  level_ =
      std::max(level_ - static_cast<double>(bytes), -static_cast<double>(options_.bytes_per_day));
  taken_ += bytes;
}

std::optional<WriteAccount> WriteBudget::due(Nanoseconds now, std::int64_t wall_seconds) {
  if (options_.bytes_per_day == 0 || is_saving_ || is_over_ || now < retry_at_) return std::nullopt;
  const auto half = static_cast<std::uint64_t>(promise_ / 2);
  if (promised_ >= taken_ + half) return std::nullopt;
  fill(now);
  is_saving_ = true;
  promising_ = taken_ + static_cast<std::uint64_t>(promise_);
  return WriteAccount{wall_seconds, static_cast<std::int64_t>(level_ - promise_)};
}

void WriteBudget::saved(bool is_durable, Nanoseconds now) {
  is_saving_ = false;
  if (is_durable) {
    promised_ = promising_;
  } else {
    retry_at_ = now + kRetryTime;
  }
}

std::optional<WriteAccount> WriteBudget::last(Nanoseconds now, std::int64_t wall_seconds) {
  if (options_.bytes_per_day == 0 || is_over_) return std::nullopt;
  fill(now);
  is_over_ = true;
  return WriteAccount{wall_seconds, static_cast<std::int64_t>(level_)};
}

std::int64_t WriteBudget::level(Nanoseconds now) {
  fill(now);
  return static_cast<std::int64_t>(level_);
}

}  // namespace terrace::tier::disk
