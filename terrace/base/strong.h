// Strong integers: ids that only compare, units that also add. They do not mix; unwrap with
// `.value()` only at the edges to the OS, a device or C.
// Threading: immutable values.
#pragma once

#include <compare>
#include <cstddef>
#include <cstdint>
#include <functional>

namespace terrace {

template <typename Tag, typename Rep>
class Id {
 public:
  using rep = Rep;
  constexpr Id() = default;
  explicit constexpr Id(Rep value) : value_(value) {}
  [[nodiscard]] constexpr Rep value() const { return value_; }
  friend constexpr auto operator<=>(Id, Id) = default;

 private:
  Rep value_{};
};

template <typename Tag, typename Rep>
class Unit {
 public:
  using rep = Rep;
  constexpr Unit() = default;
  explicit constexpr Unit(Rep value) : value_(value) {}
  [[nodiscard]] constexpr Rep value() const { return value_; }
  friend constexpr auto operator<=>(Unit, Unit) = default;
  friend constexpr Unit operator+(Unit a, Unit b) { return Unit(a.value_ + b.value_); }
  friend constexpr Unit operator-(Unit a, Unit b) { return Unit(a.value_ - b.value_); }
  friend constexpr Unit operator*(Unit a, Rep n) { return Unit(a.value_ * n); }
  friend constexpr Rep operator/(Unit a, Unit b) { return a.value_ / b.value_; }
  friend constexpr Rep operator%(Unit a, Unit b) { return a.value_ % b.value_; }
  constexpr Unit& operator+=(Unit other) {
    value_ += other.value_;
    return *this;
  }
  constexpr Unit& operator-=(Unit other) {
    value_ -= other.value_;
    return *this;
  }

 private:
  Rep value_{};
};

using Bytes = Unit<struct BytesTag, std::uint64_t>;
using Tokens = Unit<struct TokensTag, std::uint64_t>;
using Blocks = Unit<struct BlocksTag, std::uint64_t>;
using Nanoseconds = Unit<struct NanosecondsTag, std::int64_t>;

using SlotIndex = Id<struct SlotIndexTag, std::uint32_t>;
using Generation = Id<struct GenerationTag, std::uint32_t>;
using RankId = Id<struct RankIdTag, std::uint16_t>;
using GroupId = Id<struct GroupIdTag, std::uint16_t>;
using NamespaceId = Id<struct NamespaceIdTag, std::uint16_t>;  // Interned by the owner; 0 = none.
using RegionId = Id<struct RegionIdTag, std::uint32_t>;
using RequestId = Id<struct RequestIdTag, std::uint64_t>;
using Epoch = Id<struct EpochTag, std::uint64_t>;
using StepId = Id<struct StepIdTag, std::uint64_t>;

constexpr Bytes operator""_KiB(unsigned long long n) { return Bytes(n << 10U); }
constexpr Bytes operator""_MiB(unsigned long long n) { return Bytes(n << 20U); }
constexpr Bytes operator""_GiB(unsigned long long n) { return Bytes(n << 30U); }
constexpr Nanoseconds milliseconds(std::int64_t n) { return Nanoseconds(n * 1'000'000); }
constexpr Nanoseconds seconds(std::int64_t n) { return Nanoseconds(n * 1'000'000'000); }
// Smallest multiple of `step` that is >= `size`; `step` is a power of two.
constexpr Bytes round_up(Bytes size, Bytes step) {
  return Bytes((size.value() + step.value() - 1) & ~(step.value() - 1));
}

}  // namespace terrace

template <typename Tag, typename Rep>
struct std::hash<terrace::Id<Tag, Rep>> {
  std::size_t operator()(terrace::Id<Tag, Rep> id) const noexcept {
    return std::hash<Rep>{}(id.value());
  }
};
