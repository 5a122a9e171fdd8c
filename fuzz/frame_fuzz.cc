#include <algorithm>
#include <cstdlib>
#include <cstring>

#include "terrace/wire/frame.h"
#include "terrace/wire/xxhash_internal.h"

namespace {

using terrace::wire::kFrameHeaderBytes;

void decode_and_compare(std::span<const std::byte, kFrameHeaderBytes> page) {
  const auto header = terrace::wire::decode_frame(page);
  if (!header.has_value()) return;
  // An accepted page has exactly one form.
  std::array<std::byte, kFrameHeaderBytes> again;
  terrace::wire::encode(*header, again);
  if (!std::equal(page.begin(), page.end(), again.begin())) std::abort();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size);
int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  std::array<std::byte, kFrameHeaderBytes> page{};
  std::memcpy(page.data(), data, std::min(size, page.size()));
  decode_and_compare(page);
  const auto check = terrace::wire::xxh3_128(std::span(page).first<kFrameHeaderBytes - 16>());
  std::memcpy(page.data() + kFrameHeaderBytes - check.size(), check.data(), check.size());
  decode_and_compare(page);
  return 0;
}
