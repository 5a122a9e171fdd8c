// verify_directory on directories that a real tier has written, whole and damaged.
#include "terrace/tier/disk/verify.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>

#include "terrace/tier/disk/disk_fixture.h"
#include "terrace/tier/disk/format_internal.h"

namespace terrace::tier::disk {
namespace {

using ::testing::HasSubstr;

VerifiedOwner verify(const std::string& path) {
  const auto owners = verify_directory(path, [](const VerifyProgress&) {});
  EXPECT_TRUE(owners.has_value());
  if (!owners.has_value() || owners->size() != 1) {
    ADD_FAILURE() << "not one owner directory";
    return {};
  }
  return owners->front();
}

void write_blocks(Rig& rig, std::uint64_t first, std::uint64_t end, std::size_t group = 0) {
  for (std::uint64_t n = first; n < end; ++n) {
    ASSERT_EQ(rig.write(n, group).text(), Status().text()) << n;
  }
}

class VerifyTest : public DiskFixture {
 protected:
  void SetUp() override {
    ASSERT_TRUE(rig_.open().is_ok());
    write_blocks(0, 4);
    rig_.settle();
    rig_.close();
  }
  [[nodiscard]] std::string meta() const { return file("ns-0001/slots.meta"); }
};

TEST_F(VerifyTest, AWholeDirectoryIsGoodAndStaysAsItIs) {
  const auto before = tree(rig_.path());
  std::uint64_t last = 0;
  std::uint64_t of = 0;
  const auto owners = verify_directory(rig_.path(), [&](const VerifyProgress& progress) {
    EXPECT_EQ(progress.blocks, last + 1);
    last = progress.blocks;
    of = progress.of;
  });
  ASSERT_TRUE(owners.has_value());
  ASSERT_EQ(owners->size(), 1U);
  EXPECT_TRUE(owners->front().is_good());
  EXPECT_EQ(last, 4U);
  EXPECT_EQ(of, 4U);
  ASSERT_EQ(owners->front().namespaces.size(), 1U);
  EXPECT_EQ(owners->front().namespaces[0].good_blocks, 4U);
  EXPECT_EQ(owners->front().namespaces[0].bytes, 4 * kFrame);
  EXPECT_EQ(tree(rig_.path()), before);
}

TEST_F(VerifyTest, DamageIsNamedByFileOffsetAndKey) {
  flip_bit(slots(), 2 * kFrame + 4096 + 17);  // A payload.
  flip_bit(slots(), 3 * kFrame + 45);         // A header.
  const VerifiedOwner owner = verify(rig_.path());
  EXPECT_FALSE(owner.is_good());
  ASSERT_EQ(owner.namespaces.size(), 1U);
  const VerifiedNamespace& found = owner.namespaces[0];
  EXPECT_EQ(found.good_blocks, 2U);
  EXPECT_EQ(found.damaged_blocks, 2U);
  ASSERT_EQ(found.damage.size(), 2U);
  EXPECT_EQ(found.damage[0].file, slots());
  EXPECT_EQ(found.damage[0].offset, 2 * kFrame);
  EXPECT_EQ(found.damage[0].key, hash_of(2).hex());
  EXPECT_THAT(found.damage[0].reason, HasSubstr("checksum"));
  EXPECT_EQ(found.damage[1].offset, 3 * kFrame);
  EXPECT_EQ(found.damage[1].key, hash_of(3).hex());
}

TEST_F(VerifyTest, AFrameThatStandsAtAnothersPlaceIsDamage) {
  {
    std::fstream file(slots(), std::ios::in | std::ios::out | std::ios::binary);
    std::string frame(kFrame, '\0');
    file.read(frame.data(), kFrame);
    file.seekp(kFrame);
    file.write(frame.data(), kFrame);
  }
  const VerifiedOwner owner = verify(rig_.path());
  ASSERT_EQ(owner.namespaces[0].damage.size(), 1U);
  EXPECT_THAT(owner.namespaces[0].damage[0].reason, HasSubstr("another block's"));
}

TEST_F(VerifyTest, ADamagedRecordIsNamed) {
  flip_bit(meta(), kRecordsOffset + 64 + 3);
  const VerifiedOwner owner = verify(rig_.path());
  EXPECT_FALSE(owner.is_good());
  const VerifiedNamespace& found = owner.namespaces[0];
  EXPECT_EQ(found.damaged_records, 1U);
  EXPECT_EQ(found.sealed_blocks, 3U);
  ASSERT_EQ(found.damage.size(), 1U);
  EXPECT_EQ(found.damage[0].file, meta());
  EXPECT_EQ(found.damage[0].offset, kRecordsOffset + 64);
}

TEST_F(VerifyTest, ASlotsMetaThatWasCutIsNotGood) {
  std::filesystem::resize_file(meta(), kRecordsOffset + 2 * kSlotRecordBytes + 10);
  const VerifiedOwner owner = verify(rig_.path());
  EXPECT_FALSE(owner.is_good());
  EXPECT_EQ(owner.namespaces[0].good_blocks, 2U);
  EXPECT_THAT(owner.namespaces[0].problem, HasSubstr("slots.meta was cut, it lacks"));
}

TEST_F(VerifyTest, ASlotFileThatWasCutIsDamage) {
  std::filesystem::resize_file(slots(), 2 * kFrame + 4096);
  const VerifiedOwner owner = verify(rig_.path());
  EXPECT_EQ(owner.namespaces[0].damaged_blocks, 2U);
  EXPECT_EQ(owner.namespaces[0].good_blocks, 2U);
}

TEST_F(VerifyTest, WhereNoFrameIsWholeItSaysThatItCannotTell) {
  std::filesystem::resize_file(slots(), 0);
  std::filesystem::resize_file(slots(), 1U << 20U);
  const VerifiedOwner owner = verify(rig_.path());
  EXPECT_FALSE(owner.is_good());
  EXPECT_EQ(owner.namespaces[0].unread_blocks, 4U);
  EXPECT_THAT(owner.namespaces[0].problem, HasSubstr("too few frames are whole"));
}

TEST_F(VerifyTest, AHeaderOfAnotherKindIsSaid) {
  flip_bit(rig_.owner() + "/extents.meta", 1);
  EXPECT_THAT(verify(rig_.path()).problem, HasSubstr("extents.meta"));
}

TEST_F(VerifyTest, DamagedClaimsAndTextsAreSaid) {
  flip_bit(file("extents.meta"), kPageBytes + 5);
  const VerifiedOwner owner = verify(rig_.path());
  EXPECT_EQ(owner.damaged_extents, 1U);
  EXPECT_FALSE(owner.is_good());
  flip_bit(file("extents.meta"), kPageBytes + 5);
  EXPECT_TRUE(verify(rig_.path()).is_good());
  write_text(file("ns-0001/fingerprint.txt"), "content.model=model-z\n");
  const VerifiedOwner other = verify(rig_.path());
  EXPECT_FALSE(other.is_good());
  EXPECT_THAT(other.namespaces[0].problem, HasSubstr("fingerprint.txt: "));
  EXPECT_EQ(other.namespaces[0].good_blocks, 4U) << "its frames say whose they are";
}

TEST_F(VerifyTest, WithoutSlotsMetaItsBlocksAreToldAsMisses) {
  std::filesystem::remove(meta());
  const VerifiedOwner owner = verify(rig_.path());
  EXPECT_FALSE(owner.is_good());
  EXPECT_THAT(owner.namespaces[0].problem, HasSubstr("slots.meta is missing"));
}

TEST_F(VerifyTest, ADirectoryThatAnEngineHasIsLeftOutAndSaid) {
  ASSERT_TRUE(rig_.open().is_ok());
  const VerifiedOwner owner = verify(rig_.path());
  EXPECT_TRUE(owner.is_in_use);
  EXPECT_FALSE(owner.is_good());
  EXPECT_TRUE(owner.namespaces.empty());
  EXPECT_TRUE(rig_.read(1).is_ok());
}

// What an engine that starts meanwhile writes under the reads is no damage.
TEST_F(VerifyTest, AnEngineThatComesMeanwhileEndsIt) {
  const auto owners = verify_directory(rig_.path(), [&](const VerifyProgress& progress) {
    if (progress.blocks != 1) return;
    ASSERT_TRUE(rig_.open().is_ok());
  });
  ASSERT_TRUE(owners.has_value());
  EXPECT_TRUE(owners->front().is_in_use);
  EXPECT_TRUE(owners->front().namespaces.empty());
}

TEST_F(VerifyTest, OneOwnerDirectoryCanBeNamedItself) {
  EXPECT_TRUE(verify(rig_.owner()).is_good());
  EXPECT_TRUE(verify(rig_.owner() + "/").is_good());
  EXPECT_FALSE(verify_directory("/nonexistent", [](const VerifyProgress&) {}).has_value());
}

TEST_F(VerifyTest, EveryNamespaceIsReadByItsOwnKey) {
  rig_.set_model("model-b");
  ASSERT_TRUE(rig_.open().is_ok());
  write_blocks(20, 22);
  rig_.settle();
  rig_.close();
  const VerifiedOwner owner = verify(rig_.path());
  EXPECT_TRUE(owner.is_good());
  ASSERT_EQ(owner.namespaces.size(), 2U);
  EXPECT_EQ(owner.namespaces[0].good_blocks + owner.namespaces[1].good_blocks, 6U);
}

// Nothing on the medium says how large frames are and how many ranks there are but the frames.
struct Shapes {
  std::uint16_t ranks;
  std::vector<std::uint64_t> payload_bytes;
};
class VerifyShapeTest : public ::testing::TestWithParam<Shapes> {};

TEST_P(VerifyShapeTest, FramesOfEveryGroupAndRankAreFound) {
  const Shapes& shape = GetParam();
  Rig rig({.ranks = shape.ranks, .payload_bytes = shape.payload_bytes});
  rig.options().blocks = 40;
  ASSERT_TRUE(rig.open().is_ok());
  const std::size_t groups = shape.payload_bytes.size();
  for (std::size_t group = 0; group < groups; ++group) write_blocks(rig, 0, 30 - group, group);
  rig.settle();
  rig.close();
  const VerifiedOwner owner = verify(rig.path());
  ASSERT_EQ(owner.namespaces.size(), 1U);
  EXPECT_EQ(owner.namespaces[0].problem, "");
  std::uint64_t blocks = 0;
  for (std::size_t group = 0; group < groups; ++group) blocks += 30 - group;
  EXPECT_EQ(owner.namespaces[0].good_blocks, blocks);
  EXPECT_TRUE(owner.is_good());
}

INSTANTIATE_TEST_SUITE_P(Sizes, VerifyShapeTest,
                         ::testing::Values(Shapes{1, {8192}}, Shapes{2, {8192}},
                                           Shapes{1, {100, 40'000}}, Shapes{3, {4096, 20'000, 5}},
                                           Shapes{8, {65'536}}, Shapes{2, {300'000, 4096}}));

TEST(VerifyShapeDamageTest, AGroupWhoseFirstSlotIsDamagedIsFoundByTheOthers) {
  Rig rig({.ranks = 2, .payload_bytes = {8192, 20'000}});
  ASSERT_TRUE(rig.open().is_ok());
  write_blocks(rig, 0, 4, 0);
  write_blocks(rig, 0, 4, 1);
  rig.settle();
  rig.close();
  const VerifiedOwner before = verify(rig.path());
  ASSERT_TRUE(before.is_good());
  // The first frame of group 1, wherever it stands: the one with that group and the first hash.
  std::string bytes = tree(rig.path()).at(rig.owner() + "/0.slots");
  std::size_t at = 0;
  for (std::size_t page = 0; page + 4096 <= bytes.size(); page += 4096) {
    const bool is_frame = bytes.compare(page, 8, "TRCFRAME") == 0;
    if (is_frame && bytes[page + 14] == 1) {
      at = page;
      break;
    }
  }
  ASSERT_GT(at, 0U);
  flip_bit(rig.owner() + "/0.slots", at + 50);
  const VerifiedOwner owner = verify(rig.path());
  ASSERT_EQ(owner.namespaces[0].damage.size(), 1U);
  EXPECT_EQ(owner.namespaces[0].damage[0].offset, at);
  EXPECT_EQ(owner.namespaces[0].damage[0].group, 1U);
  EXPECT_EQ(owner.namespaces[0].good_blocks, 7U);
}

}  // namespace
}  // namespace terrace::tier::disk
