// Whether a frame is, byte by byte, what a record says that it is.
// Threading: pure functions.  Waits: never.  Source: docs/formats/frame.md.
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <string>

#include "terrace/base/status.h"
#include "terrace/wire/frame.h"

namespace terrace::tier::disk {

// `frame`: header page and at least the payload. The payload's checksum in `wanted` is not looked
// at, nor how it is encrypted: what is verified is what is stored, which takes no key. Errors:
// kCorrupt, and what is wrong; kRefused = of another format version.
[[nodiscard]] Status check_frame(std::span<const std::byte> frame, const wire::FrameHeader& wanted);
// The same, and what the frame's header says.
[[nodiscard]] Result<wire::FrameHeader> read_checked(std::span<const std::byte> frame,
                                                     const wire::FrameHeader& wanted);

// Of 64 hex digits, as a fingerprint gives them.
[[nodiscard]] std::array<std::uint8_t, 32> digest_bytes(const std::string& hex);

}  // namespace terrace::tier::disk
