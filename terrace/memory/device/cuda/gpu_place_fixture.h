// The first GPU of this machine as a place for the contracts of devices, and for the benchmark.
// Threading: tests only.
#pragma once

#include <cstdio>
#include <cstdlib>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "terrace/memory/device/cuda/cuda_device_internal.h"
#include "terrace/testing/device_place.h"

namespace terrace::memory {

// Why there is none; empty = there is.
inline std::string gpu_missing() {
  const auto driver = cuda::load_driver();
  if (!driver.has_value()) return driver.error().message();
  int count = 0;
  const cuda::Answer answer = (*driver)->device_count(&count);
  if (answer != cuda::kSuccess) return cuda::describe(**driver, answer, "cuDeviceGetCount");
  return count == 0 ? "the driver finds no GPU" : "";
}

// Takes memory in the GPU's primary context, as engines do. Aborts where a call fails: look at
// gpu_missing() first.
class GpuPlace final : public DevicePlace {
 public:
  explicit GpuPlace(std::uint64_t half_bytes = cuda::StagedCopier::Options().half_bytes)
      : half_bytes_(half_bytes), driver_(*cuda::load_driver().value()) {
    need(driver_.device_get(&device_, 0), "cuDeviceGet");
    need(driver_.context_retain(&context_, device_), "cuDevicePrimaryCtxRetain");
    in_context([&] {
      need(driver_.stream_create(&stream_, cuda::kStreamNonBlocking), "cuStreamCreate");
      need(driver_.event_create(&event_, 0), "cuEventCreate");
    });
  }
  ~GpuPlace() override {
    in_context([&] {
      for (const cuda::Address address : memory_) (void)driver_.free(address);
      (void)driver_.event_destroy(event_);
      (void)driver_.stream_destroy(stream_);
    });
    (void)driver_.context_release(device_);
  }

  std::byte* allocate(std::size_t bytes) override {
    cuda::Address address = 0;
    in_context([&] { need(driver_.allocate(&address, bytes), "cuMemAlloc"); });
    memory_.push_back(address);
    return cuda::at<std::byte>(address);
  }
  void free_all() {
    in_context([&] {
      for (const cuda::Address address : memory_) need(driver_.free(address), "cuMemFree");
    });
    memory_.clear();
  }
  void write(std::byte* target, const std::vector<std::byte>& bytes) override {
    copy_to_device(target, bytes.data(), bytes.size());
  }
  std::vector<std::byte> read(const std::byte* source, std::size_t bytes) override {
    std::vector<std::byte> made(bytes);
    copy_to_host(made.data(), source, bytes);
    return made;
  }
  // One DMA, waited for.
  void copy_to_device(std::byte* target, const std::byte* source, std::size_t bytes) {
    in_context([&] {
      need(driver_.copy_to_device(address_of(target), source, bytes, stream_), "cuMemcpyHtoD");
      wait();
    });
  }
  void copy_to_host(std::byte* target, const std::byte* source, std::size_t bytes) {
    in_context([&] {
      need(driver_.copy_to_host(target, address_of(source), bytes, stream_), "cuMemcpyDtoH");
      wait();
    });
  }
  Result<std::unique_ptr<Device>> make(std::vector<GroupRegions> groups,
                                       const Layout& layout) override {
    return cuda::make_device(std::move(groups), layout, driver_, clock_,
                             {.half_bytes = half_bytes_, .patience = seconds(30)});
  }

  template <typename Body>
  void in_context(const Body& body) {
    need(driver_.context_push(context_), "cuCtxPushCurrent");
    body();
    cuda::Context popped = nullptr;
    need(driver_.context_pop(&popped), "cuCtxPopCurrent");
    if (popped != context_) need(cuda::kInvalidValue, "another context was left current");
  }
  // Of the calling thread: true if no context is current.
  [[nodiscard]] bool has_no_context() const {
    cuda::Context popped = nullptr;
    return driver_.context_pop(&popped) != cuda::kSuccess;
  }
  [[nodiscard]] std::uint64_t half_bytes() const { return half_bytes_; }
  [[nodiscard]] std::string gpu() const {
    char name[128] = {};
    return driver_.device_name(name, sizeof name - 1, device_) == cuda::kSuccess ? name : "?";
  }

 private:
  void need(cuda::Answer answer, const char* operation) const {
    if (answer == cuda::kSuccess) return;
    std::fprintf(stderr, "%s\n", cuda::describe(driver_, answer, operation).c_str());
    std::abort();
  }
  static cuda::Address address_of(const std::byte* pointer) {
    return reinterpret_cast<std::uintptr_t>(pointer);
  }
  void wait() {
    need(driver_.event_record(event_, stream_), "cuEventRecord");
    cuda::Answer answer = cuda::kNotReady;
    while (answer == cuda::kNotReady) answer = driver_.event_query(event_);
    need(answer, "cuEventQuery");
  }

  const std::uint64_t half_bytes_;
  const cuda::Driver& driver_;
  SystemClock clock_;
  cuda::DeviceNumber device_ = 0;
  cuda::Context context_ = nullptr;
  cuda::Stream stream_ = nullptr;
  cuda::Event event_ = nullptr;
  std::vector<cuda::Address> memory_;
};

}  // namespace terrace::memory
