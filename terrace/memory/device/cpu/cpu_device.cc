#include "terrace/memory/device/cpu/cpu_device.h"

#include <fmt/format.h>

#include <utility>

namespace terrace::memory {
namespace {

class CpuDevice final : public Device {
 public:
  explicit CpuDevice(std::vector<GroupRegions> groups) : groups_(std::move(groups)) {}

  [[nodiscard]] std::string_view name() const override { return "cpu"; }
  [[nodiscard]] const std::vector<GroupRegions>& groups() const override { return groups_; }

  [[nodiscard]] Status copy_out(std::span<ShardCopy> copies) const override {
    TERRACE_RETURN_IF_ERROR(check(copies));
    for (ShardCopy& copy : copies) {
      ShardCopier copier;
      std::byte* host = copy.host;
      for (const DeviceRegion& region : groups_[copy.group].regions) {
        copier.copy(host, region.address + region.block_stride * copy.block, region.piece_bytes);
        host += region.piece_bytes;
      }
      copy.checksum = copier.finish();
    }
    return {};
  }

  [[nodiscard]] Status copy_in(std::span<ShardCopy> copies) const override {
    TERRACE_RETURN_IF_ERROR(check(copies));
    for (ShardCopy& copy : copies) {
      ShardCopier copier;
      const std::byte* host = copy.host;
      for (const DeviceRegion& region : groups_[copy.group].regions) {
        copier.copy(region.address + region.block_stride * copy.block, host, region.piece_bytes);
        host += region.piece_bytes;
      }
      copy.checksum = copier.finish();
    }
    return {};
  }

 private:
  [[nodiscard]] Status check(std::span<const ShardCopy> copies) const {
    for (const ShardCopy& copy : copies) {
      if (copy.group >= groups_.size() || copy.block >= groups_[copy.group].block_count) {
        return {Code::kInvalid,
                fmt::format("cpu copy: no block {} in group {}", copy.block, copy.group)};
      }
    }
    return {};
  }

  const std::vector<GroupRegions> groups_;
};

}  // namespace

Result<std::unique_ptr<Device>> make_cpu_device(std::vector<GroupRegions> groups,
                                                const Layout& layout) {
  TERRACE_RETURN_IF_ERROR(validate(groups, layout));
  return std::make_unique<CpuDevice>(std::move(groups));
}

}  // namespace terrace::memory
