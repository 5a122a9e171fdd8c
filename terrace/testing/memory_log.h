// A log sink that keeps what was written, as text: one line each, the level first.
// Threading: thread-safe.  Memory: all that was written.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "terrace/base/log.h"
#include "terrace/base/mutex.h"

namespace terrace::testing {

class MemoryLog final : public LogSink {
 public:
  void write(LogLevel level, std::string_view line) override {
    const MutexLock lock(mutex_);
    text_.append(to_string(level)).append(" ").append(line).append("\n");
  }
  [[nodiscard]] std::string text() const {
    const MutexLock lock(mutex_);
    return text_;
  }
  // Lines that hold `part`.
  [[nodiscard]] std::size_t count(std::string_view part) const {
    const std::string all = text();
    std::size_t lines = 0;
    for (std::size_t at = 0; (at = all.find(part, at)) != std::string::npos; ++lines) {
      at = all.find('\n', at);
    }
    return lines;
  }
  // The sum of the numbers that follow `part` at once.
  [[nodiscard]] std::uint64_t sum(std::string_view part) const {
    const std::string all = text();
    std::uint64_t sum = 0;
    for (std::size_t at = 0; (at = all.find(part, at)) != std::string::npos;) {
      at += part.size();
      sum += std::stoull(all.substr(at));
    }
    return sum;
  }

 private:
  mutable Mutex mutex_;
  std::string text_ TERRACE_GUARDED_BY(mutex_);
};

}  // namespace terrace::testing
