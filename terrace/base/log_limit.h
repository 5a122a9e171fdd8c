// Keeps one kind of log line from flooding the log: the first lines of a minute in full, then one
// line with the count of those left out. Counters beside it stay exact; this is for people.
// Threading: thread-compatible.  Waits: never.  Memory: none of size.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "terrace/base/clock.h"
#include "terrace/base/log.h"

namespace terrace {

class LogLimit {
 public:
  struct Options {
    unsigned lines = 10;  // In full, of those within a span.
    Nanoseconds span = seconds(60);
  };
  // `about` begins the line that tells the count: key=value text that says which lines.
  LogLimit(const Clock& clock, LogSink& log, std::string about) noexcept;
  LogLimit(const Clock& clock, LogSink& log, std::string about, const Options& options) noexcept;

  void write(LogLevel level, std::string_view line);
  // Call it from time to time: tells the count of a span that has ended, where no line follows.
  void tick();
  // At the end: tells what is left to tell, and begins anew.
  void flush();

 private:
  const Clock& clock_;
  LogSink& log_;
  const std::string about_;
  const Options options_;
  Nanoseconds start_{0};  // Of the span, with its first line.
  unsigned written_ = 0;
  std::uint64_t left_out_ = 0;
  LogLevel level_ = LogLevel::kDebug;  // The highest of those left out.
};

}  // namespace terrace
