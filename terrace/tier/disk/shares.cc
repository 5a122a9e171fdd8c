#include <algorithm>

#include "terrace/tier/disk/reader_internal.h"
#include "terrace/tier/disk/shares_internal.h"

namespace terrace::tier::disk {

namespace {
// Enough that the device has work while the next blocks are being encrypted.
constexpr std::uint64_t kCryptBytes = 32ULL << 20U;

// Of the depth, for a volume among several: so that one read, record, write and scrub fit in.
constexpr std::size_t kLeastShare = 4;
}  // namespace

void divide(DiskTier::Options& options) {
  const std::size_t volumes = options.paths.size();
  if (volumes == 1) return;
  options.io.volumes = static_cast<unsigned>(volumes);
  options.io.depth = std::max(options.io.depth, static_cast<unsigned>(kLeastShare * volumes));
  options.queue_blocks = std::max(options.queue_blocks, static_cast<std::uint32_t>(volumes));
}

std::size_t queue_capacity(const DiskTier::Options& options, std::size_t volumes) {
  const std::size_t ranks = options.layout.ranks;
  // Its frames; then of its records and claims three at most, before it and behind it.
  const std::size_t of_block = ranks + 3;
  // Of one batch: void records, copies of the header, syncs of slots.meta and extents.meta.
  constexpr std::size_t kBatch = 1024 + kMetaHeaderCopies + 2;
  // The data's sync, and what Allocator, BudgetKeeper, LearnedKeeper, Scrubber and Checker have
  // under way.
  constexpr std::size_t kOthers = 6;
  return options.queue_blocks * of_block + (kBatch + kOthers) * volumes +
         Reader::kMostReads * ranks;
}

std::size_t pages_of(const transfer::Backend& backend) {
  constexpr std::size_t kFrames = transfer::kMaxPieces / 2;  // Of one request.
  // Twice: what came back gives its pages away only when others have begun in its place.
  return std::size_t{2} * backend.depth() * kFrames;
}

Result<std::unique_ptr<FrameCrypt>> make_crypt(const DiskTier::Options& options,
                                               transfer::Backend& backend, std::size_t volumes) {
  FrameCrypt::Options wanted;
  wanted.crypt = options.crypt;
  wanted.content_digest = options.fingerprint.content_digest_bytes();
  wanted.layout_digest = options.fingerprint.layout_digest_bytes();
  for (const GroupLayout& group : options.layout.groups) {
    const std::uint64_t padded = round_up(group.shard_bytes(), Bytes(kPageBytes)).value();
    wanted.buffer_bytes = std::max<std::size_t>(wanted.buffer_bytes, padded * options.layout.ranks);
  }
  wanted.buffers = std::max<std::size_t>(kCryptBytes / wanted.buffer_bytes, 2 * volumes);
  wanted.wake = [&backend] { backend.wake(); };
  return FrameCrypt::create(std::move(wanted));
}

Status check_options(const DiskTier::Options& options) {
  TERRACE_RETURN_IF_ERROR(options.layout.validate());
  TERRACE_RETURN_IF_ERROR(options.fingerprint.validate());
  if (options.paths.empty()) return {Code::kInvalid, "disk.paths is empty"};
  if (options.size.value() == 0 && options.blocks == 0) {
    return {Code::kInvalid, "disk.size and disk.blocks are both 0"};
  }
  if (options.queue_blocks == 0) return {Code::kInvalid, "disk.queue must be at least 1"};
  return {};
}

}  // namespace terrace::tier::disk
