#include "terrace/block/secret.h"

#include <string.h>
#include <sys/mman.h>

namespace terrace {

namespace {
constexpr std::size_t kPage = 4096;
}  // namespace

Result<Secret> Secret::create() {
  void* const page =
      ::mmap(nullptr, kPage, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (page == MAP_FAILED) return fail(Code::kExhausted, "no memory for a key", Scope::kNode);
  // Each of them may be refused (limits, old kernels), and none is worth going without a key.
  (void)::mlock(page, kPage);
  (void)::madvise(page, kPage, MADV_DONTDUMP);
  (void)::madvise(page, kPage, MADV_WIPEONFORK);
  return Secret(static_cast<std::uint8_t*>(page));
}

Secret::~Secret() {
  if (page_ == nullptr) return;
  wipe({page_, kPage});
  ::munmap(page_, kPage);
}

void wipe(std::span<std::uint8_t> bytes) { ::explicit_bzero(bytes.data(), bytes.size()); }

}  // namespace terrace
