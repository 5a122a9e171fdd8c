#include "terrace/base/log.h"

#include <utility>

namespace terrace {

namespace {
// What a peer or a file name brings must not look like a second line, or end the text.
std::string on_one_line(std::string_view line) {
  constexpr std::string_view kDigits = "0123456789abcdef";
  std::string text;
  text.reserve(line.size());
  for (const char c : line) {
    const auto byte = static_cast<unsigned char>(c);
    if (byte >= 0x20 && byte != 0x7F) {
      text += c;
    } else {
      text.append({'\\', 'x', kDigits[byte >> 4U], kDigits[byte & 15U]});
    }
  }
  return text;
}
}  // namespace

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
  std::string text = on_one_line(line);
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
