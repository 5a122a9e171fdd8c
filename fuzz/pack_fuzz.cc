#include <algorithm>
#include <cstdlib>
#include <string>

#include "terrace/wire/pack.h"
#include "terrace/wire/xxhash_internal.h"

namespace {

void decode_and_compare(const std::string& pack) {
  const auto footer = terrace::wire::decode_pack_footer(std::as_bytes(std::span(pack)));
  if (!footer.has_value()) return;
  // What decodes must encode to bytes that decode to the same value.
  const std::string again = terrace::wire::encode(*footer);
  const auto same = terrace::wire::decode_pack_footer(std::as_bytes(std::span(again)));
  if (!same.has_value() || *same != *footer) std::abort();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size);
int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  std::string pack(data, data + size);
  decode_and_compare(pack);
  // A page with its length and checksum closed, as no mutation would ever guess them.
  pack.resize(terrace::wire::kPackAlignment, '\0');
  const std::uint64_t length = pack.size();
  pack.replace(pack.size() - 24, 8, reinterpret_cast<const char*>(&length), 8);
  const auto check =
      terrace::wire::xxh3_128(std::as_bytes(std::span(pack).first(pack.size() - 16)));
  pack.replace(pack.size() - 16, 16, reinterpret_cast<const char*>(check.data()), 16);
  decode_and_compare(pack);
  return 0;
}
