// learned.meta: what one owner of a namespace keeps is what the next one finds, or nothing, however
// the file was left; and the tier serves in any case.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <filesystem>

#include "terrace/testing/file_calls.h"
#include "terrace/tier/disk/format_internal.h"
#include "terrace/tier/disk/learned_rig.h"
#include "terrace/transfer/backends/fault/recorder.h"

namespace terrace::tier::disk {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;
using transfer::Fault;
using transfer::IoOp;

TEST_F(DiskLearnedTest, WhatWasKeptLastIsFoundByTheNextOwner) {
  open();
  EXPECT_EQ(found(), "nothing");
  expect_serving();
  for (std::uint64_t n = 1; n <= 5; ++n) {
    keep(n);
    ASSERT_EQ(rig_.reopen().text(), Status().text());
    EXPECT_EQ(found(), name_of(lesson(n)));
  }
  EXPECT_EQ(fs::file_size(file(kName)) / kLearnedHalfBytes, 1U) << "two halves, the second in use";
}

TEST_F(DiskLearnedTest, WhatIsGivenWhileAnotherIsOnItsWayFollowsItAlsoAtTheClose) {
  open();
  expect_serving();
  for (std::uint64_t n = 1; n <= 4; ++n) rig_.tier().keep_learned(lesson(n));
  ASSERT_EQ(rig_.reopen().text(), Status().text());
  EXPECT_EQ(found(), "lesson 4");
}

TEST_F(DiskLearnedTest, WhatHasNoRoomIsLeftOut) {
  leave(1);
  open();
  rig_.tier().keep_learned(std::string(kLearnedRoom + 1, 'x'));
  rig_.tier().keep_learned("");
  ASSERT_EQ(rig_.reopen().text(), Status().text());
  EXPECT_EQ(found(), "lesson 1");
  rig_.tier().keep_learned(std::string(kLearnedRoom, 'x'));
  ASSERT_EQ(rig_.reopen().text(), Status().text());
  EXPECT_TRUE(rig_.tier().learned() == std::string(kLearnedRoom, 'x'));
}

TEST_F(DiskLearnedTest, WithoutAModelThereIsNoFile) {
  rig_.options().returns = nullptr;
  leave(1);
  EXPECT_FALSE(fs::exists(file(kName)));
}

TEST_F(DiskLearnedTest, EachNamespaceFindsItsOwn) {
  leave(1);
  rig_.set_model("model-b");
  open();
  EXPECT_EQ(found(), "nothing");
  expect_serving();
  keep(2);
  rig_.set_model("model-a");
  ASSERT_EQ(rig_.reopen().text(), Status().text());
  EXPECT_EQ(found(), "lesson 1");
  rig_.set_model("model-b");
  ASSERT_EQ(rig_.reopen().text(), Status().text());
  EXPECT_EQ(found(), "lesson 2");
}

// ---- What may have happened to the file.

TEST_F(DiskLearnedTest, OfATornHalfTheOneBeforeCounts) {
  leave(2);
  patch(kName, kLearnedHalfBytes + kPageBytes + 50'000, std::string(512, '\0'));
  open();
  EXPECT_EQ(found(), "lesson 1");
  EXPECT_THAT(rig_.log(), HasSubstr("half 1: its bytes are torn"));
  keep(3);
  ASSERT_EQ(rig_.reopen().text(), Status().text());
  EXPECT_EQ(found(), "lesson 3");
}

TEST_F(DiskLearnedTest, AFlippedBitOfAHeaderOrOfTheBytesIsDamage) {
  for (const std::uint64_t offset : {9U, 17U, 25U, 4000U, 4096U, 100'000U}) {
    leave(1);
    flip_bit(file(kName), offset);
    expect_new_start("learned=damaged");
    rig_.close();
    fs::remove_all(rig_.owner());
  }
}

TEST_F(DiskLearnedTest, AFileThatWasCutIsDamage) {
  leave(1);
  fs::resize_file(file(kName), 60'000);
  expect_new_start("half 0: its bytes are torn, damaged or cut off");
}

TEST_F(DiskLearnedTest, OfAFileThatWasCutBehindOneHalfThatOneCounts) {
  leave(2);
  fs::resize_file(file(kName), kLearnedHalfBytes + 6000);
  open();
  EXPECT_EQ(found(), "lesson 1");
}

TEST_F(DiskLearnedTest, AnEmptyFileHoldsNothing) {
  leave(1);
  fs::resize_file(file(kName), 0);
  expect_new_start("learned=none");
}

TEST_F(DiskLearnedTest, AnotherVersionIsNotBelieved) {
  leave(1);
  std::array<std::byte, kPageBytes> page{};
  encode(LearnedHeader{1, 5, 0}, page);
  std::string text(reinterpret_cast<const char*>(page.data()), page.size());
  text[8] = 2;
  patch(kName, 0, text);
  expect_new_start("or of another version");
}

TEST_F(DiskLearnedTest, AFolderALinkOrAPipeInItsPlaceIsLeftAlone) {
  leave(1);
  fs::remove(file(kName));
  fs::create_directory(file(kName));
  expect_off();
  rig_.close();
  fs::remove(file(kName));
  const std::string elsewhere = rig_.path() + "/elsewhere";
  write_text(elsewhere, "mine");
  fs::create_symlink(elsewhere, file(kName));
  expect_off();
  EXPECT_EQ(tree(rig_.path()).at(elsewhere), "mine");
  rig_.close();
  fs::remove(file(kName));
  ASSERT_EQ(::mkfifo(file(kName).c_str(), 0600), 0);
  expect_off();
}

TEST_F(DiskLearnedTest, WhereFilesMayNotBeSoLongNothingIsWritten) {
  struct rlimit before{};
  ASSERT_EQ(::getrlimit(RLIMIT_FSIZE, &before), 0);
  struct rlimit low = before;
  low.rlim_cur = 300U << 10U;
  ASSERT_EQ(::setrlimit(RLIMIT_FSIZE, &low), 0);
  expect_off();
  rig_.close();
  EXPECT_EQ(::setrlimit(RLIMIT_FSIZE, &before), 0);
}

// ---- Faults.

TEST_F(DiskLearnedTest, AFailureIsToldOnceTriedAgainAndCostsNothing) {
  struct Case {
    Fault fault;
    IoOp op;
  };
  for (const auto [fault, op] :
       {Case{Fault::kError, IoOp::kWrite}, Case{Fault::kNoSpace, IoOp::kWrite},
        Case{Fault::kReadOnly, IoOp::kWrite}, Case{Fault::kError, IoOp::kSync}}) {
    open_with_faults();
    keep(1);
    const std::size_t told = rig_.log_lines().count("learned=not_kept");
    faults_->aim(fault, op, 2, "learned.meta");
    keep(2);
    keep(3);
    EXPECT_EQ(faults_->injected(), 2U);
    EXPECT_EQ(rig_.log_lines().count("learned=not_kept"), told + 1);
    EXPECT_TRUE(rig_.tier().problems().empty());
    expect_serving();
    keep(4);
    ASSERT_EQ(rig_.reopen().text(), Status().text());
    EXPECT_EQ(found(), "lesson 4");
    rig_.close();
  }
}

TEST_F(DiskLearnedTest, OfAWriteThatLandedInPartTheHalfBeforeCounts) {
  open_with_faults();
  expect_serving();
  keep(1);
  keep(2);
  faults_->aim(Fault::kCut, IoOp::kWrite, 1, "learned.meta");
  keep(3);
  EXPECT_EQ(faults_->injected(), 1U);
  ASSERT_EQ(rig_.reopen().text(), Status().text());
  EXPECT_EQ(found(), "lesson 2");
  EXPECT_THAT(rig_.log(), HasSubstr("learned=damaged"));
}

TEST_F(DiskLearnedTest, AWriteThatHangsKeepsNobodyFromServing) {
  open_with_faults();
  faults_->aim(Fault::kLose, IoOp::kWrite, 1, "learned.meta");
  rig_.tier().keep_learned(lesson(1));
  expect_serving();
  EXPECT_EQ(faults_->lost(), 1U);
  EXPECT_FALSE(rig_.tier().is_idle());
  faults_->release_lost();
  rig_.settle();
  EXPECT_TRUE(rig_.tier().is_idle());
}

TEST_F(DiskLearnedTest, OnAFullDiskAllElseGoesOn) {
  const SmallDisk disk(8 << 20U);
  if (!disk.is_mounted()) GTEST_FAIL() << "needs the right to mount";
  rig_.options().paths = {disk.path()};
  open();
  rig_.settle();
  write_blocks(1, 5);
  const std::string filler = disk.path() + "/filler";
  {
    std::ofstream all(filler, std::ios::binary);
    while (all.write(std::string(4096, 'x').data(), 4096).flush()) {
    }
  }
  keep(1);
  EXPECT_THAT(rig_.log(), HasSubstr("learned=not_kept"));
  EXPECT_TRUE(rig_.read(1).is_ok());
  EXPECT_TRUE(rig_.write(5).is_ok());
  fs::remove(filler);
  keep(2);
  ASSERT_EQ(rig_.reopen().text(), Status().text());
  EXPECT_EQ(found(), "lesson 2");
  rig_.close();
}

TEST_F(DiskLearnedTest, ItIsChargedToTheWriteBudget) {
  EXPECT_GE(charged_for_a_lesson(), static_cast<std::int64_t>(lesson(1).size()));
}

// ---- Crashes.

// Whatever landed of what was not synced: the last lesson that was, or one that was begun since.
TEST_F(DiskLearnedTest, AfterACrashTheLastOneThatWasSyncedOrALaterOneIsFound) {
  const std::uint64_t seed = random_u64();
  SCOPED_TRACE("seed " + std::to_string(seed));
  Rng rng(seed);
  transfer::Recorder recorder;
  rig_.options().decorate = [&](std::unique_ptr<transfer::Backend> inner) {
    return std::make_unique<transfer::RecordingBackend>(std::move(inner), recorder);
  };
  open();
  expect_serving();
  rig_.settle();
  const ScratchDirectory snapshot;
  fs::copy(rig_.path(), snapshot.path(), fs::copy_options::recursive);
  const std::size_t start = recorder.now();
  std::vector<std::size_t> kept{start};  // [lesson] the moment when it was durable.
  for (std::uint64_t n = 1; n <= 4; ++n) {
    keep(n);
    kept.push_back(recorder.now());
  }
  for (int i = 0; i < 60; ++i) {
    const std::size_t moment = start + rng.below(recorder.now() - start + 1);
    SCOPED_TRACE("moment " + std::to_string(moment));
    Rig after;
    fs::copy(snapshot.path(), after.path(),
             fs::copy_options::recursive | fs::copy_options::overwrite_existing);
    for (const auto& landed : recorder.survivors(moment, rng, 50)) {
      if (landed.kind != transfer::Recorder::Kind::kWrite) continue;
      std::fstream target(after.path() + landed.path.substr(rig_.path().size()),
                          std::ios::in | std::ios::out | std::ios::binary);
      target.seekp(static_cast<std::streamoff>(landed.offset));
      target.write(reinterpret_cast<const char*>(landed.bytes.data()),
                   static_cast<std::streamsize>(landed.bytes.size()));
    }
    after.options().returns = rig_.options().returns;
    ASSERT_EQ(after.open().text(), Status().text());
    std::uint64_t least = 0;
    while (least < 4 && kept[least + 1] <= moment) ++least;
    const std::string durable = least == 0 ? "nothing" : name_of(lesson(least));
    ASSERT_THAT(name_of(after.tier().learned()),
                ::testing::AnyOf(durable, name_of(lesson(least + 1))));
  }
}

// Syncs of a file or folder by whoever opens the tier.
class Syncs final : public terrace::testing::FileWatch {
 public:
  explicit Syncs(std::string path) : path_(std::move(path)) {}
  void on_change(const terrace::testing::FileChange& change) override {
    const bool is_sync = change.kind == terrace::testing::FileChange::Kind::kSync;
    if (is_sync && change.path == path_) ++count;
  }
  int count = 0;

 private:
  const std::string path_;
};

TEST_F(DiskLearnedTest, WhatAKilledOwnerLeftIsSyncedBeforeTheOtherHalfIsWritten) {
  leave(1);
  const Syncs syncs(file(kName));
  open();
  EXPECT_EQ(syncs.count, 1);
}

TEST_F(DiskLearnedTest, ItsNameIsDurableBeforeItIsWritten) {
  leave(0);
  const Syncs without(file("ns-0001"));
  open();
  const int all = without.count;
  rig_.close();
  leave(1);
  const Syncs with(file("ns-0001"));
  open();
  EXPECT_EQ(with.count, all - 1) << "it was there";
}

// Keeps for ever in a child; tells each lesson that is durable.
[[noreturn]] void keep_until_killed(const DiskTier::Options& options, int pipe) {
  const SystemClock clock;
  NullLog log;
  auto tier = DiskTier::open(options, clock, log);
  if (!tier) ::_exit(2);
  std::vector<DiskDone> done;
  for (std::uint64_t n = 1;; ++n) {
    (*tier)->keep_learned(lesson(n % 50));
    do {
      (*tier)->wait(milliseconds(20));
      (*tier)->poll(done);
    } while (!(*tier)->is_idle());
    if (::write(pipe, &n, 8) != 8) ::_exit(3);
  }
}

TEST_F(DiskLearnedTest, WhatWasKeptOutlivesKillNine) {
  leave(0);
  for (std::uint64_t round = 1; round < 5; ++round) {
    int ends[2];
    ASSERT_EQ(::pipe(ends), 0);
    const pid_t child = ::fork();
    ASSERT_GE(child, 0);
    if (child == 0) {
      ::close(ends[0]);
      keep_until_killed(rig_.options(), ends[1]);
    }
    ::close(ends[1]);
    std::uint64_t number = 0;
    for (std::uint64_t i = 0; i < round; ++i) ASSERT_EQ(::read(ends[0], &number, 8), 8);
    ::kill(child, SIGKILL);
    ::waitpid(child, nullptr, 0);
    while (::read(ends[0], &number, 8) == 8) {
    }
    ::close(ends[0]);
    open();
    EXPECT_THAT(found(),
                ::testing::AnyOf(name_of(lesson(number % 50)), name_of(lesson((number + 1) % 50))));
    rig_.close();
  }
}

}  // namespace
}  // namespace terrace::tier::disk
