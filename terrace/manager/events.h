// What the tiers stored and removed, for routers. Self-describing: a store names its tokens.
// Threading: immutable values.  Source: docs/formats/events.md.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "terrace/block/location.h"
#include "terrace/block/sequence_hash.h"

namespace terrace::manager {

struct EventKey {
  ExtraKey::Kind kind = ExtraKey::Kind::kSalt;
  std::string identity{};  // Raw bytes.
  std::int64_t offset =
      0;  // kMultimodal: the item's first token minus the block's; may be negative.
};

struct Event {
  enum class Kind : std::uint8_t { kStored, kRemoved, kCleared };
  Kind kind = Kind::kStored;
  Tier tier = Tier::kHost;
  GroupId group{};
  SequenceHash hash{};
  SequenceHash parent{};    // kStored; all zero for the first block.
  std::uint64_t alias = 0;  // The engine's own hash, low 64 bits; 0 = not known.
  std::uint64_t parent_alias = 0;
  std::vector<std::uint32_t>
      tokens{};  // kStored: the block's token ids; empty when no longer known.
  std::vector<EventKey> extra_keys{};  // kStored: those that entered this block's own hash.
};

}  // namespace terrace::manager
