#include "terrace/tier/disk/disk_tier.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "terrace/tier/disk/disk_rig.h"
#include "terrace/transfer/backends/fault/fault_backend.h"

namespace terrace::tier::disk {
namespace {

TEST(DiskTierTest, AWrittenBlockIsReadBackVerified) {
  Rig rig;
  ASSERT_TRUE(rig.open().is_ok());
  EXPECT_EQ(rig.write(1).text(), Status().text());
  EXPECT_TRUE(rig.has(1));
  EXPECT_EQ(rig.read(1).text(), Status().text());
  EXPECT_EQ(rig.read(2).code(), Code::kNotFound);
}

TEST(DiskTierTest, WithoutDirectIoThreadsMoveTheBytesUnlessAnotherBackendIsAskedFor) {
  Rig rig;
  rig.options().is_direct = false;
  ASSERT_TRUE(rig.open().is_ok());
  EXPECT_EQ(rig.tier().backend_name(), "threads");
  rig.options().backend = "io_uring";
  ASSERT_TRUE(rig.reopen().is_ok());
  EXPECT_EQ(rig.tier().backend_name(), "io_uring");
}

TEST(DiskTierTest, NeighboursOfTwoRanksAreReadBackVerified) {
  Rig rig({2, {5000, 12000}});
  ASSERT_TRUE(rig.open().is_ok());
  std::vector<BlockMemory> targets;
  for (std::uint64_t n = 0; n < 12; ++n) ASSERT_TRUE(rig.write(n).is_ok());
  for (std::uint64_t n = 0; n < 12; ++n) {
    targets.push_back(rig.blank());
    ASSERT_TRUE(rig.tier()
                    .begin_read(1000 + n, GroupId(0), hash_of(n), targets[n].shards(),
                                transfer::IoClass::kTtftRead, kNoDeadline)
                    .is_ok());
  }
  const double before = rig.metric("terrace_disk_io_total{op=\"read\"}");
  for (std::uint64_t n = 0; n < 12; ++n) {
    EXPECT_EQ(rig.await(1000 + n).status.text(), Status().text());
    EXPECT_TRUE(targets[n].equals(rig.block(n))) << n;
  }
  EXPECT_LT(rig.metric("terrace_disk_io_total{op=\"read\"}") - before, 12);
}

// Requests that reading twelve neighbours of 586 KiB takes, asked for at once.
double requests_of_large_neighbours(const std::string& backend) {
  Rig rig({1, {600'000}});
  rig.options().backend = backend;
  rig.options().io.threads = 1;
  rig.options().decorate = [](std::unique_ptr<transfer::Backend> inner) {
    return std::make_unique<transfer::FaultBackend>(std::move(inner), 1);
  };
  EXPECT_EQ(rig.open().text(), Status().text());
  std::vector<BlockMemory> targets;
  for (std::uint64_t n = 0; n < 12; ++n) EXPECT_EQ(rig.write(n).text(), Status().text());
  const double before = rig.metric("terrace_disk_io_total{op=\"read\"}");
  for (std::uint64_t n = 0; n < 12; ++n) {
    targets.push_back(rig.blank());
    EXPECT_TRUE(rig.tier()
                    .begin_read(1000 + n, GroupId(0), hash_of(n), targets[n].shards(),
                                transfer::IoClass::kTtftRead, kNoDeadline)
                    .is_ok());
  }
  for (std::uint64_t n = 0; n < 12; ++n) {
    EXPECT_EQ(rig.await(1000 + n).status.text(), Status().text());
    EXPECT_TRUE(targets[n].equals(rig.block(n))) << n;
  }
  return rig.metric("terrace_disk_io_total{op=\"read\"}") - before;
}

TEST(DiskTierTest, ThreadsReadLargeNeighboursTogetherToo) {
  EXPECT_LT(requests_of_large_neighbours("threads"), 12);
  EXPECT_EQ(requests_of_large_neighbours("io_uring"), 12);
}

TEST(DiskTierTest, BlocksAreFoundAgainAfterARestart) {
  Rig rig({2, {5000, 12000}});
  ASSERT_TRUE(rig.open().is_ok());
  for (std::uint64_t n = 0; n < 8; ++n) {
    ASSERT_EQ(rig.write(n, 0).text(), Status().text());
    ASSERT_EQ(rig.write(100 + n, 1).text(), Status().text());
  }
  ASSERT_TRUE(rig.reopen().is_ok());
  EXPECT_EQ(rig.tier().count(catalog::SlotState::kSealed), 16U);
  for (std::uint64_t n = 0; n < 8; ++n) {
    EXPECT_EQ(rig.read(n, 0).text(), Status().text());
    EXPECT_EQ(rig.read(100 + n, 1).text(), Status().text());
    EXPECT_FALSE(rig.has(n, 1));
  }
}

TEST(DiskTierTest, AFullTierEvictsTheLeastRecentlyUsedBlock) {
  Rig rig;
  ASSERT_TRUE(rig.open().is_ok());
  ASSERT_EQ(rig.tier().slots(), 16U);
  for (std::uint64_t n = 0; n < 16; ++n) ASSERT_TRUE(rig.write(n).is_ok());
  rig.tier().touch(GroupId(0), hash_of(0));
  ASSERT_EQ(rig.write(16).text(), Status().text());
  EXPECT_TRUE(rig.has(0));
  EXPECT_FALSE(rig.has(1));
  const auto evicted = rig.tier().take_evicted();
  ASSERT_EQ(evicted.size(), 1U);
  EXPECT_EQ(evicted[0].key.hash, hash_of(1));
  EXPECT_EQ(rig.read(16).text(), Status().text());
}

TEST(DiskTierTest, TheEvictionOrderOutlivesARestart) {
  Rig rig;
  ASSERT_TRUE(rig.open().is_ok());
  for (std::uint64_t n = 0; n < 20; ++n) ASSERT_TRUE(rig.write(n).is_ok());
  ASSERT_TRUE(rig.reopen().is_ok());
  for (std::uint64_t n = 20; n < 23; ++n) ASSERT_TRUE(rig.write(n).is_ok());
  for (std::uint64_t n = 4; n < 7; ++n) EXPECT_FALSE(rig.has(n)) << n;
  for (std::uint64_t n = 7; n < 23; ++n) EXPECT_TRUE(rig.has(n)) << n;
}

TEST(DiskTierTest, ForgottenBlocksDoNotComeBack) {
  Rig rig;
  ASSERT_TRUE(rig.open().is_ok());
  ASSERT_TRUE(rig.write(1).is_ok());
  rig.tier().forget_all();
  EXPECT_FALSE(rig.has(1));
  EXPECT_FALSE(rig.tier().is_idle());
  rig.settle();
  EXPECT_TRUE(rig.tier().is_idle());
  ASSERT_TRUE(rig.reopen().is_ok());
  EXPECT_FALSE(rig.has(1));
}

TEST(DiskTierTest, AnotherModelsBlocksAreNotSeenAndNotWiped) {
  Rig rig;
  ASSERT_TRUE(rig.open().is_ok());
  ASSERT_TRUE(rig.write(1).is_ok());
  rig.set_model("model-b");
  ASSERT_TRUE(rig.reopen().is_ok());
  EXPECT_FALSE(rig.has(1));
  ASSERT_EQ(rig.write(2).text(), Status().text());
  rig.set_model("model-a");
  ASSERT_TRUE(rig.reopen().is_ok());
  EXPECT_EQ(rig.read(1).text(), Status().text());
  EXPECT_FALSE(rig.has(2));
}

}  // namespace
}  // namespace terrace::tier::disk
