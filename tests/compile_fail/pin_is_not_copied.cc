// expect: deleted
#include "terrace/catalog/pool.h"

namespace terrace::catalog {

void use(const Pin& pin, Pin other) {
#if defined(TERRACE_FAULT)
  const Pin second = pin;
#else
  const Pin second = std::move(other);
  static_cast<void>(pin);
#endif
}

}  // namespace terrace::catalog
