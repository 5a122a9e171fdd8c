#include "terrace/wire/attach_messages.h"

#include <fmt/format.h>

#include <algorithm>
#include <optional>
#include <string_view>
#include <utility>

#include "terrace/block/digest.h"
#include "terrace/wire/bytes_internal.h"

namespace terrace::wire {
namespace {

// docs/formats/attach.md.
constexpr std::string_view kMagic = "TATT";
constexpr std::uint16_t kVersion = 1;
constexpr std::size_t kMaxDetail = 1024;
constexpr std::size_t kMaxGroups = 64;
constexpr std::size_t kMaxPieces = 65536;  // Of one group, after unfolding runs.
constexpr std::size_t kGroupBytes = 6;     // Id and number of runs.
constexpr std::size_t kRunBytes = 12;
constexpr std::size_t kNameDigits =
    24;  // 96 bits: two engines on one machine never meet by chance.

enum class Kind : std::uint16_t {
  kHello = 1,
  kWelcome = 2,
  kFiles = 3,
  kProgress = 4,
  kRefusal = 5,
};

// Equal pieces in a row are one run: layers of one engine nearly always have one size.
void put_group(std::string& out, const GroupLayout& group) {
  put(out, group.group.value());
  const std::size_t count_at = out.size();
  put(out, std::uint32_t{0});
  std::uint32_t runs = 0;
  for (std::size_t i = 0; i < group.piece_bytes.size(); ++runs) {
    std::size_t end = i;
    while (end < group.piece_bytes.size() && group.piece_bytes[end] == group.piece_bytes[i]) ++end;
    put(out, static_cast<std::uint32_t>(end - i));
    put(out, group.piece_bytes[i].value());
    i = end;
  }
  std::string count;
  put(count, runs);
  out.replace(count_at, count.size(), count);
}

GroupLayout take_group(Reader& reader) {
  GroupLayout group;
  group.group = reader.take_as<GroupId>();
  const auto runs = reader.take<std::uint32_t>();
  if (!reader.has_room_for(runs, kRunBytes)) reader.mark_bad();
  for (std::uint32_t i = 0; i < runs && reader.is_ok(); ++i) {
    const auto length = reader.take<std::uint32_t>();
    const Bytes piece(reader.take<std::uint64_t>());
    if (length == 0 || length > kMaxPieces - group.piece_bytes.size()) {
      reader.mark_bad();
      break;
    }
    group.piece_bytes.insert(group.piece_bytes.end(), length, piece);
  }
  return group;
}

AttachHello take_hello(Reader& reader) {
  AttachHello hello;
  hello.rank = reader.take_as<RankId>();
  hello.layout.ranks = reader.take<std::uint16_t>();
  hello.layout.block_tokens = Tokens(reader.take<std::uint64_t>());
  const auto groups = reader.take<std::uint16_t>();
  if (groups > kMaxGroups || !reader.has_room_for(groups, kGroupBytes)) reader.mark_bad();
  for (unsigned i = 0; i < groups && reader.is_ok(); ++i) {
    hello.layout.groups.push_back(take_group(reader));
  }
  return hello;
}

AttachWelcome take_welcome(Reader& reader) {
  AttachWelcome welcome;
  welcome.owner = reader.take<std::uint64_t>();
  welcome.epoch = reader.take_as<Epoch>();
  welcome.slot_bytes = Bytes(reader.take<std::uint64_t>());
  welcome.slots = reader.take<std::uint32_t>();
  welcome.lanes = reader.take<std::uint16_t>();
  welcome.files = reader.take<std::uint32_t>();
  return welcome;
}

AttachFiles take_files(Reader& reader) {
  AttachFiles files;
  files.first = reader.take<std::uint32_t>();
  files.count = reader.take<std::uint32_t>();
  if (files.count == 0 || files.count > kAttachFilesAtOnce) reader.mark_bad();
  return files;
}

AttachProgress take_progress(Reader& reader) {
  const auto stage = reader.take<std::uint16_t>();
  if (stage != std::to_underlying(AttachStage::kMapped) &&
      stage != std::to_underlying(AttachStage::kPopulated)) {
    reader.mark_bad();
  }
  return {static_cast<AttachStage>(stage)};
}

AttachRefusal take_refusal(Reader& reader) {
  AttachRefusal refusal;
  const auto code = reader.take<std::uint16_t>();
  refusal.code = code == static_cast<int>(Code::kUnavailable) ? Code::kUnavailable : Code::kRefused;
  const auto length = reader.take<std::uint16_t>();
  if (length > kMaxDetail) reader.mark_bad();
  refusal.detail = reader.take_string(reader.is_ok() ? length : 0);
  return refusal;
}

std::string head(Kind kind) {
  std::string out(kMagic);
  put(out, kVersion);
  put(out, std::to_underlying(kind));
  return out;
}

struct Encoder {
  std::string operator()(const AttachHello& hello) const {
    std::string out = head(Kind::kHello);
    put(out, hello.rank.value());
    put(out, hello.layout.ranks);
    put(out, hello.layout.block_tokens.value());
    put(out, static_cast<std::uint16_t>(hello.layout.groups.size()));
    for (const GroupLayout& group : hello.layout.groups) put_group(out, group);
    return out;
  }
  std::string operator()(const AttachWelcome& welcome) const {
    std::string out = head(Kind::kWelcome);
    put(out, welcome.owner);
    put(out, welcome.epoch.value());
    put(out, welcome.slot_bytes.value());
    put(out, welcome.slots);
    put(out, welcome.lanes);
    put(out, welcome.files);
    return out;
  }
  std::string operator()(const AttachFiles& files) const {
    std::string out = head(Kind::kFiles);
    put(out, files.first);
    put(out, files.count);
    return out;
  }
  std::string operator()(const AttachProgress& progress) const {
    std::string out = head(Kind::kProgress);
    put(out, std::to_underlying(progress.stage));
    return out;
  }
  std::string operator()(const AttachRefusal& refusal) const {
    std::string out = head(Kind::kRefusal);
    const std::string detail = refusal.detail.substr(0, kMaxDetail);
    put(out, static_cast<std::uint16_t>(refusal.code));
    put(out, static_cast<std::uint16_t>(detail.size()));
    return out + detail;
  }
};

std::optional<AttachMessage> take_message(Reader& reader, std::uint16_t kind) {
  switch (static_cast<Kind>(kind)) {
    case Kind::kHello:
      return take_hello(reader);
    case Kind::kWelcome:
      return take_welcome(reader);
    case Kind::kFiles:
      return take_files(reader);
    case Kind::kProgress:
      return take_progress(reader);
    case Kind::kRefusal:
      return take_refusal(reader);
  }
  return {};
}

}  // namespace

Result<std::string> encode(const AttachMessage& message) {
  std::string out = std::visit(Encoder{}, message);
  if (out.size() > kAttachMessageBytes) {
    return fail(Code::kInvalid,
                fmt::format("attach: a layout of {} bytes does not fit a message of "
                            "{} bytes: too many pieces of unequal size",
                            out.size(), kAttachMessageBytes));
  }
  return out;
}

Result<AttachMessage> decode_attach(std::span<const std::byte> bytes) {
  Reader reader(bytes);
  if (reader.take_string(kMagic.size()) != kMagic || bytes.size() > kAttachMessageBytes) {
    return fail(Code::kInvalid, "attach: cut, or no message of terrace");
  }
  const auto version = reader.take<std::uint16_t>();
  const auto kind = reader.take<std::uint16_t>();
  if (!reader.is_ok()) return fail(Code::kInvalid, "attach: cut");
  if (version != kVersion) {
    return fail(
        Code::kRefused,
        fmt::format("attach: version {} of the rendezvous, this side has {}: owner and worker "
                    "must be of one release",
                    version, kVersion));
  }
  auto message = take_message(reader, kind);
  if (!message.has_value()) {
    return fail(Code::kInvalid, fmt::format("attach: unknown message {}", kind));
  }
  if (!reader.is_ok() || !reader.is_at_end()) {
    return fail(Code::kInvalid, fmt::format("attach: message {} is cut or inconsistent", kind));
  }
  return std::move(*message);
}

std::string rendezvous_name(const std::string& engine_id) {
  Digest digest;
  digest.add_field(engine_id);
  return digest.hex().substr(0, kNameDigits);
}

}  // namespace terrace::wire
