// expect: deleted
#include "terrace/catalog/pool.h"

namespace terrace::catalog {

void use(Pool& pool) {
#if defined(TERRACE_FAULT)
  const Pool second = pool;
#else
  const Pool& second = pool;
  static_cast<void>(second);
#endif
}

}  // namespace terrace::catalog
