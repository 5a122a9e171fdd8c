// What the blocks of a namespace are encrypted with, as tools tell it.
// Threading: immutable values.  Source: docs/formats/encryption.md.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace terrace::tier {

struct KeyUse {
  std::string id;           // In hex; empty = no whole frame says it.
  std::uint16_t tag = 0;    // The upper 15 bits of its first two bytes.
  bool is_at_hand = false;  // Among the keys that were given.
  std::uint64_t blocks = 0;
  std::uint64_t opened = 0;  // Of those; only who reads frames whole opens any.
};

struct KeyUses {
  std::uint64_t plain_blocks = 0;  // Not encrypted.
  std::vector<KeyUse> keys;
};

}  // namespace terrace::tier
