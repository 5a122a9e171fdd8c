#include "terrace/worker/canary.h"

#include <fmt/format.h>

#include <cstring>
#include <utility>
#include <vector>

#include "terrace/base/finally.h"
#include "terrace/base/rng.h"
#include "terrace/memory/device/cpu/cpu_device.h"

namespace terrace::worker {
namespace {

using Buffer = std::vector<std::byte>;

constexpr int kPutBackTries = 3;

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

// Of one block each.
struct Buffers {
  Buffer before;  // The block's own bytes.
  Buffer neighbour;
  Buffer wanted;
  Buffer wipe;
  Buffer back;
};

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
  [[nodiscard]] Status legs(Buffers& buffers) const;
  [[nodiscard]] Status legs_beside(Buffers& buffers, std::uint32_t next) const;
  [[nodiscard]] Status put_back(Buffers& buffers, Checksum original) const noexcept;
  [[nodiscard]] Status all() const;
};

// Assumes that the block's bytes are saved.
Status Run::legs(Buffers& buffers) const {
  Buffer& wanted = buffers.wanted;
  Buffer& wipe = buffers.wipe;
  Buffer& back = buffers.back;
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
  TERRACE_ASSIGN_OR_RETURN(const Checksum read, out(back.data(), block));
  if (read != expected || std::memcmp(back.data(), wanted.data(), bytes) != 0) {
    return differs(group, "bytes in the block differ after a load");
  }
  return {};
}

// The same, and the next block stays as it is.
Status Run::legs_beside(Buffers& buffers, std::uint32_t next) const {
  if (next == block) return legs(buffers);
  TERRACE_ASSIGN_OR_RETURN(const Checksum next_before, out(buffers.neighbour.data(), next));
  TERRACE_RETURN_IF_ERROR(legs(buffers));
  TERRACE_ASSIGN_OR_RETURN(const Checksum next_after, out(buffers.neighbour.data(), next));
  if (next_after != next_before) return differs(group, "copying one block changed the next one");
  return {};
}

// The engine goes on with the block, whatever was found: tried more than once. Returns what went
// wrong at first, also when it came right.
Status Run::put_back(Buffers& buffers, Checksum original) const noexcept {
  Status status;
  for (int i = 0; i < kPutBackTries; ++i) {
    Status failed(Code::kInternal, "not put back");  // As short as needs no memory.
    try {
      const auto restored = in(buffers.before.data());
      if (restored.has_value() && *restored == original) return status;
      failed = restored.has_value() ? differs(group, "the block's own bytes could not be put back")
                                    : restored.error();
    } catch (...) {
      (void)failed;  // It says enough.
    }
    if (status.is_ok()) status = std::move(failed);
  }
  return status;
}

Status Run::all() const {
  const std::uint64_t count = device.groups()[group].block_count;
  const std::uint64_t seed = (std::uint64_t{rank.value()} << 32U) + std::uint64_t{2} * group;
  // All that could find no memory comes before the first copy into the block.
  Buffers buffers{Buffer(bytes), Buffer(bytes), pattern(bytes, seed), pattern(bytes, seed + 1),
                  Buffer(bytes)};
  TERRACE_ASSIGN_OR_RETURN(const Checksum original, out(buffers.before.data(), block));
  Status restored;
  Status status;
  {
    const base::Finally last([&] { restored = put_back(buffers, original); });
    status = legs_beside(buffers, block + 1 < count ? block + 1 : 0);
  }
  return status.is_ok() ? restored : status;
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
