#include <gtest/gtest.h>

#include <atomic>
#include <map>
#include <string>
#include <thread>

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
  Shared shared_{options_, 1, counters_, Nanoseconds(0)};
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

}  // namespace
}  // namespace terrace::manager
