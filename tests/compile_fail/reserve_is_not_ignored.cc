// expect: nodiscard|unused-result|ignoring return value
#include "terrace/catalog/pool.h"

namespace terrace::catalog {

void use(Pool& pool, const BlockKey& key) {
#if defined(TERRACE_FAULT)
  pool.reserve(key);
#else
  const auto reserved = pool.reserve(key);
#endif
}

}  // namespace terrace::catalog
