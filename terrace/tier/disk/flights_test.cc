// What counts as hanging.
#include <gtest/gtest.h>

#include "terrace/testing/fake_clock.h"
#include "terrace/tier/disk/flights_internal.h"

namespace terrace::tier::disk {
namespace {

class FlightsTest : public ::testing::Test {
 protected:
  [[nodiscard]] std::optional<Purpose> hanging(std::uint32_t volume = 0) {
    return flights_.hanging(volume, true);
  }
  testing::FakeClock clock_;
  Flights flights_{2, clock_};
};

TEST_F(FlightsTest, ItHangsWhenNothingComesBackAndUntilAllDoes) {
  flights_.began(Purpose::kReadFrame, 0);
  flights_.began(Purpose::kReadFrame, 0);
  clock_.advance(seconds(10));
  EXPECT_EQ(hanging(), std::nullopt);
  clock_.advance(milliseconds(1));
  EXPECT_EQ(hanging(), Purpose::kReadFrame);
  EXPECT_EQ(hanging(1), std::nullopt);
  flights_.ended(Purpose::kReadFrame, 0);
  EXPECT_EQ(hanging(), Purpose::kReadFrame);
  flights_.ended(Purpose::kReadFrame, 0);
  flights_.ended(Purpose::kReadFrame, 0);  // Of nothing.
  EXPECT_EQ(hanging(), std::nullopt);
  clock_.advance(seconds(1000));
  EXPECT_EQ(hanging(), std::nullopt) << "idle";
}

TEST_F(FlightsTest, ItHangsThoughMoreIsAskedOfItAndOtherKindsComeBack) {
  flights_.began(Purpose::kDataSync, 0);
  for (int second = 0; second < 12; ++second) {
    flights_.began(Purpose::kReadFrame, 0);
    flights_.began(Purpose::kDataSync, 0);
    clock_.advance(seconds(1));
    flights_.ended(Purpose::kReadFrame, 0);
  }
  EXPECT_EQ(hanging(), Purpose::kDataSync);
}

TEST_F(FlightsTest, AsLongAsSomeOfAKindComesBackItDoesNotHang) {
  flights_.began(Purpose::kWriteFrame, 0);
  for (int round = 0; round < 10; ++round) {
    flights_.began(Purpose::kWriteFrame, 0);
    clock_.advance(seconds(9));
    EXPECT_EQ(hanging(), std::nullopt);
    flights_.ended(Purpose::kWriteFrame, 0);
  }
}

TEST_F(FlightsTest, WhatWasNotThereIsNoAnswer) {
  flights_.began(Purpose::kMetaWrite, 0);
  clock_.advance(seconds(6));
  flights_.began(Purpose::kMetaWrite, 0);
  flights_.ended(Purpose::kMetaWrite, 0, false);
  clock_.advance(seconds(5));
  EXPECT_EQ(hanging(), Purpose::kMetaWrite);
}

TEST_F(FlightsTest, WhatASoundDeviceMayTakeLongForHasLonger) {
  flights_.began(Purpose::kAllocate, 0);
  flights_.began(Purpose::kDataSync, 1);
  clock_.advance(seconds(60));
  EXPECT_EQ(flights_.hanging(0, true), std::nullopt);
  EXPECT_EQ(flights_.hanging(1, false), std::nullopt) << "it writes out what the system kept";
  clock_.advance(milliseconds(1));
  EXPECT_EQ(flights_.hanging(0, true), Purpose::kAllocate);
  EXPECT_EQ(flights_.hanging(1, false), Purpose::kDataSync);
  EXPECT_EQ(text_of_hang(Purpose::kDataSync, false),
            "fdatasync of 0.slots has not come back for 60 s");
  EXPECT_EQ(text_of_hang(Purpose::kDataSync, true),
            "fdatasync of 0.slots has not come back for 10 s");
}

}  // namespace
}  // namespace terrace::tier::disk
