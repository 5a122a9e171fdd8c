#include "terrace/sim/oracle_rig.h"

#include <cstring>

#include "terrace/base/rng.h"

namespace terrace::sim {

const Truth::Shards& Truth::of(GroupId group, const SequenceHash& hash, std::uint32_t weights) {
  // One number for all that determines the bytes: two keys with the same one would need 2^32 keys.
  Rng mix(hash.high ^ (hash.low * 3) ^ (std::uint64_t{weights} << 32U) ^
          (std::uint64_t{group.value()} << 48U));
  const std::uint64_t number = mix.next();
  std::unique_ptr<Shards>& known = known_[number];
  if (known != nullptr) return *known;
  known = std::make_unique<Shards>();
  Rng rng(number);
  for (Payload& payload : *known) {
    for (std::size_t at = 0; at < payload.size(); at += sizeof(std::uint64_t)) {
      const std::uint64_t word = rng.next();
      std::memcpy(payload.data() + at, &word, sizeof word);
    }
  }
  return *known;
}

}  // namespace terrace::sim
