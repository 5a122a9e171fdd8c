// Named places where a test can stop, delay or fail a thread. Compiled away from the shipped
// library. Threading: thread-safe.
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
