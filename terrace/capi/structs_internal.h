// Structs of callers that were compiled with an older or a newer terrace.h, as this library's own.
// An older one is shorter: what it lacks is zero, which means "not given" for every field added
// after the first version. A newer one is longer: it is taken while it asks for nothing unknown,
// that is while its surplus bytes are zero. Threading: thread-safe.
#pragma once

#include <terrace/terrace.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>

#include "terrace/base/status.h"

namespace terrace::capi {

// Bytes of each struct in the first version of the ABI; never changed.
template <typename T>
inline constexpr std::size_t kFirstBytes = 0;
template <>
inline constexpr std::size_t kFirstBytes<terrace_extra_key> = 40;
template <>
inline constexpr std::size_t kFirstBytes<terrace_group_layout> = 16;
template <>
inline constexpr std::size_t kFirstBytes<terrace_owner_options> = 64;
template <>
inline constexpr std::size_t kFirstBytes<terrace_request_options> = 48;
template <>
inline constexpr std::size_t kFirstBytes<terrace_hints> = 40;
template <>
inline constexpr std::size_t kFirstBytes<terrace_ending> = 16;
template <>
inline constexpr std::size_t kFirstBytes<terrace_progress> = 80;
template <>
inline constexpr std::size_t kFirstBytes<terrace_region> = 32;
template <>
inline constexpr std::size_t kFirstBytes<terrace_group_regions> = 32;
template <>
inline constexpr std::size_t kFirstBytes<terrace_worker_options> = 48;

// Errors: kInvalid for a `struct_size` (the first four bytes of `given`) below `first_bytes` or
// beyond any struct, and for surplus bytes that are not zero.
[[nodiscard]] Status check_struct(const char* what, const void* given, std::size_t our_bytes,
                                  std::size_t first_bytes);

// `what` names the struct in errors. The copy's struct_size is ours.
template <typename T>
[[nodiscard]] Result<T> adopt(const char* what, const T* given,
                              std::size_t first_bytes = kFirstBytes<T>) {
  static_assert(kFirstBytes<T> != 0 && kFirstBytes<T> <= sizeof(T));
  TERRACE_RETURN_IF_ERROR(check_struct(what, given, sizeof(T), first_bytes));
  std::uint32_t bytes = 0;
  std::memcpy(&bytes, given, sizeof bytes);
  T made = {};
  std::memcpy(&made, given, std::min<std::size_t>(bytes, sizeof(T)));
  made.struct_size = sizeof(T);
  return made;
}

// Element `index` of an array whose elements have the caller's size, which the first one tells.
template <typename T>
[[nodiscard]] Result<T> adopt_element(const char* what, const T* array, std::uint64_t index,
                                      std::size_t first_bytes = kFirstBytes<T>) {
  std::uint32_t stride = 0;
  std::memcpy(&stride, array, sizeof stride);
  TERRACE_RETURN_IF_ERROR(check_struct(what, array, sizeof(T), first_bytes));
  const auto* const at = reinterpret_cast<const std::byte*>(array) + index * stride;
  std::uint32_t bytes = 0;
  std::memcpy(&bytes, at, sizeof bytes);
  if (bytes != stride) {
    return fail(Code::kInvalid, std::string(what) + ": struct_size differs within one array");
  }
  return adopt(what, reinterpret_cast<const T*>(at), first_bytes);
}

}  // namespace terrace::capi
