// What a look-up compares, always as a whole: namespace, KV group and sequence hash.
// Threading: immutable values.
#pragma once

#include "terrace/base/strong.h"
#include "terrace/block/sequence_hash.h"

namespace terrace {

struct BlockKey {
  NamespaceId name_space;
  GroupId group;
  SequenceHash hash;
  friend auto operator<=>(const BlockKey&, const BlockKey&) = default;
};

}  // namespace terrace
