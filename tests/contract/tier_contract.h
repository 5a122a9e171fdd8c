// What a tier below host must do, whatever moves its bytes. Instantiated for the disk tier with
// each backend, plain and under a fault decorator that injects nothing:
//   INSTANTIATE_TEST_SUITE_P(Disk, TierContract, ::testing::ValuesIn(...), tier_name);
// `Rig` is the tier's own test rig: open, write, read and restart in one call each.
// Threading: tests only.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <deque>
#include <map>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "terrace/base/rng.h"
#include "terrace/tier/disk/disk_rig.h"

namespace terrace::tier {

using disk::BlockMemory;
using disk::hash_of;
using disk::Rig;

struct TierMaker {
  std::string name;
  std::function<void(DiskTier::Options&)> set_up;
};

inline void PrintTo(const TierMaker& maker, std::ostream* out) { *out << maker.name; }

inline std::string tier_name(const ::testing::TestParamInfo<TierMaker>& info) {
  return info.param.name;
}

class TierContract : public ::testing::TestWithParam<TierMaker> {
 protected:
  void open(Rig::Shape shape = {}) {
    rig_ = std::make_unique<Rig>(std::move(shape));
    GetParam().set_up(rig_->options());
    ASSERT_EQ(rig_->open().text(), Status().text());
  }
  Rig& rig() { return *rig_; }
  Status begin_write(std::uint64_t token, std::uint64_t number, const BlockMemory& memory) {
    return rig().tier().begin_write(token, GroupId(0), hash_of(number), number * 3, memory.shards(),
                                    memory.checksums());
  }
  Status begin_read(std::uint64_t token, std::uint64_t number, const BlockMemory& memory,
                    Nanoseconds deadline = kNoDeadline) {
    return rig().tier().begin_read(token, GroupId(0), hash_of(number), memory.shards(),
                                   transfer::IoClass::kPrefetch, deadline);
  }
  std::unique_ptr<Rig> rig_;
};

TEST_P(TierContract, ABlockIsFindableOnlyWhenItIsDurable) {
  open();
  const BlockMemory memory = rig().block(1);
  ASSERT_TRUE(begin_write(7, 1, memory).is_ok());
  EXPECT_FALSE(rig().has(1));
  const BlockMemory into = rig().blank();
  EXPECT_EQ(begin_read(8, 1, into).code(), Code::kNotFound);
  EXPECT_TRUE(rig().await(7).status.is_ok());
  EXPECT_TRUE(rig().has(1));
  EXPECT_TRUE(rig().read(1).is_ok());
}

TEST_P(TierContract, AllRanksAndGroupsComeBackAsTheyWere) {
  open({3, {4096, 100, 20000}});
  for (std::uint64_t n = 0; n < 5; ++n) {
    for (std::size_t group = 0; group < 3; ++group) {
      ASSERT_TRUE(rig().write(n * 3 + group, group).is_ok());
    }
  }
  for (int round = 0; round < 2; ++round) {
    for (std::uint64_t n = 0; n < 5; ++n) {
      for (std::size_t group = 0; group < 3; ++group) {
        EXPECT_EQ(rig().read(n * 3 + group, group).text(), Status().text());
      }
    }
    ASSERT_TRUE(rig().reopen().is_ok());
  }
}

TEST_P(TierContract, TheFirstWriterStays) {
  open();
  const BlockMemory memory = rig().block(1);
  ASSERT_TRUE(begin_write(1, 1, memory).is_ok());
  EXPECT_EQ(begin_write(2, 1, memory).code(), Code::kInvalid);
  ASSERT_TRUE(rig().await(1).status.is_ok());
  EXPECT_EQ(begin_write(3, 1, memory).code(), Code::kInvalid);
  EXPECT_TRUE(rig().read(1).is_ok());
}

TEST_P(TierContract, MatchIsTheLongestLeadingRun) {
  open();
  for (const std::uint64_t n : {0, 1, 2, 4}) ASSERT_TRUE(rig().write(n).is_ok());
  std::vector<SequenceHash> chain;
  for (std::uint64_t n = 0; n < 6; ++n) chain.push_back(hash_of(n));
  EXPECT_EQ(rig().tier().match(GroupId(0), chain), 3U);
  EXPECT_EQ(rig().tier().match(GroupId(1), chain), 0U);
  EXPECT_EQ(rig().tier().match(GroupId(0), {}), 0U);
}

TEST_P(TierContract, TouchedBlocksStayAndTheOldestGo) {
  open();
  for (std::uint64_t n = 0; n < 16; ++n) ASSERT_TRUE(rig().write(n).is_ok());
  const std::vector<SequenceHash> chain{hash_of(0), hash_of(1), hash_of(99)};
  rig().tier().touch_chain(GroupId(0), {.hashes = chain});
  for (std::uint64_t n = 16; n < 30; ++n) ASSERT_TRUE(rig().write(n).is_ok());
  EXPECT_TRUE(rig().has(0));
  EXPECT_TRUE(rig().has(1));
  EXPECT_FALSE(rig().has(2));
  EXPECT_EQ(rig().tier().count(catalog::SlotState::kSealed), 16U);
  EXPECT_EQ(rig().tier().take_evicted().size(), 14U);
}

TEST_P(TierContract, WrongShapesAreRefusedBeforeAnyByteMoves) {
  open();
  const BlockMemory memory(1, 4096);  // The layout wants 8192.
  EXPECT_EQ(begin_write(1, 1, memory).code(), Code::kInvalid);
  EXPECT_EQ(begin_read(1, 1, memory).code(), Code::kInvalid);
  const BlockMemory two(2, 8192);
  EXPECT_EQ(begin_write(1, 1, two).code(), Code::kInvalid);
  const BlockMemory right = rig().block(1);
  EXPECT_EQ(rig()
                .tier()
                .begin_write(1, GroupId(5), hash_of(1), 0, right.shards(), right.checksums())
                .code(),
            Code::kInvalid);
  EXPECT_TRUE(rig().tier().is_idle());
}

TEST_P(TierContract, AFullQueueDropsAndCounts) {
  rig_ = std::make_unique<Rig>();
  GetParam().set_up(rig().options());
  rig().options().queue_blocks = 4;
  ASSERT_TRUE(rig().open().is_ok());
  std::deque<BlockMemory> memory;
  for (std::uint64_t n = 0; n < 4; ++n) {
    memory.push_back(rig().block(n));
    ASSERT_TRUE(begin_write(n, n, memory.back()).is_ok());
  }
  EXPECT_EQ(begin_write(4, 4, memory[0]).code(), Code::kExhausted);
  EXPECT_EQ(rig().metric("terrace_disk_drop_blocks_total{reason=\"queue\"}"), 1);
  for (std::uint64_t n = 0; n < 4; ++n) EXPECT_TRUE(rig().await(n).status.is_ok());
  EXPECT_TRUE(begin_write(4, 4, memory[0]).is_ok());
  EXPECT_TRUE(rig().await(4).status.is_ok());
}

TEST_P(TierContract, AResetHidesWhatIsStoredAndWhatIsBeingStored) {
  open();
  ASSERT_TRUE(rig().write(1).is_ok());
  const BlockMemory memory = rig().block(2);
  ASSERT_TRUE(begin_write(9, 2, memory).is_ok());
  rig().tier().forget_all();
  EXPECT_FALSE(rig().has(1));
  EXPECT_EQ(rig().await(9).status.code(), Code::kNotFound);
  EXPECT_FALSE(rig().has(2));
  ASSERT_TRUE(rig().write(1).is_ok());  // The same key may come again.
  EXPECT_TRUE(rig().read(1).is_ok());
  rig().settle();
  EXPECT_TRUE(rig().read(1).is_ok());
  ASSERT_TRUE(rig().reopen().is_ok());
  EXPECT_FALSE(rig().has(1));  // It ended with the tier.
  EXPECT_FALSE(rig().has(2));
  ASSERT_TRUE(rig().write(1).is_ok());
  ASSERT_TRUE(rig().reopen().is_ok());
  EXPECT_TRUE(rig().read(1).is_ok());
}

TEST_P(TierContract, AReadThatOutlivesAResetDeliversNothing) {
  open();
  ASSERT_TRUE(rig().write(1).is_ok());
  const BlockMemory into = rig().blank();
  ASSERT_TRUE(begin_read(5, 1, into).is_ok());
  rig().tier().forget_all();
  EXPECT_EQ(rig().await(5).status.code(), Code::kNotFound);
}

TEST_P(TierContract, ClosingEndsWaitingWritesAndKeepsFinishedOnes) {
  open();
  ASSERT_TRUE(rig().write(1).is_ok());
  std::deque<BlockMemory> memory;
  for (std::uint64_t n = 2; n < 12; ++n) {
    memory.push_back(rig().block(n));
    ASSERT_TRUE(begin_write(n, n, memory.back()).is_ok());
  }
  rig().tier().stop_writes();
  EXPECT_EQ(begin_write(20, 20, memory[0]).code(), Code::kClosed);
  std::set<std::uint64_t> kept{1};
  for (std::uint64_t n = 2; n < 12; ++n) {
    const Status status = rig().await(n).status;
    EXPECT_TRUE(status.is_ok() || status.code() == Code::kClosed) << status.text();
    if (status.is_ok()) kept.insert(n);
  }
  EXPECT_TRUE(rig().read(1).is_ok());
  ASSERT_TRUE(rig().reopen().is_ok());
  for (std::uint64_t n = 1; n < 12; ++n) EXPECT_EQ(rig().has(n), kept.contains(n)) << n;
}

TEST_P(TierContract, ManyReadsAndWritesAtOnceAllEnd) {
  open({2, {8192}});
  std::deque<BlockMemory> memory;
  for (std::uint64_t n = 0; n < 16; ++n) {
    memory.push_back(rig().block(n));
    ASSERT_TRUE(begin_write(n, n, memory.back()).is_ok());
  }
  for (std::uint64_t n = 0; n < 16; ++n) ASSERT_TRUE(rig().await(n).status.is_ok());
  std::deque<BlockMemory> into;
  for (std::uint64_t i = 0; i < 200; ++i) {
    into.push_back(rig().blank());
    ASSERT_TRUE(begin_read(1000 + i, i % 16, into.back()).is_ok());
  }
  for (std::uint64_t i = 0; i < 200; ++i) {
    EXPECT_TRUE(rig().await(1000 + i).status.is_ok());
    EXPECT_TRUE(into[i].equals(memory[i % 16]));
  }
  EXPECT_TRUE(rig().tier().is_idle());
}

TEST_P(TierContract, LookUpsRunBesideTheIoThread) {
  open();
  std::atomic<bool> is_done{false};
  std::atomic<std::uint64_t> found{0};
  std::jthread other([&] {
    const std::vector<SequenceHash> chain{hash_of(0), hash_of(1), hash_of(2)};
    while (!is_done) {
      found += rig().tier().match(GroupId(0), chain);
      rig().tier().touch_chain(GroupId(0), {.hashes = chain});
      (void)rig().tier().problems();
      (void)rig().tier().count(catalog::SlotState::kFree);
      (void)rig().metric("terrace_disk_adopted_blocks_total");
    }
  });
  for (std::uint64_t n = 0; n < 40; ++n) EXPECT_TRUE(rig().write(n).is_ok());
  is_done = true;
}

// Random writes, reads, touches, resets and restarts against a plain list in order of use.
TEST_P(TierContract, RandomUseEqualsANaiveModel) {
  const std::uint64_t seed = random_u64();
  SCOPED_TRACE("seed " + std::to_string(seed));
  Rng rng(seed);
  open();
  std::deque<std::uint64_t> order;  // Oldest first.
  const auto use = [&](std::uint64_t number) {
    std::erase(order, number);
    order.push_back(number);
  };
  bool was_reset = false;    // What was written since ends with the tier.
  bool has_touched = false;  // Uses are not kept over a restart; then only the content is compared.
  for (int step = 0; step < 250; ++step) {
    const std::uint64_t number = rng.below(30);
    const bool is_held = std::find(order.begin(), order.end(), number) != order.end();
    ASSERT_EQ(rig().has(number), is_held) << step;
    const std::uint64_t dice = rng.below(100);
    if (dice < 55) {
      const Status status = rig().write(number);
      ASSERT_EQ(status.code(), is_held ? Code::kInvalid : Code::kOk) << status.text();
      if (is_held) continue;
      if (order.size() == rig().tier().slots()) order.pop_front();
      order.push_back(number);
    } else if (dice < 90) {
      ASSERT_EQ(rig().read(number).code(), is_held ? Code::kOk : Code::kNotFound);
      if (is_held) use(number);
      has_touched = has_touched || is_held;
    } else if (dice < 93) {
      rig().tier().forget_all();
      order.clear();
      has_touched = false;
      was_reset = true;
      if (rng.chance(50)) rig().settle();
    } else if (!has_touched || order.size() < rig().tier().slots()) {
      ASSERT_TRUE(rig().reopen().is_ok());
      if (std::exchange(was_reset, false)) order.clear();
      for (const std::uint64_t held : order) ASSERT_TRUE(rig().has(held)) << held;
      for (const std::uint64_t held : std::deque<std::uint64_t>(order)) {
        ASSERT_TRUE(rig().read(held).is_ok());  // Brings both to the same order.
      }
    }
  }
}

}  // namespace terrace::tier
