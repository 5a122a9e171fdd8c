// A place for the contracts of devices whose GPU is a driver on the CPU.
// Threading: as the driver.
#pragma once

#include <cstring>
#include <memory>
#include <utility>
#include <vector>

#include "terrace/memory/device/cuda/cuda_device_internal.h"
#include "terrace/memory/device/cuda/fake_driver_fixture.h"
#include "terrace/testing/device_place.h"

namespace terrace::memory {

// Halves of 64 KiB, so that small tests take many batches.
class FakePlace final : public DevicePlace {
 public:
  explicit FakePlace(std::uint64_t seed = 1) : gpu_(seed) {}

  std::byte* allocate(std::size_t bytes) override {
    cuda::Address address = 0;
    (void)gpu_.allocate(&address, bytes);
    return cuda::at<std::byte>(address);
  }
  void write(std::byte* target, const std::vector<std::byte>& bytes) override {
    std::memcpy(target, bytes.data(), bytes.size());
  }
  std::vector<std::byte> read(const std::byte* source, std::size_t bytes) override {
    return {source, source + bytes};
  }
  Result<std::unique_ptr<Device>> make(std::vector<GroupRegions> groups,
                                       const Layout& layout) override {
    const cuda::StagedCopier::Options options{.half_bytes = 64U << 10U, .patience = patience};
    return cuda::make_device(std::move(groups), layout, driver_, clock, options);
  }

  cuda::FakeGpu& gpu() { return gpu_; }
  Nanoseconds patience = seconds(30);
  SystemClock clock;

 private:
  cuda::FakeGpu gpu_;
  const cuda::Driver driver_ = cuda::FakeGpu::driver();
};

}  // namespace terrace::memory
