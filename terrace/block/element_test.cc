#include "terrace/block/element.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <limits>

namespace terrace {
namespace {

float as_half(std::uint16_t bits) {
  std::byte bytes[3];
  std::memcpy(bytes + 1, &bits, sizeof bits);  // Unaligned, as in a shard.
  return element_at(bytes + 1, ElementType::kFloat16);
}

TEST(ElementTest, HalvesAreReadAsTheyAreDefined) {
  EXPECT_EQ(as_half(0x3C00), 1.0F);
  EXPECT_EQ(as_half(0xC000), -2.0F);
  EXPECT_EQ(as_half(0x7BFF), 65504.0F);
  EXPECT_EQ(as_half(0x0001), std::ldexp(1.0F, -24));  // The smallest subnormal.
  EXPECT_EQ(as_half(0x83FF), -std::ldexp(1023.0F, -24));
  EXPECT_EQ(as_half(0x7C00), std::numeric_limits<float>::infinity());
  EXPECT_TRUE(std::isnan(as_half(0x7E00)));
  EXPECT_TRUE(std::signbit(as_half(0x8000)));
}

TEST(ElementTest, AShortFloatIsTheUpperHalfOfALongOne) {
  for (const float value : {1.0F, -3.5F, 0.0F, 1e30F}) {
    std::byte bytes[4];
    std::memcpy(bytes, &value, sizeof value);
    EXPECT_EQ(element_at(bytes, ElementType::kFloat32), value);
  }
  const std::uint16_t bits = 0xC060;
  std::byte bytes[2];
  std::memcpy(bytes, &bits, sizeof bits);
  EXPECT_EQ(element_at(bytes, ElementType::kBFloat16), -3.5F);
}

TEST(ElementTest, TheFingerprintTellsTheKvsTypeAndTheModelsWhereItFollowsThat) {
  Fingerprint fingerprint;
  EXPECT_EQ(element_type(fingerprint), std::nullopt);
  fingerprint.content = {{"dtype", "torch.bfloat16"}, {"kv_dtype", "auto"}};
  EXPECT_EQ(element_type(fingerprint), ElementType::kBFloat16);
  fingerprint.content[1].value = "float16";
  EXPECT_EQ(element_type(fingerprint), ElementType::kFloat16);
  fingerprint.content[1].value = "fp8_e4m3";
  EXPECT_EQ(element_type(fingerprint), std::nullopt);
  EXPECT_EQ(kv_dtype(fingerprint), "fp8_e4m3");
}

}  // namespace
}  // namespace terrace
