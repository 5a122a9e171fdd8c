#include "terrace/worker/canary.h"

#include <gtest/gtest.h>

#include <memory>
#include <string>

#include "terrace/worker/worker_fixture.h"

namespace terrace::worker {
namespace {

class CanaryTest : public WorkerTest {
 protected:
  Status run(std::uint32_t slot_index = 4) {
    wire::Orders step = orders();
    step.canary_slot = slot_index;
    const std::string bytes = encode(step);
    return worker_->run_canary(bytes_of(bytes));
  }
  std::shared_ptr<FaultyDevice> start_faulty() {
    auto cpu = memory::make_cpu_device(engine_.groups_, engine_.layout_);
    auto device = std::make_shared<FaultyDevice>(std::move(cpu).value());
    start_owner();
    open_worker(device);
    attach();
    return device;
  }
};

TEST_F(CanaryTest, PassesAndLeavesTheEnginesMemoryAsItWas) {
  start();
  for (std::uint32_t i = 0; i < 16; ++i) engine_.fill(0, i, i);
  const auto before = engine_.memory_;
  EXPECT_TRUE(run().is_ok());
  EXPECT_EQ(engine_.memory_, before);
  EXPECT_EQ(report().canary, wire::CanaryResult::kPassed);
  EXPECT_EQ(worker_->problem(), "");
}

TEST_F(CanaryTest, IsNotRunUnlessAskedFor) {
  start();
  EXPECT_TRUE(run(kNoCanary).is_ok());
  EXPECT_EQ(worker_->build_report(), "");
}

TEST_F(CanaryTest, RunsOnItsOwnMemoryWithoutANullBlock) {
  for (GroupRegions& group : engine_.groups_) group.has_null_block = false;
  start();
  for (std::uint32_t i = 0; i < 16; ++i) engine_.fill(0, i, i);
  const auto before = engine_.memory_;
  EXPECT_TRUE(run().is_ok());
  EXPECT_EQ(engine_.memory_, before);
  EXPECT_EQ(report().canary, wire::CanaryResult::kPassed);
}

TEST_F(CanaryTest, EveryWrongLegIsFoundAndReported) {
  for (int leg = 0; leg < 3; ++leg) {
    const auto device = start_faulty();
    device->flips_out = leg == 0;
    device->flips_in = leg == 1;
    device->spills = leg == 2;
    device->countdown = leg == 0 ? 2 : 0;  // The first copies out only save what is there.
    EXPECT_EQ(run().code(), Code::kCorrupt) << leg;
    EXPECT_EQ(report().canary, wire::CanaryResult::kFailed) << leg;
    EXPECT_NE(worker_->problem().find("canary"), std::string::npos);
    worker_.reset();
  }
}

TEST_F(CanaryTest, FailingDeviceFailsTheCanary) {
  const auto device = start_faulty();
  device->is_failing = true;
  EXPECT_FALSE(run().is_ok());
  EXPECT_EQ(report().canary, wire::CanaryResult::kFailed);
}

TEST_F(CanaryTest, SlotOutsideTheGeometryIsRefused) {
  start();
  EXPECT_EQ(run(12).code(), Code::kUnavailable);
}

}  // namespace
}  // namespace terrace::worker
