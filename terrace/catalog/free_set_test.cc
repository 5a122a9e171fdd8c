#include "terrace/catalog/free_set.h"

#include <gtest/gtest.h>

#include <set>

#include "terrace/base/rng.h"
#include "terrace/testing/property.h"

namespace terrace::catalog {
namespace {

TEST(FreeSetTest, GivesEachSlotOnceLowestFirst) {
  for (const std::uint32_t slots : {1U, 63U, 64U, 65U, 4096U, 4097U, 300'000U}) {
    auto set = FreeSet::create(slots).value();
    for (std::uint32_t i = 0; i < slots; ++i) ASSERT_EQ(set.take_lowest(), SlotIndex(i));
    EXPECT_FALSE(set.take_lowest());
    set.put(SlotIndex(slots / 2));
    EXPECT_EQ(set.take_lowest(), SlotIndex(slots / 2));
    EXPECT_FALSE(set.take_lowest());
  }
}

TEST(FreeSetTest, RefusesNoSlots) { EXPECT_EQ(FreeSet::create(0).error().code(), Code::kInvalid); }

TEST(FreeSetProperty, AgreesWithASetAfterEachStep) {
  const auto [seed, steps] = testing::property(7, 500'000);
  Rng rng(seed);
  for (const std::uint32_t slots : {1U, 64U, 130U, 5000U}) {
    auto set = FreeSet::create(slots).value();
    std::set<std::uint32_t> model;
    for (std::uint32_t i = 0; i < slots; ++i) model.insert(i);
    for (std::uint64_t i = 0; i < steps / 4; ++i) {
      const auto slot = static_cast<std::uint32_t>(rng.below(slots));
      const bool is_free = model.contains(slot);
      ASSERT_EQ(set.is_free(SlotIndex(slot)), is_free);
      const auto end = static_cast<std::uint32_t>(slot + rng.below(slots - slot + 1));
      const auto lowest = model.lower_bound(slot);
      const auto found = set.lowest_in(SlotIndex(slot), SlotIndex(end));
      ASSERT_EQ(found.has_value(), lowest != model.end() && *lowest < end);
      if (found) {
        ASSERT_EQ(found->value(), *lowest);
      }
      switch (rng.below(4)) {
        case 0:
          ASSERT_EQ(set.take(SlotIndex(slot)), is_free);
          model.erase(slot);
          break;
        case 1:
          if (is_free) break;
          set.put(SlotIndex(slot));
          model.insert(slot);
          break;
        case 2: {
          const std::uint32_t first = slot / 64 * 64;
          const std::uint64_t mask = rng.chance(20) ? ~std::uint64_t{0} : rng.next();
          std::uint64_t inside = mask;  // Bits past the end are never set by who knows the size.
          for (std::uint32_t bit = 0; bit < 64; ++bit) {
            if (first + bit >= slots) inside &= ~(std::uint64_t{1} << bit);
            if ((inside >> bit & 1U) != 0) model.erase(first + bit);
          }
          set.take_many(SlotIndex(first), inside);
          break;
        }
        default: {
          const auto taken = set.take_lowest();
          ASSERT_EQ(taken.has_value(), !model.empty());
          if (!taken) break;
          ASSERT_EQ(taken->value(), *model.begin());
          model.erase(model.begin());
        }
      }
    }
  }
}

}  // namespace
}  // namespace terrace::catalog
