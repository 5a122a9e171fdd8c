#include "terrace/transfer/queue.h"

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

class QueueTest : public ::testing::Test {
 protected:
  QueueTest() : memory_(4096) {
    auto file = open_file(scratch_.path() + "/x", O_RDWR | O_CREAT);
    file_ = *std::move(file);
    (void)::ftruncate(file_.get(), 1 << 20);
    start(8, {});
  }
  void start(unsigned depth, Queue::Options options) {
    queue_.reset();
    auto chosen = make_backend("threads", {depth, 1});
    backend_ = std::make_unique<FaultBackend>(std::move(chosen->backend), 1);
    queue_ = std::make_unique<Queue>(*backend_, clock_, std::move(options));
  }
  Transfer make(std::uint64_t token, IoClass io_class, Nanoseconds deadline = kNoDeadline) {
    Transfer transfer;
    transfer.token = token;
    transfer.op = IoOp::kRead;
    transfer.io_class = io_class;
    transfer.file = file_.get();
    transfer.pieces[0] = {memory_.data(), memory_.size()};
    transfer.piece_count = 1;
    transfer.deadline = deadline;
    return transfer;
  }
  std::vector<Completion> collect(std::size_t count) {
    std::vector<Completion> completions;
    EXPECT_TRUE(testing::eventually([&] {
      queue_->poll(completions);
      backend_->wait(milliseconds(completions.size() < count ? 20 : 0));
      return completions.size() >= count;
    }));
    return completions;
  }
  void poll() {
    std::vector<Completion> completions;
    queue_->poll(completions);
    EXPECT_TRUE(completions.empty());
  }

  testing::ScratchDirectory scratch_;
  testing::FakeClock clock_;
  UniqueFd file_;
  std::vector<std::byte> memory_;
  std::unique_ptr<FaultBackend> backend_;
  std::unique_ptr<Queue> queue_;
};

TEST_F(QueueTest, HigherClassesStartFirst) {
  std::vector<std::uint64_t> order;
  Queue::Options options;
  options.prepare = [&](Transfer& transfer) {
    order.push_back(static_cast<std::uint64_t>(transfer.io_class));
    return true;
  };
  start(8, options);
  ASSERT_TRUE(queue_->push(make(1, IoClass::kScrub)).is_ok());
  ASSERT_TRUE(queue_->push(make(2, IoClass::kOffloadWrite)).is_ok());
  ASSERT_TRUE(queue_->push(make(3, IoClass::kPrefetch)).is_ok());
  ASSERT_TRUE(queue_->push(make(4, IoClass::kTtftRead)).is_ok());
  EXPECT_EQ(collect(4).size(), 4U);
  EXPECT_EQ(order, (std::vector<std::uint64_t>{0, 1, 2, 3}));
}

TEST_F(QueueTest, WritesLeaveHalfOfTheDepthToReads) {
  backend_->hold(true);
  for (std::uint64_t i = 0; i < 8; ++i) {
    ASSERT_TRUE(queue_->push(make(i, IoClass::kOffloadWrite)).is_ok());
  }
  poll();
  EXPECT_EQ(queue_->in_flight(), 4U);
  for (std::uint64_t i = 8; i < 12; ++i) {
    ASSERT_TRUE(queue_->push(make(i, IoClass::kTtftRead)).is_ok());
  }
  poll();
  EXPECT_EQ(queue_->in_flight(), 8U);
  EXPECT_EQ(queue_->waiting(IoClass::kTtftRead), 0U);
  backend_->hold(false);
  EXPECT_EQ(collect(12).size(), 12U);
  EXPECT_TRUE(queue_->is_idle());
}

TEST_F(QueueTest, BytesInFlightOfAClassAreBoundedButOneIsAlwaysLetThrough) {
  Queue::Options options;
  options.class_bytes = {1ULL << 30U, 1ULL << 30U, 5000, 100};
  start(64, options);
  backend_->hold(true);
  for (std::uint64_t i = 0; i < 4; ++i) {
    ASSERT_TRUE(queue_->push(make(i, IoClass::kOffloadWrite)).is_ok());
  }
  poll();
  EXPECT_EQ(queue_->in_flight(), 1U);
  backend_->hold(false);
  EXPECT_EQ(collect(4).size(), 4U);
  ASSERT_TRUE(queue_->push(make(9, IoClass::kScrub)).is_ok());
  EXPECT_TRUE(collect(1)[0].status.is_ok());
}

TEST_F(QueueTest, AFullQueueRefuses) {
  Queue::Options options;
  options.capacity = 2;
  start(8, options);
  EXPECT_TRUE(queue_->push(make(1, IoClass::kPrefetch)).is_ok());
  EXPECT_TRUE(queue_->push(make(2, IoClass::kPrefetch)).is_ok());
  EXPECT_EQ(queue_->push(make(3, IoClass::kPrefetch)).code(), Code::kExhausted);
  EXPECT_EQ(collect(2).size(), 2U);
}

TEST_F(QueueTest, AWaitingTransferEndsAtItsDeadlineAndOneInFlightDoesNot) {
  start(1, {});
  backend_->hold(true);
  ASSERT_TRUE(queue_->push(make(1, IoClass::kTtftRead, clock_.now() + seconds(1))).is_ok());
  poll();
  ASSERT_TRUE(queue_->push(make(2, IoClass::kTtftRead, clock_.now() + seconds(1))).is_ok());
  poll();
  clock_.advance(seconds(2));
  const auto late = collect(1);
  ASSERT_EQ(late.size(), 1U);
  EXPECT_EQ(late[0].token, 2U);
  EXPECT_EQ(late[0].status.code(), Code::kDeadline);
  EXPECT_EQ(queue_->in_flight(), 1U);
  backend_->hold(false);
  const auto rest = collect(1);
  EXPECT_EQ(rest[0].token, 1U);
  EXPECT_TRUE(rest[0].status.is_ok());
}

// The time runs from the push, whether it was spent waiting or at the device.
TEST_F(QueueTest, EachClassIsCountedWithItsTime) {
  start(1, {});
  backend_->hold(true);
  for (std::uint64_t token = 1; token <= 3; ++token) {
    ASSERT_TRUE(queue_->push(make(token, IoClass::kPrefetch)).is_ok());
  }
  ASSERT_TRUE(queue_->push(make(4, IoClass::kScrub, clock_.now() + milliseconds(1))).is_ok());
  const auto& counters = queue_->counters();
  const auto prefetch = static_cast<std::size_t>(IoClass::kPrefetch);
  const auto scrub = static_cast<std::size_t>(IoClass::kScrub);
  std::vector<Completion> completions;
  queue_->poll(completions);
  EXPECT_EQ(counters.waiting[prefetch].value(), 2) << "one of three is at the device";
  EXPECT_EQ(counters.waiting[scrub].value(), 1);
  clock_.advance(milliseconds(5));
  backend_->hold(false);
  while (completions.size() < 4) {
    for (Completion& one : collect(1)) completions.push_back(std::move(one));
  }
  EXPECT_EQ(counters.done[prefetch].value(), 3U);
  EXPECT_EQ(counters.time_ns[prefetch].value(), 15'000'000U);
  EXPECT_EQ(counters.waiting[prefetch].value(), 0);
  EXPECT_EQ(counters.done[scrub].value(), 1U) << "its deadline passed";
  EXPECT_EQ(counters.time_ns[scrub].value(), 5'000'000U);
  EXPECT_EQ(counters.done[static_cast<std::size_t>(IoClass::kTtftRead)].value(), 0U);
}

TEST_F(QueueTest, CancelEndsWhatWaitsAndLeavesWhatFlies) {
  start(1, {});
  backend_->hold(true);
  ASSERT_TRUE(queue_->push(make(1, IoClass::kOffloadWrite)).is_ok());
  poll();
  ASSERT_TRUE(queue_->push(make(2, IoClass::kOffloadWrite)).is_ok());
  std::vector<Completion> cancelled;
  queue_->cancel(IoClass::kOffloadWrite, {Code::kClosed, "closing"}, cancelled);
  ASSERT_EQ(cancelled.size(), 1U);
  EXPECT_EQ(cancelled[0].token, 2U);
  backend_->hold(false);
  EXPECT_EQ(collect(1)[0].token, 1U);
}

TEST_F(QueueTest, CancelIfEndsThoseThatAreMeantWhateverTheirClassAndNoneThatFlies) {
  start(1, {});
  backend_->hold(true);
  ASSERT_TRUE(queue_->push(make(1, IoClass::kTtftRead)).is_ok());
  poll();
  ASSERT_TRUE(queue_->push(make(2, IoClass::kTtftRead)).is_ok());
  ASSERT_TRUE(queue_->push(make(3, IoClass::kPrefetch)).is_ok());
  ASSERT_TRUE(queue_->push(make(4, IoClass::kPrefetch)).is_ok());
  std::vector<Completion> cancelled;
  queue_->cancel_if([](std::uint64_t token) { return token != 4; }, {Code::kClosed, "not wanted"},
                    cancelled);
  ASSERT_EQ(cancelled.size(), 2U);
  EXPECT_EQ(cancelled[0].token + cancelled[1].token, 2U + 3U);
  EXPECT_EQ(cancelled[0].status.code(), Code::kClosed);
  EXPECT_EQ(queue_->waiting(), 1U);
  backend_->hold(false);
  EXPECT_EQ(collect(1)[0].token, 1U);
  EXPECT_EQ(collect(1)[0].token, 4U);
}

TEST_F(QueueTest, WithoutBuffersATransferWaits) {
  bool has_buffers = false;
  Queue::Options options;
  options.prepare = [&](Transfer&) { return has_buffers; };
  start(8, options);
  ASSERT_TRUE(queue_->push(make(1, IoClass::kPrefetch)).is_ok());
  poll();
  EXPECT_EQ(queue_->in_flight(), 0U);
  has_buffers = true;
  EXPECT_EQ(collect(1).size(), 1U);
}

// It may be what brings buffers back.
TEST_F(QueueTest, WhatNeedsNoBuffersGoesOnWhereThereAreNone) {
  Queue::Options options;
  options.prepare = [](Transfer& transfer) { return transfer.op != IoOp::kRead; };
  start(8, options);
  ASSERT_TRUE(queue_->push(make(1, IoClass::kTtftRead)).is_ok());
  Transfer sync = make(2, IoClass::kPrefetch);
  sync.op = IoOp::kSync;
  ASSERT_TRUE(queue_->push(sync).is_ok());
  const auto ended = collect(1);
  ASSERT_EQ(ended.size(), 1U);
  EXPECT_EQ(ended[0].token, 2U);
  EXPECT_EQ(queue_->waiting(IoClass::kTtftRead), 1U);
}

}  // namespace
}  // namespace terrace::transfer
