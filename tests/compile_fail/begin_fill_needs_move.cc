// expect: qualifier
#include "terrace/catalog/pool.h"

namespace terrace::catalog {

void use(ReservedSlot reserved) {
#if defined(TERRACE_FAULT)
  const FillingSlot filling = reserved.begin_fill();
#else
  const FillingSlot filling = std::move(reserved).begin_fill();
#endif
}

}  // namespace terrace::catalog
