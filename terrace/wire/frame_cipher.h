// Encrypts the payload of a frame, and opens it: AES-256-GCM under a key that is derived for this
// one frame. Threading: thread-safe.  Waits: never; 0.2 to 0.5 ms per MiB.
// Source: docs/formats/encryption.md.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>

#include "terrace/base/status.h"
#include "terrace/block/key_ring.h"
#include "terrace/wire/frame.h"

namespace terrace::wire {

// From the kernel; one for each frame that is written, never one twice.
struct FrameSalt {
  std::array<std::uint8_t, 32> bytes{};
  [[nodiscard]] static FrameSalt random();
};

// `key` is the namespace's; `header` holds all but codec and seal, with the plain payload's
// checksum, and afterwards says what is stored. `stored`: as long as `plain`, and elsewhere.
// Errors: kInvalid = lengths; kInternal = the cipher refused.
[[nodiscard]] Status seal_frame(const KeyRing::Key& key, const FrameSalt& salt,
                                std::span<const std::byte> plain, std::span<std::byte> stored,
                                FrameHeader& header);

enum class FrameVerdict : std::uint8_t {
  kRight,
  kDamaged,  // The stored bytes are not those that were written.
  kForged,   // They are what its header says, and not what this key sealed for this block.
};
struct OpenedFrame {
  FrameVerdict verdict = FrameVerdict::kDamaged;
  Checksum checksum;  // kRight: verified, of the plain payload.
};
// In place; zeros are left behind where it is not right. `header` was compared with what the caller
// wants, its codec is kAes256Gcm and its key `key`'s. Errors: kInternal = the cipher refused.
[[nodiscard]] Result<OpenedFrame> open_frame(const KeyRing::Key& key, const FrameHeader& header,
                                             std::span<std::byte> payload);

}  // namespace terrace::wire
