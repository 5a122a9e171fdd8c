// Directories that fail, hang, vanish and come back: misses at once, checked before they count.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <array>
#include <filesystem>
#include <fstream>

#include "terrace/testing/file_calls.h"
#include "terrace/tier/disk/format_internal.h"
#include "terrace/tier/disk/two_directories_fixture.h"

namespace terrace::tier::disk {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;
using transfer::Fault;
using transfer::IoOp;
namespace fs = std::filesystem;

class DiskHealthTest : public TwoDirectories {
 protected:
  void SetUp() override {
    TwoDirectories::SetUp();
    open_and_fill();
  }
  // Five errors in a row.
  void shut(char path) {
    faults_->aim(Fault::kError, IoOp::kRead, 5, std::string(1, path) + "/terrace-00/0.slots");
    for (std::uint64_t n = 0; n < kBlocks && problem().empty(); ++n) (void)rig_.read(n);
    ASSERT_THAT(problem(), HasSubstr("state=failing"));
    faults_->aim(Fault::kNone, IoOp::kRead, 0);
    poll();
  }
};

TEST_F(DiskHealthTest, BlocksOfAFailingDirectoryAreMissesAtOnceAndTheRestGoesOn) {
  shut('b');
  EXPECT_EQ(seen(), kBlocks / 2);
  std::uint64_t served = 0;
  for (std::uint64_t n = 0; n < kBlocks; ++n) {
    if (!rig_.has(n)) continue;
    EXPECT_EQ(rig_.read(n).text(), Status().text()) << n;
    ++served;
  }
  EXPECT_EQ(served, kBlocks / 2);
  std::vector<SequenceHash> chain;
  for (std::uint64_t n = 0; n < kBlocks; ++n) chain.push_back(hash_of(n));
  std::size_t first_miss = 0;
  while (rig_.has(first_miss)) ++first_miss;
  EXPECT_EQ(rig_.tier().match(GroupId(0), chain), first_miss);
}

TEST_F(DiskHealthTest, ABlockThatNobodyCanReadNowIsStoredAnew) {
  shut('b');
  std::uint64_t missing = 0;
  while (rig_.has(missing)) ++missing;
  EXPECT_EQ(rig_.write(missing).text(), Status().text());
  EXPECT_TRUE(rig_.has(missing));
  EXPECT_EQ(rig_.read(missing).text(), Status().text());
}

TEST_F(DiskHealthTest, ADirectoryComesBackWhenItWasLookedAtNotBefore) {
  shut('b');
  const std::uint64_t before = seen();
  clock_.advance(seconds(29));
  for (int i = 0; i < 5; ++i) poll();
  EXPECT_EQ(seen(), before);
  EXPECT_THAT(rig_.log(), Not(HasSubstr("state=returned")));
  clock_.advance(seconds(1));
  ASSERT_TRUE(poll_until([&] { return problem().empty(); }));
  EXPECT_THAT(rig_.log(), HasSubstr(owner('b') + " state=returned good_blocks="));
  EXPECT_EQ(seen(), kBlocks) << "those, too, that could not be read";
  for (std::uint64_t n = 0; n < kBlocks; ++n) {
    if (rig_.has(n)) {
      EXPECT_EQ(rig_.read(n).text(), Status().text()) << n;
    }
  }
}

TEST_F(DiskHealthTest, WhatStillFailsStaysAloneEverLonger) {
  shut('b');
  faults_->aim(Fault::kError, IoOp::kRead, 1000, "b/terrace-00/0.slots");
  clock_.advance(seconds(30));
  ASSERT_TRUE(poll_until([&] { return problem().contains("looked at again"); }));
  faults_->aim(Fault::kNone, IoOp::kRead, 0);
  clock_.advance(seconds(59));
  for (int i = 0; i < 5; ++i) poll();
  EXPECT_FALSE(problem().empty());
  clock_.advance(seconds(1));
  EXPECT_TRUE(poll_until([&] { return problem().empty(); }));
}

TEST_F(DiskHealthTest, WhatComesBackWithOtherBytesIsNotTrusted) {
  shut('b');
  {
    std::fstream file(owner('b') + "/0.slots", std::ios::in | std::ios::out | std::ios::binary);
    const std::string zeros(fs::file_size(owner('b') + "/0.slots"), '\0');
    file.write(zeros.data(), static_cast<std::streamsize>(zeros.size()));
  }
  clock_.advance(seconds(30));
  ASSERT_TRUE(poll_until([&] { return problem().contains("state=distrusted"); }));
  EXPECT_EQ(seen(), kBlocks / 2);
  clock_.advance(seconds(3600));
  for (int i = 0; i < 5; ++i) poll();
  EXPECT_EQ(seen(), kBlocks / 2);
}

TEST_F(DiskHealthTest, ADamagedBlockAmongManyIsDroppedAndAllAreRead) {
  shut('b');
  // One frame: the last slot.
  const std::uint64_t frame = 4096 + 8192;
  {
    std::fstream file(owner('b') + "/0.slots", std::ios::in | std::ios::out | std::ios::binary);
    file.seekp(static_cast<std::streamoff>(7 * frame + 5000));
    file.put('!');
  }
  clock_.advance(seconds(30));
  ASSERT_TRUE(poll_until([&] { return problem().empty(); }));
  EXPECT_THAT(rig_.log(), HasSubstr("bad_blocks=1"));
  EXPECT_EQ(seen(), kBlocks - 1);
  EXPECT_TRUE(poll_until([&] {
    clock_.advance(milliseconds(10));
    return rig_.metric("terrace_disk_scrub_passes_total") == 1;
  }));
  rig_.settle();
  rig_.options().decorate = nullptr;
  ASSERT_TRUE(rig_.reopen().is_ok());
  EXPECT_EQ(seen(), kBlocks - 1) << "nor does the next owner find it";
}

// Of the files that are open.
class FailsFstat final : public testing::FileWatch {
 public:
  explicit FailsFstat(std::string below) : below_(std::move(below)) {}
  void on_change(const testing::FileChange& /*change*/) override {}
  bool fails_fstat(const std::string& path) override { return path.starts_with(below_); }

 private:
  const std::string below_;
};

TEST_F(DiskHealthTest, ADirectoryOfWhichItsFileSystemCannotSayIsAloneUntilItCan) {
  {
    const FailsFstat failing(owner('b') + "/");
    ASSERT_TRUE(poll_until([&] {
      clock_.advance(seconds(1));
      return !problem().empty();
    }));
    EXPECT_THAT(problem(), HasSubstr("path=" + owner('b') + " state=gone: fstat "));
    EXPECT_EQ(seen(), kBlocks / 2);
  }
  ASSERT_TRUE(poll_until([&] {
    clock_.advance(seconds(1));
    return problem().empty();
  }));
  EXPECT_THAT(rig_.log(), HasSubstr(owner('b') + " state=returned good_blocks="));
  EXPECT_EQ(seen(), kBlocks);
}

// A bad sector of a device that is well.
TEST_F(DiskHealthTest, ABlockThatCannotBeReadForGoodIsDroppedAndTheOthersComeBack) {
  shut('b');
  faults_->spoil("b/terrace-00/0.slots", 0);                  // What is looked at first,
  faults_->spoil("b/terrace-00/0.slots", 7 * kFrame + 5000);  // and last.
  clock_.advance(seconds(30));
  ASSERT_TRUE(poll_until([&] { return problem().empty(); })) << problem();
  EXPECT_THAT(rig_.log(), HasSubstr("bad_blocks=2"));
  EXPECT_THAT(rig_.log(), HasSubstr("unreadable=1 slot=7"));
  EXPECT_EQ(seen(), kBlocks - 2);
  for (std::uint64_t n = 0; n < kBlocks; ++n) {
    if (rig_.has(n)) {
      EXPECT_EQ(rig_.read(n).text(), Status().text()) << n;
    }
  }
  rig_.settle();
  rig_.options().decorate = nullptr;
  ASSERT_TRUE(rig_.reopen().is_ok());
  EXPECT_EQ(seen(), kBlocks - 2) << "nor does the next owner find them";
}

TEST_F(DiskHealthTest, WhereThreeInARowCannotBeReadItIsTheDeviceAndNoBlockIsDropped) {
  shut('b');
  for (std::uint64_t slot = 1; slot < 4; ++slot) {
    faults_->spoil("b/terrace-00/0.slots", slot * kFrame);
  }
  clock_.advance(seconds(30));
  ASSERT_TRUE(poll_until([&] { return problem().contains("looked at again"); }));
  rig_.settle();
  rig_.options().decorate = nullptr;
  ASSERT_TRUE(rig_.reopen().is_ok());
  EXPECT_EQ(seen(), kBlocks);
}

// Of few blocks that cannot be read nobody can say whether it is they or the device: they are
// dropped, and what has its headers comes back at the next look.
TEST_F(DiskHealthTest, ADirectoryWhoseOnlyBlockCannotBeReadComesBackWithoutIt) {
  rig_.tier().forget_all();
  ASSERT_TRUE(poll_until([&] { return !rig_.tier().is_drop_pending(); }));
  write_blocks(100, 102);  // One on each.
  faults_->aim(Fault::kError, IoOp::kWrite, 1000, "b/terrace-00/0.slots");
  for (std::uint64_t n = 0; n < kBlocks && problem().empty(); ++n) (void)rig_.write(200 + n);
  ASSERT_THAT(problem(), HasSubstr("state=failing"));
  faults_->aim(Fault::kNone, IoOp::kWrite, 0);
  for (std::uint64_t slot = 0; slot < 8; ++slot) {
    faults_->spoil("b/terrace-00/0.slots", slot * kFrame);
  }
  clock_.advance(seconds(30));
  ASSERT_TRUE(poll_until([&] { return problem().contains("1 of 1 blocks"); })) << problem();
  clock_.advance(seconds(60));
  EXPECT_TRUE(poll_until([&] { return problem().empty(); })) << problem();
}

TEST_F(DiskHealthTest, WhatComesBackCutShortIsNotTrusted) {
  shut('b');
  fs::resize_file(owner('b') + "/0.slots", 0);
  clock_.advance(seconds(30));
  EXPECT_TRUE(poll_until([&] { return problem().contains("state=distrusted"); }));
  EXPECT_THAT(problem(), HasSubstr("are not what they were"));
}

// Nothing can be said against it: there is no block to look at.
TEST_F(DiskHealthTest, ADirectoryWithoutABlockComesBack) {
  rig_.tier().forget_all();
  ASSERT_TRUE(poll_until([&] { return !rig_.tier().is_drop_pending(); }));
  faults_->aim(Fault::kError, IoOp::kWrite, 1000, "b/terrace-00/0.slots");
  for (std::uint64_t n = 0; n < 2 * kBlocks && problem().empty(); ++n) (void)rig_.write(100 + n);
  ASSERT_THAT(problem(), HasSubstr("state=failing"));
  faults_->aim(Fault::kNone, IoOp::kWrite, 0);
  clock_.advance(seconds(30));
  EXPECT_TRUE(poll_until([&] { return problem().empty(); })) << problem();
  EXPECT_THAT(rig_.log(), HasSubstr("good_blocks=0 bad_blocks=0"));
}

// A copy of the medium from before a reset would bring back what was reset.
TEST_F(DiskHealthTest, WhatComesBackFromAnEarlierTimeIsNotTrusted) {
  std::string old;
  {
    std::ifstream file(owner('b') + "/ns-0001/slots.meta", std::ios::binary);
    old.assign(std::istreambuf_iterator<char>(file), {});
  }
  rig_.tier().forget_all();
  ASSERT_TRUE(poll_until([&] { return !rig_.tier().is_drop_pending(); }));
  for (std::uint64_t n = 0; n < kBlocks; ++n) ASSERT_TRUE(rig_.write(n).is_ok());
  shut('b');
  {
    std::fstream file(owner('b') + "/ns-0001/slots.meta",
                      std::ios::in | std::ios::out | std::ios::binary);
    file.write(old.data(), static_cast<std::streamsize>(old.size()));
  }
  clock_.advance(seconds(30));
  EXPECT_TRUE(poll_until([&] { return problem().contains("of an earlier time"); }));
}

TEST_F(DiskHealthTest, WhatComesBackWithOtherExtentsIsNotTrusted) {
  shut('b');
  const std::string extents = owner('b') + "/extents.meta";
  std::fstream file(extents, std::ios::in | std::ios::out | std::ios::binary);
  std::array<std::byte, kPageBytes> page{};
  file.read(reinterpret_cast<char*>(page.data()), page.size());
  auto header = decode_volume(page);
  ASSERT_TRUE(header.has_value());
  header->extent_bytes *= 2;
  encode(*header, page);
  file.seekp(0);
  file.write(reinterpret_cast<const char*>(page.data()), page.size());
  file.close();
  clock_.advance(seconds(30));
  EXPECT_TRUE(poll_until([&] { return problem().contains("extents.meta begins otherwise"); }));
  EXPECT_EQ(seen(), kBlocks / 2);
}

TEST_F(DiskHealthTest, WhatComesBackWithoutItsHeaderIsNotTrusted) {
  shut('b');
  flip_bit(owner('b') + "/extents.meta", 9);
  clock_.advance(seconds(30));
  EXPECT_TRUE(poll_until([&] { return problem().contains("extents.meta begins otherwise"); }));
}

// A busy second of sixteen reads, eight of each directory, or as long as they take.
TEST_F(DiskHealthTest, ADeviceThatIsSlowerThanItWasIsSaidUntilItIsQuickAgain) {
  std::uint64_t token = 1000;
  const auto read_all = [&](Nanoseconds time) {
    std::vector<BlockMemory> memory;
    faults_->hold(true);
    for (std::uint64_t n = 0; n < kBlocks; ++n) {
      memory.push_back(rig_.blank());
      ASSERT_TRUE(rig_.tier()
                      .begin_read(++token, GroupId(0), hash_of(n), memory.back().shards(),
                                  transfer::IoClass::kTtftRead, kNoDeadline)
                      .is_ok());
    }
    poll();
    clock_.advance(time);
    faults_->hold(false);
    for (std::uint64_t n = 0; n < kBlocks; ++n) {
      EXPECT_TRUE(rig_.await(token - n).status.is_ok());
    }
  };
  for (int span = 0; span < 9; ++span) read_all(seconds(1));
  EXPECT_EQ(problem(), "");
  read_all(seconds(9));
  clock_.advance(seconds(1));
  EXPECT_TRUE(poll_until([&] { return problem().contains("state=slow"); }));
  EXPECT_EQ(seen(), kBlocks) << "it is read as ever";
  for (int span = 0; span < 3; ++span) read_all(seconds(1));
  clock_.advance(seconds(1));
  EXPECT_TRUE(poll_until([&] { return problem().empty(); }));
}

TEST_F(DiskHealthTest, ADirectoryThatWasTakenAwayIsAMissUntilItIsBack) {
  fs::rename(rig_.path() + "/b", rig_.path() + "/elsewhere");
  clock_.advance(seconds(1));
  ASSERT_TRUE(poll_until([&] { return problem().contains("state=gone"); }));
  EXPECT_EQ(seen(), kBlocks / 2);
  EXPECT_THAT(problem(), HasSubstr("ENOENT"));
  clock_.advance(seconds(1000));
  for (int i = 0; i < 5; ++i) poll();
  EXPECT_EQ(seen(), kBlocks / 2);
  fs::rename(rig_.path() + "/elsewhere", rig_.path() + "/b");
  clock_.advance(seconds(1));
  EXPECT_TRUE(poll_until([&] { return problem().empty(); }));
  EXPECT_EQ(seen(), kBlocks);
}

// As when another disk is mounted at the same place.
TEST_F(DiskHealthTest, AnotherDirectoryAtTheSamePlaceIsNotTaken) {
  fs::rename(rig_.path() + "/b", rig_.path() + "/elsewhere");
  fs::copy(rig_.path() + "/elsewhere", rig_.path() + "/b", fs::copy_options::recursive);
  clock_.advance(seconds(1));
  ASSERT_TRUE(poll_until([&] { return problem().contains("another file now"); }));
  EXPECT_EQ(seen(), kBlocks / 2);
}

TEST_F(DiskHealthTest, ADeviceThatHangsIsLeftAloneUntilItAnswers) {
  const BlockMemory into = rig_.blank();
  std::uint64_t lost = 0;
  faults_->aim(Fault::kLose, IoOp::kRead, 1, "b/terrace-00/0.slots");
  for (std::uint64_t n = 0; n < kBlocks && faults_->lost() == 0; ++n) {
    ASSERT_TRUE(rig_.tier()
                    .begin_read(900 + n, GroupId(0), hash_of(n), into.shards(),
                                transfer::IoClass::kTtftRead, kNoDeadline)
                    .is_ok());
    lost = n;
    poll();
  }
  ASSERT_EQ(faults_->lost(), 1U);
  clock_.advance(seconds(11));
  poll();
  EXPECT_EQ(problem(), "") << "a look so late does not tell";
  clock_.advance(seconds(1));
  ASSERT_TRUE(poll_until([&] { return problem().contains("state=hanging"); }));
  EXPECT_EQ(seen(), kBlocks / 2);
  EXPECT_FALSE(rig_.has(lost));
  faults_->release_lost();
  EXPECT_TRUE(poll_until([&] {
    clock_.advance(seconds(1));
    return problem().empty();
  }));
  EXPECT_EQ(seen(), kBlocks);
}

// Its process was stopped, or its thread waited for a processor: who answered meanwhile is heard
// before anybody says that it hangs.
TEST_F(DiskHealthTest, WhatCameBackWhileNobodyListenedDoesNotHang) {
  const BlockMemory into = rig_.blank();
  const auto begin = [&](std::uint64_t token) {
    faults_->hold(true);
    ASSERT_TRUE(rig_.tier()
                    .begin_read(token, GroupId(0), hash_of(1), into.shards(),
                                transfer::IoClass::kTtftRead, kNoDeadline)
                    .is_ok());
    for (int i = 0; i < 100; ++i) poll();
  };
  begin(900);
  for (int second = 0; second < 8; ++second) {
    clock_.advance(seconds(1));
    poll();
  }
  clock_.advance(seconds(3));
  faults_->hold(false);
  EXPECT_TRUE(rig_.await(900).status.is_ok());
  EXPECT_EQ(problem(), "");
  // What goes through other threads may be as late as those.
  begin(901);
  clock_.advance(seconds(30));
  poll();
  faults_->hold(false);
  EXPECT_TRUE(rig_.await(901).status.is_ok());
  EXPECT_EQ(problem(), "");
  EXPECT_THAT(rig_.log(), Not(HasSubstr("state=hanging")));
}

}  // namespace
}  // namespace terrace::tier::disk
