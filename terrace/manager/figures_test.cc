#include <gtest/gtest.h>

#include <atomic>
#include <map>
#include <string>
#include <thread>

#include "terrace/manager/core_rig_internal.h"
#include "terrace/manager/figures_internal.h"
#include "terrace/manager/status_internal.h"
#include "terrace/testing/eventually.h"

namespace terrace::manager {
namespace {

class Seen final : public MetricVisitor {
 public:
  void counter(std::string_view name, std::string_view labels, std::uint64_t value) override {
    gauge(name, labels, static_cast<double>(value));
  }
  void gauge(std::string_view name, std::string_view labels, double value) override {
    values[std::string(name) + "{" + std::string(labels) + "}"] = value;
  }
  std::map<std::string, double> values;
};

Options small() {
  Options options;
  options.layout.block_tokens = Tokens(16);
  options.layout.ranks = 1;
  options.layout.groups = {{GroupId(0), {Bytes(1000)}}};
  options.host.blocks = 8;
  return options;
}

class FiguresTest : public ::testing::Test {
 protected:
  void visit(Seen& seen) const { visit_all(shared_, opened_, counters_, forecast_, seen); }

  const Options options_ = small();
  Counters counters_;
  const testing::FakeClock clock_;
  Shared shared_{options_, 1, counters_, clock_};
  Opened opened_;
  SizeForecast forecast_{options_};
};

// An engine's call holds that lock: who scrapes must neither wait for it nor make it wait.
TEST_F(FiguresTest, AScrapeTakesNoLockOfTheCore) {
  std::atomic<bool> is_visited{false};
  std::jthread scraper;
  const MutexLock lock(shared_.mutex);
  scraper = std::jthread([&] {
    Seen seen;
    visit(seen);
    is_visited.store(true);
  });
  EXPECT_TRUE(testing::eventually([&] { return is_visited.load(); }));
}

TEST_F(FiguresTest, WhatWasToldIsShown) {
  {
    const MutexLock lock(shared_.mutex);
    shared_.core.add_request(
        std::make_unique<Request>(RequestId(1), Tokens(16), std::vector<ExtraKey>{}),
        Nanoseconds(0));
  }
  Seen before;
  visit(before);
  EXPECT_EQ(before.values.at("terrace_active_requests{}"), 0);
  {
    const MutexLock lock(shared_.mutex);
    shared_.figures.tell(shared_.core);
    shared_.figures.tell_plans(shared_.core);
  }
  Seen after;
  visit(after);
  EXPECT_EQ(after.values.at("terrace_active_requests{}"), 1);
  EXPECT_EQ(after.values.at(R"(terrace_pool_slots{tier="host",state="pinned"})"), 0);
  EXPECT_EQ(after.values.at(R"(terrace_plan_ratio{tier="disk",fraction="0.9"})"), 0);
  EXPECT_EQ(after.values.at(R"(terrace_hit_rate{tier="host"})"), 0) << "nothing asked: no NaN";
}

TEST(FiguresRigTest, BlocksThatWaitAreShownByTheirQueue) {
  rig::Rig rig({.has_disk = true});
  const RequestId id = rig.begin(rig::Rig::make_tokens(3, 1));
  ASSERT_EQ(rig.look_up(id), 0U);
  rig.advance(id, 3, rig::Rig::make_table(3));
  rig.step();
  ASSERT_EQ(rig.core.writes(), 3U);
  Figures figures;
  figures.tell(rig.core);
  Seen seen;
  figures.visit(seen);
  EXPECT_EQ(seen.values.at(R"(terrace_queue_blocks{queue="disk_write"})"), 3);
  EXPECT_EQ(seen.values.at(R"(terrace_queue_blocks{queue="disk_read"})"), 0);
}

// Half of the prompt's blocks are in host and wait for the engine; a step of another is under way.
TEST(FiguresRigTest, EachFigureIsTheCores) {
  rig::Rig rig;
  rig.run_cold(rig::Rig::make_tokens(2, 1));
  const RequestId hit = rig.begin(rig::Rig::make_tokens(2, 1));
  ASSERT_EQ(rig.look_up(hit), 2U);
  ASSERT_TRUE(rig.accept(hit, 0, 2, rig::Rig::make_table(2)).is_ok());
  rig.step();
  (void)rig.end(hit);
  const RequestId waiting = rig.begin(rig::Rig::make_tokens(4, 1));
  ASSERT_EQ(rig.look_up(waiting), 2U);
  const RequestId running = rig.begin(rig::Rig::make_tokens(1, 2));
  (void)rig.look_up(running);
  rig.advance(running, 1, rig::Rig::make_table(1, 20));
  ASSERT_TRUE(rig.build().has_value());
  for (int i = 0; i < 20; ++i) {
    rig.core.context().planner.settle(Tier::kHost, milliseconds(4), milliseconds(6));
  }
  ASSERT_GT(rig.core.context().planner.calibration(Tier::kHost, 0.5), 0);
  Figures figures;
  figures.tell(rig.core);
  figures.tell_plans(rig.core);
  figures.tell_memory(rig.core);
  Seen seen;
  figures.visit(seen);
  const auto value = [&](const std::string& name) { return seen.values.at(name); };
  EXPECT_EQ(value("terrace_active_requests{}"), 2);
  EXPECT_EQ(value("terrace_steps_in_flight{}"), 1);
  EXPECT_EQ(value("terrace_waiting_pins{}"), 2);
  EXPECT_EQ(value(R"(terrace_pool_slots{tier="host",state="sealed"})"),
            rig.count(catalog::SlotState::kSealed));
  EXPECT_EQ(value(R"(terrace_pool_slots{tier="host",state="pinned"})"),
            rig.core.context().pool().pinned());
  const Context& context = rig.core.context();
  EXPECT_EQ(value(R"(terrace_queue_limit_blocks{queue="disk_write"})"),
            context.options.disk.queue_blocks);
  EXPECT_EQ(value(R"(terrace_queue_blocks{queue="disk_read"})"), rig.core.reads());
  EXPECT_EQ(value(R"(terrace_queue_limit_blocks{queue="object_write"})"), 0) << "no such tier";
  const auto bytes = [&](const std::string& of) {
    return Bytes(static_cast<std::uint64_t>(value("terrace_memory_bytes{of=\"" + of + "\"}")));
  };
  EXPECT_EQ(bytes("host"), context.host->bytes());
  EXPECT_EQ(bytes("host_catalog"), context.host->pool().memory());
  ASSERT_EQ(context.returns, nullptr) << "lru learns nothing";
  EXPECT_EQ(bytes("returns"), Bytes(0));
  EXPECT_EQ(value(R"(terrace_hit_rate{tier="host"})"), 0.5) << "two requests of two blocks ended";
  EXPECT_EQ(value(R"(terrace_plan_ratio{tier="host",fraction="0.5"})"),
            rig.core.context().planner.calibration(Tier::kHost, 0.5));
}

}  // namespace
}  // namespace terrace::manager
