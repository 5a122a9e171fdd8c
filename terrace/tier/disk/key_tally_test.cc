// What inspect_directory and verify_directory say of encrypted blocks, with keys and without.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>

#include "terrace/testing/crypt.h"
#include "terrace/tier/disk/disk_fixture.h"
#include "terrace/tier/disk/format_internal.h"
#include "terrace/tier/disk/inspect.h"
#include "terrace/tier/disk/verify.h"
#include "terrace/wire/frame.h"

namespace terrace::tier::disk {
namespace {

using ::testing::HasSubstr;
using testing::id_of;
using ::testing::IsEmpty;
using testing::ring_of;

class KeyTallyTest : public DiskFixture {
 protected:
  // Blocks first … end, under key "1", …; "" = plain.
  void store(const std::string& keys, std::uint64_t first, std::uint64_t end) {
    rig_.options().crypt.ring = ring_of(keys);
    ASSERT_EQ(rig_.open().text(), Status().text());
    write_blocks(first, end);
    rig_.settle();
    rig_.close();
  }
  [[nodiscard]] KeyUses inspected(const std::string& keys) const {
    const auto owners = inspect_directory(rig_.path(), ring_of(keys));
    if (!owners || owners->size() != 1 || owners->front().namespaces.size() != 1) {
      ADD_FAILURE() << "not one namespace";
      return {};
    }
    return owners->front().namespaces[0].encryption;
  }
  [[nodiscard]] VerifiedOwner verified(const std::string& keys) const {
    const auto owners = verify_directory(rig_.path(), [](const VerifyProgress&) {}, ring_of(keys));
    if (!owners || owners->size() != 1 || owners->front().namespaces.size() != 1) {
      ADD_FAILURE() << "not one namespace";
      return {};
    }
    return owners->front();
  }
};

const KeyUse* use_of(const KeyUses& uses, char digit) {
  for (const KeyUse& use : uses.keys) {
    if (use.id == id_of(digit)) return &use;
  }
  return nullptr;
}

TEST_F(KeyTallyTest, BlocksAreCountedByKeyAndThoseAtHandAreSaid) {
  store("", 0, 2);
  store("1", 10, 13);
  store("2", 20, 21);
  for (const char* const keys : {"", "1", "12", "3"}) {
    SCOPED_TRACE(keys);
    const KeyUses uses = inspected(keys);
    EXPECT_EQ(uses.plain_blocks, 2U);
    ASSERT_EQ(uses.keys.size(), 2U);
    const KeyUse* one = use_of(uses, '1');
    const KeyUse* two = use_of(uses, '2');
    ASSERT_TRUE(one != nullptr && two != nullptr) << "the names come from frames, not from keys";
    EXPECT_EQ(one->blocks, 3U);
    EXPECT_EQ(two->blocks, 1U);
    EXPECT_EQ(one->is_at_hand, std::string_view(keys).contains('1'));
    EXPECT_EQ(two->is_at_hand, std::string_view(keys).contains('2'));
    EXPECT_EQ(one->opened, 0U);
  }
}

TEST_F(KeyTallyTest, WhereNoFrameIsWholeTheRecordsTagIsAllThatIsKnown) {
  store("1", 0, 2);
  std::filesystem::resize_file(slots(), 0);
  std::filesystem::resize_file(slots(), 1U << 20U);
  for (const char* const keys : {"", "1"}) {
    const KeyUses uses = inspected(keys);
    ASSERT_EQ(uses.keys.size(), 1U);
    EXPECT_EQ(uses.keys[0].id, "");
    EXPECT_EQ(uses.keys[0].tag, key_id_of(*parse_master_key(std::string(64, '1'))).tag());
    EXPECT_EQ(uses.keys[0].blocks, 2U);
    EXPECT_EQ(uses.keys[0].is_at_hand, *keys == '1');
  }
}

TEST_F(KeyTallyTest, AKeyWhoseFirstFramesAreDamagedIsNamedByTheOthers) {
  store("", 0, 1);
  store("1", 1, 4);
  flip_bit(slots(), kFrame + 20);
  flip_bit(slots(), 2 * kFrame + 20);
  EXPECT_NE(use_of(inspected(""), '1'), nullptr);
}

TEST_F(KeyTallyTest, WithoutTheKeyFramesAreVerifiedAsTheyAreStored) {
  store("1", 0, 3);
  for (const char* const keys : {"", "2"}) {
    SCOPED_TRACE(keys);
    const VerifiedOwner owner = verified(keys);
    EXPECT_TRUE(owner.is_good());
    EXPECT_EQ(owner.namespaces[0].good_blocks, 3U);
    ASSERT_EQ(owner.namespaces[0].encryption.keys.size(), 1U);
    const KeyUse& use = owner.namespaces[0].encryption.keys[0];
    EXPECT_EQ(use.id, id_of('1'));
    EXPECT_FALSE(use.is_at_hand);
    EXPECT_EQ(use.blocks, 3U);
    EXPECT_EQ(use.opened, 0U);
  }
  flip_bit(slots(), kFrame + 4096 + 99);
  EXPECT_EQ(verified("").namespaces[0].damaged_blocks, 1U) << "damage is seen without a key";
}

TEST_F(KeyTallyTest, WithTheKeyEveryFrameIsOpened) {
  store("1", 0, 3);
  store("21", 10, 12);
  const VerifiedOwner owner = verified("12");
  EXPECT_TRUE(owner.is_good());
  const KeyUses& uses = owner.namespaces[0].encryption;
  ASSERT_TRUE(use_of(uses, '1') != nullptr && use_of(uses, '2') != nullptr);
  EXPECT_EQ(use_of(uses, '1')->opened, 3U);
  EXPECT_EQ(use_of(uses, '2')->opened, 2U);
  EXPECT_EQ(use_of(verified("2").namespaces[0].encryption, '1')->opened, 0U);
}

// Its checksums are right, so only who has the key can tell.
TEST_F(KeyTallyTest, AFrameThatTheKeyDidNotSealIsDamageForWhoHasIt) {
  store("1", 0, 3);
  std::string page = bytes_of("0.slots", kFrame, wire::kFrameHeaderBytes);
  auto header = wire::decode_frame(std::as_bytes(std::span(page)).first<wire::kFrameHeaderBytes>());
  ASSERT_TRUE(header.has_value());
  header->seal.tag[3] ^= 1;
  wire::encode(*header, std::as_writable_bytes(std::span(page)).first<wire::kFrameHeaderBytes>());
  patch("0.slots", kFrame, page);
  EXPECT_TRUE(verified("").is_good());
  const VerifiedOwner owner = verified("1");
  EXPECT_FALSE(owner.is_good());
  ASSERT_EQ(owner.namespaces[0].damage.size(), 1U);
  EXPECT_THAT(owner.namespaces[0].damage[0].reason, HasSubstr("not what key " + id_of('1')));
  EXPECT_EQ(use_of(owner.namespaces[0].encryption, '1')->opened, 2U);
}

TEST_F(KeyTallyTest, AFrameThatIsNotEncryptedAsItsRecordSaysIsDamage) {
  store("1", 0, 2);
  const BlockMemory plain = rig_.block(1);
  std::string page = bytes_of("0.slots", kFrame, wire::kFrameHeaderBytes);
  auto header = wire::decode_frame(std::as_bytes(std::span(page)).first<wire::kFrameHeaderBytes>());
  ASSERT_TRUE(header.has_value());
  header->codec = wire::FrameCodec::kRaw;
  header->seal = {};
  header->payload_checksum = plain.checksums()[0];
  wire::encode(*header, std::as_writable_bytes(std::span(page)).first<wire::kFrameHeaderBytes>());
  page.append(reinterpret_cast<const char*>(plain.shards()[0].payload), 8192);
  patch("0.slots", kFrame, page);
  for (const char* const keys : {"", "1"}) {
    const VerifiedOwner owner = verified(keys);
    ASSERT_EQ(owner.namespaces[0].damage.size(), 1U);
    EXPECT_THAT(owner.namespaces[0].damage[0].reason, HasSubstr("it is not"));
  }
}

TEST_F(KeyTallyTest, AFrameUnderAnotherKeyThanItsRecordSaysIsDamage) {
  store("1", 0, 2);
  std::string page = bytes_of("0.slots", kFrame, wire::kFrameHeaderBytes);
  auto header = wire::decode_frame(std::as_bytes(std::span(page)).first<wire::kFrameHeaderBytes>());
  ASSERT_TRUE(header.has_value());
  header->seal.key = testing::key_id('2');
  wire::encode(*header, std::as_writable_bytes(std::span(page)).first<wire::kFrameHeaderBytes>());
  patch("0.slots", kFrame, page);
  const VerifiedOwner owner = verified("");
  ASSERT_EQ(owner.namespaces[0].damage.size(), 1U);
  EXPECT_THAT(owner.namespaces[0].damage[0].reason, HasSubstr("a key that its record does not"));
}

TEST_F(KeyTallyTest, AFrameOfACodecThatNobodyKnowsIsDamageAndNeedsNoKey) {
  store("", 0, 2);
  std::string page = bytes_of("0.slots", kFrame, wire::kFrameHeaderBytes);
  auto header = wire::decode_frame(std::as_bytes(std::span(page)).first<wire::kFrameHeaderBytes>());
  ASSERT_TRUE(header.has_value());
  header->codec = static_cast<wire::FrameCodec>(7);
  wire::encode(*header, std::as_writable_bytes(std::span(page)).first<wire::kFrameHeaderBytes>());
  patch("0.slots", kFrame, page);
  const VerifiedOwner owner = verified("");
  EXPECT_FALSE(owner.is_good());
  EXPECT_EQ(owner.namespaces[0].damaged_blocks, 1U);
}

// Several ranks: a block is opened when all its frames are.
TEST(KeyTallyRanksTest, ABlockOfWhichOneRanksFrameIsForgedIsNotOpened) {
  Rig rig({.ranks = 2, .payload_bytes = {8192}});
  rig.options().crypt.ring = ring_of("1");
  ASSERT_TRUE(rig.open().is_ok());
  for (std::uint64_t n = 0; n < 2; ++n) ASSERT_TRUE(rig.write(n).is_ok());
  rig.settle();
  rig.close();
  const std::string slots = rig.owner() + "/0.slots";
  std::string page = tree(rig.path()).at(slots).substr(kFrame, wire::kFrameHeaderBytes);
  auto header = wire::decode_frame(std::as_bytes(std::span(page)).first<wire::kFrameHeaderBytes>());
  ASSERT_TRUE(header.has_value());
  ASSERT_EQ(header->rank, RankId(1));
  header->seal.hidden[0] ^= 1;
  wire::encode(*header, std::as_writable_bytes(std::span(page)).first<wire::kFrameHeaderBytes>());
  std::fstream(slots, std::ios::in | std::ios::out | std::ios::binary).seekp(kFrame) << page;
  const auto owners = verify_directory(rig.path(), [](const VerifyProgress&) {}, ring_of("1"));
  ASSERT_TRUE(owners.has_value());
  const VerifiedNamespace& found = owners->front().namespaces[0];
  EXPECT_EQ(found.damaged_blocks, 1U);
  ASSERT_EQ(found.damage.size(), 1U);
  EXPECT_EQ(found.damage[0].rank, 1U);
  ASSERT_EQ(found.encryption.keys.size(), 1U);
  EXPECT_EQ(found.encryption.keys[0].opened, 1U);
}

TEST_F(KeyTallyTest, APlainDirectorySaysSoWhateverKeysAreAtHand) {
  store("", 0, 2);
  for (const char* const keys : {"", "1"}) {
    EXPECT_EQ(inspected(keys).plain_blocks, 2U);
    EXPECT_THAT(inspected(keys).keys, IsEmpty());
    EXPECT_EQ(verified(keys).namespaces[0].encryption.plain_blocks, 2U);
    EXPECT_TRUE(verified(keys).is_good());
  }
}

}  // namespace
}  // namespace terrace::tier::disk
