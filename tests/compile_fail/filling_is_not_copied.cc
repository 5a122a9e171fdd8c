// expect: deleted
#include "terrace/catalog/pool.h"

namespace terrace::catalog {

void use(const FillingSlot& filling, FillingSlot other) {
#if defined(TERRACE_FAULT)
  const FillingSlot second = filling;
#else
  const FillingSlot second = std::move(other);
  static_cast<void>(filling);
#endif
}

}  // namespace terrace::catalog
