// The 4 KiB header page before a shard's payload on disk and in objects.
// Threading: immutable values.  Source: docs/formats/frame.md.
#pragma once

#include <array>
#include <cstdint>
#include <span>

#include "terrace/base/status.h"
#include "terrace/base/strong.h"
#include "terrace/block/checksum.h"
#include "terrace/block/sequence_hash.h"

namespace terrace::wire {

inline constexpr std::size_t kFrameHeaderBytes = 4096;

struct FrameHeader {
  std::array<std::uint8_t, 32> content_digest{};  // Of the namespace's fingerprint.
  std::array<std::uint8_t, 32> layout_digest{};
  SequenceHash hash;
  GroupId group;
  RankId rank;
  Generation generation;
  std::uint64_t payload_bytes = 0;
  Checksum payload_checksum;
  friend bool operator==(const FrameHeader&, const FrameHeader&) = default;
};

// Writes all kFrameHeaderBytes of `page` (zero padded, header checksum last).
void encode(const FrameHeader& header, std::span<std::byte, kFrameHeaderBytes> page);
// Errors: kCorrupt = magic or header checksum wrong; kRefused = other format version.
[[nodiscard]] Result<FrameHeader> decode_frame(std::span<const std::byte, kFrameHeaderBytes> page);

}  // namespace terrace::wire
