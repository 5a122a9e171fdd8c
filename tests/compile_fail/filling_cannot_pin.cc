// expect: no member named .*pin
#include "terrace/catalog/pool.h"

namespace terrace::catalog {

void use(FillingSlot filling) {
#if defined(TERRACE_FAULT)
  const auto pin = std::move(filling).pin();
#else
  const auto pin = std::move(filling).seal();
#endif
}

}  // namespace terrace::catalog
