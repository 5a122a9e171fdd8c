// What a node goes on taking for true of packs that others have, too.
#include <gmock/gmock.h>

#include <algorithm>

#include "terrace/tier/object/object_tier.h"
#include "terrace/tier/object/object_tier_rig.h"

namespace terrace::tier::object {
namespace {

class ObjectKnownTest : public ObjectTierRig {
 protected:
  const std::vector<SequenceHash> chain_ = chain_of(1, 4);
};

// Prompts that begin alike and part within a pack.
TEST_F(ObjectKnownTest, APackIsFoundWhateverBecomesOfAnotherWithItsHead) {
  const ChainMemory memory(options_.layout, 4, 5);
  auto other_chain = chain_of(2, 4);
  std::copy_n(chain_.begin(), 2, other_chain.begin());
  const std::span one_chain(chain_);
  ASSERT_EQ(write(*tier_, one_chain, memory, 0).text(), Status().text());
  ASSERT_EQ(write(*tier_, other_chain, memory, 0).text(), Status().text());
  const auto node = open();
  EXPECT_EQ(probe(*node, one_chain), 4U);
  EXPECT_EQ(probe(*node, other_chain), 4U);
  clock_.advance(seconds(601));
  EXPECT_EQ(probe(*node, one_chain), 4U) << "the other one is too old to count";
  EXPECT_EQ(node->match(GroupId(0), one_chain), 4U);
  EXPECT_EQ(probe(*node, other_chain), 4U);
  std::erase_if(place_->objects, [&](const auto& item) {
    return item.first.ends_with(one_chain.back().hex() + ".pack");
  });
  ChainMemory into(options_.layout, 1, 0);
  EXPECT_EQ(read(*node, one_chain[3], 0, into.at(0, 0)).code(), Code::kNotFound);
  EXPECT_EQ(node->match(GroupId(0), one_chain), 2U);
  EXPECT_EQ(node->match(GroupId(0), other_chain), 4U);
}

}  // namespace
}  // namespace terrace::tier::object
