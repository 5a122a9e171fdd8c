// Starting with many records: made by hand, as a long-used cache leaves them.
#include <fcntl.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>

#include "terrace/base/file.h"
#include "terrace/base/thread.h"
#include "terrace/tier/disk/disk_rig.h"
#include "terrace/tier/disk/extent_table_internal.h"
#include "terrace/tier/disk/format_internal.h"
#include "terrace/tier/disk/geometry_internal.h"
#include "terrace/tier/disk/load_order_internal.h"

namespace terrace::tier::disk {
namespace {

TEST(LoaderTest, SlotsAreOrderedBySequenceHoweverTheyLie) {
  const std::uint64_t seed = random_u64();
  SCOPED_TRACE("seed " + std::to_string(seed));
  Rng rng(seed);
  for (int round = 0; round < 50; ++round) {
    std::vector<std::uint64_t> sequences(rng.below(3000));
    const std::uint64_t spread = 1 + rng.below(1ULL << (1 + rng.below(50)));
    for (auto& sequence : sequences) sequence = rng.chance(20) ? 0 : 1 + rng.below(spread);
    const Crew crew = thread_crew("order", 1 + rng.below(4));
    const auto order = order_by_sequence(sequences, crew).value();
    std::vector<bool> seen(sequences.size(), false);
    std::uint64_t before = 0;
    for (const SlotIndex slot : order.slots()) {
      ASSERT_FALSE(seen[slot.value()]);
      seen[slot.value()] = true;
      ASSERT_GE(sequences[slot.value()], before);
      before = sequences[slot.value()];
    }
    for (std::size_t i = 0; i < sequences.size(); ++i) ASSERT_EQ(seen[i], sequences[i] != 0);
  }
}

class ManyRecordsTest : public ::testing::Test {
 protected:
  static constexpr std::uint64_t kBlocks = 200'000;

  ManyRecordsTest() {
    rig_.options().blocks = kBlocks;
    rig_.options().preallocate = "fallocate";
    // The slot file needs no blocks of its own for this: a hole of the right length will do.
    rig_.options().decorate = nullptr;
  }
  void make_records() {
    ASSERT_TRUE(make_directories(rig_.owner() + "/ns-0001").is_ok());
    const std::uint64_t extent =
        choose_extent_bytes(kBlocks * block_bytes_of(rig_.options().layout));
    const auto geometry = plan_runs(rig_.options().layout, extent, 1U << 20U);
    ASSERT_TRUE(geometry.has_value());
    const std::uint64_t runs = (kBlocks + geometry->run_slots - 1) / geometry->run_slots;
    std::string extents(kPageBytes + runs * geometry->run_extents * kExtentRecordBytes, '\0');
    const auto out = std::as_writable_bytes(std::span(extents));
    encode(VolumeHeader{extent, 0}, out.first<kPageBytes>());
    for (std::uint32_t e = 0; e < runs * geometry->run_extents; ++e) {
      encode(ExtentRecord{1, e - e % geometry->run_extents, geometry->run_extents, 1}, e,
             out.subspan(ExtentTable::offset(e)).first<kExtentRecordBytes>());
    }
    ASSERT_TRUE(write_file_atomic(rig_.owner() + "/extents.meta", extents).is_ok());
    ASSERT_TRUE(write_file_atomic(rig_.owner() + "/ns-0001/fingerprint.txt",
                                  rig_.options().fingerprint.text())
                    .is_ok());
    std::string meta(kRecordsOffset + kBlocks * kSlotRecordBytes, '\0');
    const auto records = std::as_writable_bytes(std::span(meta));
    const MetaHeader header{4, 1, geometry->run_slots, geometry->run_extents, 0, 1};
    encode(header, records.first<kPageBytes>());
    encode(header, records.subspan(kPageBytes).first<kPageBytes>());
    for (std::uint32_t slot = 0; slot < kBlocks; ++slot) {
      SlotRecord record;
      record.hash = hash_of(slot);
      record.sequence = sequence_of(slot);
      record.stamp = 1;
      record.generation = 1;
      record.epoch = 4;
      record.name_space = 1;
      record.state = RecordState::kSealed;
      encode(record, slot,
             records.subspan(kRecordsOffset + slot * kSlotRecordBytes).first<kSlotRecordBytes>());
    }
    ASSERT_TRUE(write_file_atomic(rig_.owner() + "/ns-0001/slots.meta", meta).is_ok());
    auto slots = open_file(rig_.owner() + "/0.slots", O_RDWR | O_CREAT);
    ASSERT_TRUE(slots.has_value());
    ASSERT_EQ(::ftruncate(slots->get(), static_cast<off_t>(2 * runs * geometry->run_bytes())), 0);
  }
  static std::uint64_t sequence_of(std::uint64_t slot) { return 2 + slot * 7919 % kBlocks; }
  Rig rig_;
};

TEST_F(ManyRecordsTest, AllAreFoundInFewReadsAndInTheirOldOrder) {
  make_records();
  ASSERT_EQ(rig_.open().text(), Status().text());
  EXPECT_EQ(rig_.tier().count(catalog::SlotState::kSealed), kBlocks);
  EXPECT_EQ(rig_.metric("terrace_disk_adopted_blocks_total"), kBlocks);
  // 64 bytes a record, a mebibyte a read.
  EXPECT_LE(rig_.metric("terrace_disk_io_total{op=\"read\"}"), kBlocks * 64 / (1 << 20) + 2);
  // The 200 oldest by sequence go first, wherever they lie.
  std::vector<std::uint64_t> slots(kBlocks);
  std::iota(slots.begin(), slots.end(), 0U);
  std::sort(slots.begin(), slots.end(),
            [](std::uint64_t a, std::uint64_t b) { return sequence_of(a) < sequence_of(b); });
  for (std::uint64_t n = 0; n < 200; ++n) ASSERT_TRUE(rig_.write(1'000'000 + n).is_ok());
  const auto evicted = rig_.tier().take_evicted();
  ASSERT_EQ(evicted.size(), 200U);
  for (std::size_t i = 0; i < 200; ++i) ASSERT_EQ(evicted[i].key.hash, hash_of(slots[i])) << i;
  EXPECT_LE(rig_.tier().memory().value() / kBlocks, 72U);
}

}  // namespace
}  // namespace terrace::tier::disk
