// The messages of the rendezvous, one per datagram of a Unix seqpacket socket; descriptors travel
// beside AttachFiles. Parsers are bounded and never throw: what is cut, inconsistent or not ours is
// kInvalid, another version kRefused. Threading: immutable values.  Waits: never.  Source:
// docs/formats/attach.md.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <variant>

#include "terrace/base/status.h"
#include "terrace/base/strong.h"
#include "terrace/block/layout.h"

namespace terrace::wire {

inline constexpr std::size_t kAttachMessageBytes = 65536;  // No message is longer.
inline constexpr std::size_t kAttachFilesAtOnce = 253;     // SCM_MAX_FD of Linux.

// Worker -> owner, first.
struct AttachHello {
  RankId rank;
  Layout layout;
};

// Owner -> worker: the attachment and the geometry of its lane.
struct AttachWelcome {
  std::uint64_t owner = 0;
  Epoch epoch;
  Bytes slot_bytes;
  std::uint32_t slots = 0;
  std::uint16_t lanes = 0;
  std::uint32_t files = 0;  // How many descriptors follow in all.
};

// Owner -> worker, with `count` descriptors: files [first, first + count) of the lane.
struct AttachFiles {
  std::uint32_t first = 0;
  std::uint32_t count = 0;
};

enum class AttachStage : std::uint16_t { kMapped = 1, kPopulated = 2 };

// Worker -> owner.
struct AttachProgress {
  AttachStage stage = AttachStage::kMapped;
};

// Either way: why there is no attachment. kRefused = do not hope; kUnavailable = try again.
struct AttachRefusal {
  Code code = Code::kRefused;
  std::string detail;  // At most 1024 bytes travel.
};

using AttachMessage =
    std::variant<AttachHello, AttachWelcome, AttachFiles, AttachProgress, AttachRefusal>;

// Errors: kInvalid when a layout does not fit a message.
[[nodiscard]] Result<std::string> encode(const AttachMessage& message);
[[nodiscard]] Result<AttachMessage> decode_attach(std::span<const std::byte> bytes);

// First 24 hex digits of SHA-256(engine_id): the rendezvous' file name without its ending.
[[nodiscard]] std::string rendezvous_name(const std::string& engine_id);

}  // namespace terrace::wire
