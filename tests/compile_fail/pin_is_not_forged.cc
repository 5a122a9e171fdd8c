// expect: private
#include "terrace/catalog/pool.h"

namespace terrace::catalog {

void use(Pool& pool, SlotRef slot) {
#if defined(TERRACE_FAULT)
  const Pin pin(&pool, slot);
#else
  const auto pin = pool.pin(slot);
#endif
}

}  // namespace terrace::catalog
