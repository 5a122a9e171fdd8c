// The queue under full load, on a device that takes a fixed time for everything and serves in the
// order of arrival: who waits for whom, and for how long. Virtual time; all figures are exact.
#include <gtest/gtest.h>

#include <algorithm>
#include <deque>
#include <utility>

#include "terrace/base/rng.h"
#include "terrace/testing/fake_clock.h"
#include "terrace/transfer/queue.h"

namespace terrace::transfer {
namespace {

constexpr Nanoseconds kService = milliseconds(1);
constexpr Nanoseconds kFailure(1000);  // How soon one comes.
constexpr unsigned kDepth = 16;

// `channels` transfers are served at a time, the rest waits in order of arrival.
class FixedService final : public Backend {
 public:
  FixedService(testing::FakeClock& clock, unsigned channels)
      : Backend(kDepth), clock_(clock), busy_until_(channels, clock.now()) {}
  [[nodiscard]] std::string_view name() const override { return "fixed_service"; }
  void wake() override {}
  // When the next completion is due.
  [[nodiscard]] Nanoseconds next() const {
    Nanoseconds soonest = kNoDeadline;
    for (const auto* flights : {&flights_, &failed_}) {
      for (const auto& [due, transfer] : *flights) soonest = std::min(soonest, due);
    }
    return soonest;
  }
  // The next one ends with an error, as fast as a device that is away says so.
  void fail_next() { fails_next_ = true; }
  // Writes hang from now on.
  void hold_writes() { holds_writes_ = true; }
  [[nodiscard]] unsigned flying(IoClass io_class) const {
    return static_cast<unsigned>(std::ranges::count_if(
        flights_, [&](const auto& flight) { return flight.second.io_class == io_class; }));
  }

 protected:
  Status start(const Transfer& transfer) override {
    if (std::exchange(fails_next_, false)) {
      failed_.emplace_back(clock_.now() + kFailure, transfer);
      return {};
    }
    const auto channel = std::ranges::min_element(busy_until_);
    *channel = std::max(*channel, clock_.now()) + kService;
    flights_.emplace_back(*channel, transfer);
    return {};
  }
  void collect(std::vector<Finished>& finished) override {
    std::erase_if(failed_, [&](const auto& flight) {
      if (flight.first > clock_.now()) return false;
      finished.push_back({flight.second, {Code::kIo, "EIO"}});
      return true;
    });
    std::erase_if(flights_, [&](const auto& flight) {
      if (flight.first > clock_.now()) return false;
      if (holds_writes_ && flight.second.op == IoOp::kWrite) return false;
      finished.push_back({flight.second, {}});
      return true;
    });
  }
  void pause(Nanoseconds) override {}

 private:
  testing::FakeClock& clock_;
  std::vector<Nanoseconds> busy_until_;
  std::deque<std::pair<Nanoseconds, Transfer>> flights_;
  std::deque<std::pair<Nanoseconds, Transfer>> failed_;
  bool fails_next_ = false;
  bool holds_writes_ = false;
};

// What a manager does: reads that come at random, writes that never end.
class Load {
 public:
  explicit Load(unsigned channels, std::uint64_t seed = 1)
      : device_(clock_, channels), queue_(device_, clock_, {}), rng_(seed) {}

  struct Result {
    std::vector<Nanoseconds> latencies;  // Of reads, sorted.
    std::uint64_t writes = 0;            // That ended.
    [[nodiscard]] Nanoseconds p99() const { return latencies[latencies.size() * 99 / 100]; }
  };
  // Reads every `gap` on average, 0 = none. With writes, as many wait as may.
  Result run(Nanoseconds time, Nanoseconds gap, bool has_writes,
             IoClass reads = IoClass::kTtftRead) {
    Result result;
    const Nanoseconds end = clock_.now() + time;
    Nanoseconds next_read = gap.value() == 0 ? kNoDeadline : clock_.now();
    while (clock_.now() < end) {
      if (clock_.now() >= next_read) {
        push(IoOp::kRead, reads);
        // Uniform from 0 to twice the gap.
        next_read += Nanoseconds(
            static_cast<std::int64_t>(rng_.below(static_cast<std::uint64_t>(2 * gap.value()))));
      }
      while (has_writes && queue_.waiting(IoClass::kOffloadWrite) < 64) {
        push(IoOp::kWrite, IoClass::kOffloadWrite);
      }
      poll(result);
      advance_to(std::min(next_read, end));
    }
    std::ranges::sort(result.latencies);
    return result;
  }
  testing::FakeClock& clock() { return clock_; }
  FixedService& device() { return device_; }
  Queue& queue() { return queue_; }
  void push(IoOp op, IoClass io_class) {
    Transfer transfer;
    transfer.token = begun_.size();
    transfer.op = op;
    transfer.io_class = io_class;
    transfer.pieces[0] = {memory_, 1U << 20U};
    transfer.piece_count = 1;
    ASSERT_TRUE(queue_.push(transfer).is_ok());
    begun_.emplace_back(clock_.now(), op);
  }
  void poll(Result& result) {
    std::vector<Completion> completions;
    queue_.poll(completions);
    for (const Completion& completion : completions) {
      const auto& [begun, op] = begun_[completion.token];
      if (op == IoOp::kRead) {
        result.latencies.push_back(clock_.now() - begun);
      } else {
        ++result.writes;
      }
    }
  }

 private:
  void advance_to(Nanoseconds limit) {
    const Nanoseconds next = std::min(device_.next(), limit);
    clock_.advance(std::max(next - clock_.now(), Nanoseconds(1)));
  }

  testing::FakeClock clock_;
  FixedService device_;
  Queue queue_;
  Rng rng_;
  std::byte memory_[1] = {};                         // Nobody looks.
  std::vector<std::pair<Nanoseconds, IoOp>> begun_;  // [token]
};

class QueueLoadTest : public ::testing::TestWithParam<IoClass> {};
INSTANTIATE_TEST_SUITE_P(Reads, QueueLoadTest,
                         ::testing::Values(IoClass::kTtftRead, IoClass::kPrefetch),
                         [](const auto& tested) { return std::string(to_string(tested.param)); });

TEST_P(QueueLoadTest, AFullLoadOfWritesAtMostDoublesTheP99OfReads) {
  for (const Nanoseconds gap : {milliseconds(3), milliseconds(10), milliseconds(100)}) {
    SCOPED_TRACE(gap.value());
    Load idle(1);
    Load full(1);
    const Nanoseconds alone = idle.run(seconds(200), gap, false, GetParam()).p99();
    const auto loaded = full.run(seconds(200), gap, true, GetParam());
    EXPECT_LE(loaded.p99().value(), 2 * alone.value());
    // And what reads leave is used.
    const double left = 200'000.0 - static_cast<double>(loaded.latencies.size());
    EXPECT_GE(static_cast<double>(loaded.writes), 0.99 * left);
  }
}

TEST_P(QueueLoadTest, WithoutReadsWritesHaveAllOfTheDevice) {
  Load load(1);
  (void)load.run(seconds(5), milliseconds(5), true, GetParam());
  EXPECT_EQ(load.queue().write_window().value(), 1);
  (void)load.run(seconds(2), Nanoseconds(0), true);
  EXPECT_EQ(load.run(seconds(10), Nanoseconds(0), true).writes, 10'000U);
  EXPECT_EQ(load.device().flying(IoClass::kOffloadWrite), kDepth / 2);
  EXPECT_EQ(load.queue().write_window().value(), kDepth / 2);
}

// Eight things at a time: there, writes beside reads cost the reads nothing.
TEST_P(QueueLoadTest, OnAParallelDeviceWritesGoOnBesideReads) {
  Load idle(kDepth / 2);
  Load full(kDepth / 2);
  const Nanoseconds alone = idle.run(seconds(100), milliseconds(2), false, GetParam()).p99();
  const auto loaded = full.run(seconds(100), milliseconds(2), true, GetParam());
  EXPECT_LE(loaded.p99().value(), 2 * alone.value());
  EXPECT_GE(loaded.writes, 500'000U) << "of 800'000 at most";
}

// Of a device that is away for a moment: no read that brings something is ever as quick.
TEST_P(QueueLoadTest, AReadThatFailsAtOnceIsNoneToBeMeasuredBy) {
  Load load(kDepth / 2);
  Load::Result result;
  load.device().fail_next();
  for (int i = 0; i < 65; ++i) {
    load.push(IoOp::kRead, GetParam());
    load.poll(result);
    load.clock().advance(load.device().next() - load.clock().now());
    load.poll(result);
  }
  ASSERT_EQ(result.latencies.size(), 65U);
  EXPECT_EQ(result.latencies.front(), kFailure);
  load.poll(result);
  EXPECT_GT(load.queue().write_window().value(), 1);
}

TEST(QueueFloorTest, EachClassThatWaitsGetsItsTurn) {
  Load load(1);
  Load::Result result;
  for (int i = 0; i < 200; ++i) load.push(IoOp::kRead, IoClass::kTtftRead);
  for (const IoClass lower : {IoClass::kPrefetch, IoClass::kOffloadWrite, IoClass::kScrub}) {
    load.push(IoOp::kWrite, lower);
  }
  while (load.queue().waiting(IoClass::kTtftRead) > 200 - Queue::kFloorStarts - kDepth) {
    load.poll(result);
    load.clock().advance(kService);
  }
  for (const IoClass lower : {IoClass::kPrefetch, IoClass::kOffloadWrite, IoClass::kScrub}) {
    EXPECT_EQ(load.queue().waiting(lower), 0U) << to_string(lower);
  }
}

TEST(QueueFloorTest, ATurnIsOneTransferAndTheReadsGoOn) {
  Load load(1);
  Load::Result result;
  for (int i = 0; i < 320; ++i) load.push(IoOp::kRead, IoClass::kTtftRead);
  for (int i = 0; i < 320; ++i) load.push(IoOp::kWrite, IoClass::kScrub);
  while (load.queue().waiting(IoClass::kTtftRead) > 0) {
    load.poll(result);
    load.clock().advance(kService);
  }
  const std::size_t turns = 320 - load.queue().waiting(IoClass::kScrub);
  EXPECT_GE(turns, 320 / Queue::kFloorStarts - 1);
  EXPECT_LE(turns, 320 / Queue::kFloorStarts + 1);
}

// Writes that hang in the device hold all that their class may have there: reads pass them by.
TEST(QueueFloorTest, AClassAtItsBoundsKeepsNobodyWaiting) {
  Load load(2);
  Load::Result result;
  load.device().hold_writes();
  for (int i = 0; i < 8; ++i) load.push(IoOp::kWrite, IoClass::kScrub);
  load.poll(result);
  ASSERT_EQ(load.device().flying(IoClass::kScrub), kDepth / 8);
  for (unsigned i = 0; i < 3 * Queue::kFloorStarts; ++i) {
    load.push(IoOp::kRead, IoClass::kTtftRead);
    load.poll(result);
    load.clock().advance(kService);
  }
  load.poll(result);
  EXPECT_EQ(result.latencies.size(), 3 * Queue::kFloorStarts);
  EXPECT_EQ(load.device().flying(IoClass::kScrub), kDepth / 8);
}

}  // namespace
}  // namespace terrace::transfer
