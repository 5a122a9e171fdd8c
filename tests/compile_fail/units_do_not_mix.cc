// expect: no match for|invalid operands
#include "terrace/catalog/pool.h"

namespace terrace::catalog {

Bytes use(Bytes bytes, Tokens tokens) {
#if defined(TERRACE_FAULT)
  return bytes + tokens;
#else
  return bytes + Bytes(tokens.value());
#endif
}

}  // namespace terrace::catalog
