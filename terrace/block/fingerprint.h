// What must be equal for bytes to fit: two lists of named fields, content and layout, each with its
// own digest (SHA-256 over length-prefixed names and values, docs/formats/fingerprint.md).
// Kept in clear text, so that `terrace inspect` can say which field differs.
// Threading: immutable values.  Waits: never.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "terrace/base/status.h"

namespace terrace {

struct FingerprintField {
  std::string name;   // Not empty, once per part.
  std::string value;  // Any bytes.
  friend bool operator==(const FingerprintField&, const FingerprintField&) = default;
};

struct Fingerprint {
  std::vector<FingerprintField> content;  // Model, weights, resolved config, dtypes, tenant …
  std::vector<FingerprintField> layout;   // Block tokens, groups, TP/PP size, packing, ISA …
  friend bool operator==(const Fingerprint&, const Fingerprint&) = default;

  // 64 hex digits each. Field order does not matter: fields are sorted by name before hashing.
  [[nodiscard]] std::string content_digest() const;
  [[nodiscard]] std::string layout_digest() const;
  // The same as 32 bytes, as a frame carries them.
  [[nodiscard]] std::array<std::uint8_t, 32> content_digest_bytes() const;
  [[nodiscard]] std::array<std::uint8_t, 32> layout_digest_bytes() const;
  // Clear text, one `part.name=value` a line with escapes; parse(text()) gives an equal value.
  [[nodiscard]] std::string text() const;
  // What parse() would refuse must not be written: it would not be found again.
  // Errors: kInvalid names the field: empty, or twice in its part; or more than 1 MiB of text.
  [[nodiscard]] Status validate() const;
  // One more field of content, from somebody else than gave the rest. Errors: kInvalid when the
  // name is there already; `giver` says who else gives it, such as "the setting tenant".
  [[nodiscard]] Status add_content(std::string name, std::string value, std::string_view giver);
  // Errors: kInvalid names the line: no part, no `=`, a bad escape, a name that is empty or given
  // twice in its part; or more than 1 MiB of text.
  static Result<Fingerprint> parse(std::string_view text);
};

struct FieldDifference {
  std::string part;  // "content" or "layout"
  std::string name;
  std::optional<std::string> ours;
  std::optional<std::string> theirs;
  friend bool operator==(const FieldDifference&, const FieldDifference&) = default;
};
// Content first, then layout; by name within a part. Empty exactly when both digests are equal.
[[nodiscard]] std::vector<FieldDifference> differences(const Fingerprint& ours,
                                                       const Fingerprint& theirs);

}  // namespace terrace
