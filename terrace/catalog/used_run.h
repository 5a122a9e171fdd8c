// What a pool is told of a request's use of its blocks.
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

}  // namespace terrace::catalog
