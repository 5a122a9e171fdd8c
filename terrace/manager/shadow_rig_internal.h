// What the tests of checked hits share: an owner that checks, a request that is checked, and a lie.
// Threading: one thread.
#pragma once

#include <gtest/gtest.h>

#include <cstring>
#include <vector>

#include "terrace/manager/core_rig_internal.h"

namespace terrace::manager::rig {

inline RigOptions checking(double share, RigOptions given = {}) {
  given.tune = [share, tune = given.tune](Options& options) {
    options.shadow.share = share;
    options.shadow.element = ElementType::kFloat32;
    if (tune) tune(options);
  };
  if (given.host_blocks == 16) given.host_blocks = 64;  // Eight of which may be held.
  return given;
}

// One request that finds its blocks stored, computes them all the same, and has them compared.
struct Checked {
  Checked(Rig& given, std::uint64_t count, std::uint32_t seed = 1)
      : rig(given),
        blocks(count),
        tokens(Rig::make_tokens(count, seed)),
        table(Rig::make_table(count, 20)),
        id(rig.begin(tokens)) {}

  // Answers what the look-up offered; then computes what its chain says.
  std::uint64_t compute() {
    const std::uint64_t offered = rig.look_up(id);
    EXPECT_TRUE(rig.accept(id, 0, offered, table).is_ok());
    for (std::uint64_t block = offered; block < blocks; ++block) {
      rig.compute(id, block, table[block]);
    }
    return offered;
  }
  void step() {
    rig.advance(id, blocks, table);
    rig.step();
    rig.settle();
  }

  Rig& rig;
  const std::uint64_t blocks;
  const std::vector<std::uint32_t> tokens;
  const std::vector<std::uint32_t> table;
  const RequestId id;
};

// Other bytes in host, with the checksum to match: valid in itself, and wrong.
inline void plant(Rig& rig, const SequenceHash& hash, std::uint16_t rank = 0) {
  Context& context = rig.core.context();
  const auto slot = context.pool().find(context.key_of(GroupId(0), hash));
  ASSERT_TRUE(slot.has_value());
  const auto payload = rig.shard(slot->index, rank);
  const float wrong = 3e8F;
  std::memcpy(payload.data() + 4, &wrong, sizeof wrong);
  context.host->set_checksum(slot->index, RankId(rank), checksum_of(payload));
}

}  // namespace terrace::manager::rig
