#include "terrace/transfer/in_flight.h"

#include <gtest/gtest.h>

#include <map>
#include <vector>

#include "terrace/base/rng.h"

namespace terrace::transfer {
namespace {

TEST(InFlightTest, ATicketIsTakenOnce) {
  InFlight flights(2);
  const std::uint64_t ticket = flights.add(77);
  EXPECT_EQ(flights.count(), 1U);
  EXPECT_EQ(flights.take(ticket), 77U);
  EXPECT_EQ(flights.take(ticket), std::nullopt);
  EXPECT_EQ(flights.count(), 0U);
}

TEST(InFlightTest, ATicketOfBeforeDoesNotTakeWhatHasItsPlaceNow) {
  InFlight flights(1);
  const std::uint64_t old = flights.add(1);
  ASSERT_TRUE(flights.take(old).has_value());
  const std::uint64_t fresh = flights.add(2);
  EXPECT_EQ(flights.take(old), std::nullopt);
  EXPECT_EQ(flights.count(), 1U);
  EXPECT_EQ(flights.take(fresh), 2U);
}

TEST(InFlightTest, WhatWasNeverGivenOutIsNothing) {
  InFlight flights(4);
  for (const std::uint64_t ticket : {UINT64_C(0), UINT64_C(3), UINT64_C(1) << 32U, UINT64_MAX}) {
    EXPECT_EQ(flights.take(ticket), std::nullopt) << ticket;
  }
  EXPECT_EQ(flights.count(), 0U);
}

TEST(InFlightTest, LikeAMapUnderRandomUse) {
  const std::uint64_t seed = random_u64();
  SCOPED_TRACE("seed " + std::to_string(seed));
  Rng rng(seed);
  InFlight flights(8);
  std::map<std::uint64_t, std::uint64_t> out;
  std::vector<std::uint64_t> all;
  for (int i = 0; i < 100'000; ++i) {
    if (out.size() < 8 && rng.chance(50)) {
      const std::uint64_t ticket = flights.add(rng.next());
      ASSERT_FALSE(out.contains(ticket));
      all.push_back(ticket);
      if (all.size() > 64) all.erase(all.begin());
      out[ticket] = 0;
    } else if (!all.empty()) {
      const std::uint64_t ticket = all[rng.below(all.size())];
      ASSERT_EQ(flights.take(ticket).has_value(), out.erase(ticket) == 1);
    }
    ASSERT_EQ(flights.count(), out.size());
  }
}

}  // namespace
}  // namespace terrace::transfer
