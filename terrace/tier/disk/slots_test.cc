// What the slots tell of blocks that went.
#include <gtest/gtest.h>

#include <memory>
#include <utility>
#include <vector>

#include "terrace/tier/disk/disk_rig.h"
#include "terrace/tier/disk/slots_internal.h"

namespace terrace::tier::disk {
namespace {

constexpr std::uint32_t kSlots = 4;  // Of each of two volumes.

std::unique_ptr<Slots> full_slots(SequenceHash& on_second) {
  auto made = Slots::create({1, 2 * kSlots, "lru"}, SlotMap({kSlots, kSlots}), 2);
  EXPECT_TRUE(made.has_value());
  for (std::uint64_t n = 0; n < 2 * kSlots; ++n) {
    auto reserved = (*made)->reserve(0, hash_of(n), {false, false}, {});
    EXPECT_TRUE(reserved.has_value());
    if (reserved->place.volume == 1) on_second = hash_of(n);
    EXPECT_TRUE((*made)->seal(std::move(reserved->slot), 0, 0, reserved->epoch));
  }
  return *std::move(made);
}

// Else a path that is not trusted any more would stop all writes once its blocks are the oldest.
TEST(SlotsTest, BlocksThatNobodyCanReadGoFirstAndStopNoWriteElsewhere) {
  SequenceHash ignored;
  const auto slots = full_slots(ignored);
  slots->hide_volume(1, true);
  for (std::uint64_t n = 100; n < 100 + kSlots; ++n) {
    auto reserved = slots->reserve(0, hash_of(n), {false, true}, {});
    ASSERT_TRUE(reserved.has_value()) << n;
    EXPECT_EQ(reserved->place.volume, 0U);
    EXPECT_TRUE(slots->seal(std::move(reserved->slot), 0, 0, reserved->epoch));
  }
}

// A directory that turned read-only serves on, and stores nothing: to evict there frees nothing.
TEST(SlotsTest, BlocksThatCanOnlyBeReadStayAndStopNoWriteElsewhere) {
  SequenceHash ignored;
  const auto slots = full_slots(ignored);
  std::vector<SequenceHash> on_first;
  std::vector<SequenceHash> on_second;
  for (std::uint32_t slot = 0; const auto sight = slots->next_sealed(0, slot, 2 * kSlots - slot);) {
    (sight->place.volume == 0 ? on_first : on_second).push_back(sight->hash);
  }
  ASSERT_EQ(on_first.size(), kSlots);
  ASSERT_EQ(on_second.size(), kSlots);
  for (std::uint64_t n = 100; n < 100 + 3 * kSlots; ++n) {
    auto reserved = slots->reserve(0, hash_of(n), {false, true}, {});
    ASSERT_TRUE(reserved.has_value()) << n;
    EXPECT_EQ(reserved->place.volume, 0U);
    EXPECT_TRUE(slots->seal(std::move(reserved->slot), 0, 0, reserved->epoch));
  }
  for (const SequenceHash& hash : on_second) EXPECT_TRUE(slots->contains(0, hash));
  for (const SequenceHash& hash : on_first) EXPECT_FALSE(slots->contains(0, hash));
}

// The slot file got no further: free slots behind its end would hold up all writes.
TEST(SlotsTest, WhereTheFileEndsBlocksMakeRoomForOthersThoughThereAreFreeSlots) {
  auto made = Slots::create({1, 20'000, "lru"}, SlotMap({10'000, 10'000}), 2);
  ASSERT_TRUE(made.has_value());
  Slots& slots = **made;
  slots.limit_volume(0, 3);
  slots.limit_volume(1, 0);
  const auto write = [&](std::uint64_t number) {
    auto reserved = slots.reserve(0, hash_of(number), {false, false}, {});
    if (!reserved) return std::optional<SlotMap::Place>();
    const SlotMap::Place place = reserved->place;
    EXPECT_TRUE(slots.seal(std::move(reserved->slot), 0, 0, reserved->epoch));
    return std::optional(place);
  };
  for (std::uint64_t n = 0; n < 100; ++n) {
    const auto place = write(n);
    ASSERT_TRUE(place.has_value()) << n;
    EXPECT_EQ(place->volume, 0U);
    EXPECT_LT(place->slot, 3U);
  }
  EXPECT_EQ(slots.take_evicted().size(), 97U);
  slots.limit_volume(0, 5);
  for (std::uint64_t n = 100; n < 102; ++n) EXPECT_TRUE(write(n).has_value());
  EXPECT_TRUE(slots.take_evicted().empty()) << "there was room";
  // What lies behind the end, of before, is served and makes room for nothing.
  slots.limit_volume(0, 1);
  EXPECT_EQ(write(200)->slot, 0U);
  slots.limit_volume(0, 0);
  EXPECT_FALSE(write(201).has_value());
  EXPECT_EQ(slots.count(catalog::SlotState::kSealed), 5U);
}

// Whoever listens to events believes in them for as long as nobody says otherwise.
TEST(SlotsTest, BlocksOfALostVolumeAreToldAsGoneAndThoseOfAResetAreNot) {
  SequenceHash ignored;
  const auto made = full_slots(ignored);
  Slots& slots = *made;
  slots.forget_volume(1);
  while (!slots.sweep(3)) {
  }
  const auto evicted = slots.take_evicted();
  EXPECT_EQ(evicted.size(), kSlots);
  for (const catalog::Eviction& gone : evicted) {
    EXPECT_EQ(slots.map().place(gone.slot.index.value()).volume, 1U);
    EXPECT_FALSE(slots.contains(0, gone.key.hash));
  }
  slots.forget_all();
  while (!slots.sweep(3)) {
  }
  EXPECT_TRUE(slots.take_evicted().empty()) << "a reset is told as a whole";
  EXPECT_EQ(slots.count(catalog::SlotState::kFree), 2 * kSlots);
}

// A block that nobody can read now gives way to a new copy, which then finds no room.
TEST(SlotsTest, ABlockThatGaveWayIsToldAsGoneThoughNoCopyTookItsPlace) {
  SequenceHash hidden;
  const auto made = full_slots(hidden);
  Slots& slots = *made;
  slots.hide_volume(1, true);
  EXPECT_FALSE(slots.contains(0, hidden));
  EXPECT_EQ(slots.reserve(0, hidden, {true, true}, {}).error().code(), Code::kExhausted);
  const auto evicted = slots.take_evicted();
  ASSERT_EQ(evicted.size(), 1U);
  EXPECT_EQ(evicted[0].key.hash, hidden);
  slots.hide_volume(1, false);
  EXPECT_FALSE(slots.contains(0, hidden));
}

}  // namespace
}  // namespace terrace::tier::disk
