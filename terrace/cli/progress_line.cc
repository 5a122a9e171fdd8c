#include "terrace/cli/progress_line.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>

namespace terrace::cli {

ProgressLine::ProgressLine(std::string command)
    : command_(std::move(command)), is_terminal_(::isatty(STDERR_FILENO) == 1) {}

ProgressLine::~ProgressLine() {
  if (width_ > 0) std::fputs(fmt::format("\r{:{}}\r", "", width_).c_str(), stderr);
}

void ProgressLine::tell(const std::string& what, std::uint64_t done, std::uint64_t total) {
  const double share =
      total == 0 ? 1 : std::min(1.0, static_cast<double>(done) / static_cast<double>(total));
  const auto step = static_cast<std::uint64_t>(share * (is_terminal_ ? 1000 : 10));
  if (step == told_ && what == what_) return;
  told_ = step;
  what_ = what;
  const std::string line =
      fmt::format("terrace {}: {}: {:.{}f} %", command_, what, share * 100, is_terminal_ ? 1 : 0);
  if (is_terminal_) {
    std::fputs(fmt::format("\r{:{}}", line, width_).c_str(), stderr);
    width_ = std::max(width_, line.size());
  } else {
    std::fputs((line + '\n').c_str(), stderr);
  }
}

}  // namespace terrace::cli
