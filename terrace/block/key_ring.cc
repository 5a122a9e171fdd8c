#include "terrace/block/key_ring.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <optional>

#include "terrace/block/hkdf.h"

namespace terrace {
namespace {

using namespace std::string_view_literals;

constexpr std::string_view kTextStart = "terrace-key-1 ";
// Each with the version of what it stands for at its end.
constexpr std::string_view kIdInfo = "TERRACE\0key id\1"sv;
constexpr std::string_view kNamespaceInfo = "TERRACE\0namespace\1"sv;

std::span<const std::uint8_t> bytes_of(std::string_view text) {
  return {reinterpret_cast<const std::uint8_t*>(text.data()), text.size()};
}

std::optional<unsigned> digit_of(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  return std::nullopt;
}

}  // namespace

std::string KeyId::hex() const { return fmt::format("{:02x}", fmt::join(bytes, "")); }

KeyId key_id_of(const Secret& master) {
  BriefSecret derived;
  hkdf_sha256(master.bytes(), {}, bytes_of(kIdInfo), derived.bytes());
  KeyId id;
  std::ranges::copy(derived.bytes().first<8>(), id.bytes.begin());
  return id;
}

Result<Secret> parse_master_key(std::string_view text) {
  if (text.ends_with('\n')) text.remove_suffix(1);
  if (text.starts_with(kTextStart)) text.remove_prefix(kTextStart.size());
  if (text.size() != 2 * kSecretBytes) {
    return fail(Code::kInvalid,
                fmt::format("a key is \"{}\" and {} hex digits, this is something else of {} "
                            "characters; `terrace key new PATH` makes one",
                            kTextStart, 2 * kSecretBytes, text.size()));
  }
  TERRACE_ASSIGN_OR_RETURN(Secret secret, Secret::create());
  for (std::size_t i = 0; i < kSecretBytes; ++i) {
    const auto high = digit_of(text[2 * i]);
    const auto low = digit_of(text[2 * i + 1]);
    if (!high || !low) {
      return fail(Code::kInvalid,
                  fmt::format("character {} of the key is no hex digit", 2 * i + (high ? 2 : 1)));
    }
    secret.bytes()[i] = static_cast<std::uint8_t>(*high << 4U | *low);
  }
  if (std::ranges::all_of(secret.bytes(), [](std::uint8_t byte) { return byte == 0; })) {
    return fail(Code::kInvalid, "the key is all zeros; `terrace key new PATH` makes one");
  }
  return secret;
}

std::string master_key_text(const Secret& master) {
  return fmt::format("{}{:02x}\n", kTextStart, fmt::join(master.bytes(), ""));
}

void KeyRing::add(Secret master) {
  const KeyId id = key_id_of(master);
  if (std::ranges::find(keys_, id, &Key::id) != keys_.end()) return;
  keys_.push_back({id, std::move(master)});
}

std::string KeyRing::ids() const {
  std::string text;
  for (const Key& key : keys_) text += (text.empty() ? "" : ", ") + key.id.hex();
  return text;
}

Result<NamespaceKeys> NamespaceKeys::derive(const KeyRing& ring,
                                            std::span<const std::uint8_t, 32> content_digest,
                                            std::span<const std::uint8_t, 32> layout_digest) {
  if (ring.is_empty()) return fail(Code::kInvalid, "no key to encrypt with");
  std::string info(kNamespaceInfo);
  info.append(content_digest.begin(), content_digest.end());
  info.append(layout_digest.begin(), layout_digest.end());
  NamespaceKeys made;
  for (const KeyRing::Key& key : ring.keys()) {
    TERRACE_ASSIGN_OR_RETURN(Secret derived, Secret::create());
    hkdf_sha256(key.secret.bytes(), {}, bytes_of(info), derived.bytes());
    made.keys_.push_back({key.id, std::move(derived)});
  }
  return made;
}

const KeyRing::Key* NamespaceKeys::find(const KeyId& id) const {
  const auto found = std::ranges::find(keys_, id, &KeyRing::Key::id);
  return found == keys_.end() ? nullptr : &*found;
}

bool NamespaceKeys::has_tag(std::uint16_t tag) const {
  return std::ranges::any_of(keys_, [&](const KeyRing::Key& key) { return key.id.tag() == tag; });
}

}  // namespace terrace
