// Invariants that stay on in release. A failed check throws Breach, the only exception of our own;
// every C function and thread entry catches it and poisons its instance (it then only misses).
// Threading: thread-safe.
// Functions that can check are not noexcept. Bad input is a Status, never a check.
#pragma once

#include <stdexcept>
#include <string>

namespace terrace::base {

class Breach : public std::logic_error {
 public:
  using std::logic_error::logic_error;
};

[[noreturn]] void breach(const char* condition, const char* file, int line);

}  // namespace terrace::base

#define TERRACE_CHECK(condition)                               \
  do {                                                         \
    if (!(condition)) [[unlikely]] {                           \
      ::terrace::base::breach(#condition, __FILE__, __LINE__); \
    }                                                          \
  } while (false)
