// Closing while the store's threads are at a get and a put: they end first, or keep what they use.
#include <gtest/gtest.h>

#include <vector>

#include "terrace/testing/hang.h"
#include "terrace/testing/left_thread.h"
#include "terrace/testing/scratch_directory.h"
#include "terrace/tier/object/object_tier_rig.h"
#include "terrace/transfer/backends/dir/dir_store.h"

namespace terrace::tier::object {
namespace {

class ObjectCloseTest : public ObjectTierRig {
 protected:
  void TearDown() override { base::set_sync_point("dir.stop", {}); }

  std::unique_ptr<ObjectTier> open_over_files() {
    transfer::DirStoreOptions dir;
    dir.path = scratch_.path();
    dir.threads = 2;
    auto store = transfer::make_dir_store(dir);
    EXPECT_TRUE(store.has_value()) << store.error().text();
    auto tier = *ObjectTier::create(options_, *std::move(store), system_clock_, log_);
    EXPECT_TRUE(await(*tier, [&] { return tier->is_open() && tier->is_idle(); }));
    return tier;
  }
  bool await(ObjectTier& tier, const std::function<bool()>& condition) {
    return testing::eventually([&] {
      tier.wait(milliseconds(5));
      tier.poll(done_);
      return condition();
    });
  }
  Status begin_pack(ObjectTier& tier, std::uint64_t pack) {
    done_.clear();
    return tier.begin_write(1, std::span(chain_).subspan(pack * kPackBlocks, kPackBlocks),
                            memory_.range(pack * kPackBlocks, kPackBlocks));
  }
  Status begin_block(ObjectTier& tier, std::uint64_t block) {
    done_.clear();
    return tier.begin_read(2, GroupId(0), chain_[block], into_.at(block, 0).ranks,
                           transfer::IoClass::kTtftRead, kNoDeadline);
  }
  // Pack 0 lies there. One thread is at the get of a block of it, the other at the put of pack 1;
  // pack 2 is being asked for, which nobody has begun.
  void begin(ObjectTier& tier) {
    ASSERT_EQ(begin_pack(tier, 0).text(), Status().text());
    ASSERT_TRUE(await(tier, [&] { return done_.size() == 1; }));
    ASSERT_EQ(done_[0].status.text(), Status().text());
    ASSERT_TRUE(await(tier, [&] { return tier.is_idle(); }));
    hang_.hold(1);  // Pack 1 is asked for first.
    ASSERT_EQ(begin_pack(tier, 1).text(), Status().text());
    ASSERT_TRUE(await(tier, [&] { return hang_.held() == 1; }));
    ASSERT_EQ(begin_block(tier, 1).text(), Status().text());
    ASSERT_TRUE(await(tier, [&] { return hang_.held() == 2; }));
    ASSERT_EQ(begin_pack(tier, 2).text(), Status().text());
    tier.poll(done_);
  }
  // The get and the put have ended as if nobody had closed, the rest has never begun.
  void expect_whole() {
    EXPECT_TRUE(ChainMemory::same(into_.at(1, 0), memory_.at(1, 0)));
    const auto reader = open_over_files();
    done_.clear();
    ASSERT_TRUE(reader->begin_probe(3, chain_, kNoDeadline).is_ok());
    ASSERT_TRUE(await(*reader, [&] { return done_.size() == 1; }));
    ASSERT_EQ(done_[0].blocks, 2 * kPackBlocks);
    for (std::uint64_t block = kPackBlocks; block < 2ULL * kPackBlocks; ++block) {
      SCOPED_TRACE(block);
      ASSERT_EQ(begin_block(*reader, block).text(), Status().text());
      ASSERT_TRUE(await(*reader, [&] { return done_.size() == 1; }));
      EXPECT_EQ(done_[0].status.text(), Status().text());
      EXPECT_TRUE(ChainMemory::same(into_.at(block, 0), memory_.at(block, 0)));
    }
  }

  const testing::ScratchDirectory scratch_;
  const SystemClock system_clock_;
  testing::Hang hang_{"dir.begun"};
  const std::vector<SequenceHash> chain_ = chain_of(1, 3ULL * kPackBlocks);
  ChainMemory memory_{options_.layout, 3ULL * kPackBlocks, 5};
  ChainMemory into_{options_.layout, 3ULL * kPackBlocks, 0};
  std::vector<ObjectDone> done_;
};

TEST_F(ObjectCloseTest, WhatTheStoreIsAtEndsBeforeWhatItUses) {
  auto tier = open_over_files();
  begin(*tier);
  ASSERT_FALSE(HasFatalFailure());
  std::vector<std::vector<unsigned char>> soil;
  base::set_sync_point("dir.stop", [&] {
    soil = testing::soil_freed_memory();
    hang_.release();
  });
  EXPECT_TRUE(tier->close(testing::kPatience));
  tier.reset();
  base::set_sync_point("dir.stop", {});
  expect_whole();
}

TEST_F(ObjectCloseTest, AStoreThatHangsKeepsWhatItUses) {
  auto tier = open_over_files();
  begin(*tier);
  ASSERT_FALSE(HasFatalFailure());
  EXPECT_FALSE(tier->close(milliseconds(20)));
  tier.reset();
  EXPECT_EQ(hang_.held(), 2) << "closing waited for it";
  const auto soil = testing::soil_freed_memory();
  hang_.release();
  EXPECT_TRUE(testing::eventually([] {
    return !testing::has_thread("terrace-dir-0") && !testing::has_thread("terrace-dir-1");
  }));
  expect_whole();
}

}  // namespace
}  // namespace terrace::tier::object
