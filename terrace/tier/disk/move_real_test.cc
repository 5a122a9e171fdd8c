// move_directory between two real file systems, ext4 (where the machine has loop devices) and
// tmpfs: killed at every step, and with a target that runs full.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <iostream>

#include "terrace/testing/real_disk.h"
#include "terrace/testing/small_disk.h"
#include "terrace/tier/disk/move_rig.h"

namespace terrace::tier::disk {
namespace {

using ::testing::AllOf;
using ::testing::AnyOf;
using ::testing::HasSubstr;
namespace fs = std::filesystem;

constexpr std::uint64_t kDiskBytes = 48ULL << 20U;

// True: from the one on a device to the one in memory.
class MoveRealTest : public ::testing::TestWithParam<bool> {
 protected:
  void SetUp() override {
    ASSERT_TRUE(device_.is_mounted() && memory_.is_mounted())
        << "this test mounts file systems: run it as root";
    std::cout << "one of them is " << device_.kind() << "\n";
    rig_.options().paths = {from()};
    rig_.options().blocks = 400;  // Most of its slot file was never written.
    fill(rig_);
  }
  [[nodiscard]] std::string from() const {
    return (GetParam() ? device_.path() : memory_.path()) + "/kv";
  }
  [[nodiscard]] std::string to() const {
    return (GetParam() ? memory_.path() : device_.path()) + "/kv";
  }
  [[nodiscard]] std::string old_one() const { return from() + "/terrace-00"; }
  // Until nothing more fits there.
  void fill_target() const {
    const testing::RealDisk& device = device_;
    if (!GetParam()) return device.fill_up("hog");
    std::ofstream hog(memory_.path() + "/hog", std::ios::binary);
    const std::string page(4096, 'x');
    while (hog.write(page.data(), static_cast<std::streamsize>(page.size())).flush()) {
    }
  }
  // All but so much.
  void leave_room(std::uint64_t bytes) const {
    fill_target();
    const std::string hog = (GetParam() ? memory_.path() : device_.path()) + "/hog";
    fs::resize_file(hog, fs::file_size(hog) - bytes);
  }
  void make_room() const { fs::remove((GetParam() ? memory_.path() : device_.path()) + "/hog"); }

  testing::RealDisk device_{kDiskBytes};
  testing::SmallDisk memory_{kDiskBytes};
  Rig rig_;
};

TEST_P(MoveRealTest, BetweenFileSystemsItIsACopyAndTheOldOneIsGone) {
  const MovedOwner moved = move_one(from(), to(), {});
  EXPECT_EQ(moved.problem, "");
  EXPECT_FALSE(moved.was_renamed);
  EXPECT_EQ(moved.to, to() + "/terrace-00");
  EXPECT_TRUE(fs::is_empty(from()));
  struct stat facts{};
  ASSERT_EQ(::stat((moved.to + "/0.slots").c_str(), &facts), 0);
  EXPECT_GE(facts.st_blocks * 512, facts.st_size) << "its blocks are reserved there, too";
  expect_served(rig_, to());
}

TEST_P(MoveRealTest, WithinOneItIsARename) {
  const MovedOwner moved = move_one(from(), from() + "-elsewhere", {});
  EXPECT_EQ(moved.problem, "");
  EXPECT_TRUE(moved.was_renamed);
  expect_served(rig_, from() + "-elsewhere");
}

TEST_P(MoveRealTest, KilledAtAnyStepASecondRunGoesOn) {
  int step = 1;
  for (bool is_killed = true; is_killed; ++step) {
    is_killed = move_killed_at(step, from(), to(), false);
    EXPECT_FALSE(has_owner(from()) && has_owner(to())) << "no engine sees both, step " << step;
    if (is_killed) {
      EXPECT_EQ(move_one(from(), to(), {}).problem, "") << step;
    }
    EXPECT_TRUE(fs::is_empty(from())) << step;
    EXPECT_EQ(entries_of(to()), 1U) << step;
    expect_served(rig_, to());
    fs::remove_all(to());
    rig_.options().paths = {from()};
    fill(rig_);
  }
  EXPECT_GT(step, 15);
}

TEST_P(MoveRealTest, ATargetWithoutRoomIsRefusedAndNothingIsMoved) {
  fs::create_directories(to());
  fill_target();
  const auto before = tree(from());
  const MovedOwner moved = move_one(from(), to(), {});
  EXPECT_THAT(moved.problem, AnyOf(HasSubstr("nothing was moved"), HasSubstr("ENOSPC")));
  EXPECT_EQ(tree(from()), before);
  EXPECT_FALSE(has_owner(to()));
  make_room();
  EXPECT_EQ(move_one(from(), to(), {}).problem, "");
  expect_served(rig_, to());
}

TEST_P(MoveRealTest, TooLittleRoomIsSaidBeforeAnythingIsCopied) {
  fs::create_directories(to());
  leave_room(1U << 20U);
  const MovedOwner moved = move_one(from(), to(), {});
  EXPECT_THAT(moved.problem, HasSubstr("nothing was moved"));
  EXPECT_TRUE(has_owner(from()));
}

// What a killed run has copied takes no more room.
TEST_P(MoveRealTest, ASecondRunNeedsNoRoomForWhatIsThere) {
  int step = 1;
  while (move_killed_at(step, from(), to(), false) && has_owner(from())) ++step;
  ASSERT_GT(step, 10);
  rig_.options().paths = {from()};
  if (!has_owner(from())) {  // Too far: the copy was already the one that counts.
    ASSERT_EQ(move_one(from(), to(), {}).problem, "");
    fs::remove_all(to());
    fill(rig_);
    ASSERT_TRUE(move_killed_at(step - 1, from(), to(), false));
    ASSERT_TRUE(has_owner(from()));
  }
  leave_room(256U << 10U);
  EXPECT_EQ(move_one(from(), to(), {}).problem, "");
  expect_served(rig_, to());
}

// Somebody else takes the room while it copies.
TEST_P(MoveRealTest, ATargetThatRunsFullOnTheWayLeavesTheSourceWholeAndASecondRunGoesOn) {
  const auto before = tree(from());
  MoveOptions options;
  bool is_full = false;
  options.progress = [&](const MoveProgress&) {
    if (!is_full) fill_target();
    is_full = true;
  };
  const MovedOwner moved = move_one(from(), to(), options);
  EXPECT_TRUE(is_full);
  EXPECT_THAT(moved.problem, AllOf(HasSubstr("ENOSPC"), HasSubstr("nothing was moved")));
  EXPECT_EQ(tree(from()), before);
  EXPECT_TRUE(fs::is_empty(to())) << "what nobody looks for takes no room";
  make_room();
  EXPECT_EQ(move_one(from(), to(), {}).problem, "");
  EXPECT_TRUE(fs::is_empty(from()));
  EXPECT_EQ(entries_of(to()), 1U);
  expect_served(rig_, to());
}

INSTANTIATE_TEST_SUITE_P(BothWays, MoveRealTest, ::testing::Bool(), [](const auto& direction) {
  return direction.param ? "DeviceToMemory" : "MemoryToDevice";
});

}  // namespace
}  // namespace terrace::tier::disk
