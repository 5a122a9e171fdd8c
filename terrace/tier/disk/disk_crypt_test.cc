// Encrypted blocks on disk: found again with the key and missed without it, nothing lost for want
// of one, and no frame opens in another's place, however well its header was made to fit.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>
#include <string>
#include <vector>

#include "terrace/base/thread.h"
#include "terrace/testing/crypt.h"
#include "terrace/tier/disk/disk_fixture.h"
#include "terrace/wire/frame.h"

namespace terrace::tier::disk {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using testing::id_of;
using ::testing::IsEmpty;
using ::testing::Not;
using testing::ring_of;
using testing::SlowHands;

constexpr const char* kCorrupt = "terrace_disk_corrupt_blocks_total";
constexpr const char* kForged = "terrace_disk_forged_frames_total";
constexpr const char* kLocked = "terrace_disk_locked_slots";

class DiskCryptTest : public DiskFixture {
 protected:
  void open(const std::string& keys) {
    rig_.close();
    rig_.options().crypt.ring = ring_of(keys);
    ASSERT_EQ(rig_.open().text(), Status().text());
  }
  void expect_right(std::uint64_t first, std::uint64_t end) {
    for (std::uint64_t n = first; n < end; ++n) {
      EXPECT_EQ(rig_.read(n).text(), Status().text()) << n;
    }
  }
  void expect_missed(std::uint64_t first, std::uint64_t end) {
    for (std::uint64_t n = first; n < end; ++n) {
      EXPECT_FALSE(rig_.has(n)) << n;
      EXPECT_EQ(rig_.read(n).code(), Code::kNotFound) << n;
    }
  }
  using DiskFixture::bytes_of;
  [[nodiscard]] std::string bytes_of(std::uint64_t offset, std::size_t count) const {
    return bytes_of("0.slots", offset, count);
  }
  using DiskFixture::patch;
  void patch(std::uint64_t offset, const std::string& bytes) const {
    patch("0.slots", offset, bytes);
  }
  void flip(std::uint64_t offset) const { flip_bit(slots(), offset); }
  [[nodiscard]] wire::FrameHeader header_at(std::uint64_t offset) const {
    const std::string page = bytes_of(offset, 4096);
    const auto header =
        wire::decode_frame(std::as_bytes(std::span(page)).first<wire::kFrameHeaderBytes>());
    EXPECT_TRUE(header.has_value());
    return header.value_or(wire::FrameHeader{});
  }
  // With a right checksum, as somebody would who has read the format.
  void put_header(std::uint64_t offset, const wire::FrameHeader& header) const {
    std::array<std::byte, wire::kFrameHeaderBytes> page;
    wire::encode(header, page);
    patch(offset, std::string(reinterpret_cast<const char*>(page.data()), page.size()));
  }
};

TEST_F(DiskCryptTest, BlocksAreFoundAgainWithTheKeyAndNothingOfThemLiesThereInClear) {
  open("1");
  write_blocks(0, 5);
  expect_right(0, 5);
  open("1");
  EXPECT_EQ(rig_.tier().key_ids(), id_of('1'));
  EXPECT_EQ(rig_.tier().count(catalog::SlotState::kSealed), 5U);
  expect_right(0, 5);
  EXPECT_EQ(rig_.metric(kCorrupt), 0);
  rig_.close();
  const std::string medium = bytes_of(0, 5 * kFrame);
  for (std::uint64_t n = 0; n < 5; ++n) {
    const BlockMemory plain = rig_.block(n);
    const std::string piece(reinterpret_cast<const char*>(plain.shards()[0].payload) + 512, 16);
    EXPECT_EQ(medium.find(piece), std::string::npos) << n;
    EXPECT_EQ(header_at(n * kFrame).codec, wire::FrameCodec::kAes256Gcm);
  }
}

TEST_F(DiskCryptTest, WithoutTheKeyBlocksAreMissedToldAndKept) {
  open("1");
  write_blocks(0, 4);
  for (const char* const keys : {"", "2"}) {
    SCOPED_TRACE(keys);
    open(keys);
    expect_missed(0, 4);
    EXPECT_EQ(rig_.metric(kLocked), *keys == 0 ? 4 : 6) << "and the plain ones of the first round";
    EXPECT_EQ(rig_.metric("terrace_disk_adopted_blocks_total"), 0);
    EXPECT_EQ(rig_.tier().count(catalog::SlotState::kSealed), 0U);
    EXPECT_THAT(rig_.tier().problems(), ElementsAre(HasSubstr(id_of('1'))));
    write_blocks(10, 12);
    expect_right(10, 12);
  }
  open("1");
  EXPECT_THAT(rig_.tier().problems(), ElementsAre(HasSubstr(id_of('2'))));
  expect_right(0, 4);
  EXPECT_EQ(rig_.metric(kCorrupt), 0);
  open("12");
  EXPECT_THAT(rig_.tier().problems(), IsEmpty());
  EXPECT_EQ(rig_.metric(kLocked), 2) << "the plain ones";
}

// They are others', as long as the key is away: nobody here can say whether they are whole.
TEST_F(DiskCryptTest, AScrubLeavesBlocksOfAnotherKeyAlone) {
  open("1");
  write_blocks(0, 3);
  open("2");
  write_blocks(3, 5);
  (void)rig_.tier().start_scrub(1ULL << 40U);
  ASSERT_TRUE(poll_until([&] { return !rig_.tier().scrub_report().is_running; }));
  const ScrubReport report = rig_.tier().scrub_report();
  EXPECT_EQ(report.good_blocks, 2U);
  EXPECT_EQ(report.bad_blocks, 0U);
  EXPECT_EQ(rig_.metric(kLocked), 3);
  EXPECT_EQ(rig_.tier().count(catalog::SlotState::kSealed), 2U);
  open("12");
  expect_right(0, 5);
}

TEST_F(DiskCryptTest, ARotationReadsBothKeysAndWritesTheNewOne) {
  open("1");
  write_blocks(0, 3);
  open("21");
  expect_right(0, 3);
  write_blocks(3, 6);
  EXPECT_EQ(header_at(3 * kFrame).seal.key.hex(), id_of('2'));
  open("2");
  expect_missed(0, 3);
  expect_right(3, 6);
  open("12");
  expect_right(0, 6);
}

TEST_F(DiskCryptTest, PlainBlocksAreServedBesideAKeyOnlyIfThatIsAllowed) {
  open("");
  write_blocks(0, 3);
  open("1");
  expect_missed(0, 3);
  EXPECT_THAT(rig_.tier().problems(), IsEmpty());
  EXPECT_THAT(rig_.log(), HasSubstr("encryption.accept_plain"));
  write_blocks(3, 5);
  rig_.options().crypt.accepts_plain = true;
  open("1");
  expect_right(0, 5);
  open("");
  expect_right(0, 3);
  expect_missed(3, 5);
}

// Who can write to the medium could otherwise plant blocks of his own.
TEST_F(DiskCryptTest, APlainFrameUnderARecordOfAnEncryptedOneIsNotServed) {
  open("1");
  write_blocks(0, 1);
  rig_.close();
  const BlockMemory wanted = rig_.block(0);
  const std::string stored = bytes_of(0, kFrame);
  wire::FrameHeader header = header_at(0);
  header.codec = wire::FrameCodec::kRaw;
  header.seal = {};
  header.payload_checksum = wanted.checksums()[0];
  put_header(0, header);
  patch(4096, std::string(reinterpret_cast<const char*>(wanted.shards()[0].payload), kPayload));
  open("1");
  EXPECT_TRUE(rig_.has(0));
  EXPECT_EQ(rig_.read(0).code(), Code::kNotFound);
  EXPECT_EQ(rig_.metric("terrace_disk_locked_blocks_total"), 1);
  EXPECT_FALSE(rig_.has(0));
  // It is not damaged: its record stays, for who finds the right frame there.
  rig_.settle();
  rig_.close();
  patch(0, stored);
  open("1");
  expect_right(0, 1);
}

class DiskCryptDamageTest : public DiskCryptTest,
                            public ::testing::WithParamInterface<std::uint64_t> {};

TEST_P(DiskCryptDamageTest, AFlippedBitIsACountedMiss) {
  open("1");
  write_blocks(0, 3);
  rig_.close();
  flip(kFrame + GetParam());
  open("1");
  EXPECT_EQ(rig_.read(1).code(), Code::kCorrupt);
  EXPECT_EQ(rig_.metric(kCorrupt), 1);
  EXPECT_EQ(rig_.metric(kForged), 0) << "damage is no forgery";
  EXPECT_FALSE(rig_.has(1));
  expect_right(0, 1);
  expect_right(2, 3);
  write_blocks(1, 2);
  expect_right(0, 3);
  open("1");
  expect_right(0, 3);
}

INSTANTIATE_TEST_SUITE_P(OfTheFrame, DiskCryptDamageTest,
                         ::testing::Values(0, 12, 32, 40, 60, 121, 130, 165, 180, 4090, 4096, 9000,
                                           kFrame - 1));

TEST_F(DiskCryptTest, AFrameMovedToAnotherBlocksSlotDoesNotOpen) {
  open("1");
  write_blocks(0, 3);
  rig_.close();
  const wire::FrameHeader wanted = header_at(kFrame);
  wire::FrameHeader moved = header_at(2 * kFrame);
  moved.hash = wanted.hash;
  moved.generation = wanted.generation;
  put_header(kFrame, moved);
  patch(kFrame + 4096, bytes_of(2 * kFrame + 4096, kPayload));
  open("1");
  EXPECT_EQ(rig_.read(1).code(), Code::kCorrupt);
  EXPECT_EQ(rig_.metric(kForged), 1);
  expect_right(2, 3);
}

// The same second block as another tenant stores it, with the same master key. (The first frame of
// a directory says whose it is.)
std::string frame_of_tenant_b() {
  Rig other;
  other.options().fingerprint.content.push_back({"tenant", "b"});
  other.options().crypt.ring = ring_of("1");
  EXPECT_TRUE(other.open().is_ok());
  EXPECT_TRUE(other.write(0).is_ok());
  EXPECT_TRUE(other.write(1).is_ok());
  other.close();
  std::ifstream file(other.owner() + "/0.slots", std::ios::binary);
  file.seekg(kFrame);
  std::string frame(kFrame, '\0');
  file.read(frame.data(), static_cast<std::streamsize>(frame.size()));
  return frame;
}

TEST_F(DiskCryptTest, AnotherTenantsFrameIsAnotherBlocks) {
  open("1");
  write_blocks(0, 2);
  rig_.close();
  patch(kFrame, frame_of_tenant_b());
  open("1");
  EXPECT_EQ(rig_.read(1).code(), Code::kCorrupt);
  EXPECT_EQ(rig_.metric(kForged), 0);
}

TEST_F(DiskCryptTest, AnotherTenantsFrameDoesNotOpenWhereItsHeaderWasMadeToFit) {
  open("1");
  write_blocks(0, 2);
  rig_.close();
  const std::string frame = frame_of_tenant_b();
  auto moved = wire::decode_frame(std::as_bytes(std::span(frame)).first<wire::kFrameHeaderBytes>());
  ASSERT_TRUE(moved.has_value());
  const wire::FrameHeader wanted = header_at(kFrame);
  EXPECT_NE(moved->content_digest, wanted.content_digest);
  moved->content_digest = wanted.content_digest;
  moved->generation = wanted.generation;
  moved->era = wanted.era;
  put_header(kFrame, *moved);
  patch(kFrame + 4096, frame.substr(4096));
  open("1");
  EXPECT_EQ(rig_.read(1).code(), Code::kCorrupt);
  EXPECT_EQ(rig_.metric(kForged), 1);
}

TEST_F(DiskCryptTest, LockedBlocksGiveWayByTheirAgeAndTheirTellingEnds) {
  open("1");
  write_blocks(0, 8);
  open("2");
  EXPECT_EQ(rig_.metric(kLocked), 8);
  write_blocks(10, 26);  // All 16 slots.
  EXPECT_EQ(rig_.metric(kLocked), 0);
  EXPECT_THAT(rig_.tier().take_evicted(), IsEmpty()) << "nobody was told that they were there";
  EXPECT_THAT(rig_.tier().problems(), IsEmpty());
  expect_right(10, 26);
  open("1");
  expect_missed(0, 8);
}

TEST_F(DiskCryptTest, AResetDropsLockedBlocksToo) {
  open("1");
  write_blocks(0, 4);
  open("2");
  rig_.tier().forget_all();
  rig_.settle();
  EXPECT_EQ(rig_.metric(kLocked), 0);
  write_blocks(20, 22);
  expect_right(20, 22);
  EXPECT_EQ(header_at(0).codec, wire::FrameCodec::kAes256Gcm);
  open("12");
  expect_missed(0, 4);
  expect_missed(20, 22);
}

TEST_F(DiskCryptTest, NothingOfTheMemoryBehindAPayloadIsWritten) {
  Rig rig({1, {5000}});
  rig.options().crypt.ring = ring_of("1");
  ASSERT_TRUE(rig.open().is_ok());
  const BlockMemory memory = rig.block(7);
  std::fill_n(memory.shards()[0].payload + 5000, 8192 - 5000, std::byte{'s'});
  ASSERT_TRUE(rig.tier()
                  .begin_write(1, GroupId(0), hash_of(7), 21, memory.shards(), memory.checksums())
                  .is_ok());
  ASSERT_TRUE(rig.await(1).status.is_ok());
  EXPECT_EQ(rig.read(7).text(), Status().text());
  rig.close();
  std::ifstream file(rig.owner() + "/0.slots", std::ios::binary);
  file.seekg(4096 + 5000);
  std::string behind(8192 - 5000, 'x');
  file.read(behind.data(), static_cast<std::streamsize>(behind.size()));
  EXPECT_EQ(behind, std::string(behind.size(), '\0'));
}

// More blocks than buffers, ranks and groups of several sizes, threads that take their time.
TEST_F(DiskCryptTest, ManyBlocksGoThroughFewBuffersInOthersHands) {
  const auto hands = thread_hands("terrace-crypt", 3, [](const char*) {});
  ASSERT_TRUE(hands.has_value());
  constexpr std::uint64_t kBig = 3ULL << 20U;
  Rig rig({2, {kBig, 12'000}});
  rig.options().blocks = 16;
  rig.options().crypt = {ring_of("1"), hands->get()};
  ASSERT_TRUE(rig.open().is_ok());
  std::vector<BlockMemory> memory;
  for (std::uint64_t n = 0; n < 16; ++n) {
    memory.push_back(rig.block(n, n % 2));
    ASSERT_TRUE(rig.tier()
                    .begin_write(n, GroupId(static_cast<std::uint16_t>(n % 2)), hash_of(n), n * 3,
                                 memory.back().shards(), memory.back().checksums())
                    .is_ok());
  }
  for (std::uint64_t n = 0; n < 16; ++n) {
    EXPECT_EQ(rig.await(n).status.text(), Status().text()) << n;
  }
  for (std::uint64_t n = 0; n < 16; ++n) EXPECT_EQ(rig.read(n, n % 2).text(), Status().text()) << n;
  ASSERT_TRUE(rig.reopen().is_ok());
  for (std::uint64_t n = 0; n < 16; ++n) EXPECT_EQ(rig.read(n, n % 2).text(), Status().text()) << n;
  rig.close();
}

TEST_F(DiskCryptTest, StoppingEndsWhatIsBeingEncryptedAndWhatWaitsForABuffer) {
  SlowHands hands;
  constexpr std::uint64_t kBig = 12ULL << 20U;  // Two buffers.
  Rig rig({1, {kBig}});
  rig.options().blocks = 8;
  rig.options().crypt = {ring_of("1"), &hands};
  ASSERT_TRUE(rig.open().is_ok());
  rig.settle();
  std::vector<BlockMemory> memory;
  for (std::uint64_t n = 0; n < 4; ++n) {
    memory.push_back(rig.block(n));
    ASSERT_TRUE(rig.tier()
                    .begin_write(n, GroupId(0), hash_of(n), 0, memory.back().shards(),
                                 memory.back().checksums())
                    .is_ok());
  }
  std::vector<DiskDone> done;
  while (hands.waiting() < 2) {
    rig.tier().poll(done);
    rig.tier().wait(milliseconds(10));
  }
  EXPECT_EQ(hands.waiting(), 2U) << "as many as there are buffers";
  rig.tier().stop_writes();
  EXPECT_FALSE(rig.tier().is_idle());
  hands.do_all();
  for (std::uint64_t n = 0; n < 4; ++n) EXPECT_EQ(rig.await(n).status.code(), Code::kClosed) << n;
  EXPECT_TRUE(rig.tier().is_idle());
}

TEST_F(DiskCryptTest, AReadIsNotAnsweredBeforeItsBytesAreOpened) {
  SlowHands hands;
  open("1");
  write_blocks(0, 2);
  rig_.options().crypt.hands = &hands;
  open("1");
  const BlockMemory memory = rig_.blank();
  ASSERT_TRUE(rig_.tier()
                  .begin_read(5, GroupId(0), hash_of(1), memory.shards(),
                              transfer::IoClass::kTtftRead, kNoDeadline)
                  .is_ok());
  std::vector<DiskDone> done;
  while (hands.waiting() == 0) {
    rig_.tier().wait(milliseconds(10));
    rig_.tier().poll(done);
  }
  rig_.tier().poll(done);
  EXPECT_THAT(done, IsEmpty());
  EXPECT_FALSE(rig_.tier().is_idle());
  hands.do_all();
  EXPECT_TRUE(rig_.await(5).status.is_ok());
  EXPECT_TRUE(memory.equals(rig_.block(1)));
}

TEST_F(DiskCryptTest, EachWriteOfABlockIsSealedAnew) {
  open("1");
  write_blocks(0, 1);
  const wire::FrameHeader first = header_at(0);
  const std::string stored = bytes_of(4096, kPayload);
  rig_.tier().forget_all();
  rig_.settle();
  open("1");
  write_blocks(0, 1);
  EXPECT_NE(header_at(0).seal.salt, first.seal.salt);
  EXPECT_THAT(bytes_of(4096, kPayload), Not(stored));
}

}  // namespace
}  // namespace terrace::tier::disk
