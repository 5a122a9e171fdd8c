// Invariants that stay on in release. A failed check throws Breach, the only exception of our own;
// every C function and thread entry catches it and poisons its instance (it then only misses).
// Threading: thread-safe.
// Functions that can check are not noexcept. Bad input is a Status, never a check.
#pragma once

#include <exception>
#include <stdexcept>
#include <string>

namespace terrace::base {

class Breach : public std::logic_error {
 public:
  using std::logic_error::logic_error;
};

// Memory ran out in the middle of a change, so nobody knows what holds any more: as a Breach, but
// thrown without taking memory. Before a change std::bad_alloc passes, and only the call fails.
class MemoryBreach final : public std::exception {
 public:
  [[nodiscard]] const char* what() const noexcept override {
    return "no memory in the middle of a change";
  }
};

[[noreturn]] void breach(const char* condition, const char* file, int line);

}  // namespace terrace::base

#define TERRACE_CHECK(condition)                               \
  do {                                                         \
    if (!(condition)) [[unlikely]] {                           \
      ::terrace::base::breach(#condition, __FILE__, __LINE__); \
    }                                                          \
  } while (false)
