// Numbered keys and chains: equal numbers give equal hashes, spread as real ones are.
// Threading: thread-safe.  Waits: never.
#pragma once

#include <cstdint>
#include <vector>

#include "terrace/base/rng.h"
#include "terrace/block/key.h"

namespace terrace::testing {

[[nodiscard]] inline SequenceHash hash(std::uint64_t number) {
  Rng rng(number);
  const std::uint64_t high = rng.next();
  return {high, rng.next()};
}

[[nodiscard]] inline BlockKey key(std::uint64_t number, std::uint16_t name_space = 1,
                                  std::uint16_t group = 0) {
  return {NamespaceId(name_space), GroupId(group), hash(number)};
}

[[nodiscard]] inline std::vector<SequenceHash> chain(std::uint64_t first, std::size_t count) {
  std::vector<SequenceHash> hashes;
  hashes.reserve(count);
  for (std::size_t i = 0; i < count; ++i) hashes.push_back(hash(first + i));
  return hashes;
}

}  // namespace terrace::testing
