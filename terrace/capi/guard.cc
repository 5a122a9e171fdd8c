#include <array>
#include <cstdlib>
#include <set>

#include "terrace/base/mutex.h"
#include "terrace/capi/guard_internal.h"

namespace terrace::capi {

namespace {

thread_local std::string last_error;
thread_local std::array<std::string, static_cast<std::size_t>(BufferKind::kCount)> buffers;

// Never destroyed: handles may be closed by whoever runs last.
struct Registry {
  Mutex mutex;
  std::set<ExitClosed*> open TERRACE_GUARDED_BY(mutex);
};
Registry& registry() {
  static auto* const instance = new Registry;
  return *instance;
}

void close_all_at_exit() {
  Registry& all = registry();
  std::set<ExitClosed*> open;
  {
    const MutexLock lock(all.mutex);
    open = std::exchange(all.open, {});
  }
  for (ExitClosed* handle : open) handle->close_at_exit();
}

}  // namespace

terrace_code set_error(terrace_code code, std::string text) {
  last_error = std::move(text);
  return code;
}

terrace_code set_error(const Status& status) {
  return set_error(static_cast<terrace_code>(status.code()), status.message());
}

terrace_code set_out_of_memory() noexcept {
  last_error.assign("out of memory");  // Fits into the string itself.
  return TERRACE_EXHAUSTED;
}

terrace_code put_bytes(BufferKind kind, std::string text, terrace_bytes* bytes) {
  std::string& buffer = buffers[static_cast<std::size_t>(kind)];
  buffer = std::move(text);
  bytes->data = reinterpret_cast<const std::uint8_t*>(buffer.data());
  bytes->length = buffer.size();
  return TERRACE_OK;
}

ExitClosed::ExitClosed() : pid_(::getpid()) {
  static const int registered = std::atexit(close_all_at_exit);
  (void)registered;
  Registry& all = registry();
  const MutexLock lock(all.mutex);
  all.open.insert(this);
}

ExitClosed::~ExitClosed() {
  Registry& all = registry();
  const MutexLock lock(all.mutex);
  all.open.erase(this);
}

}  // namespace terrace::capi

extern "C" {

uint32_t terrace_abi_version(void) { return TERRACE_ABI_VERSION; }
const char* terrace_version(void) { return TERRACE_VERSION_TEXT; }
const char* terrace_last_error(void) { return terrace::capi::last_error.c_str(); }
}
