#include <charconv>

#include "terrace/block/checksum.h"
#include "terrace/tier/disk/frame_check_internal.h"

namespace terrace::tier::disk {

std::array<std::uint8_t, 32> digest_bytes(const std::string& hex) {
  std::array<std::uint8_t, 32> bytes{};
  for (std::size_t i = 0; i < bytes.size() && 2 * i + 2 <= hex.size(); ++i) {
    (void)std::from_chars(hex.data() + 2 * i, hex.data() + 2 * i + 2, bytes[i], 16);
  }
  return bytes;
}

Result<wire::FrameHeader> read_checked(std::span<const std::byte> frame,
                                       const wire::FrameHeader& wanted) {
  if (frame.size() < wire::kFrameHeaderBytes + wanted.payload_bytes) {
    return fail(Code::kCorrupt, "the file ends before the frame does");
  }
  auto header = wire::decode_frame(frame.first<wire::kFrameHeaderBytes>());
  if (!header) return header;
  wire::FrameHeader same = wanted;
  same.payload_checksum = header->payload_checksum;
  same.codec = header->codec;  // The checksum is of the payload as it is stored.
  same.seal = header->seal;
  if (*header != same) return fail(Code::kCorrupt, "the frame is another block's");
  if (checksum_of(frame.subspan(wire::kFrameHeaderBytes, wanted.payload_bytes)) !=
      header->payload_checksum) {
    return fail(Code::kCorrupt, "the payload's checksum does not match");
  }
  return header;
}

Status check_frame(std::span<const std::byte> frame, const wire::FrameHeader& wanted) {
  const auto header = read_checked(frame, wanted);
  return header ? Status() : header.error();
}

}  // namespace terrace::tier::disk
