#include "terrace/wire/pack.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <cstring>
#include <string_view>

#include "terrace/base/check.h"
#include "terrace/block/digest.h"
#include "terrace/wire/bytes_internal.h"
#include "terrace/wire/frame.h"
#include "terrace/wire/xxhash_internal.h"

namespace terrace::wire {
namespace {

constexpr std::string_view kMagic = "TRCPACKF";
constexpr std::uint32_t kVersion = 1;
constexpr std::size_t kFixedBytes = 88;
constexpr std::size_t kTailBytes = 24;  // Length and checksum.
constexpr std::uint64_t kMostFooterBytes = 4ULL << 20U;
constexpr std::size_t kNumberDigits = 20;
constexpr std::size_t kNameSpaceDigits = 32;
constexpr std::size_t kKeyDigits = 16;
constexpr std::size_t kHashDigits = 32;
constexpr std::uint16_t kMostGroups = 64;
constexpr std::uint16_t kMostRanks = 64;

std::uint64_t padded(std::uint64_t bytes) {
  return (bytes + kPackAlignment - 1) / kPackAlignment * kPackAlignment;
}

std::uint64_t footer_length(std::uint64_t groups, std::uint64_t blocks) {
  return padded(kFixedBytes + 8 * groups + 16 * blocks + kTailBytes);
}

// The whole of `text` as a decimal number, as we write it.
template <typename Number>
std::optional<Number> number_of(std::string_view text) {
  Number number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (error != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return number;
}

// Without leading zeros: what has two names would be two packs to who counts, and one to who reads.
template <typename Number>
std::optional<Number> plain_number_of(std::string_view text) {
  if (text.size() > 1 && text.starts_with('0')) return std::nullopt;
  return number_of<Number>(text);
}

bool is_hex(std::string_view text, std::size_t digits) {
  return text.size() == digits &&
         text.find_first_not_of("0123456789abcdef") == std::string_view::npos;
}

}  // namespace

PackGeometry::PackGeometry(const Layout& layout, std::uint32_t blocks)
    : blocks_(blocks), ranks_(layout.ranks), block_tokens_(layout.block_tokens) {
  TERRACE_CHECK(blocks >= 1 && blocks <= kMostPackBlocks);
  for (const GroupLayout& group : layout.groups) {
    payload_bytes_.push_back(group.shard_bytes().value());
    group_offset_.push_back(block_bytes_);
    block_bytes_ += ranks_ * (kFrameHeaderBytes + padded(payload_bytes_.back()));
  }
}

std::uint64_t PackGeometry::frame_bytes(GroupId group) const {
  return kFrameHeaderBytes + padded(payload_bytes(group));
}

PackRange PackGeometry::shard_group(std::uint32_t block, GroupId group) const {
  return {.offset = block * block_bytes_ + group_offset_[group.value()],
          .bytes = ranks_ * frame_bytes(group)};
}

std::uint64_t PackGeometry::footer_bytes() const { return footer_length(groups(), blocks_); }

std::string encode(const PackFooter& footer) {
  std::string out(kMagic);
  put(out, kVersion);
  put(out, static_cast<std::uint32_t>(footer.hashes.size()));
  put(out, static_cast<std::uint16_t>(footer.payload_bytes.size()));
  put(out, footer.ranks);
  put(out, static_cast<std::uint32_t>(footer.block_tokens.value()));
  out.append(footer.content_digest.begin(), footer.content_digest.end());
  out.append(footer.layout_digest.begin(), footer.layout_digest.end());
  for (const std::uint64_t bytes : footer.payload_bytes) put(out, bytes);
  for (const SequenceHash& hash : footer.hashes) {
    const auto bytes = hash.bytes();
    out.append(bytes.begin(), bytes.end());
  }
  const std::uint64_t length = footer_length(footer.payload_bytes.size(), footer.hashes.size());
  out.resize(length - kTailBytes, '\0');
  put(out, length);
  const auto check = xxh3_128(std::as_bytes(std::span(out)));
  out.append(check.begin(), check.end());
  return out;
}

Result<std::uint64_t> footer_bytes_of(std::span<const std::byte> tail) {
  if (tail.size() < kTailBytes) return fail(Code::kCorrupt, "pack: shorter than a footer's end");
  Reader reader(tail.last(kTailBytes));
  const auto length = reader.take<std::uint64_t>();
  if (length < kPackAlignment || length > kMostFooterBytes || length % kPackAlignment != 0) {
    return fail(Code::kCorrupt, fmt::format("pack: a footer of {} bytes", length));
  }
  return length;
}

Result<PackFooter> decode_pack_footer(std::span<const std::byte> bytes) {
  TERRACE_ASSIGN_OR_RETURN(const std::uint64_t length, footer_bytes_of(bytes));
  if (bytes.size() < length) return fail(Code::kCorrupt, "pack: shorter than its footer");
  const auto footer = bytes.last(length);
  Reader reader(footer.first(length - kTailBytes));
  if (reader.take_string(kMagic.size()) != kMagic) return fail(Code::kCorrupt, "pack: no magic");
  const auto check = xxh3_128(footer.first(length - 16));
  if (std::memcmp(footer.last(16).data(), check.data(), check.size()) != 0) {
    return fail(Code::kCorrupt, "pack: the footer's checksum differs");
  }
  const auto version = reader.take<std::uint32_t>();
  if (version != kVersion) {
    return fail(Code::kRefused, fmt::format("pack: version {}, this is {}", version, kVersion));
  }
  PackFooter found;
  const auto blocks = reader.take<std::uint32_t>();
  const auto groups = reader.take<std::uint16_t>();
  found.ranks = reader.take<std::uint16_t>();
  found.block_tokens = Tokens(reader.take<std::uint32_t>());
  const bool is_sane = blocks >= 1 && blocks <= kMostPackBlocks && groups >= 1 &&
                       groups <= kMostGroups && found.ranks >= 1 && found.ranks <= kMostRanks &&
                       length == footer_length(groups, blocks);
  if (!is_sane) {
    return fail(Code::kCorrupt, fmt::format("pack: {} blocks, {} groups and {} ranks", blocks,
                                            groups, found.ranks));
  }
  found.content_digest = take_bytes<32>(reader);
  found.layout_digest = take_bytes<32>(reader);
  for (std::uint16_t group = 0; group < groups; ++group) {
    found.payload_bytes.push_back(reader.take<std::uint64_t>());
  }
  for (std::uint32_t block = 0; block < blocks; ++block) {
    found.hashes.push_back(SequenceHash::from_bytes(take_bytes<16>(reader)));
  }
  return found;
}

PackNames::PackNames(std::span<const std::uint8_t, 32> content_digest,
                     std::span<const std::uint8_t, 32> layout_digest) {
  Digest digest;
  for (const auto& part : {content_digest, layout_digest}) {
    digest.add_field({reinterpret_cast<const char*>(part.data()), part.size()});
  }
  folder_ = "v1/" + digest.hex().substr(0, 32) + "/";
}

std::string PackNames::pack(std::uint64_t generation, std::uint32_t blocks,
                            const SequenceHash& last, std::string_view key) const {
  const std::string hex = last.hex();
  return fmt::format("{}g{}/n{}{}{}/{}/{}.pack", folder_, generation, blocks,
                     key.empty() ? "" : "k", key, hex.substr(0, 2), hex);
}

std::string PackNames::reset(std::uint64_t generation) const {
  return fmt::format("{}{:020}", resets(), generation);
}

std::optional<std::uint64_t> PackNames::generation_of(std::string_view name) const {
  const std::string start = resets();
  if (!name.starts_with(start)) return std::nullopt;
  name.remove_prefix(start.size());
  if (name.size() != kNumberDigits) return std::nullopt;
  const auto generation = number_of<std::uint64_t>(name);
  return generation && *generation <= kMostGeneration ? generation : std::nullopt;
}

std::optional<PackName> parse_pack_name(std::string_view name) {
  constexpr std::string_view kEnding = ".pack";
  constexpr std::size_t kFolders = 5;
  if (!name.starts_with(kAllPacks) || !name.ends_with(kEnding)) return std::nullopt;
  std::array<std::string_view, kFolders> parts;
  for (std::string_view& part : parts) {
    const std::size_t slash = name.find('/');
    if (slash == std::string_view::npos) return std::nullopt;
    part = name.substr(0, slash);
    name.remove_prefix(slash + 1);
  }
  const std::string_view hash = name.substr(0, name.size() - kEnding.size());
  const bool is_ours = is_hex(parts[1], kNameSpaceDigits) && parts[2].starts_with('g') &&
                       parts[3].starts_with('n') && is_hex(hash, kHashDigits) &&
                       parts[4] == hash.substr(0, 2);
  if (!is_ours) return std::nullopt;
  const auto generation = plain_number_of<std::uint64_t>(parts[2].substr(1));
  std::string_view count = parts[3].substr(1);
  std::string_view key;
  if (const std::size_t at = count.find('k'); at != std::string_view::npos) {
    key = count.substr(at + 1);
    if (!is_hex(key, kKeyDigits)) return std::nullopt;
    count = count.substr(0, at);
  }
  const auto blocks = plain_number_of<std::uint32_t>(count);
  if (!generation || !blocks || *blocks == 0 || *blocks > kMostPackBlocks) return std::nullopt;
  return PackName{.name_space = parts[1], .generation = *generation, .blocks = *blocks, .key = key};
}

std::string turn_name(std::uint64_t number) { return fmt::format("{}{:020}", kTurns, number); }

std::optional<std::uint64_t> turn_of(std::string_view name) {
  if (!name.starts_with(kTurns)) return std::nullopt;
  name.remove_prefix(kTurns.size());
  if (name.size() != kNumberDigits) return std::nullopt;
  return number_of<std::uint64_t>(name);
}

}  // namespace terrace::wire
