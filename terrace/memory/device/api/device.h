// What copies between an engine's blocks and host memory: one implementation per kind of
// accelerator. Public calls check their arguments; bytes move in the same pass that checksums them.
// Threading: copies of different blocks may run at once in several threads; everything else
// immutable. Owns: nothing; the engine owns the regions, which outlive the device. Waits: for the
// copy itself.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

#include "terrace/base/status.h"
#include "terrace/base/strong.h"
#include "terrace/block/checksum.h"
#include "terrace/block/layout.h"

namespace terrace::memory {

// One piece of a group in the engine's memory: block b's bytes at address + b * block_stride.
struct DeviceRegion {
  std::byte* address = nullptr;
  std::uint64_t block_stride = 0;
  std::uint64_t piece_bytes = 0;
};

struct GroupRegions {
  std::vector<DeviceRegion> regions;  // In payload order.
  std::uint64_t block_count = 0;
  bool has_null_block = false;
  std::uint32_t null_block = 0;  // A block that the engine never uses.
};

// One shard to copy. `host` is shard_bytes() of the group long, pieces one after the other.
struct ShardCopy {
  std::uint16_t group = 0;  // Place in the list of groups.
  std::uint32_t block = 0;
  std::byte* host = nullptr;
  Checksum checksum;  // Of the payload, set by the copy.
};

class Device {
 public:
  virtual ~Device() = default;
  [[nodiscard]] virtual std::string_view name() const = 0;
  // Device -> host and host -> device. Errors: kInvalid = a group or block there is not; kIo = the
  // accelerator failed: no checksum of the batch may be believed.
  [[nodiscard]] virtual Status copy_out(std::span<ShardCopy> copies) const = 0;
  [[nodiscard]] virtual Status copy_in(std::span<ShardCopy> copies) const = 0;
  [[nodiscard]] virtual const std::vector<GroupRegions>& groups() const = 0;
  // True if one call with all copies of a step is faster than several threads with one each.
  [[nodiscard]] virtual bool wants_batches() const { return false; }
  // Host memory that copies will use, present already: an accelerator's DMA is faster from memory
  // that it knows. Takes 0.1-0.5 s per GiB: never in an engine hook, but while copies run is fine.
  // A shard's host bytes lie within one such step or in none. To be unregistered, by its first
  // byte, before it is unmapped and after the last copy that uses it. Errors: kIo = not registered;
  // copies work all the same.
  [[nodiscard]] virtual Status register_host(std::span<std::byte> memory) const {
    (void)memory;
    return {};
  }
  [[nodiscard]] virtual Status unregister_host(std::byte* memory) const {
    (void)memory;
    return {};
  }
};

// Errors: kInvalid = a copy of a group or a block that is not there; `device` says so first.
[[nodiscard]] Status check_copies(std::span<const ShardCopy> copies,
                                  const std::vector<GroupRegions>& groups, std::string_view device);

// Errors: kInvalid names group, region and what is wrong: other number or sizes than the layout,
// null address, stride below the piece, end beyond the address space, pieces of one group that
// overlap, a null block that is not there. Regions of different groups may share memory.
[[nodiscard]] Status validate(const std::vector<GroupRegions>& groups, const Layout& layout);

}  // namespace terrace::memory
