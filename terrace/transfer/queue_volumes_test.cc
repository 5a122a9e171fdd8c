// Several volumes in one queue, each with a device of its own that takes a fixed time for
// everything, some of which hang: who keeps whom waiting. Virtual time; all figures are exact.
#include <gtest/gtest.h>

#include <algorithm>
#include <deque>
#include <map>
#include <vector>

#include "terrace/base/rng.h"
#include "terrace/testing/fake_clock.h"
#include "terrace/transfer/queue.h"

namespace terrace::transfer {
namespace {

constexpr Nanoseconds kService = milliseconds(1);
constexpr unsigned kDepth = 16;

class Devices final : public Backend {
 public:
  Devices(testing::FakeClock& clock, std::uint32_t volumes)
      : Backend(kDepth), clock_(clock), busy_until_(volumes, clock.now()), hangs_(volumes, false) {}
  [[nodiscard]] std::string_view name() const override { return "devices"; }
  void wake() override {}
  void hang(std::uint32_t volume, bool hangs) { hangs_[volume] = hangs; }
  // When the next completion is due.
  [[nodiscard]] Nanoseconds next() const {
    Nanoseconds soonest = kNoDeadline;
    for (const auto& [due, transfer] : flights_) {
      if (!hangs_[transfer.volume]) soonest = std::min(soonest, due);
    }
    return soonest;
  }
  [[nodiscard]] unsigned flying(std::uint32_t volume) const {
    return count([&](const Transfer& one) { return one.volume == volume; });
  }
  [[nodiscard]] unsigned flying(std::uint32_t volume, IoClass io_class) const {
    return count(
        [&](const Transfer& one) { return one.volume == volume && one.io_class == io_class; });
  }

 protected:
  Status start(const Transfer& transfer) override {
    Nanoseconds& busy_until = busy_until_[transfer.volume];
    busy_until = std::max(busy_until, clock_.now()) + kService;
    flights_.emplace_back(busy_until, transfer);
    return {};
  }
  void collect(std::vector<Finished>& finished) override {
    std::erase_if(flights_, [&](const auto& flight) {
      if (flight.first > clock_.now() || hangs_[flight.second.volume]) return false;
      finished.push_back({flight.second, {}});
      return true;
    });
  }
  void pause(Nanoseconds) override {}

 private:
  template <typename Condition>
  [[nodiscard]] unsigned count(const Condition& is_meant) const {
    return static_cast<unsigned>(std::ranges::count_if(
        flights_, [&](const auto& flight) { return is_meant(flight.second); }));
  }
  testing::FakeClock& clock_;
  std::vector<Nanoseconds> busy_until_;
  std::vector<bool> hangs_;
  std::deque<std::pair<Nanoseconds, Transfer>> flights_;
};

class QueueVolumesTest : public ::testing::Test {
 protected:
  void start(std::uint32_t volumes) {
    queue_.reset();
    devices_ = std::make_unique<Devices>(clock_, volumes);
    Queue::Options options;
    options.class_bytes = {1ULL << 40U, 64ULL << 20U, 16ULL << 20U, 4ULL << 20U};
    options.volumes = volumes;
    queue_ = std::make_unique<Queue>(*devices_, clock_, options);
    begun_.clear();
  }
  void push(std::uint32_t volume, IoOp op, IoClass io_class) {
    Transfer transfer;
    transfer.token = begun_.size();
    transfer.op = op;
    transfer.io_class = io_class;
    transfer.volume = volume;
    if (op != IoOp::kSync) {
      transfer.pieces[0] = {memory_, 3U << 20U};
      transfer.piece_count = 1;
    }
    ASSERT_TRUE(queue_->push(transfer).is_ok());
    begun_.push_back({clock_.now(), volume, op});
  }
  // More than any volume may have, of each class.
  void flood(std::uint32_t volume) {
    for (unsigned i = 0; i < 2 * kDepth; ++i) {
      push(volume, IoOp::kRead, IoClass::kTtftRead);
      push(volume, IoOp::kRead, IoClass::kPrefetch);
      push(volume, IoOp::kWrite, IoClass::kOffloadWrite);
      push(volume, IoOp::kSync, IoClass::kPrefetch);
      push(volume, IoOp::kRead, IoClass::kScrub);
    }
  }
  std::vector<Completion> poll() {
    std::vector<Completion> completions;
    queue_->poll(completions);
    return completions;
  }
  // How long each thing took that ended, of the first volume. It reads now and then, writes all the
  // time and syncs every 10 ms.
  std::map<IoOp, std::vector<Nanoseconds>> serve_first(Nanoseconds time) {
    std::map<IoOp, std::vector<Nanoseconds>> taken;
    Rng rng(1);
    const Nanoseconds end = clock_.now() + time;
    Nanoseconds next_read = clock_.now();
    Nanoseconds next_sync = clock_.now();
    std::size_t writes = 0;  // Under way.
    while (clock_.now() < end) {
      if (clock_.now() >= next_read) {
        push(0, IoOp::kRead, IoClass::kTtftRead);
        next_read += Nanoseconds(static_cast<std::int64_t>(rng.below(10'000'000)));
      }
      if (clock_.now() >= next_sync) {
        push(0, IoOp::kSync, IoClass::kPrefetch);
        next_sync += milliseconds(10);
      }
      for (; writes < 32; ++writes) push(0, IoOp::kWrite, IoClass::kOffloadWrite);
      for (const Completion& completion : poll()) {
        const Begun& begun = begun_[completion.token];
        if (begun.volume != 0) continue;
        taken[begun.op].push_back(clock_.now() - begun.at);
        if (begun.op == IoOp::kWrite) --writes;
      }
      const Nanoseconds next = std::min({devices_->next(), next_read, next_sync, end});
      clock_.advance(std::max(next - clock_.now(), Nanoseconds(1)));
    }
    return taken;
  }

  struct Begun {
    Nanoseconds at{0};
    std::uint32_t volume = 0;
    IoOp op = IoOp::kRead;
  };
  testing::FakeClock clock_;
  std::unique_ptr<Devices> devices_;
  std::unique_ptr<Queue> queue_;
  std::byte memory_[1] = {};  // Nobody looks.
  std::vector<Begun> begun_;  // [token]
};

TEST_F(QueueVolumesTest, ThoseThatHangChangeNothingForTheOthers) {
  for (const std::uint32_t volumes : {2U, 3U, 4U}) {
    start(volumes);
    const auto alone = serve_first(seconds(5));
    start(volumes);
    for (std::uint32_t v = 1; v < volumes; ++v) {
      devices_->hang(v, true);
      flood(v);
    }
    const auto beside = serve_first(seconds(5));
    for (const IoOp op : {IoOp::kRead, IoOp::kWrite, IoOp::kSync}) {
      EXPECT_GT(alone.at(op).size(), 400U);
      EXPECT_TRUE(beside.contains(op) && alone.at(op) == beside.at(op))
          << to_string(op) << " beside " << volumes - 1 << " that hang";
    }
  }
}

TEST_F(QueueVolumesTest, EachHasItsShareAndOneAloneHasAll) {
  for (const std::uint32_t volumes : {1U, 2U, 4U}) {
    start(volumes);
    const unsigned share = kDepth / volumes;
    for (std::uint32_t v = 0; v < volumes; ++v) {
      devices_->hang(v, true);
      for (unsigned i = 0; i < kDepth; ++i) push(v, IoOp::kWrite, IoClass::kOffloadWrite);
    }
    EXPECT_TRUE(poll().empty());
    // 3 MiB each, of the 16 that writes may have in flight.
    const unsigned writes = std::min(share / 2, 16 / volumes / 3);
    for (std::uint32_t v = 0; v < volumes; ++v) EXPECT_EQ(devices_->flying(v), writes) << volumes;
    EXPECT_EQ(queue_->write_window().value(), volumes * (share / 2));
    for (std::uint32_t v = 0; v < volumes; ++v) flood(v);
    EXPECT_TRUE(poll().empty());
    for (std::uint32_t v = 0; v < volumes; ++v) {
      EXPECT_EQ(devices_->flying(v), share) << volumes;
      EXPECT_EQ(devices_->flying(v, IoClass::kTtftRead), share - writes) << volumes;
    }
    EXPECT_EQ(queue_->in_flight(), kDepth);
  }
}

TEST_F(QueueVolumesTest, WhatWaitedForOneThatHungGoesOnWhenItAnswers) {
  start(2);
  devices_->hang(1, true);
  flood(1);
  (void)serve_first(seconds(1));
  devices_->hang(1, false);
  const Nanoseconds limit = clock_.now() + seconds(1);
  while (!queue_->is_idle() && clock_.now() < limit) {
    (void)poll();
    clock_.advance(kService);
  }
  EXPECT_TRUE(queue_->is_idle());
}

// The order of classes and the floor under them are each volume's own.
TEST_F(QueueVolumesTest, AClassThatWaitsGetsItsTurnWhereverTheOtherVolumeHasIts) {
  start(2);
  for (int i = 0; i < 400; ++i) push(0, IoOp::kRead, IoClass::kTtftRead);
  push(0, IoOp::kRead, IoClass::kPrefetch);
  unsigned first_reads = 0;
  bool is_served = false;
  while (!is_served && first_reads < 400) {
    push(1, IoOp::kRead, IoClass::kPrefetch);  // Never kept waiting.
    for (const Completion& completion : poll()) {
      if (completion.token < 400) ++first_reads;
      is_served = is_served || completion.token == 400;
    }
    clock_.advance(kService);
  }
  EXPECT_TRUE(is_served);
  EXPECT_LE(first_reads, Queue::kFloorStarts + kDepth);
}

}  // namespace
}  // namespace terrace::transfer
