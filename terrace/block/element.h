// What the numbers in a shard are, as far as two versions of one can be compared number by number.
// Threading: immutable values.  Waits: never.  Source: docs/adr/0036-a-share-of-hits-is-checked.md.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string_view>

#include "terrace/block/fingerprint.h"

namespace terrace {

enum class ElementType : std::uint8_t { kFloat32, kFloat16, kBFloat16 };
[[nodiscard]] std::string_view to_string(ElementType type);
[[nodiscard]] std::size_t bytes_of(ElementType type);
// The element that begins at `at`, which need not be aligned.
[[nodiscard]] float element_at(const std::byte* at, ElementType type);

// By an engine's name, such as "float32" or "torch.bfloat16". Nothing: not one of these.
[[nodiscard]] std::optional<ElementType> element_type(std::string_view dtype);
// Of the KV under this fingerprint: `kv_dtype`, and where that is "auto", `dtype`.
[[nodiscard]] std::optional<ElementType> element_type(const Fingerprint& fingerprint);
// What the fingerprint says of it, for messages.
[[nodiscard]] std::string_view kv_dtype(const Fingerprint& fingerprint);

}  // namespace terrace
