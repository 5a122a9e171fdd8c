// Named places where a test can stop, delay or fail a thread. Compiled away from the shipped
// library. Threading: thread-safe.
// TERRACE_FAULT_POINT stands where even a test build must not pay for it: it is there only in the
// sources that one test compiles for itself, and that test says what happens.
#pragma once

#if defined(TERRACE_SYNC_POINTS)
#include <functional>
#include <string>

namespace terrace::base {
// Runs `hook` each time the point is passed; an empty hook removes it. Tests only.
void set_sync_point(const std::string& name, std::function<void()> hook);
void pass_sync_point(const char* name);
}  // namespace terrace::base
#define TERRACE_SYNC_POINT(name) ::terrace::base::pass_sync_point(name)
#else
#define TERRACE_SYNC_POINT(name) ((void)0)
#endif

#if defined(TERRACE_FAULT_POINTS)
namespace terrace::base {
void pass_fault_point();  // Defined by the test. May throw.
}
#define TERRACE_FAULT_POINT() ::terrace::base::pass_fault_point()
#else
#define TERRACE_FAULT_POINT() ((void)0)
#endif
