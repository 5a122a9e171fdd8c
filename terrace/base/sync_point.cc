#include "terrace/base/sync_point.h"

#if defined(TERRACE_SYNC_POINTS)
#include <map>
#include <mutex>
#include <utility>

namespace terrace::base {

namespace {
struct Hooks {
  std::mutex mutex;
  std::map<std::string, std::function<void()>, std::less<>> by_name;
};
Hooks& hooks() {
  static auto* const instance = new Hooks;  // Never destroyed: threads may outlive main.
  return *instance;
}
}  // namespace

void set_sync_point(const std::string& name, std::function<void()> hook) {
  const std::scoped_lock lock(hooks().mutex);
  if (hook) {
    hooks().by_name[name] = std::move(hook);
  } else {
    hooks().by_name.erase(name);
  }
}

void pass_sync_point(const char* name) {
  std::function<void()> hook;
  {
    const std::scoped_lock lock(hooks().mutex);
    const auto found = hooks().by_name.find(std::string_view(name));
    if (found != hooks().by_name.end()) hook = found->second;
  }
  if (hook) hook();
}

}  // namespace terrace::base
#endif
