// What a crew loads is what a naive reading of slots.meta finds, whatever the size of the crew:
// made by hand with damaged, absent, void, foreign and doubled records.
#include <fcntl.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <unordered_map>

#include "terrace/base/file.h"
#include "terrace/base/thread.h"
#include "terrace/tier/disk/disk_rig.h"
#include "terrace/tier/disk/extent_table_internal.h"
#include "terrace/tier/disk/format_internal.h"
#include "terrace/tier/disk/geometry_internal.h"
#include "terrace/transfer/backends/fault/fault_backend.h"

namespace terrace::tier::disk {
namespace {

constexpr std::uint64_t kPayload = 4096;
constexpr std::uint32_t kEpoch = 4;

struct Held {  // What must be found under a key.
  std::uint64_t sequence = 0;
  std::uint32_t slot = 0;
};

// One owner directory, and what a reader should make of it.
class MadeMeta {
 public:
  MadeMeta(std::uint64_t seed, std::size_t groups, std::uint64_t blocks)
      : rng_(seed), groups_(groups), blocks_(blocks), rig_(shape(groups)), held_(groups) {
    rig_.options().blocks = blocks;
    make();
  }
  Rig& rig() { return rig_; }
  [[nodiscard]] std::uint64_t records() const { return records_; }

  void check() {
    std::uint64_t sum = 0;
    for (std::size_t group = 0; group < groups_; ++group) {
      sum += held_[group].size();
      for (std::uint64_t number = 0; number < keys(); ++number) {
        ASSERT_EQ(rig_.has(number, group), held_[group].contains(number)) << group << " " << number;
      }
    }
    EXPECT_EQ(rig_.tier().count(catalog::SlotState::kSealed), sum);
    EXPECT_EQ(rig_.metric("terrace_disk_adopted_blocks_total"), sum);
    EXPECT_EQ(rig_.metric("terrace_disk_damaged_records_total"), damaged_);
  }

  // Fills group 0 with new blocks; the found ones leave in the order of writing.
  void check_eviction(std::size_t most) {
    std::vector<std::pair<std::uint64_t, std::uint64_t>> order;
    for (const auto& [number, held] : held_[0]) order.emplace_back(held.sequence, number);
    std::sort(order.begin(), order.end());
    const std::uint64_t free = rig_.tier().slots() - order.size();
    const std::size_t count = std::min(order.size(), most);
    for (std::uint64_t n = 0; n < free + count; ++n) {
      ASSERT_TRUE(rig_.write(1'000'000'000 + n).is_ok());
    }
    const auto evicted = rig_.tier().take_evicted();
    ASSERT_EQ(evicted.size(), count);
    for (std::size_t i = 0; i < count; ++i) {
      ASSERT_EQ(evicted[i].key.hash, hash_of(order[i].second)) << i;
    }
  }

 private:
  static Rig::Shape shape(std::size_t groups) {
    return {1, std::vector<std::uint64_t>(groups, kPayload)};
  }
  [[nodiscard]] std::uint64_t keys() const { return blocks_ + blocks_ / 4; }

  void make() {
    const std::string owner = rig_.owner();
    ASSERT_TRUE(make_directories(owner + "/ns-0001").is_ok());
    const std::uint64_t extent =
        choose_extent_bytes(blocks_ * block_bytes_of(rig_.options().layout));
    const auto geometry = plan_runs(rig_.options().layout, extent, 1U << 20U);
    ASSERT_TRUE(geometry.has_value());
    const auto runs =
        static_cast<std::uint32_t>((blocks_ + geometry->run_slots - 1) / geometry->run_slots);
    std::string extents(kPageBytes + std::size_t{runs} * geometry->run_extents * kExtentRecordBytes,
                        '\0');
    const auto out = std::as_writable_bytes(std::span(extents));
    encode(VolumeHeader{extent, 0}, out.first<kPageBytes>());
    for (std::uint32_t e = 0; e < runs * geometry->run_extents; ++e) {
      const std::uint32_t run = e / geometry->run_extents;
      if (is_free(run)) continue;
      encode(ExtentRecord{1, run * geometry->run_extents, geometry->run_extents, stamp(run)}, e,
             out.subspan(ExtentTable::offset(e)).first<kExtentRecordBytes>());
    }
    ASSERT_TRUE(write_file_atomic(owner + "/extents.meta", extents).is_ok());
    ASSERT_TRUE(
        write_file_atomic(owner + "/ns-0001/fingerprint.txt", rig_.options().fingerprint.text())
            .is_ok());
    const std::uint64_t slots = std::uint64_t{runs} * geometry->run_slots;
    std::string meta(kRecordsOffset + slots * groups_ * kSlotRecordBytes, '\0');
    const auto records = std::as_writable_bytes(std::span(meta));
    const MetaHeader header{
        kEpoch, static_cast<std::uint32_t>(groups_), geometry->run_slots, geometry->run_extents, 0,
        1};
    encode(header, records.first<kPageBytes>());
    encode(header, records.subspan(kPageBytes).first<kPageBytes>());
    for (std::uint64_t i = 0; i < slots * groups_; ++i) {
      put_record(static_cast<std::uint32_t>(i / groups_), static_cast<std::uint16_t>(i % groups_),
                 static_cast<std::uint32_t>(i / groups_) / geometry->run_slots,
                 records.subspan(kRecordsOffset + i * kSlotRecordBytes).first<kSlotRecordBytes>());
    }
    ASSERT_TRUE(write_file_atomic(owner + "/ns-0001/slots.meta", meta).is_ok());
    auto file = open_file(owner + "/0.slots", O_RDWR | O_CREAT);
    ASSERT_TRUE(file.has_value());
    ASSERT_EQ(::ftruncate(file->get(), static_cast<off_t>((runs + 1) * geometry->run_bytes())), 0);
  }
  static bool is_free(std::uint32_t run) { return run % 7 == 3; }
  static std::uint64_t stamp(std::uint32_t run) { return 1 + run % 3; }

  void put_record(std::uint32_t slot, std::uint16_t group, std::uint32_t run,
                  std::span<std::byte, kSlotRecordBytes> target) {
    records_ += is_free(run) ? 0U : 1U;
    const std::uint64_t kind = rng_.below(40);
    if (kind == 0) return;  // Absent.
    const std::uint64_t number = rng_.below(keys());
    SlotRecord record;
    record.hash = hash_of(number);
    record.alias = number * 3;
    // No two alike, in no order.
    record.sequence = 1 + ((std::uint64_t{slot} * groups_ + group) * 7919) % 1'000'003;
    record.stamp = stamp(run);
    record.generation = 1;
    record.epoch = kEpoch;
    record.name_space = 1;
    record.group = group;
    record.state = RecordState::kSealed;
    if (kind == 1) record.state = RecordState::kVoid;
    if (kind == 2) record.epoch = kEpoch - 1;
    if (kind == 3) record.stamp += 1;
    if (kind == 4) record.name_space = 2;
    if (kind == 5) record.group = static_cast<std::uint16_t>(group + 1);
    encode(record, kind == 6 ? slot + 1 : slot, target);
    const bool is_damaged = kind == 6 || kind == 7;
    if (kind == 7) target[rng_.below(kSlotRecordBytes)] ^= std::byte{1};
    if (is_free(run)) return;  // Not ours: not even looked at.
    damaged_ += is_damaged ? 1U : 0U;
    if ((kind >= 1 && kind <= 7) || slot >= blocks_) return;
    Held& held = held_[group].try_emplace(number, Held{}).first->second;
    if (held.sequence < record.sequence) held = {record.sequence, slot};
  }

  Rng rng_;
  std::size_t groups_;
  std::uint64_t blocks_;
  Rig rig_;
  std::vector<std::unordered_map<std::uint64_t, Held>> held_;  // [group]: by number.
  std::uint64_t damaged_ = 0;
  std::uint64_t records_ = 0;
};

// Crew 0 = none given.
void check_crews(const std::vector<std::size_t>& crews, std::uint64_t seed, std::size_t groups,
                 std::uint64_t blocks, std::size_t evicted) {
  for (const std::size_t crew : crews) {
    SCOPED_TRACE("crew " + std::to_string(crew));
    MadeMeta made(seed, groups, blocks);
    if (crew > 0) made.rig().options().crew = thread_crew("load", crew);
    ASSERT_EQ(made.rig().open().text(), Status().text());
    made.check();
    if (::testing::Test::HasFatalFailure()) return;
    if (evicted > 0) made.check_eviction(evicted);
    if (::testing::Test::HasFatalFailure()) return;
  }
}

TEST(ParallelLoadTest, FindsWhatANaiveReadingFindsAndInItsOrder) {
  const std::uint64_t seed = random_u64();
  SCOPED_TRACE("seed " + std::to_string(seed));
  Rng seeds(seed);
  for (int round = 0; round < 8; ++round) {
    check_crews({0, 1, 2, 3, 5}, seeds.next(), 1 + seeds.below(3), 20 + seeds.below(1500), 100'000);
    if (::testing::Test::HasFatalFailure()) return;
  }
}

// More than one wave of pieces, and pieces that begin within a slot's groups.
TEST(ParallelLoadTest, FindsItOverSeveralWaves) { check_crews({1, 3}, 7, 3, 100'000, 0); }

// What opening with so many failed reads of slots.meta leaves.
struct Loaded {
  std::uint64_t sealed = 0;
  std::uint64_t damaged = 0;
  std::uint64_t records = 0;  // In runs of ours.
  std::string log;
};
Loaded load_with_errors(std::size_t crew, unsigned errors) {
  MadeMeta made(11, 1, 100'000);
  made.rig().options().crew = thread_crew("load", crew);
  made.rig().options().decorate = [&](std::unique_ptr<transfer::Backend> inner) {
    auto faults = std::make_unique<transfer::FaultBackend>(std::move(inner), 1);
    if (errors > 0) {
      faults->aim(transfer::Fault::kError, transfer::IoOp::kRead, errors, "slots.meta");
    }
    return faults;
  };
  EXPECT_EQ(made.rig().open().text(), Status().text());
  return {made.rig().tier().count(catalog::SlotState::kSealed),
          static_cast<std::uint64_t>(made.rig().metric("terrace_disk_damaged_records_total")),
          made.records(), made.rig().log()};
}

TEST(ParallelLoadTest, APieceThatCannotBeReadIsLeftOutAndCounted) {
  for (const std::size_t crew : {1U, 2U}) {
    const Loaded whole = load_with_errors(crew, 0);
    const Loaded one_lost = load_with_errors(crew, 1);
    EXPECT_LT(one_lost.sealed, whole.sealed);
    EXPECT_GT(one_lost.sealed, 0U);
    EXPECT_GT(one_lost.damaged, whole.damaged);
    EXPECT_NE(one_lost.log.find("the blocks listed there are lost"), std::string::npos);
    const Loaded all_lost = load_with_errors(crew, 1000);
    EXPECT_EQ(all_lost.sealed, 0U);
    EXPECT_EQ(all_lost.damaged, all_lost.records);
  }
}

}  // namespace
}  // namespace terrace::tier::disk
