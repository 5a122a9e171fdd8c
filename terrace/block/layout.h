// The shape of an engine's KV cache as its worker registered it: per KV group the pieces that make
// up one shard. A shard's payload is its pieces one after the other, in this order. Threading:
// immutable values.  Source: docs/formats/frame.md.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "terrace/base/status.h"
#include "terrace/base/strong.h"

namespace terrace {

struct GroupLayout {
  GroupId group;
  std::vector<Bytes> piece_bytes;  // Bytes of one block in each region (layer), in payload order.
  [[nodiscard]] Bytes shard_bytes() const;
};

struct Layout {
  Tokens block_tokens;
  std::uint16_t ranks = 1;
  std::vector<GroupLayout> groups;
  // Refuses zero sizes, no groups, more than 64 ranks, a shard over 1 GiB.
  [[nodiscard]] Status validate() const;
};

}  // namespace terrace
