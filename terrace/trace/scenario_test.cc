#include "terrace/trace/scenario.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <set>

#include "terrace/trace/replay.h"

namespace terrace::trace {
namespace {

std::vector<Request> requests_of(const Workload& workload, Part part) {
  std::vector<Request> all;
  for (const Request& request : workload.requests()) {
    if (request.part == part) all.push_back(request);
  }
  return all;
}

std::uint64_t blocks_of(const std::vector<Request>& requests) {
  std::uint64_t all = 0;
  for (const Request& request : requests) all += request.depth;
  return all;
}

TEST(ScenarioTest, AChatIsItsSeeds) {
  const auto tips = [](std::uint64_t seed) {
    std::vector<std::uint32_t> all;
    const Workload chat = make_chat({.seed = seed});
    for (const Request& request : chat.requests()) all.push_back(request.tip);
    return all;
  };
  EXPECT_EQ(tips(1), tips(1));
  EXPECT_NE(tips(1), tips(2));
}

TEST(ScenarioTest, AChatsPromptsGoOnWhereTheOneBeforeEnded) {
  const Workload chat = make_chat({});
  EXPECT_GT(chat.requests().size(), 2U * 2'400U);
  auto replay = Replay::create({.host_slots = static_cast<std::uint32_t>(chat.unique_blocks())});
  const Counts counts = replay.value().run(chat);
  EXPECT_GT(counts.percent(counts.host_hits), 50);
  EXPECT_EQ(counts.host_hits, chat.references() - chat.unique_blocks()) << "no block is in vain";
}

TEST(ScenarioTest, AScanReadsEverythingOnceInTheMiddle) {
  const Workload chat = make_chat({});
  Workload mixed = chat;
  ASSERT_TRUE(mix_scan(mixed, 7, 0.5));
  EXPECT_EQ(blocks_of(requests_of(mixed, Part::kTrace)), chat.references());
  const auto scan = requests_of(mixed, Part::kScan);
  ASSERT_FALSE(scan.empty());
  EXPECT_EQ(mixed.unique_blocks() - chat.unique_blocks(), blocks_of(scan));
  const Nanoseconds end = chat.requests().back().at;
  EXPECT_GE(scan.front().at, Nanoseconds(end.value() / 5));
  EXPECT_LE(scan.back().at, Nanoseconds(end.value() / 5 * 4));
  std::uint64_t asked = 0;
  for (const Request& request : chat.requests()) {
    if (request.at >= scan.front().at && request.at <= scan.back().at) asked += request.depth;
  }
  EXPECT_NEAR(static_cast<double>(blocks_of(scan)), 0.5 * static_cast<double>(asked),
              0.02 * static_cast<double>(asked));
}

TEST(ScenarioTest, ARushIsOfOtherUsersWhoAskAlike) {
  const Workload chat = make_chat({});
  Workload mixed = chat;
  ASSERT_TRUE(mix_burst(mixed, 7, 3));
  EXPECT_EQ(blocks_of(requests_of(mixed, Part::kTrace)), chat.references());
  const auto rush = requests_of(mixed, Part::kBurst);
  ASSERT_FALSE(rush.empty());
  EXPECT_EQ(rush.size() % 3, 0U);
  std::set<std::uint32_t> own;
  std::set<std::uint32_t> theirs;
  std::vector<std::uint32_t> blocks;
  for (const Request& request : mixed.requests()) {
    mixed.chain(request, blocks);
    (request.part == Part::kTrace ? own : theirs).insert(blocks.begin(), blocks.end());
  }
  EXPECT_TRUE(
      std::ranges::none_of(theirs, [&](std::uint32_t block) { return own.contains(block); }));
  EXPECT_LT(theirs.size(), blocks_of(rush)) << "what the trace's users share, they share, too";
  EXPECT_EQ(theirs.size() % 3, 0U);
}

// Share of references that no earlier request has made, and of distinct blocks asked for once.
double new_percent(const Workload& workload) {
  std::set<std::uint32_t> seen;
  std::vector<std::uint32_t> blocks;
  for (const Request& request : workload.requests()) {
    workload.chain(request, blocks);
    seen.insert(blocks.begin(), blocks.end());
  }
  return 100.0 * static_cast<double>(seen.size()) / static_cast<double>(workload.references());
}

TEST(ScenarioTest, QuestionsShareDocumentsAndNobodyAsksOn) {
  const Workload rag = make_rag({.questions = 1'000, .documents = 200});
  ASSERT_EQ(rag.requests().size(), 1'000U);
  std::set<std::uint32_t> tips;
  for (const Request& request : rag.requests()) tips.insert(request.tip);
  EXPECT_EQ(tips.size(), 1'000U) << "each ends in a question of its own";
  EXPECT_GT(new_percent(rag), 20);
  EXPECT_LT(new_percent(rag), 80);
  const auto at = [](std::uint64_t seed) { return make_rag({.seed = seed}).requests().at(7).at; };
  EXPECT_EQ(at(1), at(1));
  EXPECT_NE(at(1), at(2));
}

TEST(ScenarioTest, ABatchSharesItsInstructionsAlone) {
  const Workload batch = make_batch({.items = 500});
  ASSERT_EQ(batch.requests().size(), 500U);
  auto replay = Replay::create({.host_slots = static_cast<std::uint32_t>(batch.unique_blocks())});
  const Counts counts = replay.value().run(batch);
  EXPECT_EQ(counts.host_hits, 499U * 16U);
  EXPECT_EQ(counts.stores, batch.unique_blocks()) << "answers are stored, too";
}

TEST(ScenarioTest, AnswersAreNobodyElses) {
  for (Workload workload : {make_rag({.questions = 300}), make_batch({.items = 300})}) {
    const std::uint64_t alone = workload.unique_blocks();
    std::set<std::uint32_t> asked;
    std::vector<std::uint32_t> blocks;
    for (const Request& request : workload.requests()) {
      workload.chain(request, blocks);
      asked.insert(blocks.begin(), blocks.end());
      EXPECT_NE(request.answer_tip, 0U);
      EXPECT_GE(request.answer_tokens, workload.block_tokens());
    }
    for (const Request& request : workload.requests()) {
      EXPECT_FALSE(asked.contains(request.answer_tip - 1));
    }
    // Other users have answers of their own, of which nothing is known.
    EXPECT_TRUE(mix_burst(workload, 1, 1));
    for (const Request& request : workload.requests()) {
      EXPECT_EQ(request.answer_tip == 0, request.part == Part::kBurst);
    }
    EXPECT_GT(workload.unique_blocks(), alone);
  }
}

TEST(ScenarioTest, NothingIsMixedIntoNothing) {
  Workload none;
  EXPECT_FALSE(mix_scan(none, 1));
  EXPECT_FALSE(mix_burst(none, 1));
  EXPECT_TRUE(none.requests().empty());
}

TEST(ScenarioTest, WhereNobodyAsksInTheMiddleThatIsSaid) {
  Workload ends;
  const std::uint32_t tip = ends.add_block(0);
  ends.add_request({.at = seconds(1), .tip = tip, .depth = 1});
  ends.add_request({.at = seconds(1000), .tip = tip, .depth = 1});
  EXPECT_FALSE(mix_scan(ends, 1));
  EXPECT_FALSE(mix_burst(ends, 1));
  EXPECT_EQ(ends.requests().size(), 2U);
}

// A batch job that asks for as many blocks as the users do, none of them twice, beside a chat.
struct Disturbed {
  double alone = 0;  // Hits of the chat, in percent.
  double beside = 0;
};

Disturbed chat_beside_scan(const std::string& eviction, std::uint64_t seed) {
  const Workload chat = make_chat({.seed = seed, .conversations = 800});
  Workload mixed = chat;
  EXPECT_TRUE(mix_scan(mixed, seed));
  const auto slots = static_cast<std::uint32_t>(chat.unique_blocks() / 20);
  const auto hits = [&](const Workload& workload) {
    auto replay = Replay::create({.host_slots = slots, .eviction = eviction});
    (void)replay.value().run(workload);
    const Counts& own = replay.value().counts_of(Part::kTrace);
    return own.percent(own.host_hits);
  };
  return {hits(chat), hits(mixed)};
}

// Points of its hits, on average of a few chats.
double lost_beside_scan(const std::string& eviction) {
  constexpr std::uint64_t kChats = 4;
  double lost = 0;
  for (std::uint64_t seed = 1; seed <= kChats; ++seed) {
    const Disturbed chat = chat_beside_scan(eviction, seed);
    lost += chat.alone - chat.beside;
  }
  return lost / kChats;
}

TEST(ScenarioTest, ScansLeaveAChatItsHitsWithTheDefaultPolicy) {
  EXPECT_LT(lost_beside_scan("hazard"), 3);
  EXPECT_GT(lost_beside_scan("lru"), 6) << "else this says nothing";
}

}  // namespace
}  // namespace terrace::trace
