#include "terrace/base/log.h"

#include <utility>

namespace terrace {

std::string_view to_string(LogLevel level) {
  switch (level) {
    case LogLevel::kDebug:
      return "debug";
    case LogLevel::kInfo:
      return "info";
    case LogLevel::kWarn:
      return "warn";
    case LogLevel::kError:
      return "error";
  }
  return "unknown";
}

RingLog::RingLog(const Clock& clock, LogLevel lowest, std::size_t capacity)
    : clock_(clock), lowest_(lowest), capacity_(capacity) {}

void RingLog::write(LogLevel level, std::string_view line) {
  if (level < lowest_) return;
  const Nanoseconds now = clock_.now();
  std::string text(line);
  const MutexLock lock(mutex_);
  if (text == last_ && now - last_at_ < seconds(1)) {
    ++dropped_;
    return;
  }
  last_ = text;
  last_at_ = now;
  if (lines_.size() >= capacity_) {
    lines_.pop_front();
    ++dropped_;
  }
  lines_.push_back({level, std::move(text)});
}

std::vector<LogLine> RingLog::drain() {
  const MutexLock lock(mutex_);
  std::vector<LogLine> lines(std::make_move_iterator(lines_.begin()),
                             std::make_move_iterator(lines_.end()));
  lines_.clear();
  return lines;
}

std::uint64_t RingLog::dropped() const {
  const MutexLock lock(mutex_);
  return dropped_;
}

}  // namespace terrace
