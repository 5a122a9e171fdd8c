// Several directories share what is stored in proportion to their speed.
#include <gtest/gtest.h>

#include <array>

#include "terrace/testing/fake_clock.h"
#include "terrace/tier/disk/disk_rig.h"
#include "terrace/tier/disk/spread_internal.h"

namespace terrace::tier::disk {
namespace {

// ---- The turns alone.

std::vector<std::uint32_t> turns(Spread& spread, std::size_t count, const std::vector<bool>& can) {
  std::vector<std::uint32_t> taken(can.size());
  for (std::size_t i = 0; i < count; ++i) ++taken[spread.next(can)];
  return taken;
}

TEST(SpreadTest, EqualVolumesAlternate) {
  Spread spread(2);
  const std::vector<bool> all(2, true);
  std::uint32_t last = spread.next(all);
  for (int i = 0; i < 20; ++i) {
    const std::uint32_t next = spread.next(all);
    EXPECT_NE(next, last);
    last = next;
  }
}

TEST(SpreadTest, TurnsFollowTheSpeedsAndAreMixed) {
  Spread spread(3);
  spread.set_speeds(std::array{3e9, 1e9, 2e9});
  const std::vector<bool> all(3, true);
  for (int round = 0; round < 5; ++round) {
    EXPECT_EQ(turns(spread, 6, all), (std::vector<std::uint32_t>{3, 1, 2})) << round;
  }
}

TEST(SpreadTest, WhoCannotTakeItIsPassedOverAndTheOthersKeepTheirShares) {
  Spread spread(3);
  spread.set_speeds(std::array{3e9, 1e9, 2e9});
  EXPECT_EQ(turns(spread, 50, {true, false, true}), (std::vector<std::uint32_t>{30, 0, 20}));
  EXPECT_EQ(turns(spread, 7, {false, true, false}), (std::vector<std::uint32_t>{0, 7, 0}));
}

TEST(SpreadTest, AnUnknownSpeedIsTheMeanOfTheOthersAndTheSlowestKeepsASixteenth) {
  Spread spread(3);
  spread.set_speeds(std::array{0.0, 0.0, 0.0});  // Nothing known: as before.
  EXPECT_EQ(spread.share(0), spread.share(1));
  spread.set_speeds(std::array{4e9, 0.0, 2e9});
  EXPECT_DOUBLE_EQ(spread.share(1), 0.75);
  spread.set_speeds(std::array{4e9, 1e6, 2e9});
  EXPECT_DOUBLE_EQ(spread.share(1), 1.0 / 16);
}

// ---- In the tier, over devices of two speeds, in virtual time.

// What the files do, told later: each path's device takes its time for each byte, one after the
// other. Who waits moves the clock.
class PacedBackend final : public transfer::Backend {
 public:
  PacedBackend(std::unique_ptr<transfer::Backend> inner, testing::FakeClock& clock)
      : Backend(inner->depth()), inner_(std::move(inner)), clock_(clock) {}
  std::string_view name() const override { return "paced"; }
  void wake() override { inner_->wake(); }
  void name_file(int file, const std::string& path) override {
    Backend::name_file(file, path);
    inner_->name_file(file, path);
  }

  std::array<std::int64_t, 2> ns_per_byte{1000, 1000};  // Below a, below b.
  std::array<std::uint64_t, 2> frames{};                // Written there.

 protected:
  Status start(const transfer::Transfer& transfer) override {
    const std::string& path = path_of(transfer.file);
    const std::size_t device = path.find("/b/") == std::string::npos ? 0 : 1;
    if (transfer.op == transfer::IoOp::kWrite && path.ends_with("0.slots")) ++frames[device];
    free_at_[device] =
        std::max(free_at_[device], clock_.now()) +
        Nanoseconds(ns_per_byte[device] * static_cast<std::int64_t>(transfer.bytes()));
    transfer::Transfer inner = transfer;
    inner.token = ++last_;
    flights_.emplace(inner.token, Flight{transfer, free_at_[device], {}});
    return inner_->submit(inner);
  }
  void collect(std::vector<Finished>& finished) override {
    take_inner();
    for (auto it = flights_.begin(); it != flights_.end();) {
      Flight& flight = it->second;
      if (!flight.status || flight.due > clock_.now()) {
        ++it;
        continue;
      }
      finished.push_back({flight.transfer, *std::move(flight.status)});
      it = flights_.erase(it);
    }
  }
  void pause(Nanoseconds limit) override {
    while (inner_->in_flight() > 0) {
      inner_->wait(seconds(1));
      take_inner();
    }
    Nanoseconds due = clock_.now() + limit;
    for (const auto& [token, flight] : flights_) due = std::min(due, flight.due);
    if (due > clock_.now()) clock_.advance(due - clock_.now());
  }

 private:
  struct Flight {
    transfer::Transfer transfer;
    Nanoseconds due{0};
    std::optional<Status> status;
  };
  void take_inner() {
    std::vector<transfer::Completion> done;
    inner_->poll(done);
    for (transfer::Completion& item : done) {
      flights_.at(item.token).status = std::move(item.status);
    }
  }

  std::unique_ptr<transfer::Backend> inner_;
  testing::FakeClock& clock_;
  std::map<std::uint64_t, Flight> flights_;
  std::array<Nanoseconds, 2> free_at_{};
  std::uint64_t last_ = 0;
};

class DiskSpreadTest : public ::testing::Test {
 protected:
  void open(std::uint64_t blocks) {
    rig_.use_clock(clock_);
    rig_.options().blocks = blocks;
    rig_.options().paths = {rig_.path() + "/a", rig_.path() + "/b"};
    rig_.options().decorate = [this](std::unique_ptr<transfer::Backend> inner) {
      auto paced = std::make_unique<PacedBackend>(std::move(inner), clock_);
      paced_ = paced.get();
      return paced;
    };
    ASSERT_EQ(rig_.open().text(), Status().text());
    rig_.settle();
  }
  // What was written below a and b meanwhile.
  std::array<std::uint64_t, 2> write(std::uint64_t count) {
    const auto before = paced_->frames;
    for (std::uint64_t i = 0; i < count; ++i) {
      EXPECT_EQ(rig_.write(next_++).text(), Status().text());
    }
    return {paced_->frames[0] - before[0], paced_->frames[1] - before[1]};
  }

  testing::FakeClock clock_;
  Rig rig_;
  PacedBackend* paced_ = nullptr;
  std::uint64_t next_ = 0;
};

TEST_F(DiskSpreadTest, DirectoriesOfOneSpeedGetTheSame) {
  open(400);
  (void)write(100);
  const auto [a, b] = write(100);
  EXPECT_NEAR(static_cast<double>(a), 50, 4);
  EXPECT_NEAR(static_cast<double>(b), 50, 4);
}

TEST_F(DiskSpreadTest, ASlowDirectoryGetsItsShareUntilTheOtherIsFull) {
  open(400);
  paced_->ns_per_byte = {4'000, 16'000};  // A frame takes 50 ms, or four times as long.
  (void)write(100);                       // Until it is known.
  const auto [a, b] = write(100);
  EXPECT_NEAR(static_cast<double>(a), 80, 6);
  EXPECT_NEAR(static_cast<double>(b), 20, 6);
  EXPECT_NEAR(rig_.metric("terrace_disk_device_bytes_per_second{volume=\"0\"}"), 250e3, 25e3);
  EXPECT_NEAR(rig_.metric("terrace_disk_device_bytes_per_second{volume=\"1\"}"), 62.5e3, 6e3);
  const auto rest = write(200);  // All that is free.
  EXPECT_EQ(a + b + rest[0] + rest[1], 300U);
  for (std::uint64_t n = 0; n < 400; ++n) EXPECT_TRUE(rig_.has(n)) << n;
  EXPECT_EQ(rig_.read(3).text(), Status().text());
  EXPECT_EQ(rig_.read(399).text(), Status().text());
}

TEST_F(DiskSpreadTest, WhatBecomesFasterGetsMore) {
  open(1200);
  paced_->ns_per_byte = {4'000, 16'000};
  (void)write(100);
  paced_->ns_per_byte = {16'000, 4'000};
  (void)write(300);
  const auto [a, b] = write(100);
  EXPECT_GT(b, a);
}

}  // namespace
}  // namespace terrace::tier::disk
