// What a tier writes by itself while it opens.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <optional>
#include <string>
#include <vector>

#include "terrace/testing/file_calls.h"
#include "terrace/tier/disk/disk_fixture.h"
#include "terrace/tier/disk/format_internal.h"

namespace terrace::tier::disk {
namespace {

using ::testing::Contains;
using ::testing::HasSubstr;
using ::testing::IsSupersetOf;
using ::testing::Not;
using transfer::Fault;
using transfer::IoOp;
using Kind = terrace::testing::FileChange::Kind;

// The changes of one file: the offsets of what was written since its last sync, and all offsets.
class Seen final : public terrace::testing::FileWatch {
 public:
  explicit Seen(std::string path) : path_(std::move(path)) {}
  void on_change(const terrace::testing::FileChange& change) override {
    if (change.path != path_) return;
    if (change.kind == Kind::kWrite) {
      written.push_back(change.offset);
      ++unsynced;
    }
    if (change.kind == Kind::kSync) unsynced = 0;
  }
  bool fails_sync(const std::string& path) override { return is_failing && path == path_; }
  std::vector<std::uint64_t> written;
  int unsynced = 0;
  bool is_failing = false;

 private:
  const std::string path_;
};

// A killed owner may have left them in the system's hands, and a sync that had failed leaves a
// later one nothing to do.
TEST(DiskOpeningTest, HeadersAndClaimsAreWrittenAnewAndSyncedBeforeAnythingIsBuiltOnThem) {
  Rig rig;
  ASSERT_TRUE(rig.open().is_ok());
  ASSERT_TRUE(rig.write(1).is_ok());
  rig.settle();
  rig.close();
  const auto before = tree(rig.path());
  const std::string meta = rig.owner() + "/ns-0001/slots.meta";
  const std::string extents = rig.owner() + "/extents.meta";
  {
    const Seen claims(extents);
    ASSERT_TRUE(rig.open().is_ok());
    EXPECT_THAT(claims.written, IsSupersetOf({std::uint64_t{kPageBytes}}));
    EXPECT_EQ(claims.unsynced, 0);
  }
  EXPECT_TRUE(rig.read(1).is_ok());
  rig.close();
  {
    const Seen headers(meta);
    ASSERT_TRUE(rig.open().is_ok());
    EXPECT_THAT(headers.written, IsSupersetOf({std::uint64_t{0}, std::uint64_t{kPageBytes}}));
    EXPECT_EQ(headers.unsynced, 0);
  }
  EXPECT_TRUE(rig.read(1).is_ok());
  rig.close();
  const auto after = tree(rig.path());
  EXPECT_EQ(after.at(meta), before.at(meta)) << "as they were found";
  EXPECT_EQ(after.at(extents), before.at(extents));
}

// Should the owner be killed, the system goes on showing the next one what a failed sync has not
// brought to the medium.
class DiskDoubtTest : public DiskFixture {
 protected:
  static constexpr const char* kMeta = "ns-0001/slots.meta";

  // None while its copies differ or one of them is not whole: the tier is writing them.
  [[nodiscard]] std::optional<MetaHeader> header() const {
    std::vector<std::optional<MetaHeader>> copies;
    for (std::size_t copy = 0; copy < kMetaHeaderCopies; ++copy) {
      const std::string bytes = bytes_of(kMeta, copy * kPageBytes, kPageBytes);
      copies.push_back(decode_meta(std::as_bytes(std::span(bytes)).first<kPageBytes>()));
    }
    return copies[0] == copies[1] ? copies[0] : std::nullopt;
  }
  [[nodiscard]] bool is_in_doubt() const {
    const auto found = header();
    EXPECT_TRUE(found.has_value());
    return found.value_or(MetaHeader{}).is_in_doubt;
  }
  // True when the records are written anew; the tier is open afterwards.
  bool opens_with_records() {
    rig_.options().decorate = nullptr;
    const Seen meta(file(kMeta));
    EXPECT_EQ(rig_.open().text(), Status().text());
    EXPECT_EQ(meta.unsynced, 0);
    return std::ranges::find(meta.written, std::uint64_t{kRecordsOffset}) != meta.written.end();
  }
};

TEST_F(DiskDoubtTest, AFailedSyncIsSaidInTheHeaderAndTheNextOwnerWritesTheRecordsAnew) {
  open_with_faults();
  write_blocks(0, 2);
  EXPECT_FALSE(is_in_doubt());
  faults_->aim(Fault::kError, IoOp::kSync, 1, "slots.meta");
  ASSERT_EQ(rig_.write(2).code(), Code::kIo);
  EXPECT_TRUE(is_in_doubt()) << "before the failure is told";
  write_blocks(2, 3);
  EXPECT_TRUE(is_in_doubt()) << "no later sync makes up for it";
  rig_.close();
  const std::string records = bytes_of(kMeta, kRecordsOffset, kPageBytes);
  EXPECT_TRUE(opens_with_records());
  EXPECT_THAT(rig_.log(), HasSubstr("sync=failed_before"));
  EXPECT_FALSE(is_in_doubt());
  EXPECT_EQ(bytes_of(kMeta, kRecordsOffset, kPageBytes), records);
  for (std::uint64_t n = 0; n < 3; ++n) EXPECT_TRUE(rig_.read(n).is_ok()) << n;
  rig_.close();
  EXPECT_FALSE(opens_with_records()) << "once";
}

TEST_F(DiskDoubtTest, AFailedSyncOfAClaimIsSaidToo) {
  open_with_faults();
  faults_->aim(Fault::kError, IoOp::kSync, 1, "extents.meta");
  ASSERT_EQ(rig_.write(0).code(), Code::kIo);
  EXPECT_TRUE(is_in_doubt());
}

TEST_F(DiskDoubtTest, AFailedSyncOfTheSlotFileLeavesNoRecordInDoubt) {
  open_with_faults();
  write_blocks(0, 1);
  faults_->aim(Fault::kError, IoOp::kSync, 1, "0.slots");
  ASSERT_EQ(rig_.write(1).code(), Code::kIo);
  EXPECT_FALSE(is_in_doubt());
}

TEST_F(DiskDoubtTest, AResetWhoseSyncFailsIsShownAsFarAsItWent) {
  open_with_faults();
  write_blocks(0, 1);
  const std::uint32_t epoch = header().value_or(MetaHeader{}).epoch;
  faults_->aim(Fault::kError, IoOp::kSync, 1, "slots.meta");
  rig_.tier().forget_all();
  MetaHeader shown;
  ASSERT_TRUE(poll_until([&] {
    shown = header().value_or(MetaHeader{});
    return shown.is_in_doubt;
  }));
  EXPECT_EQ(shown.epoch, epoch + 1);
  ASSERT_TRUE(poll_until([&] { return !rig_.tier().is_drop_pending(); }));
  EXPECT_TRUE(is_in_doubt()) << "the next header says so, too";
  rig_.close();
  (void)opens_with_records();
  EXPECT_FALSE(is_in_doubt());
  EXPECT_FALSE(rig_.has(0));
}

TEST_F(DiskDoubtTest, OneCopyOfTheHeaderIsEnough) {
  open_with_faults();
  write_blocks(0, 1);
  faults_->aim(Fault::kError, IoOp::kSync, 1, "slots.meta");
  ASSERT_EQ(rig_.write(1).code(), Code::kIo);
  rig_.close();
  patch(kMeta, 0, std::string(kPageBytes, '\0'));
  EXPECT_TRUE(opens_with_records());
  EXPECT_TRUE(rig_.read(0).is_ok());
}

TEST_F(DiskDoubtTest, AnOpeningThatCannotSyncLeavesItInDoubt) {
  ASSERT_TRUE(rig_.open().is_ok());
  write_blocks(0, 1);
  rig_.close();
  {
    Seen meta(file(kMeta));
    meta.is_failing = true;
    EXPECT_FALSE(rig_.open().is_ok());
    EXPECT_THAT(meta.written, Not(Contains(std::uint64_t{kRecordsOffset})));
  }
  rig_.close();
  EXPECT_TRUE(is_in_doubt());
  EXPECT_TRUE(opens_with_records());
  EXPECT_FALSE(is_in_doubt());
  EXPECT_TRUE(rig_.read(0).is_ok());
}

}  // namespace
}  // namespace terrace::tier::disk
