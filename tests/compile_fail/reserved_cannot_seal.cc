// expect: no member named .*seal
#include "terrace/catalog/pool.h"

namespace terrace::catalog {

void use(ReservedSlot reserved) {
#if defined(TERRACE_FAULT)
  const auto pin = std::move(reserved).seal();
#else
  const auto pin = std::move(reserved).begin_fill().seal();
#endif
}

}  // namespace terrace::catalog
