#include "terrace/worker/canary.h"

#include <fmt/format.h>

#include <cstring>
#include <vector>

#include "terrace/base/rng.h"
#include "terrace/memory/device/cpu/cpu_device.h"

namespace terrace::worker {
namespace {

using Buffer = std::vector<std::byte>;

// Every 8 bytes differ from all others, so that mixed up pieces, ranks or groups show.
Buffer pattern(std::size_t bytes, std::uint64_t seed) {
  Buffer buffer(bytes);
  Rng rng(seed);
  for (std::size_t at = 0; at < bytes; at += sizeof(std::uint64_t)) {
    const std::uint64_t word = rng.next();
    std::memcpy(buffer.data() + at, &word, std::min(sizeof word, bytes - at));
  }
  return buffer;
}

Status differs(std::uint16_t group, const char* leg) {
  return {Code::kCorrupt,
          fmt::format("canary: group {}: {}; nothing is stored or loaded", group, leg)};
}

struct Run {
  const memory::Device& device;
  std::uint16_t group;
  std::uint32_t block;
  RankId rank;
  std::span<std::byte> slot;
  std::size_t bytes;

  [[nodiscard]] Result<Checksum> out(std::byte* host, std::uint32_t from) const {
    memory::ShardCopy copy{group, from, host, {}};
    TERRACE_RETURN_IF_ERROR(device.copy_out({&copy, 1}));
    return copy.checksum;
  }
  [[nodiscard]] Result<Checksum> in(std::byte* host) const {
    memory::ShardCopy copy{group, block, host, {}};
    TERRACE_RETURN_IF_ERROR(device.copy_in({&copy, 1}));
    return copy.checksum;
  }
  [[nodiscard]] Status legs() const;
  [[nodiscard]] Status all() const;
};

// Assumes that the block's bytes are saved.
Status Run::legs() const {
  const std::uint64_t seed = (std::uint64_t{rank.value()} << 32U) + std::uint64_t{2} * group;
  Buffer wanted = pattern(bytes, seed);
  Buffer wipe = pattern(bytes, seed + 1);
  const Checksum expected = checksum_of(wanted);
  TERRACE_ASSIGN_OR_RETURN(const Checksum written, in(wanted.data()));
  if (written != expected) return differs(group, "the checksum of bytes copied in is wrong");
  TERRACE_ASSIGN_OR_RETURN(const Checksum saved, out(slot.data(), block));
  if (saved != expected) return differs(group, "the checksum of bytes copied out is wrong");
  if (std::memcmp(slot.data(), wanted.data(), bytes) != 0) {
    return differs(group, "bytes in the host tier differ from the device's");
  }
  TERRACE_ASSIGN_OR_RETURN(const Checksum wiped, in(wipe.data()));
  TERRACE_ASSIGN_OR_RETURN(const Checksum loaded, in(slot.data()));
  if (wiped == loaded || loaded != expected) {
    return differs(group, "the checksum of bytes loaded is wrong");
  }
  Buffer back(bytes);
  TERRACE_ASSIGN_OR_RETURN(const Checksum read, out(back.data(), block));
  if (read != expected || std::memcmp(back.data(), wanted.data(), bytes) != 0) {
    return differs(group, "bytes in the block differ after a load");
  }
  return {};
}

Status Run::all() const {
  const std::uint64_t count = device.groups()[group].block_count;
  Buffer before(bytes);
  Buffer neighbour(bytes);
  const std::uint32_t next = block + 1 < count ? block + 1 : 0;
  const bool has_neighbour = next != block;
  TERRACE_ASSIGN_OR_RETURN(const Checksum original, out(before.data(), block));
  Checksum next_before;
  if (has_neighbour) {
    TERRACE_ASSIGN_OR_RETURN(next_before, out(neighbour.data(), next));
  }
  Status status = legs();
  if (status.is_ok() && has_neighbour) {
    TERRACE_ASSIGN_OR_RETURN(const Checksum next_after, out(neighbour.data(), next));
    if (next_after != next_before)
      status = differs(group, "copying one block changed the next one");
  }
  TERRACE_ASSIGN_OR_RETURN(const Checksum restored, in(before.data()));
  if (status.is_ok() && restored != original) {
    status = differs(group, "the block's own bytes could not be put back");
  }
  return status;
}

// Pieces one after the other in memory of our own, as one block.
Status run_on_own_memory(const GroupLayout& layout, const Layout& all, RankId rank,
                         std::span<std::byte> slot) {
  Buffer memory(layout.shard_bytes().value());
  memory::GroupRegions regions;
  regions.block_count = 1;
  std::byte* at = memory.data();
  for (const Bytes piece : layout.piece_bytes) {
    regions.regions.push_back({at, piece.value(), piece.value()});
    at += piece.value();
  }
  Layout single = all;
  single.groups = {layout};
  TERRACE_ASSIGN_OR_RETURN(const auto device, memory::make_cpu_device({regions}, single));
  return Run{*device, 0, 0, rank, slot, memory.size()}.all();
}

}  // namespace

Status run_canary(const memory::Device& device, const Layout& layout, RankId rank,
                  std::span<std::byte> slot) {
  for (std::size_t i = 0; i < layout.groups.size(); ++i) {
    const memory::GroupRegions& regions = device.groups()[i];
    if (!regions.has_null_block) {
      TERRACE_RETURN_IF_ERROR(run_on_own_memory(layout.groups[i], layout, rank, slot));
      continue;
    }
    const Run run{device, static_cast<std::uint16_t>(i),         regions.null_block, rank,
                  slot,   layout.groups[i].shard_bytes().value()};
    TERRACE_RETURN_IF_ERROR(run.all());
  }
  return {};
}

}  // namespace terrace::worker
