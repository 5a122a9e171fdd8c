// Frames of another era: whole, of the same key, rank and slot generation, and written between
// other resets, when the weights may have been others. None of them is ever taken for the wanted
// one.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <array>
#include <fstream>
#include <optional>
#include <set>
#include <string>

#include "terrace/tier/disk/disk_rig.h"
#include "terrace/tier/disk/format_internal.h"
#include "terrace/tier/disk/verify.h"
#include "terrace/wire/frame.h"

namespace terrace::tier::disk {
namespace {

using ::testing::HasSubstr;

constexpr std::uint64_t kPayload = 8192;
constexpr std::uint64_t kFrame = 4096 + kPayload;
constexpr std::uint64_t kNumber = 7;  // Of the block.
constexpr const char* kCorrupt = "terrace_disk_corrupt_blocks_total";

class DiskEraTest : public ::testing::Test {
 protected:
  void open() { ASSERT_EQ(rig_.reopen().text(), Status().text()); }
  // What `weights` make of the block's tokens.
  [[nodiscard]] static BlockMemory bytes_of(std::uint64_t weights) {
    BlockMemory memory(1, kPayload);
    memory.fill(1000 * weights + kNumber);
    return memory;
  }
  void write(std::uint64_t weights) {
    const BlockMemory memory = bytes_of(weights);
    ASSERT_TRUE(rig_.tier()
                    .begin_write(weights, GroupId(0), hash_of(kNumber), 0, memory.shards(),
                                 memory.checksums())
                    .is_ok());
    ASSERT_EQ(rig_.await(weights).status.text(), Status().text());
  }
  // kInternal = other bytes came as right ones.
  [[nodiscard]] Status read(std::uint64_t weights) {
    const BlockMemory memory = rig_.blank();
    constexpr std::uint64_t kToken = 1'000'000;
    TERRACE_RETURN_IF_ERROR(rig_.tier().begin_read(kToken, GroupId(0), hash_of(kNumber),
                                                   memory.shards(), transfer::IoClass::kTtftRead,
                                                   kNoDeadline));
    TERRACE_RETURN_IF_ERROR(rig_.await(kToken).status);
    return memory.equals(bytes_of(weights)) ? Status() : Status(Code::kInternal, "other bytes");
  }
  void reset() {
    rig_.tier().forget_all();
    const Nanoseconds limit = rig_.clock().now() + seconds(20);
    std::vector<DiskDone> done;
    while (rig_.tier().is_drop_pending() && rig_.clock().now() < limit) {
      rig_.tier().wait(milliseconds(20));
      rig_.tier().poll(done);
    }
    ASSERT_FALSE(rig_.tier().is_drop_pending());
  }

  // ---- While the tier is closed; slots are filled from 0 on.
  [[nodiscard]] std::string file(const std::string& name) const {
    return tree(rig_.path()).at(rig_.owner() + "/" + name);
  }
  void patch(const std::string& name, std::uint64_t offset, const std::string& bytes) const {
    std::fstream target(rig_.owner() + "/" + name, std::ios::in | std::ios::out | std::ios::binary);
    ASSERT_TRUE(target.good());
    target.seekp(static_cast<std::streamoff>(offset));
    target.write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
  }
  [[nodiscard]] std::string frame() const { return file("0.slots").substr(0, kFrame); }
  [[nodiscard]] static wire::FrameHeader header_of(const std::string& frame) {
    const auto header =
        wire::decode_frame(std::as_bytes(std::span(frame)).first<wire::kFrameHeaderBytes>());
    EXPECT_TRUE(header.has_value());
    return header.value_or(wire::FrameHeader{});
  }
  [[nodiscard]] MetaHeader meta(const std::string& name = "ns-0001") const {
    const std::string bytes = file(name + "/slots.meta");
    const auto header = decode_meta(std::as_bytes(std::span(bytes)).first<kPageBytes>());
    EXPECT_TRUE(header.has_value());
    return header.value_or(MetaHeader{});
  }
  void put_meta(const MetaHeader& header) const {
    std::string page(kPageBytes, '\0');
    encode(header, std::as_writable_bytes(std::span(page)).first<kPageBytes>());
    patch("ns-0001/slots.meta", 0, page + page);
  }
  // The tier is closed and the block's frame in place. `old` differs from it in nothing but its era
  // and its payload, and comes in its stead, as if the disk had misplaced the read.
  void misplace(const std::string& old) const {
    wire::FrameHeader one = header_of(old);
    wire::FrameHeader other = header_of(frame());
    EXPECT_NE(one.payload_checksum, other.payload_checksum);
    EXPECT_NE(one.era, other.era);
    one.era = other.era;
    one.payload_checksum = other.payload_checksum;
    ASSERT_EQ(one, other) << "else something else tells them apart";
    patch("0.slots", 0, old);
  }
  // One life with the block of `weights`, its frame kept, and a reset.
  void live_until_reset(std::uint64_t weights, std::string& kept) {
    open();
    write(weights);
    rig_.close();
    kept = frame();
    open();
    ASSERT_EQ(read(weights).text(), Status().text());
    reset();
    rig_.close();
  }

  Rig rig_;
};

TEST_F(DiskEraTest, AFrameOfBeforeAResetIsACountedMissAfterARestart) {
  std::string old;
  live_until_reset(1, old);
  open();
  EXPECT_FALSE(rig_.has(kNumber));
  write(2);
  ASSERT_EQ(read(2).text(), Status().text());
  rig_.close();
  misplace(old);
  open();
  EXPECT_EQ(read(2).code(), Code::kCorrupt);
  EXPECT_EQ(rig_.metric(kCorrupt), 1);
  EXPECT_FALSE(rig_.has(kNumber));
}

TEST_F(DiskEraTest, ScrubbingAndVerifyingTellItToo) {
  std::string old;
  live_until_reset(1, old);
  open();
  write(2);
  rig_.close();
  misplace(old);
  const auto owners = verify_directory(rig_.path(), [](const VerifyProgress&) {});
  ASSERT_TRUE(owners.has_value());
  EXPECT_FALSE(owners->at(0).is_good());
  EXPECT_EQ(owners->at(0).namespaces.at(0).good_blocks, 0U);
  open();
  (void)rig_.tier().start_scrub(1ULL << 40U);
  const Nanoseconds limit = rig_.clock().now() + seconds(20);
  std::vector<DiskDone> done;
  while (rig_.tier().scrub_report().is_running && rig_.clock().now() < limit) {
    rig_.tier().wait(milliseconds(20));
    rig_.tier().poll(done);
  }
  EXPECT_EQ(rig_.tier().scrub_report().bad_blocks, 1U);
  EXPECT_FALSE(rig_.has(kNumber));
}

// A frame of before a reset says nothing about whose the namespace is, either.
TEST_F(DiskEraTest, ItIsNotAskedWhoseANamespaceIs) {
  std::string old;
  live_until_reset(1, old);
  open();
  write(2);
  rig_.close();
  misplace(old);
  std::filesystem::remove(rig_.owner() + "/ns-0001/fingerprint.txt");
  open();
  EXPECT_FALSE(rig_.has(kNumber));
  EXPECT_THAT(rig_.log(), HasSubstr("no frame there says whose blocks these are"));
}

// Both header pages were lost, and epochs are counted from 1 again.
TEST_F(DiskEraTest, AnEpochThatComesAgainIsAnotherEra) {
  open();
  write(1);
  rig_.close();
  const std::string old = frame();
  const std::uint32_t epoch = meta().epoch;
  patch("ns-0001/slots.meta", 0, std::string(2 * kPageBytes, '\xAA'));
  open();
  EXPECT_FALSE(rig_.has(kNumber));
  write(2);
  rig_.close();
  ASSERT_EQ(meta().epoch, epoch);
  misplace(old);
  open();
  EXPECT_EQ(read(2).code(), Code::kCorrupt);
}

// As after a loss of power that undid a reset, but not what the next owner stored: then even the
// records of that count again after the next reset.
TEST_F(DiskEraTest, AResetThatIsDoneOnceMoreIsAnotherEra) {
  open();
  write(9);  // A namespace without a block would be made anew.
  rig_.close();
  const MetaHeader before = meta();
  open();
  reset();
  rig_.close();
  const MetaHeader undone = meta();
  open();
  write(1);
  rig_.close();
  put_meta(before);
  open();
  reset();
  rig_.close();
  ASSERT_EQ(meta().epoch, undone.epoch);
  open();
  ASSERT_TRUE(rig_.has(kNumber));
  EXPECT_EQ(read(2).code(), Code::kCorrupt);
}

TEST_F(DiskEraTest, EachResetAndEachNewShapeBeginsAnEraThatARestartKeeps) {
  std::set<std::uint64_t> eras{0};
  for (std::uint64_t life = 0; life < 4; ++life) {
    open();
    write(life);
    rig_.close();
    EXPECT_TRUE(eras.insert(meta().era).second) << life;
    const MetaHeader known = meta();
    open();
    rig_.close();
    EXPECT_EQ(meta(), known);
    open();
    if (life % 2 == 0) {
      reset();
    } else {
      rig_.close();
      MetaHeader other = known;
      ++other.run_slots;
      put_meta(other);
    }
  }
}

// What an earlier Terrace wrote is not believed, as nobody can say between which resets that was:
// told once, and nothing but these records is touched.
TEST_F(DiskEraTest, BlocksOfAnEarlierTerraceAreMissesAndTold) {
  rig_.options().blocks = 32;
  rig_.set_model("model-b");
  open();
  write(3);
  rig_.close();
  rig_.set_model("model-a");
  open();
  write(1);
  rig_.close();
  const std::string slots = file("0.slots");
  for (std::size_t at = 0; at + kFrame <= slots.size(); at += kPageBytes) {
    const auto header =
        wire::decode_frame(std::as_bytes(std::span(slots)).subspan(at).first<4096>());
    if (!header || header->era != meta("ns-0002").era) continue;
    wire::FrameHeader earlier = *header;
    earlier.era = 0;
    std::string page(kPageBytes, '\0');
    wire::encode(earlier, std::as_writable_bytes(std::span(page)).first<4096>());
    patch("0.slots", at, page);
  }
  std::string page(kPageBytes, '\0');
  MetaHeader earlier = meta("ns-0002");
  earlier.era = 0;
  encode(earlier, std::as_writable_bytes(std::span(page)).first<kPageBytes>());
  patch("ns-0002/slots.meta", 0, page + page);
  open();
  EXPECT_FALSE(rig_.has(kNumber));
  EXPECT_THAT(rig_.log(), HasSubstr("they are of an earlier Terrace"));
  EXPECT_EQ(rig_.metric(kCorrupt), 0);
  write(1);
  open();
  EXPECT_EQ(read(1).text(), Status().text());
  EXPECT_EQ(rig_.log_lines().count("they are of an earlier Terrace"), 1U);
  rig_.set_model("model-b");
  open();
  EXPECT_EQ(read(3).text(), Status().text()) << "another namespace's blocks are its own";
}

}  // namespace
}  // namespace terrace::tier::disk
