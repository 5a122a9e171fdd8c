#include "terrace/worker/canary.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <cstring>
#include <memory>
#include <new>
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

// Fails its `fails_at`-th copy, once; one into the block leaves half of its bytes there.
class BreakingDevice final : public memory::Device {
 public:
  BreakingDevice(std::unique_ptr<memory::Device> inner, int fails_at, bool throws)
      : inner_(std::move(inner)), fails_at_(fails_at), throws_(throws) {}
  std::string_view name() const override { return "breaking"; }
  const std::vector<GroupRegions>& groups() const override { return inner_->groups(); }
  Status copy_out(std::span<memory::ShardCopy> copies) const override {
    return copies_++ == fails_at_ ? fail_now() : inner_->copy_out(copies);
  }
  Status copy_in(std::span<memory::ShardCopy> copies) const override {
    if (copies_++ != fails_at_) return inner_->copy_in(copies);
    const DeviceRegion& region = groups()[copies[0].group].regions[0];
    std::memset(region.address + region.block_stride * copies[0].block, 0x5A,
                region.piece_bytes / 2);
    return fail_now();
  }
  [[nodiscard]] bool has_failed() const { return copies_ > fails_at_; }

 private:
  [[nodiscard]] Status fail_now() const {
    if (throws_) throw std::bad_alloc();
    return {Code::kIo, "injected"};
  }
  std::unique_ptr<memory::Device> inner_;
  const int fails_at_;
  const bool throws_;
  mutable int copies_ = 0;
};

TEST(BrokenCanaryTest, LeavesTheBlockAsItWasWhereverItFails) {
  Engine engine({200, 72}, 5, 16);
  for (std::uint32_t i = 0; i < 16; ++i) engine.fill(0, i, i);
  for (std::uint32_t i = 0; i < 16; ++i) engine.fill(1, i, 100 + i);
  const auto before = engine.memory_;
  std::vector<std::byte> slot(4096);
  for (const bool throws : {false, true}) {
    int failures = 0;
    for (bool has_failed = true; has_failed;) {
      SCOPED_TRACE(fmt::format("copy {} throws {}", failures, throws));
      const BreakingDevice device(memory::make_cpu_device(engine.groups_, engine.layout_).value(),
                                  failures, throws);
      Status status;
      try {
        status = run_canary(device, engine.layout_, RankId(0), slot);
      } catch (const std::bad_alloc&) {
        status = Status(Code::kInternal, "thrown");
      }
      has_failed = device.has_failed();
      failures += has_failed ? 1 : 0;
      EXPECT_EQ(status.is_ok(), !has_failed) << status.text();
      EXPECT_EQ(engine.memory_, before);
    }
    EXPECT_EQ(failures, 18);  // Nine copies for each of two groups.
  }
}

TEST_F(CanaryTest, SlotOutsideTheGeometryIsRefused) {
  start();
  EXPECT_EQ(run(12).code(), Code::kUnavailable);
}

}  // namespace
}  // namespace terrace::worker
