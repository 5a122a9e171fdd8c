#include "terrace/manager/hit_window.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <deque>

#include "terrace/base/rng.h"

namespace terrace::manager {
namespace {

constexpr Tokens kBlock{16};

Ledger ended(std::uint64_t prompt, std::uint64_t local, std::uint64_t host, std::uint64_t disk,
             std::uint64_t object = 0) {
  Ledger ledger;
  ledger.prompt = Tokens(prompt * 16 + 5);
  ledger.local = Tokens(local * 16);
  ledger.hit[static_cast<std::size_t>(Tier::kHost)] = Tokens(host * 16);
  ledger.hit[static_cast<std::size_t>(Tier::kDisk)] = Tokens(disk * 16);
  ledger.hit[static_cast<std::size_t>(Tier::kObject)] = Tokens(object * 16);
  return ledger;
}

TEST(HitWindowTest, RatesShareTheBlocksAskedBeyondTheEnginesOwnHit) {
  HitWindow window(10, kBlock);
  window.add(ended(10, 2, 4, 2, 1));
  EXPECT_EQ(window.totals().asked, 8U);
  EXPECT_DOUBLE_EQ(window.totals().host_rate(), 0.5);
  EXPECT_DOUBLE_EQ(window.totals().disk_rate(), 0.25);
  EXPECT_DOUBLE_EQ(window.totals().object_rate(), 0.125);
}

TEST(HitWindowTest, LogLineIsKvbmsWordForWord) {
  HitWindow window(10, kBlock);
  window.add(ended(1, 0, 0, 0));
  EXPECT_EQ(window.log_line("w"), "KVBM [w] Cache Hit Rates - Host: 0.0% (0/1), Disk: 0.0% (0/1)");
  window.add(ended(2, 0, 1, 0));
  EXPECT_EQ(window.log_line("w"), "KVBM [w] Cache Hit Rates - Host: 33.3% (1/3), Disk: 0.0% (0/3)");
}

TEST(HitWindowTest, EmptyWindowsHaveRateZero) {
  HitWindow window(0, kBlock);
  window.add(ended(4, 0, 4, 0));
  EXPECT_EQ(window.totals().asked, 0U);
  EXPECT_DOUBLE_EQ(window.totals().host_rate(), 0);
}

TEST(HitWindowTest, EqualsASumOverTheLastRequests) {
  constexpr std::uint64_t kSeed = 11;
  Rng rng(kSeed);
  HitWindow window(7, kBlock);
  std::deque<std::array<std::uint64_t, 4>> model;
  for (int i = 0; i < 5000; ++i) {
    const std::uint64_t prompt = rng.below(40);
    const std::uint64_t local = rng.below(prompt + 1);
    const std::uint64_t host = rng.below(prompt - local + 1);
    const std::uint64_t disk = rng.below(prompt - local - host + 1);
    // More than was asked for, now and then: blocks that an earlier turn generated.
    const std::uint64_t object = rng.below(prompt - local - host - disk + 3);
    window.add(ended(prompt, local, host, disk, object));
    model.push_back({std::max(prompt - local, host + disk + object), host, disk, object});
    if (model.size() > 7) model.pop_front();
    std::array<std::uint64_t, 4> sum{};
    for (const auto& one : model) {
      for (std::size_t k = 0; k < sum.size(); ++k) sum[k] += one[k];
    }
    ASSERT_EQ(window.totals().asked, sum[0]) << "seed " << kSeed << " step " << i;
    ASSERT_EQ(window.totals().host, sum[1]) << "seed " << kSeed << " step " << i;
    ASSERT_EQ(window.totals().disk, sum[2]) << "seed " << kSeed << " step " << i;
    ASSERT_EQ(window.totals().object, sum[3]) << "seed " << kSeed << " step " << i;
  }
}

}  // namespace
}  // namespace terrace::manager
