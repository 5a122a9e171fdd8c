// Log lines as key=value text, handed to a sink. A sink must be quick and must not throw.
// Levels: error = an operator must act, warn = fewer hits, info = state changed, debug = per
// request. Threading: sinks are thread-safe; RingLog keeps the newest lines, bounded, for the host
// to drain.
#pragma once

#include <cstddef>
#include <deque>
#include <string>
#include <string_view>
#include <vector>

#include "terrace/base/clock.h"
#include "terrace/base/mutex.h"

namespace terrace {

enum class LogLevel : int { kDebug = 0, kInfo = 1, kWarn = 2, kError = 3 };
[[nodiscard]] std::string_view to_string(LogLevel level);

class LogSink {
 public:
  virtual ~LogSink() = default;
  virtual void write(LogLevel level, std::string_view line) = 0;
};

struct LogLine {
  LogLevel level;
  std::string text;
};

// Bounded; when full the oldest line goes and `dropped()` counts it. One identical line per second
// is kept, further ones are counted.
class RingLog final : public LogSink {
 public:
  RingLog(const Clock& clock, LogLevel lowest, std::size_t capacity);
  void write(LogLevel level, std::string_view line) override;
  [[nodiscard]] std::vector<LogLine> drain();
  [[nodiscard]] std::uint64_t dropped() const;

 private:
  const Clock& clock_;
  const LogLevel lowest_;
  const std::size_t capacity_;
  mutable Mutex mutex_;
  std::deque<LogLine> lines_ TERRACE_GUARDED_BY(mutex_);
  std::string last_ TERRACE_GUARDED_BY(mutex_);
  Nanoseconds last_at_ TERRACE_GUARDED_BY(mutex_){0};
  std::uint64_t dropped_ TERRACE_GUARDED_BY(mutex_) = 0;
};

class NullLog final : public LogSink {
 public:
  void write(LogLevel, std::string_view) override {}
};

}  // namespace terrace
