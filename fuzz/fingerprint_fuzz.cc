#include <cstdlib>

#include "terrace/block/fingerprint.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size);
int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using terrace::Fingerprint;
  const auto parsed = Fingerprint::parse({reinterpret_cast<const char*>(data), size});
  if (!parsed.has_value()) return 0;
  const auto again = Fingerprint::parse(parsed->text());
  if (!again.has_value() || *again != *parsed || !differences(*parsed, *again).empty()) {
    std::abort();
  }
  return 0;
}
