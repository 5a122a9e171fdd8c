#include "terrace/index/zeroed_array.h"

#include <sys/mman.h>

namespace terrace::index::detail {

void* map_zeroed(std::size_t bytes) {
  void* start = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (start == MAP_FAILED) return nullptr;
  // A probe of a large table is one TLB miss less with huge pages. Refusal is no error: the hint is
  // absent from some kernels. Below 2 MiB there is no huge page to get.
  constexpr std::size_t kHugePage = std::size_t{2} << 20U;
  if (bytes >= kHugePage) static_cast<void>(madvise(start, bytes, MADV_HUGEPAGE));
  return start;
}

void unmap(void* start, std::size_t bytes) { munmap(start, bytes); }

}  // namespace terrace::index::detail
