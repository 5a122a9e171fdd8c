// Somebody who stands behind one path of several does not answer when the tier opens: it costs what
// lies there, and nobody asks him again.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <filesystem>
#include <optional>
#include <thread>

#include "terrace/base/thread.h"
#include "terrace/testing/eventually.h"
#include "terrace/testing/hang.h"
#include "terrace/testing/left_thread.h"
#include "terrace/testing/silent_mount.h"
#include "terrace/tier/disk/two_directories_fixture.h"

namespace terrace::tier::disk {
namespace {

using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
namespace fs = std::filesystem;

// A mount whose server is away, or what stands in for it where the system has no FUSE: then only
// the hand of that path hangs, and that nobody else asks is not seen.
class Silence {
 public:
  Silence(const std::string& path, const std::string& thread) : mount_(path) {
    if (!mount_.is_mounted()) stand_in_.emplace("stat", thread).hold();
  }
  void end() {
    mount_.end();
    stand_in_.reset();
  }

 private:
  testing::SilentMount mount_;
  std::optional<testing::Hang> stand_in_;
};

class DiskFirstLookTest : public TwoDirectories {
 protected:
  void SetUp() override {
    TwoDirectories::SetUp();
    rig_.options().make_hand = lone_hand;
    base::set_sync_point("first_look.back", [back = back_] { ++*back; });
  }
  void TearDown() override { base::set_sync_point("first_look.back", {}); }

  void fill() {
    open_and_fill();
    rig_.close();
    *back_ = 0;
  }
  // In a thread of its own: should it hang, the test fails and ends. Once `answers` paths have
  // answered, the limit passes.
  Status open_beside(int answers, const std::function<void()>& end_silence) {
    Status status;
    std::atomic<bool> is_over{false};
    std::jthread opening([&] {
      status = rig_.open();
      is_over = true;
    });
    EXPECT_TRUE(testing::eventually([&] { return *back_ == answers || is_over; }));
    EXPECT_FALSE(is_over) << "it did not wait";
    const bool has_opened = testing::eventually([&] {
      clock_.advance(seconds(1));
      return is_over.load();
    });
    EXPECT_TRUE(has_opened) << "it hangs";
    if (!has_opened) end_silence();
    opening.join();
    return status;
  }
  [[nodiscard]] std::string path(char name) const { return rig_.path() + "/" + name; }

  // Also of hands that outlive the test.
  const std::shared_ptr<std::atomic<int>> back_ = std::make_shared<std::atomic<int>>(0);
};

TEST_F(DiskFirstLookTest, APathThatDoesNotAnswerCostsWhatLiesThereAndNothingElse) {
  fill();
  Silence silence(path('b'), "terrace-path-1");
  ASSERT_EQ(open_beside(1, [&] { silence.end(); }).text(), Status().text());
  EXPECT_THAT(rig_.tier().problems(),
              ElementsAre(HasSubstr("disk.paths " + path('b') + ": stat " + path('b') +
                                    " has not come back in 10 s: its blocks are missed until the "
                                    "engine restarts; see why")));
  EXPECT_THAT(rig_.log(), HasSubstr("disk problem=\"disk.paths " + path('b')));
  EXPECT_EQ(seen(), kBlocks / 2);
  for (std::uint64_t n = 0; n < kBlocks; ++n) {
    if (rig_.has(n)) {
      EXPECT_EQ(rig_.read(n).text(), Status().text()) << n;
    }
  }
  EXPECT_EQ(rig_.write(kBlocks).text(), Status().text());
  EXPECT_TRUE(testing::has_thread("terrace-path-1")) << "somebody waited for it";
  EXPECT_TRUE(rig_.tier().close(seconds(20)));
  EXPECT_TRUE(testing::has_thread("terrace-path-1")) << "closing waited for it";
  silence.end();
  EXPECT_TRUE(testing::eventually([] { return !testing::has_thread("terrace-path-1"); }));
  ASSERT_EQ(rig_.reopen().text(), Status().text());
  EXPECT_THAT(rig_.tier().problems(), IsEmpty());
  std::uint64_t after = 0;
  for (std::uint64_t n = 0; n <= kBlocks; ++n) after += rig_.has(n) ? 1U : 0U;
  EXPECT_GE(after, kBlocks) << "the other half is found again";
}

TEST_F(DiskFirstLookTest, TheFirstPathIsNoOtherThanTheRest) {
  fill();
  Silence silence(path('a'), "terrace-path-0");
  ASSERT_EQ(open_beside(1, [&] { silence.end(); }).text(), Status().text());
  EXPECT_THAT(rig_.tier().problems(), ElementsAre(HasSubstr("disk.paths " + path('a') + ": stat")));
  EXPECT_EQ(seen(), kBlocks / 2);
  rig_.close();
  silence.end();
}

TEST_F(DiskFirstLookTest, AResetNamesItAsNotReached) {
  fill();
  Silence silence(path('b'), "terrace-path-1");
  ASSERT_EQ(open_beside(1, [&] { silence.end(); }).text(), Status().text());
  EXPECT_THAT(rig_.tier().undropped(), IsEmpty());
  rig_.tier().forget_all();
  ASSERT_TRUE(poll_until([&] { return !rig_.tier().is_drop_pending(); }));
  EXPECT_THAT(rig_.tier().undropped(),
              ElementsAre(AllOf(HasSubstr("disk.paths " + path('b')),
                                HasSubstr("would be found there after a restart"))));
  rig_.close();
  silence.end();
}

// Whichever of its calls it is.
TEST_F(DiskFirstLookTest, TheProblemNamesTheCallThatHangs) {
  fill();
  for (const char* const call : {"stat", "opendir", "statvfs"}) {
    testing::Hang hang(call, "terrace-path-1");
    hang.hold();
    *back_ = 0;
    ASSERT_EQ(open_beside(1, [&] { hang.release(); }).text(), Status().text());
    EXPECT_EQ(hang.held(), 1);
    EXPECT_THAT(rig_.tier().problems(), ElementsAre(HasSubstr(std::string(": ") + call + " " +
                                                              path('b') + " has not come back")));
    rig_.close();
    hang.release();
    ASSERT_TRUE(testing::eventually([] { return !testing::has_thread("terrace-path-1"); }));
  }
}

TEST_F(DiskFirstLookTest, OfAPathThatIsNotThereYetItIsAskedWhereItIsToLie) {
  fs::create_directories(path('b'));
  rig_.options().paths[1] = path('b') + "/new/kv";
  Silence silence(path('b'), "terrace-path-1");
  ASSERT_EQ(open_beside(1, [&] { silence.end(); }).text(), Status().text());
  EXPECT_THAT(rig_.tier().problems(),
              ElementsAre(HasSubstr("disk.paths " + path('b') + "/new/kv")));
  EXPECT_EQ(rig_.write(1).text(), Status().text());
  rig_.close();
  silence.end();
  EXPECT_FALSE(fs::exists(path('b') + "/new"));
}

TEST_F(DiskFirstLookTest, AllAreAskedAtTheSameTime) {
  rig_.options().paths.push_back(path('c'));
  testing::Hang hang("stat");
  hang.hold();
  std::jthread opening([&] { EXPECT_EQ(rig_.open().text(), Status().text()); });
  EXPECT_TRUE(testing::eventually([&] { return hang.held() == 3; }));
  hang.release();
  opening.join();
  EXPECT_THAT(rig_.tier().problems(), IsEmpty());
}

TEST_F(DiskFirstLookTest, WithThatPathAloneTheTierStaysClosedAndSaysWhy) {
  fill();
  rig_.options().paths = {path('b')};
  Silence silence(path('b'), "terrace-path-0");
  const Status status = open_beside(0, [&] { silence.end(); });
  EXPECT_EQ(status.code(), Code::kRefused);
  EXPECT_THAT(status.message(), HasSubstr("disk.paths " + path('b') + ": stat " + path('b') +
                                          " has not come back in 10 s"));
  silence.end();
}

TEST_F(DiskFirstLookTest, WhoHasLookedIsNotAskedAgainAndASilentPathMayHoldBlocks) {
  fs::create_directories(path('b'));
  Silence silence(path('b'), "terrace-path-0");
  testing::MemoryLog log;
  std::atomic<bool> is_over{false};
  std::jthread looking([&] {
    const FirstLook found =
        look_first(std::vector{path('b')}, lone_hand, milliseconds(10), SystemClock(), log);
    EXPECT_TRUE(found.is_silent(path('b')));
    EXPECT_TRUE(found.is_in_silence(path('b') + "/evidence"));
    EXPECT_FALSE(found.is_in_silence(path('b') + "-2"));
    EXPECT_TRUE(DiskTier::may_hold_blocks(std::vector{path('b')}, found));
    rig_.options().paths = {path('b')};
    rig_.options().first_look = found;
    EXPECT_EQ(rig_.open().code(), Code::kRefused);
    is_over = true;
  });
  EXPECT_TRUE(testing::eventually([&] { return is_over.load(); }));
  silence.end();
}

TEST_F(DiskFirstLookTest, WhoStopsDoesNotWait) {
  testing::Hang hang("stat", "terrace-path-0");
  hang.hold();
  testing::MemoryLog log;
  std::stop_source stop;
  std::jthread looking([&] {
    const FirstLook found =
        look_first(std::vector{path('a')}, lone_hand, seconds(10), clock_, log, stop.get_token());
    EXPECT_TRUE(found.is_silent(path('a')));
  });
  ASSERT_TRUE(testing::eventually([&] { return hang.held() == 1; }));
  stop.request_stop();
  looking.join();
  EXPECT_EQ(hang.held(), 1);
}

TEST_F(DiskFirstLookTest, AThreadThatTheSystemRefusesIsToldAndThePathUsed) {
  rig_.options().make_hand = [](const std::string&) -> Result<std::unique_ptr<Hands>> {
    return fail(Code::kExhausted, "no thread");
  };
  open_and_fill();
  EXPECT_THAT(rig_.log(), HasSubstr("path=" + path('a') + " first_look=none reason=\"no thread\""));
  EXPECT_EQ(seen(), kBlocks);
}

}  // namespace
}  // namespace terrace::tier::disk
