#include <array>
#include <atomic>
#include <cstdlib>
#include <memory>
#include <set>

#include "terrace/base/clock.h"
#include "terrace/base/mutex.h"
#include "terrace/capi/guard_internal.h"

namespace terrace::capi {

namespace {

thread_local std::string last_error;
thread_local std::array<std::string, static_cast<std::size_t>(BufferKind::kCount)> buffers;

constexpr Nanoseconds kClosingPatience = seconds(2);

// One process's handles. Never destroyed: they may be closed by whoever runs last.
struct Registry {
  Registry(pid_t its_process, const Registry* parents) : process(its_process), inherited(parents) {}
  const pid_t process;
  const Registry* const inherited;  // In a forked child; so that it is not taken for lost.
  Mutex mutex;
  CondVar ended;  // After each end of a close.
  std::set<ExitClosed*> open TERRACE_GUARDED_BY(mutex);
  std::set<ExitClosed*> closing TERRACE_GUARDED_BY(mutex);
};
constinit std::atomic<Registry*> last_registry{nullptr};

// Null if this process has none. A forked child never touches its parent's: a thread that is not
// in the child may hold the lock.
Registry* find_registry() {
  Registry* const last = last_registry.load();
  return last != nullptr && last->process == ::getpid() ? last : nullptr;
}

Registry& make_registry() {
  for (;;) {
    Registry* last = last_registry.load();
    if (last != nullptr && last->process == ::getpid()) return *last;
    auto made = std::make_unique<Registry>(::getpid(), last);
    if (last_registry.compare_exchange_strong(last, made.get())) return *made.release();
  }
}

}  // namespace

void close_all_at_exit() {
  Registry* const all = find_registry();
  if (all == nullptr) return;
  std::set<ExitClosed*> open;
  {
    const MutexLock lock(all->mutex);
    open = std::exchange(all->open, {});
  }
  for (ExitClosed* handle : open) handle->close_at_exit();
  const SystemClock clock;
  const Nanoseconds deadline = clock.now() + kClosingPatience;
  const MutexLock lock(all->mutex);
  while (!all->closing.empty()) {
    const Nanoseconds left = deadline - clock.now();
    if (left <= Nanoseconds(0)) return;
    TERRACE_SYNC_POINT("capi.exit.waiting");
    (void)all->ended.wait_for(all->mutex, left);
  }
}

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

void ExitClosed::watch_exit() {
  static const int registered = std::atexit(close_all_at_exit);
  (void)registered;
  Registry& all = make_registry();
  std::set<ExitClosed*> added{this};
  const MutexLock lock(all.mutex);
  TERRACE_SYNC_POINT("capi.registry.locked");
  all.open.merge(added);
}

ExitClosed::~ExitClosed() {
  Registry* const all = find_registry();
  if (all == nullptr) return;
  const MutexLock lock(all->mutex);
  all->open.erase(this);
  all->closing.erase(this);
}

Closing::Closing(ExitClosed& handle) : handle_(&handle) {
  Registry* const all = find_registry();
  if (all == nullptr) return;
  const MutexLock lock(all->mutex);
  auto found = all->open.extract(handle_);
  is_admitted_ = !found.empty();
  if (is_admitted_) all->closing.insert(std::move(found));
}

Closing::~Closing() {
  Registry* const all = find_registry();
  if (all == nullptr || !is_admitted_) return;
  const MutexLock lock(all->mutex);
  auto left = all->closing.extract(handle_);
  if (!left.empty()) all->open.insert(std::move(left));
  all->ended.notify_all();
}

}  // namespace terrace::capi

extern "C" {

uint32_t terrace_abi_version(void) { return TERRACE_ABI_VERSION; }
const char* terrace_version(void) { return TERRACE_VERSION_TEXT; }
const char* terrace_last_error(void) { return terrace::capi::last_error.c_str(); }
}
