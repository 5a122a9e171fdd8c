#include "terrace/memory/device/cuda/cuda_device.h"

#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <string>
#include <vector>

#include "contract/device_contract.h"
#include "terrace/memory/device/cuda/cuda_device_internal.h"
#include "terrace/memory/device/cuda/fake_place_fixture.h"

namespace terrace::memory {
namespace {

using cuda::FakeGpu;

constexpr cuda::Answer kIllegal = FakeGpu::kIllegalAddress;

INSTANTIATE_TEST_SUITE_P(CudaOnAFakeDriver, DeviceContract,
                         ::testing::Values(DevicePlaceMaker{
                             "cuda", [] { return std::make_unique<FakePlace>(); }, 100, 300'000}),
                         device_place_name);

class CudaDeviceTest : public ::testing::Test {
 protected:
  CudaDeviceTest()
      : engine_(place_, {{30'000, 70'000}, {5000}}, 8, false, 0, rng_),
        held_(place_.gpu().held()),
        device_(place_.make(engine_.groups, engine_.layout).value()) {
    for (std::uint32_t i = 0; i < 6; ++i) {
      const auto group = static_cast<std::uint16_t>(i % 2);
      hosts_.emplace_back(engine_.shard_bytes(group));
      copies_.push_back({group, i / 2, hosts_.back().data(), {}});
    }
  }
  // Out and compared; what went wrong, or nothing.
  std::string problem_of_out() {
    for (auto& host : hosts_) std::fill(host.begin(), host.end(), std::byte{0});
    const Status status = device_->copy_out(copies_);
    if (!status.is_ok()) return status.message();
    for (std::size_t i = 0; i < copies_.size(); ++i) {
      if (hosts_[i] != engine_.gathered(copies_[i].group, copies_[i].block)) return "bytes";
      if (copies_[i].checksum != checksum_of(hosts_[i])) return "checksum";
    }
    return "";
  }
  static bool has(const Status& status, const char* part) {
    return status.message().find(part) != std::string::npos;
  }

  Rng rng_{3};
  FakePlace place_;
  PlacedEngine engine_;
  std::size_t held_;
  std::unique_ptr<Device> device_;
  std::vector<std::vector<std::byte>> hosts_;
  std::vector<ShardCopy> copies_;
};

TEST_F(CudaDeviceTest, GivesBackAllItHeld) {
  EXPECT_GT(place_.gpu().held(), held_);
  EXPECT_EQ(problem_of_out(), "");
  device_.reset();
  EXPECT_EQ(place_.gpu().held(), held_);
}

TEST_F(CudaDeviceTest, NeverLeavesAContextBehind) {
  EXPECT_EQ(FakeGpu::depth(), 0);
  EXPECT_EQ(problem_of_out(), "");
  EXPECT_EQ(FakeGpu::depth(), 0);
  EXPECT_EQ(FakeGpu::mode(), 0);
  place_.gpu().fail_after(5, kIllegal, true);
  EXPECT_NE(problem_of_out(), "");
  EXPECT_EQ(FakeGpu::depth(), 0);
}

// Whichever call of the driver fails while a device is made: an error, and nothing is kept.
TEST_F(CudaDeviceTest, EachCallThatFailsInMakingIsAnError) {
  device_.reset();
  int calls = 0;
  for (;; ++calls) {
    place_.gpu().fail_after(calls, kIllegal, false);
    const auto made = place_.make(engine_.groups, engine_.layout);
    if (!place_.gpu().has_failed()) break;
    ASSERT_FALSE(made.has_value()) << "call " << calls;
    EXPECT_EQ(made.error().code(), Code::kIo);
    EXPECT_TRUE(has(made.error(), "CUDA_ERROR_OF_A_TEST (700)")) << made.error().text();
    place_.gpu().fail_no_more();
    ASSERT_EQ(place_.gpu().held(), held_) << "call " << calls;
  }
  EXPECT_GT(calls, 15);
}

TEST_F(CudaDeviceTest, NoRoomForStagingNamesTheWayOut) {
  place_.gpu().fail_after(6, cuda::kOutOfMemory, false);  // The first half's staging.
  const auto made = place_.make(engine_.groups, engine_.layout);
  ASSERT_FALSE(made.has_value());
  EXPECT_EQ(made.error().code(), Code::kExhausted) << made.error().text();
  EXPECT_TRUE(has(made.error(), "--gpu-memory-utilization")) << made.error().text();
}

TEST_F(CudaDeviceTest, KernelsThatTheDriverRefusesComeWithItsLog) {
  place_.gpu().fail_after(0, 218, false);
  const auto made = place_.make(engine_.groups, engine_.layout);
  ASSERT_FALSE(made.has_value());
  EXPECT_TRUE(has(made.error(), "cuModuleLoadDataEx: CUDA_ERROR_OF_A_TEST (218): line 7"))
      << made.error().text();
}

// Whichever call fails in a copy: an error that names it; never checksums; nothing is under way
// afterwards.
TEST_F(CudaDeviceTest, EachCallThatFailsInACopyFailsIt) {
  for (const bool is_out : {true, false}) {
    int calls = 0;
    for (;; ++calls) {
      device_ = place_.make(engine_.groups, engine_.layout).value();
      for (ShardCopy& copy : copies_) copy.checksum = Checksum{42};
      place_.gpu().fail_after(calls, kIllegal, false);
      const Status status = is_out ? device_->copy_out(copies_) : device_->copy_in(copies_);
      if (!place_.gpu().has_failed()) break;
      ASSERT_EQ(status.code(), Code::kIo) << "call " << calls;
      EXPECT_TRUE(has(status, "cuda (Fake GPU): cu")) << status.text();
      for (const ShardCopy& copy : copies_) ASSERT_EQ(copy.checksum, Checksum{42});
      const auto before = hosts_;
      place_.gpu().run_all();
      ASSERT_EQ(hosts_, before) << "written after the call had failed, call " << calls;
      place_.gpu().fail_no_more();
    }
    EXPECT_GT(calls, 20);
    place_.gpu().fail_no_more();
  }
}

TEST_F(CudaDeviceTest, AfterAFailureThatBreaksTheContextAllCallsFailAndSayWhy) {
  place_.gpu().fail_after(3, kIllegal, true);
  EXPECT_EQ(device_->copy_out(copies_).code(), Code::kIo);
  const Status later = device_->copy_in(copies_);
  EXPECT_EQ(later.code(), Code::kIo);
  EXPECT_TRUE(has(later, "not used any more")) << later.text();
  EXPECT_TRUE(has(later, "CUDA_ERROR_OF_A_TEST (700)")) << later.text();
  place_.gpu().fail_no_more();  // Also when the driver seems to be well again.
  EXPECT_EQ(device_->copy_out(copies_).code(), Code::kIo);
}

TEST_F(CudaDeviceTest, AFailureOfTheCallAloneIsForgotten) {
  place_.gpu().fail_after(3, cuda::kInvalidValue, false);
  EXPECT_EQ(device_->copy_out(copies_).code(), Code::kIo);
  EXPECT_EQ(problem_of_out(), "");
}

// Whatever of the GPU's work does not happen although the driver says that it did.
TEST_F(CudaDeviceTest, AKernelThatDidNotRunIsNotBelieved) {
  EXPECT_EQ(problem_of_out(), "");
  place_.gpu().leaves_out_kernels = true;
  EXPECT_NE(problem_of_out().find("not that of this launch"), std::string::npos);
}
TEST_F(CudaDeviceTest, AnAnswerThatDidNotArriveIsNotBelieved) {
  EXPECT_EQ(problem_of_out(), "");
  place_.gpu().leaves_out_downloads = true;
  EXPECT_NE(problem_of_out().find("not that of this launch"), std::string::npos);
}
TEST_F(CudaDeviceTest, AKernelThatRanOnOrdersOfBeforeIsNotBelieved) {
  EXPECT_EQ(problem_of_out(), "");
  place_.gpu().leaves_out_uploads = true;
  EXPECT_NE(problem_of_out().find("not that of this launch"), std::string::npos);
}

// The same orders as before, whose right answer still lies there.
TEST_F(CudaDeviceTest, TheAnswerOfTheLaunchBeforeIsNotBelieved) {
  copies_.resize(1);
  hosts_.resize(1);
  EXPECT_EQ(device_->copy_in(copies_).code(), Code::kOk);
  EXPECT_EQ(device_->copy_in(copies_).code(), Code::kOk);
  place_.gpu().leaves_out_uploads = true;
  place_.gpu().leaves_out_kernels = true;
  EXPECT_EQ(device_->copy_in(copies_).code(), Code::kIo);
}

TEST_F(CudaDeviceTest, AGpuThatHangsEndsTheCallAndWritesNoBlockLater) {
  place_.patience = milliseconds(5);
  device_ = place_.make(engine_.groups, engine_.layout).value();
  place_.gpu().is_hanging = true;
  const Status status = device_->copy_in(copies_);
  EXPECT_EQ(status.code(), Code::kIo);
  EXPECT_TRUE(has(status, "the GPU hangs")) << status.text();
  EXPECT_EQ(device_->copy_out(copies_).code(), Code::kIo);
  place_.gpu().is_hanging = false;
  place_.gpu().run_all();
  EXPECT_TRUE(engine_.is_as_wanted());
  const std::size_t held = place_.gpu().held();
  device_.reset();
  EXPECT_EQ(place_.gpu().held(), held) << "freed under what may still use it";
}

TEST_F(CudaDeviceTest, AForkedChildIsTurnedAway) {
  const pid_t child = ::fork();
  if (child == 0) {
    const bool is_closed = device_->copy_out(copies_).code() == Code::kClosed &&
                           device_->register_host(hosts_[0]).code() == Code::kClosed;
    device_.reset();
    ::_exit(is_closed ? 0 : 1);
  }
  int status = 0;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  EXPECT_EQ(status, 0);
  EXPECT_EQ(problem_of_out(), "");
}

TEST_F(CudaDeviceTest, OneCallTakesFewLaunches) {
  place_.gpu().launches = 0;
  EXPECT_EQ(problem_of_out(), "");  // 3 x 100,000 and 3 x 5,000 bytes through halves of 64 KiB.
  EXPECT_LE(place_.gpu().launches, 8);
}

TEST_F(CudaDeviceTest, RegionsOutsideGpuMemoryAreNamed) {
  std::vector<std::byte> ordinary(40'000);
  auto groups = engine_.groups;
  groups[1].regions[0].address = ordinary.data();
  const auto made = place_.make(groups, engine_.layout);
  ASSERT_FALSE(made.has_value());
  EXPECT_EQ(made.error().code(), Code::kInvalid);
  EXPECT_TRUE(has(made.error(), "groups[1].regions[0]: its address is not in GPU memory"))
      << made.error().text();
  groups = engine_.groups;
  groups[1].block_count = 1'000'000;
  const auto longer = place_.make(groups, engine_.layout);
  ASSERT_FALSE(longer.has_value());
  EXPECT_TRUE(has(longer.error(), "its last byte")) << longer.error().text();
}

TEST(CudaDeviceAloneTest, WithoutAContextOfTheEnginesNoneIsMade) {
  FakePlace place;
  std::vector<std::byte> memory(64);
  Layout layout;
  layout.block_tokens = Tokens(32);
  layout.groups = {{GroupId(0), {Bytes(64)}}};
  GroupRegions group;
  group.regions = {{memory.data(), 64, 64}};
  group.block_count = 1;
  const auto made = place.make({group}, layout);
  ASSERT_FALSE(made.has_value());
  EXPECT_EQ(made.error().code(), Code::kInvalid);
  EXPECT_NE(made.error().message().find("no GPU has a primary context"), std::string::npos);
  EXPECT_EQ(place.gpu().held(), 0U);
}

TEST_F(CudaDeviceTest, MemoryThatCannotBeRegisteredIsNoReasonNotToCopy) {
  place_.gpu().fail_after(0, 712, false);
  const Status status = device_->register_host(hosts_[0]);
  EXPECT_EQ(status.code(), Code::kIo);
  EXPECT_TRUE(has(status, "cuMemHostRegister")) << status.text();
  EXPECT_EQ(problem_of_out(), "");
  EXPECT_TRUE(device_->register_host(hosts_[0]).is_ok());
  EXPECT_EQ(place_.gpu().registered, 1);
  EXPECT_TRUE(device_->unregister_host(hosts_[0].data()).is_ok());
  EXPECT_EQ(place_.gpu().registered, 0);
}

// Where this machine has no driver, making one says so; tests/gpu is for those that have.
TEST(CudaDeviceOfThisMachineTest, OrdinaryMemoryIsNeverTakenForAGpus) {
  std::vector<std::byte> memory(64);
  Layout layout;
  layout.block_tokens = Tokens(32);
  layout.groups = {{GroupId(0), {Bytes(64)}}};
  GroupRegions group;
  group.regions = {{memory.data(), 64, 64}};
  group.block_count = 1;
  const auto made = make_cuda_device({group}, layout);
  ASSERT_FALSE(made.has_value());
  EXPECT_NE(made.error().message().find(made.error().code() == Code::kInvalid ? "not in GPU memory"
                                                                              : "cuda: "),
            std::string::npos)
      << made.error().text();
}

}  // namespace
}  // namespace terrace::memory
