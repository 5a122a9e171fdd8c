// expect: no matching function|cannot convert|no viable conversion|could not convert
#include "terrace/catalog/pool.h"

namespace terrace::catalog {

void use(Pool& pool, RankId rank, SlotIndex slot) {
#if defined(TERRACE_FAULT)
  static_cast<void>(pool.state(rank));
  static_cast<void>(slot);
#else
  static_cast<void>(pool.state(slot));
  static_cast<void>(rank);
#endif
}

}  // namespace terrace::catalog
