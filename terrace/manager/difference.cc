#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstring>

#include "terrace/manager/difference_internal.h"

namespace terrace::manager {

namespace {

constexpr double kNotFinite = 1e9;

struct Part {
  std::size_t piece = 0;
  std::uint64_t first = 0;  // Element of the piece.
  std::span<const std::byte> stored{};
  std::span<const std::byte> computed{};
};

double square_sum(std::span<const std::byte> bytes, ElementType type) {
  const std::size_t step = bytes_of(type);
  double sum = 0;
  for (std::size_t at = 0; at + step <= bytes.size(); at += step) {
    const double value = element_at(bytes.data() + at, type);
    if (std::isfinite(value)) sum += value * value;
  }
  return sum;
}

double apart(double stored, double computed, double rms) {
  if (stored == computed || (std::isnan(stored) && std::isnan(computed))) return 0;
  if (!std::isfinite(stored) || !std::isfinite(computed)) return kNotFinite;
  const double size = std::min(std::abs(stored), std::abs(computed));
  return std::min(kNotFinite, std::abs(stored - computed) / (size + rms));
}

void add_part(const Part& part, ElementType type, const NoiseFloor& floor, Difference& found) {
  if (std::memcmp(part.stored.data(), part.computed.data(), part.stored.size()) == 0) return;
  const std::size_t step = bytes_of(type);
  const std::uint64_t count = part.stored.size() / step;
  const double squares = std::max(square_sum(part.stored, type), square_sum(part.computed, type));
  const double rms = std::sqrt(squares / static_cast<double>(count));
  double differences = 0;
  for (std::uint64_t i = 0; i < count; ++i) {
    const std::byte* left = part.stored.data() + i * step;
    const std::byte* right = part.computed.data() + i * step;
    if (std::memcmp(left, right, step) == 0) continue;
    ++found.elements;
    const double stored = element_at(left, type);
    const double computed = element_at(right, type);
    const double ratio = apart(stored, computed, rms);
    if (ratio < kNotFinite) differences += (stored - computed) * (stored - computed);
    if (ratio > floor.element || floor.element == 0) ++found.beyond;
    if (ratio <= found.element) continue;
    found.element = ratio;
    found.piece = part.piece;
    found.at = part.first + i;
    found.stored = stored;
    found.computed = computed;
  }
  if (squares > 0 && std::isfinite(differences)) {
    found.rms = std::max(found.rms, std::sqrt(differences / squares));
  }
}

}  // namespace

NoiseFloor noise_floor(ElementType type, double tolerance) {
  switch (type) {
    case ElementType::kFloat32:
      return {.element = 0.02 * tolerance, .rms = 0.002 * tolerance};
    case ElementType::kFloat16:
      return {.element = 0.6 * tolerance, .rms = 0.05 * tolerance};
    case ElementType::kBFloat16:
      return {.element = 4 * tolerance, .rms = 0.3 * tolerance};
  }
  return {};
}

std::string Difference::text() const {
  return fmt::format(
      "{} numbers differ, {} of them beyond the noise floor, the largest in piece {} at {}: stored "
      "{:g}, computed {:g}",
      elements, beyond, piece, at, stored, computed);
}

Difference difference_of(std::span<const std::byte> stored, std::span<const std::byte> computed,
                         const GroupLayout& layout, ElementType type, const NoiseFloor& floor) {
  Difference found;
  const std::size_t step = bytes_of(type);
  std::size_t from = 0;
  for (std::size_t piece = 0; piece < layout.piece_bytes.size(); ++piece) {
    const std::size_t size = layout.piece_bytes[piece].value();
    const std::size_t half = size / step / 2 * step;
    for (const auto& [at, length] :
         {std::pair(std::size_t{0}, half), std::pair(half, size - half)}) {
      add_part({.piece = piece,
                .first = at / step,
                .stored = stored.subspan(from + at, length),
                .computed = computed.subspan(from + at, length)},
               type, floor, found);
    }
    from += size;
  }
  return found;
}

}  // namespace terrace::manager
