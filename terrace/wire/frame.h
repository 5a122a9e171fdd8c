// The 4 KiB header page before a shard's payload on disk and in objects.
// Threading: immutable values.  Source: docs/formats/frame.md.
#pragma once

#include <array>
#include <cstdint>
#include <span>

#include "terrace/base/status.h"
#include "terrace/base/strong.h"
#include "terrace/block/checksum.h"
#include "terrace/block/key_ring.h"
#include "terrace/block/sequence_hash.h"

namespace terrace::wire {

inline constexpr std::size_t kFrameHeaderBytes = 4096;

// How the payload is stored.
enum class FrameCodec : std::uint16_t { kRaw = 0, kAes256Gcm = 1 };

// Of an encrypted frame (docs/formats/encryption.md).
struct FrameSeal {
  KeyId key;
  std::array<std::uint8_t, 32> salt{};
  std::array<std::uint8_t, 16> hidden{};  // The plain payload's checksum, encrypted.
  std::array<std::uint8_t, 16> tag{};
  friend bool operator==(const FrameSeal&, const FrameSeal&) = default;
};

struct FrameHeader {
  std::array<std::uint8_t, 32> content_digest{};  // Of the namespace's fingerprint.
  std::array<std::uint8_t, 32> layout_digest{};
  SequenceHash hash;
  GroupId group;
  RankId rank;
  Generation generation;
  // Between which resets it was written, as whoever stores it counts them; see frame.md.
  std::uint64_t era = 0;
  std::uint64_t payload_bytes = 0;
  Checksum payload_checksum;  // Of the payload as it is stored.
  FrameCodec codec = FrameCodec::kRaw;
  FrameSeal seal{};  // All zeros where the codec is kRaw.
  friend bool operator==(const FrameHeader&, const FrameHeader&) = default;
};

// Writes all kFrameHeaderBytes of `page` (zero padded, header checksum last).
void encode(const FrameHeader& header, std::span<std::byte, kFrameHeaderBytes> page);
// What the additional data of an encrypted frame is: all that says whose payload it is, the era
// among it, and its salt.
inline constexpr std::size_t kFrameIdentityBytes = 160;
[[nodiscard]] std::array<std::uint8_t, kFrameIdentityBytes> frame_identity(
    const FrameHeader& header);
// Errors: kCorrupt = magic or header checksum wrong; kRefused = other format version.
[[nodiscard]] Result<FrameHeader> decode_frame(std::span<const std::byte, kFrameHeaderBytes> page);

}  // namespace terrace::wire
