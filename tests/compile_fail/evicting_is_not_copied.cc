// expect: deleted
#include "terrace/catalog/pool.h"

namespace terrace::catalog {

void use(const EvictingSlot& evicting, EvictingSlot other) {
#if defined(TERRACE_FAULT)
  const EvictingSlot second = evicting;
#else
  const EvictingSlot second = std::move(other);
  static_cast<void>(evicting);
#endif
}

}  // namespace terrace::catalog
