// Several hands for one job: its parts are done side by side, or one after the other where there is
// but one hand. A room without threads of its own takes a Crew in its options; a room that may have
// them makes one with thread_crew().
// Threading: thread-compatible.  Waits: run() until all parts have ended.
#pragma once

#include <cstddef>
#include <functional>

namespace terrace {

struct Crew {
  using Part = std::function<void(std::size_t number)>;
  std::size_t size = 1;
  std::function<void(const Part& part)> run_all;  // Empty: one after the other.

  // part(0) … part(size - 1), in any order; parts must not wait for each other.
  void run(const Part& part) const {
    if (run_all) return run_all(part);
    for (std::size_t number = 0; number < size; ++number) part(number);
  }
};

}  // namespace terrace
