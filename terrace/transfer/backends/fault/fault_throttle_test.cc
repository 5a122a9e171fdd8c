// The token bucket of FaultBackend: virtual time, real files.
#include <fcntl.h>
#include <gtest/gtest.h>

#include "terrace/base/file.h"
#include "terrace/testing/eventually.h"
#include "terrace/testing/fake_clock.h"
#include "terrace/testing/scratch_directory.h"
#include "terrace/transfer/backends/fault/fault_backend.h"
#include "terrace/transfer/builtin.h"

namespace terrace::transfer {
namespace {

constexpr std::size_t kBytes = 16384;

class FaultThrottleTest : public ::testing::Test {
 protected:
  FaultThrottleTest()
      : faults_(std::move(make_backend("threads", {16, 2})->backend), 7), memory_(kBytes) {
    auto file = open_file(scratch_.path() + "/x", O_RDWR | O_CREAT);
    file_ = *std::move(file);
  }
  // Blocks a second, and how many may pass at once.
  void throttle(double rate, double burst) {
    faults_.set_throttle({rate * kBytes, burst * kBytes}, clock_);
  }
  void submit(IoOp op, int count = 1) {
    for (int i = 0; i < count; ++i) {
      Transfer transfer;
      transfer.op = op;
      transfer.file = file_.get();
      if (op != IoOp::kSync) {
        transfer.pieces[0] = {memory_.data(), memory_.size()};
        transfer.piece_count = 1;
      }
      ASSERT_TRUE(faults_.submit(transfer).is_ok());
    }
  }
  // Until all that the device still owes is kept back by the bucket.
  std::size_t settle() {
    EXPECT_TRUE(testing::eventually([&] {
      faults_.wait(milliseconds(5));
      faults_.poll(done_);
      return faults_.in_flight() == faults_.throttled();
    }));
    return done_.size();
  }

  testing::ScratchDirectory scratch_;
  testing::FakeClock clock_;
  UniqueFd file_;
  FaultBackend faults_;
  std::vector<std::byte> memory_;
  std::vector<Completion> done_;
};

TEST_F(FaultThrottleTest, CompletionsComeAtTheRate) {
  throttle(2, 1);
  submit(IoOp::kWrite, 4);
  EXPECT_EQ(settle(), 1U) << "the burst";
  EXPECT_EQ(faults_.throttled(), 3U);
  for (std::size_t passed = 2; passed <= 4; ++passed) {
    clock_.advance(milliseconds(499));
    EXPECT_EQ(settle(), passed - 1);
    clock_.advance(milliseconds(1));
    EXPECT_EQ(settle(), passed);
  }
  for (const Completion& completion : done_) EXPECT_TRUE(completion.status.is_ok());
}

TEST_F(FaultThrottleTest, APauseSavesUpNoMoreThanTheBurst) {
  throttle(1, 2);
  clock_.advance(seconds(3600));
  submit(IoOp::kWrite, 4);
  EXPECT_EQ(settle(), 2U);
}

TEST_F(FaultThrottleTest, MoreThanTheBurstIsSavedUpFor) {
  throttle(1, 0.25);
  submit(IoOp::kWrite);
  EXPECT_EQ(settle(), 0U);
  clock_.advance(milliseconds(749));
  EXPECT_EQ(settle(), 0U);
  clock_.advance(milliseconds(1));
  EXPECT_EQ(settle(), 1U);
}

TEST_F(FaultThrottleTest, ReadsAndWritesShareTheRateAndASyncHasNoBytes) {
  submit(IoOp::kWrite);
  EXPECT_EQ(settle(), 1U) << "not throttled";
  throttle(1, 1);
  submit(IoOp::kRead);
  EXPECT_EQ(settle(), 2U);
  submit(IoOp::kSync);
  EXPECT_EQ(settle(), 3U);
  submit(IoOp::kWrite);
  EXPECT_EQ(settle(), 3U);
  clock_.advance(seconds(1));
  EXPECT_EQ(settle(), 4U);
}

TEST_F(FaultThrottleTest, WhatWaitsGoesOnAtTheNewRate) {
  throttle(0.001, 0);
  submit(IoOp::kWrite, 3);
  EXPECT_EQ(settle(), 0U);
  throttle(10, 0);
  clock_.advance(milliseconds(100));
  EXPECT_EQ(settle(), 1U);
  throttle(0, 0);
  EXPECT_EQ(settle(), 3U) << "no limit";
}

TEST_F(FaultThrottleTest, AFaultIsToldAtTheRateToo) {
  throttle(1, 0);
  faults_.aim(Fault::kError, IoOp::kWrite);
  submit(IoOp::kWrite);
  EXPECT_EQ(settle(), 0U);
  clock_.advance(seconds(1));
  ASSERT_EQ(settle(), 1U);
  EXPECT_EQ(done_[0].status.code(), Code::kIo);
}

TEST_F(FaultThrottleTest, WhoWaitsIsWokenWhenTheBytesAreThere) {
  const SystemClock clock;
  faults_.set_throttle({.bytes_per_second = 100.0 * kBytes, .burst_bytes = 0}, clock);
  submit(IoOp::kWrite);
  for (int rounds = 0; done_.empty(); ++rounds) {
    ASSERT_LT(rounds, 100) << "it spins instead of waiting";
    faults_.wait(seconds(60));
    faults_.poll(done_);
  }
}

}  // namespace
}  // namespace terrace::transfer
