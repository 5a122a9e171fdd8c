#include "terrace/memory/device/cuda/cuda_device.h"

#include <fmt/format.h>

#include <optional>
#include <utility>

#include "terrace/memory/device/cuda/cuda_device_internal.h"

namespace terrace::memory {
namespace cuda {
namespace {

class CudaDevice final : public Device {
 public:
  CudaDevice(std::vector<GroupRegions> groups, std::unique_ptr<StagedCopier> copier)
      : groups_(std::move(groups)), copier_(std::move(copier)) {}

  [[nodiscard]] std::string_view name() const override { return "cuda"; }
  [[nodiscard]] const std::vector<GroupRegions>& groups() const override { return groups_; }
  [[nodiscard]] bool wants_batches() const override { return true; }

  [[nodiscard]] Status copy_out(std::span<ShardCopy> copies) const override {
    TERRACE_RETURN_IF_ERROR(check_copies(copies, groups_, name()));
    return copier_->copy(copies, Way::kOut);
  }
  [[nodiscard]] Status copy_in(std::span<ShardCopy> copies) const override {
    TERRACE_RETURN_IF_ERROR(check_copies(copies, groups_, name()));
    return copier_->copy(copies, Way::kIn);
  }
  [[nodiscard]] Status register_host(std::span<std::byte> memory) const override {
    return copier_->register_host(memory);
  }
  [[nodiscard]] Status unregister_host(std::byte* memory) const override {
    return copier_->unregister_host(memory);
  }

 private:
  const std::vector<GroupRegions> groups_;
  const std::unique_ptr<StagedCopier> copier_;
};

// While this lives a primary context of this process is the thread's current one: the driver tells
// nothing about a pointer without, and the same with any. None is made for it.
class AnyContext {
 public:
  explicit AnyContext(const Driver& driver) : driver_(driver) {
    int count = 0;
    if (driver.device_count(&count) != kSuccess) return;
    for (int i = 0; i < count && !is_current_; ++i) {
      unsigned flags = 0;
      int is_active = 0;
      Context context = nullptr;
      if (driver.device_get(&device_, i) != kSuccess ||
          driver.context_state(device_, &flags, &is_active) != kSuccess || is_active == 0 ||
          driver.context_retain(&context, device_) != kSuccess) {
        continue;
      }
      is_current_ = driver.context_push(context) == kSuccess;
      if (!is_current_) (void)driver.context_release(device_);
    }
  }
  AnyContext(const AnyContext&) = delete;
  AnyContext& operator=(const AnyContext&) = delete;
  ~AnyContext() {
    Context popped = nullptr;
    if (!is_current_) return;
    (void)driver_.context_pop(&popped);
    (void)driver_.context_release(device_);
  }
  [[nodiscard]] bool is_current() const { return is_current_; }

 private:
  const Driver& driver_;
  DeviceNumber device_ = 0;
  bool is_current_ = false;
};

// The number of the GPU whose memory holds the byte; nothing if it is not a GPU's.
std::optional<int> gpu_of(const Driver& driver, const std::byte* address) {
  const auto pointer = static_cast<Address>(reinterpret_cast<std::uintptr_t>(address));
  unsigned type = 0;
  int ordinal = -1;
  if (driver.pointer_attribute(&type, kPointerMemoryType, pointer) != kSuccess ||
      type != kMemoryOfDevice ||
      driver.pointer_attribute(&ordinal, kPointerDevice, pointer) != kSuccess) {
    return {};
  }
  return ordinal;
}

// Of all regions, first byte and last one. A kernel that reads what is not there would break the
// context, which is the engine's as well.
Result<int> gpu_of_all(const Driver& driver, const std::vector<GroupRegions>& groups) {
  const AnyContext context(driver);
  if (!context.is_current()) {
    return fail(Code::kInvalid,
                "groups: not in GPU memory: no GPU has a primary context in this process");
  }
  std::optional<int> gpu;
  for (std::size_t i = 0; i < groups.size(); ++i) {
    for (std::size_t j = 0; j < groups[i].regions.size(); ++j) {
      const DeviceRegion& region = groups[i].regions[j];
      const std::byte* const last = region.address +
                                    region.block_stride * (groups[i].block_count - 1) +
                                    (region.piece_bytes - 1);
      for (const std::byte* const byte : {static_cast<const std::byte*>(region.address), last}) {
        const std::optional<int> found = gpu_of(driver, byte);
        if (!found.has_value()) {
          return fail(Code::kInvalid,
                      fmt::format("groups[{}].regions[{}]: {} is not in GPU memory", i, j,
                                  byte == last ? "its last byte" : "its address"));
        }
        if (gpu.has_value() && *gpu != *found) {
          return fail(Code::kInvalid,
                      fmt::format("groups[{}].regions[{}]: is on GPU {}, others on GPU {}: a "
                                  "worker serves one",
                                  i, j, *found, *gpu));
        }
        gpu = found;
      }
    }
  }
  return *gpu;
}

}  // namespace

Result<std::unique_ptr<Device>> make_device(std::vector<GroupRegions> groups, const Layout& layout,
                                            const Driver& driver, const Clock& clock,
                                            StagedCopier::Options options) {
  TERRACE_RETURN_IF_ERROR(validate(groups, layout));
  TERRACE_ASSIGN_OR_RETURN(const int ordinal, gpu_of_all(driver, groups));
  DeviceNumber device = 0;
  if (const Answer answer = driver.device_get(&device, ordinal); answer != kSuccess) {
    return fail(Code::kIo, "cuda: " + describe(driver, answer, "cuDeviceGet"), Scope::kBackend);
  }
  TERRACE_ASSIGN_OR_RETURN(
      auto copier, StagedCopier::create(driver, device, piece_table(groups), clock, options));
  return std::make_unique<CudaDevice>(std::move(groups), std::move(copier));
}

}  // namespace cuda

Result<std::unique_ptr<Device>> make_cuda_device(std::vector<GroupRegions> groups,
                                                 const Layout& layout) {
  TERRACE_RETURN_IF_ERROR(validate(groups, layout));
  TERRACE_ASSIGN_OR_RETURN(const cuda::Driver* driver, cuda::load_driver());
  static const SystemClock clock;
  return cuda::make_device(std::move(groups), layout, *driver, clock, {});
}

}  // namespace terrace::memory
