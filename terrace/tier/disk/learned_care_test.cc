// What the tools do with learned.meta: move, wipe, inspect, verify; and who removes it else.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>

#include "terrace/tier/disk/format_internal.h"
#include "terrace/tier/disk/inspect.h"
#include "terrace/tier/disk/learned_rig.h"
#include "terrace/tier/disk/move_rig.h"
#include "terrace/tier/disk/verify.h"
#include "terrace/tier/disk/wipe.h"

namespace terrace::tier::disk {
namespace {

namespace fs = std::filesystem;

using LearnedCareTest = DiskLearnedTest;

TEST_F(LearnedCareTest, ACopyByMoveHasIt) {
  leave(2);
  const ScratchDirectory target;
  const MovedOwner moved =
      move_one(rig_.path(), target.path(), {.is_always_copied = true, .progress = {}});
  EXPECT_EQ(moved.problem, "");
  rig_.options().paths = {target.path()};
  open();
  EXPECT_EQ(found(), "lesson 2");
  rig_.close();
}

TEST_F(LearnedCareTest, AWipeOfAllAndOfTheNamespaceTakesItAlong) {
  for (const char* const name_space : {"ns-0001", ""}) {
    open();
    write_blocks(1, 3);
    keep(1);
    rig_.close();
    const auto owners =
        wipe_directory(rig_.path(), {.name_space = name_space, .is_dry = false, .progress = {}});
    ASSERT_TRUE(owners.has_value());
    ASSERT_EQ(owners->size(), 1U);
    EXPECT_EQ(owners->front().problem, "");
    EXPECT_THAT(owners->front().names, ::testing::Contains(kName));
    EXPECT_TRUE(owners->front().left.empty());
    EXPECT_FALSE(fs::exists(rig_.owner() + "/ns-0001"));
  }
}

TEST_F(LearnedCareTest, InspectTellsHowMuchThereIs) {
  const auto told = [&] { return inspect_directory(rig_.path())->at(0).namespaces.at(0); };
  leave(0);
  EXPECT_EQ(told().learned_bytes, 0U);
  leave(2);
  EXPECT_EQ(told().learned_bytes, lesson(2).size());
  EXPECT_EQ(told().damaged, 0U);
}

TEST_F(LearnedCareTest, VerifyNamesItWhenNoHalfIsWhole) {
  const auto damage = [&] {
    return verify_directory(rig_.path(), [](const VerifyProgress&) {})
        ->at(0)
        .namespaces.at(0)
        .damage;
  };
  leave(2);
  EXPECT_TRUE(damage().empty());
  flip_bit(file(kName), 5000);
  EXPECT_TRUE(damage().empty()) << "a crash may leave that";
  flip_bit(file(kName), kLearnedHalfBytes + 5000);
  ASSERT_EQ(damage().size(), 1U);
  EXPECT_EQ(damage()[0].file, file(kName));
}

TEST_F(LearnedCareTest, ANamespaceWithoutExtentsGoesWithIt) {
  open();
  keep(1);  // And not a block.
  rig_.close();
  rig_.set_model("model-b");
  open();
  EXPECT_EQ(found(), "nothing");
  EXPECT_FALSE(fs::exists(file("ns-0002"))) << "the number was free again";
}

}  // namespace
}  // namespace terrace::tier::disk
