#include "terrace/block/element.h"

#include <bit>
#include <cmath>
#include <cstring>

namespace terrace {
namespace {

template <typename Word>
Word word_at(const std::byte* at) {
  Word word{};
  std::memcpy(&word, at, sizeof word);
  return word;
}

// IEEE 754 binary16: 1 sign, 5 exponent, 10 fraction bits.
float half(std::uint16_t bits) {
  const std::uint32_t sign = (bits & 0x8000U) << 16U;
  const std::uint32_t exponent = (bits >> 10U) & 0x1FU;
  const std::uint32_t fraction = bits & 0x3FFU;
  if (exponent == 0) {  // Zero or subnormal: fraction * 2^-24.
    const float value = std::ldexp(static_cast<float>(fraction), -24);
    return sign != 0 ? -value : value;
  }
  // Infinity and NaN keep theirs; all others move from a bias of 15 to one of 127.
  const std::uint32_t wide = exponent == 0x1FU ? 0xFFU : exponent + 127 - 15;
  return std::bit_cast<float>(sign | (wide << 23U) | (fraction << 13U));
}

std::string_view content(const Fingerprint& fingerprint, std::string_view name) {
  for (const FingerprintField& field : fingerprint.content) {
    if (field.name == name) return field.value;
  }
  return {};
}

}  // namespace

std::string_view to_string(ElementType type) {
  switch (type) {
    case ElementType::kFloat32:
      return "float32";
    case ElementType::kFloat16:
      return "float16";
    case ElementType::kBFloat16:
      return "bfloat16";
  }
  return "unknown";
}

std::size_t bytes_of(ElementType type) { return type == ElementType::kFloat32 ? 4 : 2; }

float element_at(const std::byte* at, ElementType type) {
  switch (type) {
    case ElementType::kFloat32:
      return word_at<float>(at);
    case ElementType::kFloat16:
      return half(word_at<std::uint16_t>(at));
    case ElementType::kBFloat16:
      return std::bit_cast<float>(std::uint32_t{word_at<std::uint16_t>(at)} << 16U);
  }
  return 0;
}

std::optional<ElementType> element_type(std::string_view dtype) {
  constexpr std::string_view kTorch = "torch.";
  if (dtype.starts_with(kTorch)) dtype.remove_prefix(kTorch.size());
  if (dtype == "float32" || dtype == "float") return ElementType::kFloat32;
  if (dtype == "float16" || dtype == "half") return ElementType::kFloat16;
  if (dtype == "bfloat16") return ElementType::kBFloat16;
  return std::nullopt;
}

std::string_view kv_dtype(const Fingerprint& fingerprint) {
  const std::string_view own = content(fingerprint, "kv_dtype");
  return own.empty() || own == "auto" ? content(fingerprint, "dtype") : own;
}

std::optional<ElementType> element_type(const Fingerprint& fingerprint) {
  return element_type(kv_dtype(fingerprint));
}

}  // namespace terrace
