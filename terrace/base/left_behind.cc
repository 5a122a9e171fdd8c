#include "terrace/base/left_behind.h"

#include <atomic>
#include <new>

namespace terrace::base {
namespace {
struct Kept {
  void* object;
  Kept* next;
};
std::atomic<Kept*> g_kept = nullptr;
}  // namespace

void keep_for_good(void* object) noexcept {
  auto* kept = new (std::nothrow) Kept{object, g_kept.load()};
  while (kept != nullptr && !g_kept.compare_exchange_weak(kept->next, kept)) {
  }
}

}  // namespace terrace::base
