#include "terrace/base/log_limit.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

namespace terrace {

LogLimit::LogLimit(const Clock& clock, LogSink& log, std::string about) noexcept
    : LogLimit(clock, log, std::move(about), Options()) {}

LogLimit::LogLimit(const Clock& clock, LogSink& log, std::string about,
                   const Options& options) noexcept
    : clock_(clock), log_(log), about_(std::move(about)), options_(options) {}

void LogLimit::write(LogLevel level, std::string_view line) {
  tick();
  if (written_ < options_.lines) {
    if (written_++ == 0) start_ = clock_.now();
    log_.write(level, line);
    return;
  }
  ++left_out_;
  level_ = std::max(level_, level);
}

void LogLimit::tick() {
  if (written_ > 0 && clock_.now() - start_ >= options_.span) flush();
}

void LogLimit::flush() {
  const std::uint64_t left_out = std::exchange(left_out_, 0);
  const LogLevel level = std::exchange(level_, LogLevel::kDebug);
  written_ = 0;
  if (left_out == 0) return;
  log_.write(level, fmt::format("{} left_out={} within_s={}", about_, left_out,
                                (clock_.now() - start_) / seconds(1)));
}

}  // namespace terrace
