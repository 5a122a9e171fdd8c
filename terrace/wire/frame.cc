#include "terrace/wire/frame.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <string>
#include <string_view>

#include "terrace/wire/bytes_internal.h"
#include "terrace/wire/xxhash_internal.h"

namespace terrace::wire {
namespace {

// docs/formats/frame.md. All versions share the places of magic, version and header checksum.
constexpr std::string_view kMagic = "TRCFRAME";
constexpr std::uint32_t kVersion = 1;
constexpr std::size_t kChecksumBytes = 16;
constexpr std::size_t kCheckedBytes = kFrameHeaderBytes - kChecksumBytes;
constexpr std::size_t kPayloadChecksumAt = 32;

template <std::size_t kSize>
void put_bytes(std::string& out, const std::array<std::uint8_t, kSize>& bytes) {
  out.append(bytes.begin(), bytes.end());
}

std::string fields_of(const FrameHeader& header) {
  std::string out(kMagic);
  put(out, kVersion);
  put(out, static_cast<std::uint16_t>(header.codec));
  put(out, header.group.value());
  put(out, header.rank.value());
  put(out, std::uint16_t{0});
  put(out, header.generation.value());
  put(out, header.payload_bytes);
  put(out, header.payload_checksum.value);
  put_bytes(out, header.hash.bytes());
  put_bytes(out, header.content_digest);
  put_bytes(out, header.layout_digest);
  put_bytes(out, header.seal.key.bytes);
  put_bytes(out, header.seal.salt);
  put_bytes(out, header.seal.hidden);
  put_bytes(out, header.seal.tag);
  put(out, header.era);
  return out;
}

}  // namespace

std::array<std::uint8_t, kFrameIdentityBytes> frame_identity(const FrameHeader& header) {
  const std::string fields = fields_of(header);
  std::array<std::uint8_t, kFrameIdentityBytes> identity{};
  std::memcpy(identity.data(), fields.data(), identity.size());
  // In the place of what is not known before the payload is encrypted.
  std::memcpy(identity.data() + kPayloadChecksumAt, &header.era, sizeof header.era);
  return identity;
}

void encode(const FrameHeader& header, std::span<std::byte, kFrameHeaderBytes> page) {
  const std::string out = fields_of(header);
  std::memcpy(page.data(), out.data(), out.size());
  std::fill(page.begin() + static_cast<std::ptrdiff_t>(out.size()), page.end(), std::byte{0});
  const auto check = xxh3_128(page.first<kCheckedBytes>());
  std::memcpy(page.data() + kCheckedBytes, check.data(), check.size());
}

Result<FrameHeader> decode_frame(std::span<const std::byte, kFrameHeaderBytes> page) {
  Reader reader(page.first<kCheckedBytes>());
  if (reader.take_string(kMagic.size()) != kMagic) {
    return fail(Code::kCorrupt, "frame: no magic");
  }
  const auto check = xxh3_128(page.first<kCheckedBytes>());
  if (std::memcmp(page.data() + kCheckedBytes, check.data(), check.size()) != 0) {
    return fail(Code::kCorrupt, "frame: header checksum differs");
  }
  const auto version = reader.take<std::uint32_t>();
  if (version != kVersion) {
    return fail(Code::kRefused, fmt::format("frame: version {}, this is {}", version, kVersion));
  }
  const auto codec = reader.take<std::uint16_t>();
  FrameHeader header;
  header.codec = static_cast<FrameCodec>(codec);
  if (header.codec != FrameCodec::kRaw && header.codec != FrameCodec::kAes256Gcm) {
    return fail(Code::kRefused, fmt::format("frame: codec {}", codec));
  }
  header.group = reader.take_as<GroupId>();
  header.rank = reader.take_as<RankId>();
  const auto reserved = reader.take<std::uint16_t>();
  header.generation = reader.take_as<Generation>();
  header.payload_bytes = reader.take<std::uint64_t>();
  header.payload_checksum.value = reader.take<std::uint64_t>();
  header.hash = SequenceHash::from_bytes(take_bytes<16>(reader));
  header.content_digest = take_bytes<32>(reader);
  header.layout_digest = take_bytes<32>(reader);
  header.seal = {.key = {take_bytes<8>(reader)},
                 .salt = take_bytes<32>(reader),
                 .hidden = take_bytes<16>(reader),
                 .tag = take_bytes<16>(reader)};
  header.era = reader.take<std::uint64_t>();
  bool is_rest_zero = reserved == 0;
  if (header.codec == FrameCodec::kRaw) is_rest_zero &= header.seal == FrameSeal{};
  while (!reader.is_at_end()) is_rest_zero &= reader.take<std::uint64_t>() == 0;
  if (!is_rest_zero) return fail(Code::kRefused, "frame: reserved bytes are set");
  return header;
}

}  // namespace terrace::wire
