// Two versions of a block differ: the service ends, the evidence is kept, and later owners know.
// One claim a test, with virtual time and a made-up engine.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <map>
#include <nlohmann/json.hpp>

#include "terrace/manager/quarantine_internal.h"
#include "terrace/manager/shadow_rig_internal.h"
#include "terrace/testing/scratch_directory.h"

namespace terrace::manager {
namespace {

using rig::Checked;
using rig::checking;
using rig::plant;
using rig::Rig;
using ::testing::HasSubstr;

TEST(CoreQuarantineTest, APlantedBlockIsFoundAndEndsTheService) {
  testing::ScratchDirectory scratch;
  const std::string evidence = scratch.path() + "/evidence";
  Rig rig(checking(
      1, {.ranks = 2, .tune = [&](Options& options) { options.shadow.evidence = evidence; }}));
  rig.run_cold(Rig::make_tokens(4, 1));
  rig.run_cold(Rig::make_tokens(3, 2), 8);
  Checked checked(rig, 4);
  plant(rig, rig.hashes(checked.id)[2], 1);
  const std::string hash = rig.hashes(checked.id)[2].hex();
  EXPECT_EQ(checked.compute(), 0U);
  checked.step();
  EXPECT_EQ(rig.counters.shadow_equal.value(), 3U);
  EXPECT_EQ(rig.counters.shadow_beyond.value(), 1U);
  EXPECT_EQ(rig.counters.shadow_quarantined.value(), 1);
  EXPECT_THAT(rig.core.shadows().reason(), HasSubstr(hash));
  EXPECT_THAT(rig.core.shadows().reason(), HasSubstr("rank 1"));
  EXPECT_THAT(rig.core.shadows().reason(), HasSubstr("stored 3e+08"));
  EXPECT_THAT(rig.core.shadows().reason(), HasSubstr(evidence));
  EXPECT_THAT(rig.log.text, HasSubstr("event=quarantined"));
  // The answer was computed, and stands; nothing else of the namespace is offered or stored.
  for (std::uint64_t block = 0; block < 4; ++block) {
    EXPECT_TRUE(rig.is_right(checked.id, block, checked.table[block]));
  }
  const RequestId other = rig.begin(Rig::make_tokens(3, 2));
  EXPECT_EQ(rig.look_up(other), 0U);
  EXPECT_TRUE(rig.accept(other, 0, 0, Rig::make_table(3, 30)).is_ok());
  rig.advance(other, 3, Rig::make_table(3, 30));
  EXPECT_EQ(rig.build(), std::nullopt);
  EXPECT_EQ(rig.end(other).first_miss, MissReason::kQuarantined);
  EXPECT_EQ(rig.core.context().pool().pinned(), 0U);
  EXPECT_EQ(rig.count(catalog::SlotState::kFilling), 0U);
}

nlohmann::json read_json(const std::filesystem::path& path) {
  std::ifstream in(path);
  return nlohmann::json::parse(in);
}

TEST(CoreQuarantineTest, ABlockThatDoesNotVerifyIsCorruptAndNoLie) {
  Rig rig(checking(1));
  rig.run_cold(Rig::make_tokens(2, 1));
  Checked checked(rig, 2);
  const SequenceHash hash = rig.hashes(checked.id)[1];
  plant(rig, hash);
  Context& context = rig.core.context();
  const auto slot = context.pool().find(context.key_of(GroupId(0), hash));
  ASSERT_TRUE(slot.has_value());
  rig.shard(slot->index, 0)[9] ^= std::byte{1};
  (void)checked.compute();
  checked.step();
  EXPECT_FALSE(rig.core.shadows().is_quarantined());
  EXPECT_EQ(rig.counters.shadow_skipped.value(), 1U);
  EXPECT_EQ(rig.counters.corrupt_blocks[static_cast<std::size_t>(Tier::kHost)].value(), 1U);
  EXPECT_FALSE(rig.in_host(hash));
}

TEST(CoreQuarantineTest, TheEvidenceIsBothVersionsAndWhatDiffers) {
  testing::ScratchDirectory scratch;
  Rig rig(checking(
      1, {.tune = [&](Options& options) { options.shadow.evidence = scratch.path() + "/e"; }}));
  rig.run_cold(Rig::make_tokens(1, 1));
  Checked checked(rig, 1);
  plant(rig, rig.hashes(checked.id)[0]);
  (void)checked.compute();
  checked.step();
  std::map<std::string, std::filesystem::path> files;
  for (const auto& entry : std::filesystem::directory_iterator(scratch.path() + "/e")) {
    files[entry.path().extension()] = entry.path();
  }
  ASSERT_EQ(files.size(), 3U);
  std::ifstream in(files.at(".computed"), std::ios::binary);
  const std::string computed((std::istreambuf_iterator<char>(in)), {});
  EXPECT_EQ(computed, rig.ranks[0].device[checked.table[0]]);
  EXPECT_EQ(std::filesystem::file_size(files.at(".stored")), computed.size());
  const auto told = read_json(files.at(".json"));
  EXPECT_EQ(told["difference"]["at"], 1);
  EXPECT_EQ(told["difference"]["stored"], 3e8);
  EXPECT_EQ(told["dtype"], "float32");
}

TEST(CoreQuarantineTest, OldEvidenceMakesRoom) {
  testing::ScratchDirectory scratch;
  for (int i = 0; i < 20; ++i) {
    for (const char* extension : {".json", ".stored", ".computed"}) {
      std::ofstream(scratch.path() + "/old" + std::to_string(i) + extension) << "x";
    }
  }
  Rig rig(
      checking(1, {.tune = [&](Options& options) { options.shadow.evidence = scratch.path(); }}));
  rig.run_cold(Rig::make_tokens(1, 1));
  Checked checked(rig, 1);
  plant(rig, rig.hashes(checked.id)[0]);
  (void)checked.compute();
  checked.step();
  const std::filesystem::directory_iterator all(scratch.path());
  EXPECT_EQ(std::distance(begin(all), end(all)), 3 * 8);
}

TEST(CoreQuarantineTest, EvidenceThatCannotBeWrittenIsNoReasonToServe) {
  Rig rig(checking(
      1, {.tune = [](Options& options) { options.shadow.evidence = "/proc/no/such/place"; }}));
  rig.run_cold(Rig::make_tokens(1, 1));
  Checked checked(rig, 1);
  plant(rig, rig.hashes(checked.id)[0]);
  (void)checked.compute();
  checked.step();
  EXPECT_THAT(rig.core.shadows().reason(), HasSubstr("no evidence is kept: "));
  EXPECT_EQ(rig.look_up(rig.begin(Rig::make_tokens(1, 1))), 0U);
}

TEST(CoreQuarantineTest, WithoutToleranceOneBitEndsTheService) {
  Rig rig(checking(1, {.tune = [](Options& options) { options.shadow.tolerance = 0; }}));
  rig.run_cold(Rig::make_tokens(1, 1));
  Checked checked(rig, 1);
  (void)checked.compute();
  rig.ranks[0].device[checked.table[0]][0] ^= 1;
  checked.step();
  EXPECT_TRUE(rig.core.shadows().is_quarantined());
}

TEST(CoreQuarantineTest, AfterTheQuarantineALaterOwnerFindsNothingOnDisk) {
  Rig rig(checking(1, {.has_disk = true}));
  rig.run_cold(Rig::make_tokens(2, 1));
  Checked checked(rig, 2);
  plant(rig, rig.hashes(checked.id)[1]);
  (void)checked.compute();
  checked.step();
  ASSERT_TRUE(rig.core.shadows().is_quarantined());
  EXPECT_TRUE(rig.disk.blocks.empty());
}

// What the first look-up of a new owner over `mark` comes to.
std::optional<MissReason> first_miss(const std::string& mark) {
  Rig rig(checking(0));
  rig.core.open_quarantine({mark}, find_quarantine(std::span(&mark, 1)));
  rig.run_cold(Rig::make_tokens(2, 1));
  const RequestId id = rig.begin(Rig::make_tokens(2, 1));
  EXPECT_EQ(rig.look_up(id) == 0, rig.core.shadows().is_quarantined());
  EXPECT_EQ(rig.counters.shadow_quarantined.value(), rig.core.shadows().is_quarantined() ? 1 : 0);
  return rig.end(id).first_miss;
}

TEST(CoreQuarantineTest, AQuarantineOutlivesItsOwnerUntilItsMarkIsRemoved) {
  testing::ScratchDirectory scratch;
  const std::string mark = scratch.path() + "/new/a.quarantined";
  {
    Rig rig(checking(1));
    rig.core.open_quarantine({mark}, find_quarantine(std::span(&mark, 1)));
    rig.run_cold(Rig::make_tokens(2, 1));
    Checked checked(rig, 2);
    plant(rig, rig.hashes(checked.id)[1]);
    (void)checked.compute();
    checked.step();
    EXPECT_THAT(rig.core.shadows().reason(), HasSubstr("in force until " + mark + " is removed"));
  }
  EXPECT_EQ(first_miss(mark), MissReason::kQuarantined);
  std::filesystem::remove(mark);
  EXPECT_EQ(first_miss(mark), std::nullopt);
}

TEST(CoreQuarantineTest, WhatAnEarlierOwnerLeftOnDiskIsDroppedUnderItsMark) {
  testing::ScratchDirectory scratch;
  const std::string mark = scratch.path() + "/a.quarantined";
  ASSERT_TRUE(write_quarantine(mark, "as told").is_ok());
  Rig rig(checking(1, {.has_disk = true}));
  rig.run_cold(Rig::make_tokens(2, 1));
  rig.settle();
  ASSERT_FALSE(rig.disk.blocks.empty());
  rig.core.open_quarantine({mark}, find_quarantine(std::span(&mark, 1)));
  EXPECT_TRUE(rig.disk.blocks.empty());
  EXPECT_THAT(rig.core.shadows().reason(), HasSubstr("as told"));
  EXPECT_THAT(rig.core.shadows().reason(), HasSubstr(mark));
}

TEST(CoreQuarantineTest, AMarkThatCannotBeReadIsAMark) {
  testing::ScratchDirectory scratch;
  const std::string mark = scratch.path() + "/a.quarantined";
  EXPECT_EQ(read_quarantine(mark), std::nullopt);
  EXPECT_EQ(read_quarantine(""), std::nullopt);
  std::filesystem::create_directory(mark);
  EXPECT_TRUE(read_quarantine(mark).has_value());
  std::filesystem::remove(mark);
  std::ofstream(mark) << "one\" line\nand another";
  EXPECT_EQ(read_quarantine(mark), "one  line");
}

TEST(CoreQuarantineTest, EachNamespaceHasAMarkOfItsOwn) {
  const ShadowOptions options{.marks = {"/m", "/n"}};
  Fingerprint one{.content = {{"model", "a"}}, .layout = {{"ranks", "1"}}};
  Fingerprint content = one;
  content.content[0].value = "b";
  Fingerprint layout = one;
  layout.layout[0].value = "2";
  ASSERT_EQ(quarantine_paths(options, one).size(), 2U);
  EXPECT_EQ(quarantine_paths(options, one), quarantine_paths(options, one));
  for (const std::size_t at : {0U, 1U}) {
    EXPECT_NE(quarantine_paths(options, one)[at], quarantine_paths(options, content)[at]);
    EXPECT_NE(quarantine_paths(options, one)[at], quarantine_paths(options, layout)[at]);
  }
  EXPECT_TRUE(quarantine_paths({}, one).empty());
}

TEST(CoreQuarantineTest, AMarkInOneOfSeveralDirectoriesIsEnough) {
  testing::ScratchDirectory scratch;
  std::ofstream(scratch.path() + "/file") << "no directory";
  const std::vector<std::string> marks{scratch.path() + "/file/a.quarantined",
                                       scratch.path() + "/one/a.quarantined",
                                       scratch.path() + "/two/a.quarantined"};
  EXPECT_FALSE(find_quarantine({}).has_value());
  EXPECT_FALSE(write_quarantines({}, "as told", {}).has_value());
  EXPECT_FALSE(write_quarantines(std::span(marks).first(1), "as told", {}).has_value());
  const auto written = write_quarantines(marks, "as told", {});
  ASSERT_TRUE(written.has_value()) << written.error().text();
  EXPECT_EQ(*written, (std::vector{marks[1], marks[2]}));
  std::filesystem::remove(marks[1]);
  const auto found = find_quarantine(std::span(marks).last(2));
  ASSERT_TRUE(found.has_value());
  EXPECT_EQ(found->text, "as told");
  EXPECT_EQ(found->paths, std::vector{marks[2]});
}

// Of a file server that does not answer.
class StuckHands final : public Hands {
 public:
  void post(Job job, bool /*is_urgent*/) override { job_ = std::move(job); }

 private:
  Job job_;
};
// At once.
class QuickHands final : public Hands {
 public:
  void post(Job job, bool /*is_urgent*/) override { job(); }
};

TEST(CoreQuarantineTest, ADirectoryThatHangsKeepsNoMarkFromTheOthers) {
  testing::ScratchDirectory scratch;
  const std::vector<std::string> marks{scratch.path() + "/one/a.quarantined",
                                       scratch.path() + "/two/a.quarantined"};
  int hands = 0;
  const tier::MakeHand first_is_stuck = [&](const std::string&) -> Result<std::unique_ptr<Hands>> {
    if (hands++ == 0) return std::make_unique<StuckHands>();
    return std::make_unique<QuickHands>();
  };
  const auto written = write_quarantines(marks, "as told", first_is_stuck, milliseconds(20));
  ASSERT_TRUE(written.has_value()) << written.error().text();
  EXPECT_EQ(*written, std::vector{marks[1]});
  EXPECT_FALSE(read_quarantine(marks[0]).has_value());
  hands = 0;
  const auto none =
      write_quarantines(std::span(marks).first(1), "as told", first_is_stuck, milliseconds(20));
  ASSERT_FALSE(none.has_value());
  EXPECT_THAT(none.error().message(), HasSubstr(marks[0] + ": its file system does not answer"));
}

TEST(CoreQuarantineTest, TheServiceEndsBeforeTheEvidenceIsWritten) {
  Rig rig(checking(1));
  rig.run_cold(Rig::make_tokens(2, 1));
  Checked checked(rig, 2);
  plant(rig, rig.hashes(checked.id)[1]);
  (void)checked.compute();
  rig.advance(checked.id, 2, checked.table);
  rig.step();
  Jobs jobs;
  rig.core.take_jobs(64, rig.clock.now(), jobs);
  ASSERT_EQ(jobs.comparisons.size(), 1U);
  const std::uint64_t token = jobs.comparisons[0].token;
  EXPECT_TRUE(rig.core.on_compared({.token = token, .verdict = Compared::Verdict::kBeyond}));
  EXPECT_EQ(rig.look_up(rig.begin(checked.tokens)), 0U);
  EXPECT_EQ(rig.core.context().pool().pinned(), 1U) << "both versions stay until they are kept";
  rig.core.on_kept(token, "here");
  EXPECT_EQ(rig.core.context().pool().pinned(), 0U);
  EXPECT_EQ(rig.core.shadows().under_way(), 0U);
}

}  // namespace
}  // namespace terrace::manager
