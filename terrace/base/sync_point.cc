#include "terrace/base/sync_point.h"

#if defined(TERRACE_SYNC_POINTS)
#include <map>
#include <utility>

#include "terrace/base/mutex.h"

namespace terrace::base {

namespace {
struct Hooks {
  Mutex mutex;
  std::map<std::string, std::function<void()>, std::less<>> by_name TERRACE_GUARDED_BY(mutex);
};
Hooks& hooks() {
  static auto* const instance = new Hooks;  // Never destroyed: threads may outlive main.
  return *instance;
}
}  // namespace

void set_sync_point(const std::string& name, std::function<void()> hook) {
  Hooks& all = hooks();
  const MutexLock lock(all.mutex);
  if (hook) {
    all.by_name[name] = std::move(hook);
  } else {
    all.by_name.erase(name);
  }
}

void pass_sync_point(const char* name) {
  std::function<void()> hook;
  {
    Hooks& all = hooks();
    const MutexLock lock(all.mutex);
    const auto found = all.by_name.find(std::string_view(name));
    if (found != all.by_name.end()) hook = found->second;
  }
  if (hook) hook();
}

}  // namespace terrace::base
#endif
