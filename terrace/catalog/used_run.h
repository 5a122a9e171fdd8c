// What a pool is told of the use of its blocks, by a request or by the pool that had them before.
// Threading: values.  Waits: never.
#pragma once

#include <optional>
#include <span>

#include "terrace/block/sequence_hash.h"
#include "terrace/policy/returns/use.h"

namespace terrace::catalog {

// Blocks that follow each other in a request's chain.
struct UsedRun {
  std::span<const SequenceHash> hashes;
  std::optional<SequenceHash> before = {};  // The block before them; nothing = they are the first.
  std::optional<policy::Use> use = {};      // Nothing = only that they were used.
};

// Of one block.
struct LastUse {
  policy::Use use;
  std::optional<SequenceHash> before = {};  // The block before it in its chain, if that is known.
};

}  // namespace terrace::catalog
