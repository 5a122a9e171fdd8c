#include "terrace/memory/device/cpu/cpu_device.h"

#include <utility>

namespace terrace::memory {
namespace {

class CpuDevice final : public Device {
 public:
  explicit CpuDevice(std::vector<GroupRegions> groups) : groups_(std::move(groups)) {}

  [[nodiscard]] std::string_view name() const override { return "cpu"; }
  [[nodiscard]] const std::vector<GroupRegions>& groups() const override { return groups_; }

  [[nodiscard]] Status copy_out(std::span<ShardCopy> copies) const override {
    TERRACE_RETURN_IF_ERROR(check_copies(copies, groups_, name()));
    for (ShardCopy& copy : copies) {
      const std::vector<DeviceRegion>& regions = groups_[copy.group].regions;
      ShardCopier copier;
      std::byte* host = copy.host;
      for (std::size_t i = 0; i < regions.size(); ++i) {
        const std::byte* const next =
            i + 1 < regions.size() ? piece(regions[i + 1], copy.block) : nullptr;
        copier.copy(host, piece(regions[i], copy.block), regions[i].piece_bytes, next);
        host += regions[i].piece_bytes;
      }
      copy.checksum = copier.finish();
    }
    return {};
  }

  [[nodiscard]] Status copy_in(std::span<ShardCopy> copies) const override {
    TERRACE_RETURN_IF_ERROR(check_copies(copies, groups_, name()));
    for (ShardCopy& copy : copies) {
      const std::vector<DeviceRegion>& regions = groups_[copy.group].regions;
      ShardCopier copier;
      const std::byte* host = copy.host;
      for (std::size_t i = 0; i < regions.size(); ++i) {
        const std::byte* const end = host + regions[i].piece_bytes;
        copier.copy(piece(regions[i], copy.block), host, regions[i].piece_bytes,
                    i + 1 < regions.size() ? end : nullptr);
        host = end;
      }
      copy.checksum = copier.finish();
    }
    return {};
  }

 private:
  static std::byte* piece(const DeviceRegion& region, std::uint32_t block) {
    return region.address + region.block_stride * block;
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
