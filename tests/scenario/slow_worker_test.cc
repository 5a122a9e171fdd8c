// A rank that is stopped in the middle of its work: nothing it owes becomes visible, nothing it
// does late is believed, and once it goes on everything is as before.
#include <gtest/gtest.h>

#include <array>
#include <atomic>
#include <memory>
#include <string>
#include <vector>

#include "scenario/rank_process.h"
#include "terrace/base/log.h"
#include "terrace/manager/block_manager.h"
#include "terrace/testing/eventually.h"
#include "terrace/testing/scratch_directory.h"

namespace terrace::scenario {
namespace {

using testing::eventually;

constexpr std::uint64_t kBlockTokens = 32;
constexpr auto kHost = static_cast<std::size_t>(Tier::kHost);

// Real time, and what a test leaves out of it: a step's timeout is long, or a busy machine meets
// it.
class SkippingClock final : public Clock {
 public:
  [[nodiscard]] Nanoseconds now() const override {
    return clock_.now() + Nanoseconds(skipped_.load());
  }
  [[nodiscard]] std::int64_t wall_seconds() const override { return clock_.wall_seconds(); }
  void skip(Nanoseconds time) { skipped_ += time.value(); }

 private:
  SystemClock clock_;
  std::atomic<std::int64_t> skipped_{0};
};

// The value of a counter that is asked for by name and labels.
class Counted final : public MetricVisitor {
 public:
  explicit Counted(std::string wanted) : wanted_(std::move(wanted)) {}
  void counter(std::string_view name, std::string_view labels, std::uint64_t value) override {
    if (std::string(name).append(labels) == wanted_) value_ = value;
  }
  void gauge(std::string_view, std::string_view, double) override {}
  [[nodiscard]] std::uint64_t value() const { return value_; }

 private:
  const std::string wanted_;
  std::uint64_t value_ = UINT64_MAX;
};

class SlowWorkerScenario : public ::testing::Test {
 protected:
  SlowWorkerScenario() {
    manager::Options options;
    options.layout.block_tokens = Tokens(kBlockTokens);
    options.layout.ranks = 2;
    options.layout.groups = {{GroupId(0), std::vector<Bytes>(6, Bytes(kPiece))}};
    options.engine_id = "engine";
    options.attach_directory = scratch_.path() + "/attach";
    options.host.blocks = 16;
    options.host.huge_pages = false;
    options.offload_step_bytes = 1_GiB;
    options.has_planner = false;
    auto opened = manager::BlockManager::open(options, clock_, log_);
    EXPECT_TRUE(opened.has_value()) << opened.error().text();
    manager_ = std::move(*opened);
    for (unsigned i = 0; i < 2; ++i) {
      ranks_[i] = std::make_unique<RankProcess>(options.attach_directory, i, 2);
    }
    EXPECT_TRUE(eventually([&] {
      step();
      return manager_->status().is_ready;
    }));
  }

  std::string orders() { return manager_->build_orders().value(); }
  void take(const StepResult& result) {
    const std::string report = wire::encode(result.report);
    (void)manager_->take_report(std::as_bytes(std::span(report)));
  }
  // Both ranks at once; the blocks that one of them reported bad.
  std::vector<std::uint32_t> step() {
    const std::string due = orders();
    std::vector<std::uint32_t> failed;
    if (due.empty()) return failed;
    for (const auto& rank : ranks_) {
      rank->order(due);
      const StepResult result = rank->result();
      failed.insert(failed.end(), result.failed.begin(), result.failed.end());
      take(result);
    }
    return failed;
  }
  // The step's orders, while rank 1 is stopped, until the owner counts on it no more.
  void step_with_a_stopped_rank() {
    ranks_[1]->suspend();
    const std::string due = orders();
    ASSERT_FALSE(due.empty());
    for (const auto& rank : ranks_) rank->order(due);
    take(ranks_[0]->result());
    clock_.skip(manager::Options().step_timeout);
    ASSERT_TRUE(eventually([&] { return log_text().find("steps_overdue") != std::string::npos; }));
  }
  StepResult resume() {
    ranks_[1]->resume();
    StepResult late = ranks_[1]->result();
    take(late);
    return late;
  }

  RequestId begin() {
    manager::RequestOptions request;
    request.tokens = tokens_;
    request.prompt_tokens = Tokens(tokens_.size());
    return manager_->begin_request(request).value();
  }
  std::uint64_t look_up(RequestId id) {
    std::uint64_t blocks = 0;
    EXPECT_TRUE(eventually([&] {
      const auto answer = manager_->poll_request(id, Tokens(0), Tokens(1U << 20U));
      if (answer && answer->is_ready) blocks = answer->external / Tokens(kBlockTokens);
      return answer && answer->is_ready;
    }));
    return blocks;
  }
  void accept(RequestId id, std::uint64_t blocks) {
    const std::span<const std::uint32_t> tables[] = {loaded_};
    ASSERT_TRUE(
        manager_->accept_load(id, Tokens(0), Tokens(blocks * kBlockTokens), tables).is_ok());
  }
  void compute_and_advance(RequestId id) {
    for (unsigned rank = 0; rank < 2; ++rank) {
      for (const std::uint32_t block : computed_) ranks_[rank]->fill(block, block * 10 + rank);
    }
    advance(id);
  }
  void advance(RequestId id) {
    manager::Progress progress;
    progress.request = id;
    progress.computed = Tokens(tokens_.size());
    progress.block_tables = {computed_};
    ASSERT_TRUE(manager_->advance_request(progress).is_ok());
  }
  bool is_loaded_right(unsigned rank) {
    return ranks_[rank]->checksum(loaded_[0]) == ranks_[rank]->checksum(computed_[0]) &&
           ranks_[rank]->checksum(loaded_[1]) == ranks_[rank]->checksum(computed_[1]);
  }
  std::uint64_t counted(const std::string& name) {
    Counted counted(name);
    manager_->visit_metrics(counted);
    return counted.value();
  }
  std::uint64_t quarantined() {
    return manager_->status()
        .tiers[0]
        .slots[static_cast<std::size_t>(catalog::SlotState::kQuarantined)];
  }
  const std::string& log_text() {
    for (const LogLine& line : log_.drain()) logged_ += line.text + "\n";
    return logged_;
  }

  const std::vector<std::uint32_t> tokens_ = std::vector<std::uint32_t>(2 * kBlockTokens, 7);
  const std::vector<std::uint32_t> computed_ = {1, 2};
  const std::vector<std::uint32_t> loaded_ = {11, 12};
  testing::ScratchDirectory scratch_;
  SkippingClock clock_;
  RingLog log_{clock_, LogLevel::kInfo, 4096};
  std::string logged_;
  std::unique_ptr<manager::BlockManager> manager_;
  std::array<std::unique_ptr<RankProcess>, 2> ranks_;
};

TEST_F(SlowWorkerScenario, WhatAStoppedRankOwesIsAMissUntilItWasStoredAgain) {
  const RequestId id = begin();
  ASSERT_EQ(look_up(id), 0U);
  compute_and_advance(id);
  step_with_a_stopped_rank();
  EXPECT_EQ(look_up(begin()), 0U);
  EXPECT_EQ(quarantined(), 2U);  // It may still write to them.
  EXPECT_TRUE(resume().report.saves.at(0).is_filled);
  EXPECT_EQ(quarantined(), 0U);
  EXPECT_EQ(look_up(begin()), 0U);  // Filled, but too late: not believed.
  EXPECT_EQ(counted("terrace_lost_steps_total"), 1U);
  EXPECT_EQ(counted("terrace_drop_blocks_totalqueue=\"unfilled\""), 2U);
  EXPECT_EQ(manager_->status().hit_tokens[kHost], 0U);

  advance(id);
  step();
  const RequestId again = begin();
  ASSERT_EQ(look_up(again), 2U);
  accept(again, 2);
  EXPECT_TRUE(step().empty());
  EXPECT_TRUE(is_loaded_right(0) && is_loaded_right(1));
  EXPECT_EQ(manager_->status().hit_tokens[kHost], 2 * kBlockTokens);
  EXPECT_TRUE(manager_->status().is_healthy);
}

TEST_F(SlowWorkerScenario, ALoadThatAStoppedRankRunsLateIsCountedAsFailedAndOfferedToTheNext) {
  const RequestId id = begin();
  ASSERT_EQ(look_up(id), 0U);
  compute_and_advance(id);
  step();
  const RequestId slow = begin();
  ASSERT_EQ(look_up(slow), 2U);
  accept(slow, 2);
  step_with_a_stopped_rank();
  const StepResult late = resume();
  EXPECT_TRUE(late.failed.empty());  // It verified what it copied: no wrong bytes, only late ones.
  EXPECT_TRUE(is_loaded_right(1));
  EXPECT_EQ(counted("terrace_loads_totalresult=\"failed\""), 1U);
  EXPECT_EQ(manager_->status().hit_tokens[kHost], 0U);
  const auto ledger = manager_->end_request(slow);
  ASSERT_TRUE(ledger.has_value());
  EXPECT_EQ(ledger->failed, Tokens(2 * kBlockTokens));

  const RequestId next = begin();
  ASSERT_EQ(look_up(next), 2U);
  accept(next, 2);
  EXPECT_TRUE(step().empty());
  EXPECT_TRUE(is_loaded_right(0) && is_loaded_right(1));
  EXPECT_EQ(manager_->status().hit_tokens[kHost], 2 * kBlockTokens);
}

}  // namespace
}  // namespace terrace::scenario
