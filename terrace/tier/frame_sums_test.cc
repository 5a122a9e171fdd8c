// Sums of frames that arrive piece by piece, against those of whole payloads.
#include "terrace/tier/frame_sums.h"

#include <gtest/gtest.h>

#include <cstring>

#include "terrace/base/rng.h"
#include "terrace/testing/property.h"

namespace terrace::tier {
namespace {

struct Frames {
  Frames(Rng& rng, std::size_t count) {
    for (std::size_t i = 0; i < count; ++i) {
      const std::size_t bytes = 1 + rng.below(40'000);
      const std::size_t padded = (bytes + 4095) / 4096 * 4096;
      auto& payload = payloads.emplace_back(padded);
      for (std::byte& byte : payload) byte = static_cast<std::byte>(rng.below(256));
      shards.push_back({payload.data(), bytes, padded});
      sums.add(shards.back());
      total += wire::kFrameHeaderBytes + padded;
    }
  }
  [[nodiscard]] Checksum right(std::size_t i) const {
    return checksum_of({shards[i].payload, shards[i].payload_bytes});
  }
  std::vector<std::vector<std::byte>> payloads;
  std::vector<ShardMemory> shards;
  FrameSums sums;
  std::uint64_t total = 0;
};

TEST(FrameSumsTest, SumsAreThoseOfTheWholePayloadsHoweverTheyArrive) {
  const auto [seed, rounds] = testing::property(11, 300);
  Rng rng(seed);
  for (std::uint64_t round = 0; round < rounds; ++round) {
    Frames frames(rng, 1 + rng.below(4));
    std::uint64_t at = 0;
    while (at < frames.total) {
      if (rng.chance(5)) at = 0;  // The store begins anew.
      const std::uint64_t to = std::min(frames.total, at + 1 + rng.below(20'000));
      frames.sums.on_bytes(at, to);
      at = to;
    }
    for (std::size_t i = 0; i < frames.shards.size(); ++i) {
      ASSERT_EQ(frames.sums.sum(i), frames.right(i)) << "seed " << seed << " round " << round;
    }
    EXPECT_FALSE(frames.sums.sum(frames.shards.size()).has_value());
  }
}

TEST(FrameSumsTest, WhatWasNotShownWholeHasNoSum) {
  Rng rng(1);
  Frames frames(rng, 2);
  EXPECT_FALSE(frames.sums.sum(0).has_value());
  const std::uint64_t first =
      wire::kFrameHeaderBytes + frames.shards[0].payload_bytes;  // Its padding is nobody's.
  frames.sums.on_bytes(0, first - 1);
  EXPECT_FALSE(frames.sums.sum(0).has_value());
  frames.sums.on_bytes(first - 1, first);
  EXPECT_EQ(frames.sums.sum(0), frames.right(0));
  EXPECT_FALSE(frames.sums.sum(1).has_value());
}

TEST(FrameSumsTest, NothingIsBelievedAfterAGapUntilItBeginsAnew) {
  Rng rng(2);
  Frames frames(rng, 1);
  frames.sums.on_bytes(0, 10);
  frames.sums.on_bytes(11, frames.total);
  EXPECT_FALSE(frames.sums.sum(0).has_value());
  frames.sums.on_bytes(0, frames.total);
  EXPECT_EQ(frames.sums.sum(0), frames.right(0));
  frames.sums.clear();
  EXPECT_FALSE(frames.sums.sum(0).has_value());
}

TEST(FrameSumsTest, ABitThatDiffersMakesAnotherSum) {
  Rng rng(3);
  Frames frames(rng, 1);
  const Checksum right = frames.right(0);
  frames.payloads[0][frames.shards[0].payload_bytes - 1] ^= std::byte{1};
  frames.sums.on_bytes(0, frames.total);
  ASSERT_TRUE(frames.sums.sum(0).has_value());
  EXPECT_NE(*frames.sums.sum(0), right);
}

}  // namespace
}  // namespace terrace::tier
