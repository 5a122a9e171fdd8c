// expect: nodiscard|unused-result|ignoring return value
#include "terrace/catalog/pool.h"

namespace terrace::catalog {

void use(FillingSlot filling) {
#if defined(TERRACE_FAULT)
  std::move(filling).seal();
#else
  const auto pin = std::move(filling).seal();
#endif
}

}  // namespace terrace::catalog
