// A store that does not come back, as a hard mount whose server is away: nobody waits for it.
#include <gmock/gmock.h>

#include <vector>

#include "terrace/testing/hang.h"
#include "terrace/testing/scratch_directory.h"
#include "terrace/tier/object/object_tier.h"
#include "terrace/tier/object/object_tier_rig.h"
#include "terrace/transfer/backends/dir/dir_store.h"

namespace terrace::tier::object {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

class ObjectHangTest : public ObjectTierRig {
 protected:
  // How long a look-up of a chain that nobody has asked for takes; at most its deadline and a bit.
  Nanoseconds look_up(ObjectTier& tier) {
    const Nanoseconds begun = clock_.now();
    EXPECT_TRUE(tier.begin_probe(1, chain_of(++last_chain_, 4), begun + seconds(2)).is_ok());
    while (settle(tier).empty() && clock_.now() < begun + seconds(3)) {
      clock_.advance(milliseconds(100));
    }
    return clock_.now() - begun;
  }
  std::uint64_t last_chain_ = 100;
};

TEST_F(ObjectHangTest, LookUpsDoNotWaitForAStoreThatHangsHoweverLong) {
  const ChainMemory memory(options_.layout, 4, 5);
  const auto chain = chain_of(1, 4);
  ASSERT_EQ(write(*tier_, chain, memory, 0).text(), Status().text());
  const auto node = open();
  place_->is_held = true;
  EXPECT_GE(look_up(*node), seconds(2)) << "nobody can know yet";
  for (int i = 0; i < 60; ++i) {
    ASSERT_EQ(look_up(*node), Nanoseconds(0)) << i;
    pass(*node, 1);
  }
  EXPECT_THAT(node->problems(), ElementsAre(HasSubstr("memory: it hangs: head v1/")));
  place_->is_held = false;
  (void)settle(*node);
  EXPECT_THAT(node->problems(), IsEmpty());
  EXPECT_EQ(probe(*node, chain), 4U);
}

TEST_F(ObjectHangTest, AStoreThatHangsWhileItIsToBeOpenedIsNamed) {
  place_->is_held = true;
  const auto node = make(options_);
  pass(*node, 30);
  EXPECT_TRUE(node->is_settled());
  EXPECT_THAT(node->problems(), ElementsAre(HasSubstr("memory: it hangs: list v1/")));
  place_->is_held = false;
  pass(*node, 10);
  EXPECT_TRUE(node->is_open());
  EXPECT_THAT(node->problems(), IsEmpty());
}

TEST_F(ObjectHangTest, ADirectoryWhoseThreadsAreAllStuckIsUsedAgainWhenTheyAreBack) {
  const testing::ScratchDirectory scratch;
  const SystemClock clock;
  testing::Hang hang("dir.begun");
  ObjectTier::Options options = options_;
  options.queue.hang_after = milliseconds(20);
  options.queue.rest = milliseconds(20);
  options.queue.trial_time = milliseconds(20);
  transfer::DirStoreOptions dir;
  dir.path = scratch.path();
  dir.threads = 2;
  const auto tier = *ObjectTier::create(options, *transfer::make_dir_store(dir), clock, log_);
  std::vector<ObjectDone> done;
  const auto await = [&](const std::function<bool()>& condition) {
    return testing::eventually([&] {
      tier->wait(milliseconds(5));
      tier->poll(done);
      return condition();
    });
  };
  ASSERT_TRUE(await([&] { return tier->is_open() && tier->is_idle(); }));
  const auto begin = [&] {
    return tier->begin_probe(1, chain_of(++last_chain_, 4), clock.now() + milliseconds(20)).is_ok();
  };
  hang.hold();
  for (int i = 0; i < 6; ++i) ASSERT_TRUE(begin());
  ASSERT_TRUE(await([&] { return hang.held() == 2 && !tier->problems().empty(); }));
  EXPECT_THAT(tier->problems(), ElementsAre(HasSubstr("it hangs")));
  done.clear();
  ASSERT_TRUE(begin());
  tier->poll(done);
  EXPECT_EQ(done.size(), 1U) << "at once";
  hang.release();
  EXPECT_TRUE(await([&] { return tier->problems().empty() && tier->is_idle(); }));
  done.clear();
  ASSERT_TRUE(begin());
  ASSERT_TRUE(await([&] { return done.size() == 1; }));
  EXPECT_EQ(done[0].status.text(), Status().text());
}

}  // namespace
}  // namespace terrace::tier::object
