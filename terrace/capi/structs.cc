#include <fmt/format.h>

#include "terrace/capi/structs_internal.h"

namespace terrace::capi {

namespace {
// Far beyond any struct to come: whatever claims more has its size not set at all.
constexpr std::size_t kMaxBytes = 4096;
}  // namespace

Status check_struct(const char* what, const void* given, std::size_t our_bytes,
                    std::size_t first_bytes) {
  std::uint32_t bytes = 0;
  std::memcpy(&bytes, given, sizeof bytes);
  if (bytes < first_bytes || bytes > kMaxBytes) {
    return {Code::kInvalid,
            fmt::format("{}: struct_size is {}, {} to {} are known; set it to sizeof", what, bytes,
                        first_bytes, kMaxBytes)};
  }
  const auto* const at = static_cast<const std::byte*>(given);
  for (std::size_t i = our_bytes; i < bytes; ++i) {
    if (at[i] == std::byte{0}) continue;
    return {Code::kInvalid,
            fmt::format("{}: struct_size is {}, this library knows {} bytes, and byte {} is not 0: "
                        "the caller asks for something newer than the library",
                        what, bytes, our_bytes, i)};
  }
  return {};
}

}  // namespace terrace::capi
