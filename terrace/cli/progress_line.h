// Tells people how far a long command is, on standard error: on a terminal one line that changes,
// else a line every tenth. Threading: single-threaded.  Waits: never.
#pragma once

#include <cstdint>
#include <string>

namespace terrace::cli {

class ProgressLine {
 public:
  explicit ProgressLine(std::string command);
  ProgressLine(const ProgressLine&) = delete;
  ProgressLine& operator=(const ProgressLine&) = delete;
  ~ProgressLine();  // Leaves the terminal's line empty.
  // `what` is being done; `done` of `total`, in a unit of the caller's.
  void tell(const std::string& what, std::uint64_t done, std::uint64_t total);

 private:
  const std::string command_;
  const bool is_terminal_;
  std::string what_;
  std::uint64_t told_ = UINT64_MAX;  // Per mille on a terminal, else tenths.
  std::size_t width_ = 0;
};

}  // namespace terrace::cli
