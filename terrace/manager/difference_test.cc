#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <vector>

#include "terrace/base/rng.h"
#include "terrace/manager/difference_internal.h"

namespace terrace::manager {
namespace {

constexpr std::size_t kElements = 128;  // Of each of two pieces: 64 keys, 64 values.

GroupLayout layout_of(ElementType type) {
  return {.group = GroupId(0),
          .piece_bytes = {Bytes(kElements * bytes_of(type)), Bytes(kElements * bytes_of(type))}};
}

// From -1 to 1; values are a hundredth of the keys.
std::vector<float> numbers() {
  Rng rng(5);
  std::vector<float> made(2 * kElements);
  for (std::size_t i = 0; i < made.size(); ++i) {
    const double one = static_cast<double>(rng.below(2'000'001)) / 1e6 - 1;
    made[i] = static_cast<float>(i % kElements < kElements / 2 ? one : one / 100);
  }
  return made;
}

std::vector<std::byte> bytes_of_all(const std::vector<float>& values, ElementType type) {
  std::vector<std::byte> bytes(values.size() * bytes_of(type));
  for (std::size_t i = 0; i < values.size(); ++i) {
    std::uint32_t word = 0;
    std::memcpy(&word, &values[i], sizeof word);
    if (type == ElementType::kFloat32) {
      std::memcpy(bytes.data() + 4 * i, &word, 4);
    } else {
      const auto upper = static_cast<std::uint16_t>((word + 0x8000U) >> 16U);
      std::memcpy(bytes.data() + 2 * i, &upper, 2);
    }
  }
  return bytes;
}

Difference compare(const std::vector<float>& stored, const std::vector<float>& computed,
                   ElementType type, double tolerance = 1) {
  return difference_of(bytes_of_all(stored, type), bytes_of_all(computed, type), layout_of(type),
                       type, noise_floor(type, tolerance));
}

bool is_beyond(const std::vector<float>& stored, const std::vector<float>& computed,
               ElementType type, double tolerance = 1) {
  return compare(stored, computed, type, tolerance).is_beyond(noise_floor(type, tolerance));
}

TEST(DifferenceTest, EqualBytesAgreeWhateverTheTolerance) {
  auto values = numbers();
  values[3] = std::numeric_limits<float>::quiet_NaN();
  EXPECT_FALSE(is_beyond(values, values, ElementType::kFloat32, 0));
  EXPECT_EQ(compare(values, values, ElementType::kFloat32).elements, 0U);
}

TEST(DifferenceTest, TheLastBitsOfAllNumbersAreNoise) {
  const auto values = numbers();
  auto other = values;
  for (float& value : other) value *= 1 + 3 * std::numeric_limits<float>::epsilon();
  EXPECT_FALSE(is_beyond(values, other, ElementType::kFloat32));
  EXPECT_TRUE(is_beyond(values, other, ElementType::kFloat32, 0));
  auto wide = values;
  for (std::size_t i = 0; i < wide.size(); i += 3) wide[i] *= 1 + 1.0F / 128;
  EXPECT_FALSE(is_beyond(values, wide, ElementType::kBFloat16));
  EXPECT_TRUE(is_beyond(values, wide, ElementType::kFloat32));
}

TEST(DifferenceTest, OneNumberOfAnotherSizeIsFoundInEitherHalf) {
  for (const ElementType type : {ElementType::kFloat32, ElementType::kBFloat16}) {
    for (const std::size_t at : {std::size_t{7}, kElements - 1, 2 * kElements - 1}) {
      const auto values = numbers();
      auto other = values;
      other[at] += at % kElements < kElements / 2 ? 40.0F : 0.4F;
      const Difference found = compare(values, other, type);
      EXPECT_TRUE(found.is_beyond(noise_floor(type, 1))) << at;
      EXPECT_EQ(found.beyond, 1U) << at;
      EXPECT_EQ(found.piece, at / kElements);
      EXPECT_EQ(found.at, at % kElements);
    }
  }
}

TEST(DifferenceTest, WhichVersionIsWrongMakesNoDifference) {
  const auto values = numbers();
  auto other = values;
  other[7] += 40;
  const Difference one = compare(values, other, ElementType::kBFloat16);
  const Difference turned = compare(other, values, ElementType::kBFloat16);
  EXPECT_EQ(one.element, turned.element);
  EXPECT_EQ(one.rms, turned.rms);
  EXPECT_EQ(one.beyond, turned.beyond);
}

// bench/vllm/noise.py measures in the same unit: python/tests/test_bench_noise.py.
TEST(DifferenceTest, TheUnitIsTheSizeOfTheHalf) {
  const GroupLayout layout{.group = GroupId(0), .piece_bytes = {Bytes(16)}};
  const auto stored = bytes_of_all({3, 4, 0.3F, 0.4F}, ElementType::kFloat32);
  const auto computed = bytes_of_all({3, 4, 0.3F, 0.8F}, ElementType::kFloat32);
  const Difference found =
      difference_of(stored, computed, layout, ElementType::kFloat32, {.element = 1, .rms = 1});
  const double size = std::sqrt((0.3 * 0.3 + 0.8 * 0.8) / 2);
  EXPECT_NEAR(found.element, 0.4 / (0.4 + size), 1e-6);
  EXPECT_NEAR(found.rms, std::sqrt(0.4 * 0.4 / 2) / size, 1e-6);
}

TEST(DifferenceTest, ManySmallDifferencesAddUp) {
  const auto values = numbers();
  auto other = values;
  for (std::size_t i = 0; i < other.size(); i += 2) other[i] *= 2;
  const Difference found = compare(values, other, ElementType::kBFloat16);
  EXPECT_EQ(found.beyond, 0U);
  EXPECT_TRUE(found.is_beyond(noise_floor(ElementType::kBFloat16, 1)));
}

TEST(DifferenceTest, AnotherBlockIsFarBeyondTheFloorOfEveryType) {
  const auto values = numbers();
  auto other = values;
  std::ranges::reverse(other.begin(), other.begin() + kElements / 2);
  for (const ElementType type : {ElementType::kFloat32, ElementType::kBFloat16}) {
    EXPECT_TRUE(is_beyond(values, other, type, 2));
    EXPECT_TRUE(is_beyond(std::vector<float>(values.size()), values, type, 2));
  }
}

TEST(DifferenceTest, WhatIsNotFiniteInOneVersionAloneIsBeyondTheFloor) {
  const auto values = numbers();
  auto other = values;
  other[9] = std::numeric_limits<float>::infinity();
  EXPECT_TRUE(is_beyond(values, other, ElementType::kFloat32, 1000));
  EXPECT_TRUE(is_beyond(other, values, ElementType::kBFloat16, 1000));
}

}  // namespace
}  // namespace terrace::manager
