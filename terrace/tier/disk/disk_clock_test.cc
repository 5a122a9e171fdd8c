// A wall clock that is set back, between owners and while one serves.
#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>

#include "terrace/tier/disk/disk_rig.h"
#include "terrace/tier/disk/format_internal.h"

namespace terrace::tier::disk {
namespace {

constexpr std::int64_t kDay = 86'400;

class SteppedClock final : public Clock {
 public:
  [[nodiscard]] Nanoseconds now() const override { return clock_.now(); }
  [[nodiscard]] std::int64_t wall_seconds() const override {
    return clock_.wall_seconds() + by_seconds_.load();
  }
  void step(std::int64_t by_seconds) { by_seconds_.fetch_add(by_seconds); }

 private:
  SystemClock clock_;
  std::atomic<std::int64_t> by_seconds_{0};
};

void expect_served(Rig& rig, std::uint64_t first, std::uint64_t end) {
  for (std::uint64_t n = first; n < end; ++n) {
    EXPECT_EQ(rig.read(n).text(), Status().text()) << n;
  }
}

void write(Rig& rig, std::uint64_t first, std::uint64_t end) {
  for (std::uint64_t n = first; n < end; ++n) {
    ASSERT_EQ(rig.write(n).text(), Status().text()) << n;
  }
}

// And waits until no later owner finds anything either.
void reset(Rig& rig) {
  rig.tier().forget_all();
  const Nanoseconds limit = rig.clock().now() + seconds(20);
  std::vector<DiskDone> done;
  while (rig.tier().is_drop_pending() && rig.clock().now() < limit) {
    rig.tier().wait(milliseconds(20));
    rig.tier().poll(done);
  }
  EXPECT_TRUE(rig.tier().undropped().empty());
}

// Of the namespace's last reset, as it lies on the medium.
std::uint64_t generation_of(const Rig& rig) {
  const std::string meta = tree(rig.path()).at(rig.owner() + "/ns-0001/slots.meta");
  std::uint64_t newest = 0;
  for (std::size_t copy = 0; copy < kMetaHeaderCopies; ++copy) {
    const auto page = std::as_bytes(std::span(meta)).subspan(copy * kPageBytes);
    const auto header = decode_meta(page.first<kPageBytes>());
    if (header.has_value()) newest = std::max(newest, header->generation);
  }
  return newest;
}

TEST(DiskClockTest, ADayBackLosesAndResurrectsNothingAndGenerationsRise) {
  SteppedClock clock;
  Rig rig;
  rig.use_clock(clock);
  std::uint64_t generation = 0;
  for (std::uint64_t round = 0; round < 4; ++round) {
    SCOPED_TRACE(round);
    const std::uint64_t first = 10 * round;
    ASSERT_EQ(rig.open().text(), Status().text());
    for (std::uint64_t n = 0; n < first; ++n) EXPECT_FALSE(rig.has(n)) << n;
    write(rig, first, first + 3);
    clock.step(-kDay);
    write(rig, first + 3, first + 6);
    expect_served(rig, first, first + 6);
    rig.close();
    clock.step(-kDay);
    ASSERT_EQ(rig.open().text(), Status().text());
    expect_served(rig, first, first + 6);
    reset(rig);
    rig.close();
    EXPECT_GT(generation_of(rig), generation);
    generation = generation_of(rig);
  }
}

// A full tier: what goes is the oldest by use, whatever the clock says of when that was.
TEST(DiskClockTest, ADayBackDoesNotTurnTheOrderOfUse) {
  SteppedClock clock;
  Rig rig;
  rig.use_clock(clock);
  ASSERT_EQ(rig.open().text(), Status().text());
  write(rig, 0, 12);
  clock.step(-kDay);
  rig.close();
  ASSERT_EQ(rig.open().text(), Status().text());
  write(rig, 12, 24);  // Of 16 places.
  rig.close();
  clock.step(-kDay);
  ASSERT_EQ(rig.open().text(), Status().text());
  expect_served(rig, 12, 24);
  EXPECT_FALSE(rig.has(0));
}

}  // namespace
}  // namespace terrace::tier::disk
