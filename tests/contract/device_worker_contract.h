// What a worker does over every device: what was saved is what is loaded, and what does not match
// its checksum is a failed load. A device's test instantiates it with a place, as DeviceContract.
// Threading: tests only.
#pragma once

#include <algorithm>
#include <memory>
#include <optional>
#include <vector>

#include "contract/device_contract.h"
#include "terrace/worker/worker_fixture.h"

namespace terrace::worker {

// Two groups of five layers; the engine's memory lies in the place, worker_fixture's serves as the
// shape of it alone.
class DeviceWorkerContract : public WorkerTest,
                             public ::testing::WithParamInterface<memory::DevicePlaceMaker> {
 protected:
  static constexpr std::uint32_t kBlocks = 40;

  DeviceWorkerContract() : WorkerTest(Engine({49'152, 1000}, 5, kBlocks)) {}

  void SetUp() override {
    if (const std::string why = GetParam().missing(); !why.empty()) GTEST_SKIP() << why;
    place_ = GetParam().make();
    ASSERT_NE(place_, nullptr);
    const std::vector<std::vector<std::size_t>> shapes = {std::vector<std::size_t>(5, 49'152),
                                                          std::vector<std::size_t>(5, 1000)};
    placed_.emplace(*place_, shapes, kBlocks, false, 0, rng_);
    for (memory::GroupRegions& group : placed_->groups) group.has_null_block = true;
    auto made = place_->make(placed_->groups, engine_.layout_);
    ASSERT_TRUE(made.has_value()) << made.error().text();
    start_owner(kOwner, 20);
    open_worker(std::move(*made));
    attach();
  }

  void TearDown() override { worker_.reset(); }  // Before the memory that it uses.

  Rng rng_{23};
  std::unique_ptr<memory::DevicePlace> place_;
  std::optional<memory::PlacedEngine> placed_;
};

TEST_P(DeviceWorkerContract, TheCanaryPassesAndLeavesTheNullBlockAsItWas) {
  wire::Orders step = orders();
  step.canary_slot = 19;
  const std::string bytes = encode(step);
  const Status status = worker_->run_canary(bytes_of(bytes));
  EXPECT_TRUE(status.is_ok()) << status.text();
  EXPECT_EQ(report().canary, wire::CanaryResult::kPassed);
  EXPECT_TRUE(placed_->is_as_wanted());
}

TEST_P(DeviceWorkerContract, WhatWasSavedIsLoadedIntoOtherBlocks) {
  wire::Orders out = orders();
  for (std::uint32_t i = 0; i < 18; ++i) {
    out.saves.push_back(save(i, i / 2 + 1, i % 2 == 0 ? 0 : 3));  // The second group's id is 3.
  }
  run_saves(out);
  const wire::Report done = report();
  wire::Orders back = orders(2);
  for (std::uint32_t i = 0; i < 18; ++i) {
    const auto group = static_cast<std::uint16_t>(i % 2);
    ASSERT_TRUE(done.saves.at(i).is_filled);
    const std::vector<std::byte> payload = placed_->gathered(group, i / 2 + 1);
    ASSERT_EQ(done.saves.at(i).checksum, checksum_of(payload)) << i;
    const auto slot = lane_->slot(SlotIndex(i)).first(payload.size());
    ASSERT_TRUE(std::ranges::equal(slot, payload)) << i;
    back.loads.push_back(load(i, i / 2 + 21, done.saves.at(i).checksum, group == 0 ? 0 : 3));
    placed_->scatter(group, i / 2 + 21, payload);
  }
  EXPECT_EQ(run_loads(back), std::vector<std::uint32_t>());
  EXPECT_TRUE(placed_->is_as_wanted());
  EXPECT_EQ(worker_->facts().loaded, 18U);
}

TEST_P(DeviceWorkerContract, AByteThatChangedInHostIsAFailedLoadThatTheReportNames) {
  const Checksum good = saved(1, 1);
  const Checksum bad = saved(2, 2);
  lane_->slot(SlotIndex(2))[100'000] ^= std::byte{4};
  wire::Orders back = orders(2);
  back.loads = {load(1, 31, good), load(2, 32, bad)};
  EXPECT_EQ(run_loads(back), std::vector<std::uint32_t>{32});
  const wire::Report told = report();
  ASSERT_EQ(told.failures.size(), 1U);
  EXPECT_EQ(told.failures[0].slot, slot(2));
  EXPECT_EQ(told.failures[0].device_block, 32U);
  EXPECT_EQ(worker_->facts().corrupt, 1U);
  placed_->scatter(0, 31, placed_->gathered(0, 1));
  auto changed = placed_->gathered(0, 2);
  changed[100'000] ^= std::byte{4};
  placed_->scatter(0, 32, changed);
  EXPECT_TRUE(placed_->is_as_wanted());
}

}  // namespace terrace::worker
