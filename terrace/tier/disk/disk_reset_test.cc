// Resets: what was stored before is found by nobody any more, what is stored afterwards by this
// tier alone.
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <deque>
#include <filesystem>

#include "terrace/testing/fake_clock.h"
#include "terrace/testing/file_calls.h"
#include "terrace/tier/disk/disk_rig.h"
#include "terrace/tier/disk/format_internal.h"
#include "terrace/tier/disk/inspect.h"
#include "terrace/transfer/backends/fault/fault_backend.h"
#include "terrace/wire/frame.h"

namespace terrace::tier::disk {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;
using transfer::Fault;
using transfer::FaultBackend;
using transfer::IoOp;

class SkewedClock final : public Clock {
 public:
  explicit SkewedClock(std::int64_t by_seconds) : by_seconds_(by_seconds) {}
  [[nodiscard]] Nanoseconds now() const override { return clock_.now(); }
  [[nodiscard]] std::int64_t wall_seconds() const override {
    return clock_.wall_seconds() + by_seconds_;
  }

 private:
  SystemClock clock_;
  std::int64_t by_seconds_;
};

class DiskResetTest : public ::testing::Test {
 protected:
  void with_faults(Rig& rig) {
    rig.options().decorate = [this](std::unique_ptr<transfer::Backend> inner) {
      auto faults = std::make_unique<FaultBackend>(std::move(inner), 1);
      faults_ = faults.get();
      return faults;
    };
  }
  void open(Rig& rig) { ASSERT_EQ(rig.open().text(), Status().text()); }
  void write(Rig& rig, std::uint64_t first, std::uint64_t end) {
    for (std::uint64_t n = first; n < end; ++n) {
      ASSERT_EQ(rig.write(n).text(), Status().text()) << n;
    }
  }
  void expect_served(Rig& rig, std::uint64_t first, std::uint64_t end) {
    for (std::uint64_t n = first; n < end; ++n) {
      EXPECT_EQ(rig.read(n).text(), Status().text()) << n;
    }
  }
  void expect_none(const Rig& rig, std::uint64_t first, std::uint64_t end) {
    for (std::uint64_t n = first; n < end; ++n) EXPECT_FALSE(rig.has(n)) << n;
  }
  // Until the reset is durable wherever it can be.
  void await_drop(Rig& rig) {
    const Nanoseconds limit = rig.clock().now() + seconds(20);
    std::vector<DiskDone> done;
    while (rig.tier().is_drop_pending() && rig.clock().now() < limit) {
      rig.tier().wait(milliseconds(20));
      rig.tier().poll(done);
    }
    EXPECT_FALSE(rig.tier().is_drop_pending());
  }
  // Lets the tier try for as long as a few writes of the header take.
  void try_in_vain(Rig& rig, std::uint64_t errors) {
    const Nanoseconds limit = rig.clock().now() + seconds(20);
    std::vector<DiskDone> done;
    while (faults_->injected() < errors && rig.clock().now() < limit) {
      rig.tier().wait(milliseconds(20));
      rig.tier().poll(done);
    }
    EXPECT_GE(faults_->injected(), errors);
  }
  // Two paths below the rig's own.
  static void use_two_paths(Rig& rig) {
    rig.options().paths = {rig.path() + "/a", rig.path() + "/b"};
  }
  FaultBackend* faults_ = nullptr;
};

TEST_F(DiskResetTest, WhatIsStoredAfterwardsIsServedUntilTheTierCloses) {
  Rig rig;
  open(rig);
  write(rig, 0, 6);
  rig.tier().forget_all();
  expect_none(rig, 0, 6);
  write(rig, 3, 12);
  expect_served(rig, 3, 12);
  rig.settle();
  expect_served(rig, 3, 12);
  ASSERT_EQ(rig.reopen().text(), Status().text());
  expect_none(rig, 0, 12);
  write(rig, 0, 16);
  ASSERT_EQ(rig.reopen().text(), Status().text());
  expect_served(rig, 0, 16);
  EXPECT_EQ(rig.metric("terrace_disk_corrupt_blocks_total"), 0);
}

TEST_F(DiskResetTest, MoreIsWrittenThanFitsAndTheOldestGo) {
  Rig rig;
  open(rig);
  write(rig, 0, 16);
  rig.tier().forget_all();
  write(rig, 100, 140);
  expect_none(rig, 100, 124);
  expect_served(rig, 124, 140);
  EXPECT_EQ(rig.metric("terrace_disk_corrupt_blocks_total"), 0);
}

// By no text, no record and no frame: their content is nobody's.
TEST_F(DiskResetTest, NothingOnTheMediumSaysWhoseTheyAre) {
  Rig rig;
  open(rig);
  write(rig, 0, 2);
  const std::string text = rig.owner() + "/ns-0001/fingerprint.txt";
  const auto before = tree(rig.path()).at(text);
  rig.tier().forget_all();
  write(rig, 10, 14);
  rig.close();
  const auto after = tree(rig.path());
  EXPECT_EQ(after.at(text), before);
  EXPECT_FALSE(fs::exists(rig.owner() + "/ns-0002"));
  EXPECT_EQ(inspect_directory(rig.path())->at(0).namespaces.at(0).sealed, 0U);
  const std::string& meta = after.at(rig.owner() + "/ns-0001/slots.meta");
  for (std::size_t at = kRecordsOffset; at + kSlotRecordBytes <= meta.size();
       at += kSlotRecordBytes) {
    const auto record =
        decode_slot(std::as_bytes(std::span(meta)).subspan(at).first<kSlotRecordBytes>(),
                    static_cast<std::uint32_t>((at - kRecordsOffset) / kSlotRecordBytes));
    for (const std::uint64_t n : {10, 11, 12, 13}) EXPECT_NE(record.record.hash, hash_of(n));
  }
  int frames = 0;
  const std::string& slots = after.at(rig.owner() + "/0.slots");
  for (std::size_t at = 0; at + kPageBytes <= slots.size(); at += kPageBytes) {
    const auto frame =
        wire::decode_frame(std::as_bytes(std::span(slots)).subspan(at).first<4096>());
    if (!frame) continue;
    const std::string digest = fmt::format("{:02x}", fmt::join(frame->content_digest, ""));
    const bool is_new = std::ranges::any_of(std::vector<std::uint64_t>{10, 11, 12, 13},
                                            [&](auto n) { return frame->hash == hash_of(n); });
    EXPECT_EQ(digest != rig.options().fingerprint.content_digest(), is_new);
    frames += is_new ? 1 : 0;
  }
  EXPECT_EQ(frames, 4);
  // Nor does a lost text make anybody believe the frames.
  fs::remove(text);
  open(rig);
  expect_none(rig, 0, 14);
}

TEST_F(DiskResetTest, EachResetOfMany) {
  Rig rig;
  open(rig);
  write(rig, 0, 4);
  for (std::uint64_t round = 1; round < 20; ++round) {
    rig.tier().forget_all();
    if (round % 3 == 0) rig.tier().forget_all();
    if (round % 4 == 0) rig.settle();
    expect_none(rig, 0, 100 * round);
    write(rig, 100 * round, 100 * round + 3);
    write(rig, 0, 2);
    expect_served(rig, 100 * round, 100 * round + 3);
  }
  ASSERT_EQ(rig.reopen().text(), Status().text());
  expect_none(rig, 0, 2100);
  EXPECT_EQ(rig.metric("terrace_disk_corrupt_blocks_total"), 0);
}

TEST_F(DiskResetTest, BytesFromBeforeAreRefused) {
  Rig rig;
  open(rig);
  const BlockMemory memory = rig.block(1);
  const std::uint32_t resets = rig.tier().resets();
  rig.tier().forget_all();
  const auto begin = [&](std::uint32_t of) {
    return rig.tier().begin_write(1, GroupId(0), hash_of(1), 3, memory.shards(), memory.checksums(),
                                  of);
  };
  EXPECT_EQ(begin(resets).code(), Code::kNotFound);
  EXPECT_TRUE(begin(resets + 1).is_ok());
  EXPECT_TRUE(rig.await(1).status.is_ok());
}

TEST_F(DiskResetTest, WritesAndReadsUnderWayEndAsMisses) {
  Rig rig;
  with_faults(rig);
  open(rig);
  write(rig, 0, 3);
  faults_->hold(true);
  std::deque<BlockMemory> memory;
  for (std::uint64_t n = 10; n < 14; ++n) {
    memory.push_back(rig.block(n));
    ASSERT_TRUE(rig.tier()
                    .begin_write(n, GroupId(0), hash_of(n), 0, memory.back().shards(),
                                 memory.back().checksums())
                    .is_ok());
  }
  const BlockMemory into = rig.blank();
  ASSERT_TRUE(rig.tier()
                  .begin_read(20, GroupId(0), hash_of(1), into.shards(),
                              transfer::IoClass::kTtftRead, kNoDeadline)
                  .is_ok());
  std::vector<DiskDone> done;
  rig.tier().poll(done);  // All of it is with the device now.
  rig.tier().forget_all();
  faults_->hold(false);
  for (const std::uint64_t token : {10, 11, 12, 13, 20}) {
    EXPECT_EQ(rig.await(token).status.code(), Code::kNotFound) << token;
  }
  expect_none(rig, 0, 14);
  ASSERT_EQ(rig.reopen().text(), Status().text());
  expect_none(rig, 0, 14);
  EXPECT_EQ(rig.metric("terrace_disk_corrupt_blocks_total"), 0);
}

TEST_F(DiskResetTest, AnErrorIsToldAndTriedAgain) {
  for (const Fault fault : {Fault::kError, Fault::kNoSpace}) {
    Rig rig;
    with_faults(rig);
    open(rig);
    write(rig, 0, 3);
    rig.settle();
    faults_->aim(fault, IoOp::kWrite, 4, "slots.meta");
    rig.tier().forget_all();
    EXPECT_TRUE(rig.tier().is_drop_pending());
    try_in_vain(rig, 2);
    EXPECT_TRUE(rig.tier().is_drop_pending());
    ASSERT_EQ(rig.tier().undropped().size(), 1U);
    EXPECT_THAT(rig.tier().undropped()[0], HasSubstr(rig.owner()));
    EXPECT_THAT(rig.tier().problems(), ::testing::Contains(rig.tier().undropped()[0]));
    expect_none(rig, 0, 3);
    await_drop(rig);
    EXPECT_TRUE(rig.tier().undropped().empty());
    ASSERT_EQ(rig.reopen().text(), Status().text());
    expect_none(rig, 0, 3);
  }
}

TEST_F(DiskResetTest, AFailedSyncIsNoReset) {
  Rig rig;
  with_faults(rig);
  open(rig);
  write(rig, 0, 3);
  rig.settle();
  faults_->aim(Fault::kError, IoOp::kSync, 2, "slots.meta");
  rig.tier().forget_all();
  try_in_vain(rig, 1);
  EXPECT_TRUE(rig.tier().is_drop_pending());
  await_drop(rig);
  ASSERT_EQ(rig.reopen().text(), Status().text());
  expect_none(rig, 0, 3);
}

// Its header says it on one path: that is enough for all, once both are there again.
TEST_F(DiskResetTest, OnePathThatKnowsOfItIsEnough) {
  for (const char* const failing : {"a", "b"}) {
    Rig rig;
    use_two_paths(rig);
    with_faults(rig);
    open(rig);
    write(rig, 0, 12);
    rig.settle();
    const std::string file = std::string(failing) + "/terrace-00/ns-0001/slots.meta";
    faults_->aim(Fault::kError, IoOp::kWrite, 1'000'000, file);
    rig.tier().forget_all();
    try_in_vain(rig, 4);
    EXPECT_TRUE(rig.tier().is_drop_pending());
    ASSERT_EQ(rig.tier().undropped().size(), 1U);
    EXPECT_THAT(rig.tier().undropped()[0], HasSubstr(std::string("/") + failing + "/"));
    rig.close();
    rig.options().decorate = {};
    open(rig);
    expect_none(rig, 0, 12);
    // From here on it is known on both.
    rig.close();
    rig.options().paths = {rig.path() + "/" + failing};
    open(rig);
    expect_none(rig, 0, 12);
  }
}

TEST_F(DiskResetTest, APathThatIsNotThereIsNotDropped) {
  Rig rig;
  use_two_paths(rig);
  open(rig);
  write(rig, 0, 12);
  rig.close();
  const std::string header = rig.path() + "/b/terrace-00/extents.meta";
  fs::rename(header, rig.path() + "/away");  // Nobody can say whose it is.
  open(rig);
  rig.tier().forget_all();
  await_drop(rig);
  ASSERT_EQ(rig.tier().undropped().size(), 1U);
  EXPECT_THAT(rig.tier().undropped()[0], HasSubstr("disk.paths " + rig.path() + "/b"));
  rig.close();
  fs::rename(rig.path() + "/away", header);
  open(rig);
  expect_none(rig, 0, 12);
  EXPECT_TRUE(rig.tier().undropped().empty());
}

TEST_F(DiskResetTest, APathWithNothingInItHoldsNobodyUp) {
  Rig rig;
  use_two_paths(rig);
  write_text(rig.path() + "/b", "a file");
  open(rig);
  write(rig, 0, 3);
  EXPECT_EQ(rig.tier().problems().size(), 1U);
  rig.tier().forget_all();
  await_drop(rig);
  EXPECT_TRUE(rig.tier().undropped().empty());
}

TEST_F(DiskResetTest, ADeletedDirectoryKeepsNobodyWaiting) {
  Rig rig;
  open(rig);
  write(rig, 0, 3);
  rig.settle();
  with_faults(rig);
  ASSERT_EQ(rig.reopen().text(), Status().text());
  faults_->aim(Fault::kError, IoOp::kWrite, 1'000'000, "slots.meta");
  fs::remove_all(rig.owner());
  rig.tier().forget_all();
  await_drop(rig);
  EXPECT_TRUE(rig.tier().undropped().empty());
}

// As of a file system that was shut down, or whose server is away.
class FailsFstat final : public testing::FileWatch {
 public:
  void on_change(const testing::FileChange& /*change*/) override {}
  bool fails_fstat(const std::string& path) override { return path.ends_with("/0.slots"); }
};

TEST_F(DiskResetTest, FilesOfWhichNobodyCanSayMayComeBackAndAreNotDroppedUntilThen) {
  testing::FakeClock clock;
  Rig rig;
  rig.use_clock(clock);
  open(rig);
  write(rig, 0, 6);
  const auto look_until = [&](const std::function<bool()>& is_so) {
    return rig.step_until([&] { return clock.advance(seconds(1)), is_so(); });
  };
  {
    const FailsFstat failing;
    ASSERT_TRUE(look_until([&] { return !rig.tier().problems().empty(); }));
    rig.tier().forget_all();
    EXPECT_TRUE(rig.tier().is_drop_pending());
    ASSERT_EQ(rig.tier().undropped().size(), 1U);
    EXPECT_THAT(rig.tier().undropped()[0], HasSubstr(rig.owner()));
  }
  EXPECT_TRUE(look_until([&] { return !rig.tier().is_drop_pending(); }));
  EXPECT_TRUE(rig.tier().problems().empty());
  ASSERT_EQ(rig.reopen().text(), Status().text());
  expect_none(rig, 0, 6);
}

// As two engines side by side leave it, of which one is started again.
TEST_F(DiskResetTest, AnotherOwnersDirectoryOfTheNamespaceIsDroppedToo) {
  Rig first;
  Rig second;
  second.options().paths = first.options().paths;
  open(first);
  open(second);
  write(first, 0, 4);
  write(second, 0, 8);
  second.close();
  first.tier().forget_all();
  await_drop(first);
  first.close();
  for (int i = 0; i < 2; ++i) {  // Whichever directories are taken.
    open(first);
    open(second);
    expect_none(first, 0, 8);
    expect_none(second, 0, 8);
    first.close();
    second.close();
  }
  open(first);
  write(first, 0, 4);
  ASSERT_EQ(first.reopen().text(), Status().text());
  expect_served(first, 0, 4);
}

TEST_F(DiskResetTest, WhatAnotherOwnerStoredAfterItsOwnResetIsDroppedByALaterOne) {
  testing::FakeClock clock;
  Rig first;
  Rig second;
  second.options().paths = first.options().paths;
  for (Rig* rig : {&first, &second}) {
    rig->use_clock(clock);
    open(*rig);
  }
  second.tier().forget_all();
  await_drop(second);
  clock.advance(seconds(10));
  ASSERT_EQ(second.reopen().text(), Status().text());
  write(second, 0, 8);
  ASSERT_EQ(second.reopen().text(), Status().text());
  expect_served(second, 0, 8);
  second.close();
  clock.advance(seconds(10));
  first.tier().forget_all();
  await_drop(first);
  first.close();
  open(first);
  open(second);
  expect_none(first, 0, 8);
  expect_none(second, 0, 8);
}

// The clock was set back in between: what counts is the order.
TEST_F(DiskResetTest, AClockThatStepsBackHidesNoReset) {
  const SkewedClock ahead(1'000'000);
  const SkewedClock back(-1'000'000);
  Rig rig;
  use_two_paths(rig);
  with_faults(rig);
  for (const SkewedClock* clock : {&ahead, &back, &back}) {
    rig.use_clock(*clock);
    open(rig);
    expect_none(rig, 0, 12);
    write(rig, 0, 12);
    rig.settle();
    faults_->aim(Fault::kError, IoOp::kWrite, 1'000'000, "b/terrace-00/ns-0001/slots.meta");
    rig.tier().forget_all();
    try_in_vain(rig, 1);
    rig.close();
  }
  open(rig);
  expect_none(rig, 0, 12);
}

TEST_F(DiskResetTest, AnAddedPathDropsNothing) {
  Rig rig;
  rig.options().paths = {rig.path() + "/a"};
  open(rig);
  rig.tier().forget_all();
  await_drop(rig);
  ASSERT_EQ(rig.reopen().text(), Status().text());
  write(rig, 0, 6);
  rig.close();
  use_two_paths(rig);
  open(rig);
  rig.settle();
  expect_served(rig, 0, 6);
  write(rig, 6, 12);
  ASSERT_EQ(rig.reopen().text(), Status().text());
  expect_served(rig, 0, 12);
}

TEST_F(DiskResetTest, ItsSpaceIsTakenBeforeAnybodyElses) {
  Rig rig;
  rig.options().blocks = 48;
  open(rig);
  write(rig, 0, 14);  // model-a, used longest ago.
  rig.close();
  write_text(rig.owner() + "/ns-0001/used.txt", "1000\n");
  rig.set_model("model-b");
  open(rig);
  write(rig, 100, 120);
  rig.tier().forget_all();
  write(rig, 200, 220);
  rig.close();
  write_text(rig.owner() + "/ns-0002/used.txt", "2000\n");
  rig.set_model("model-c");
  open(rig);
  write(rig, 300, 320);
  rig.close();
  rig.set_model("model-a");
  open(rig);
  expect_served(rig, 0, 14);
}

// What ends with the process costs neither records nor their syncs.
TEST_F(DiskResetTest, BlocksStoredAfterwardsNeedNoBatch) {
  Rig rig;
  open(rig);
  write(rig, 0, 16);
  rig.tier().forget_all();
  rig.settle();
  const double batches = rig.metric("terrace_disk_batches_total");
  write(rig, 0, 16);
  expect_served(rig, 0, 16);
  EXPECT_EQ(rig.metric("terrace_disk_batches_total"), batches);
}

}  // namespace
}  // namespace terrace::tier::disk
