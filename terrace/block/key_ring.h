// The keys that blocks are encrypted with: master keys, one to write with and older ones to read
// with, and what a namespace derives from them.
// Threading: immutable once made.  Owns: its secrets.  Waits: never.
// Source: docs/formats/encryption.md, docs/adr/0024-a-key-for-every-frame.md.
#pragma once

#include <array>
#include <compare>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "terrace/base/status.h"
#include "terrace/block/secret.h"

namespace terrace {

// Names a master key and says nothing else about it.
struct KeyId {
  std::array<std::uint8_t, 8> bytes{};
  [[nodiscard]] std::string hex() const;
  // 15 bits of it, for where there is no more room.
  [[nodiscard]] std::uint16_t tag() const {
    return static_cast<std::uint16_t>((bytes[0] << 8U | bytes[1]) >> 1U);
  }
  friend auto operator<=>(const KeyId&, const KeyId&) = default;
};

[[nodiscard]] KeyId key_id_of(const Secret& master);
// `terrace-key-1 <64 hex digits>`, or the digits alone. Errors: kInvalid; the text is not in the
// message.
[[nodiscard]] Result<Secret> parse_master_key(std::string_view text);
// With the line end that a file of it has.
[[nodiscard]] std::string master_key_text(const Secret& master);

class KeyRing {
 public:
  struct Key {
    KeyId id;
    Secret secret;
  };
  // The first one writes. One that is there already is left out.
  void add(Secret master);
  [[nodiscard]] bool is_empty() const { return keys_.empty(); }
  [[nodiscard]] std::span<const Key> keys() const { return keys_; }
  // "9f3c…, 02aa…": the one that writes first.
  [[nodiscard]] std::string ids() const;

 private:
  std::vector<Key> keys_;
};

// Of one namespace, from each key of a ring.
class NamespaceKeys {
 public:
  // Errors: kExhausted = no memory; kInvalid = an empty ring.
  [[nodiscard]] static Result<NamespaceKeys> derive(
      const KeyRing& ring, std::span<const std::uint8_t, 32> content_digest,
      std::span<const std::uint8_t, 32> layout_digest);

  [[nodiscard]] const KeyRing::Key& current() const { return keys_.front(); }
  [[nodiscard]] std::span<const KeyRing::Key> all() const { return keys_; }
  // Null: not at hand.
  [[nodiscard]] const KeyRing::Key* find(const KeyId& id) const;
  [[nodiscard]] bool has_tag(std::uint16_t tag) const;

 private:
  std::vector<KeyRing::Key> keys_;
};

}  // namespace terrace
