// What is forecast of a host and a disk, beside what the core then hits with them: both are told of
// the same chat, whose next prompts hold the answers. Virtual time (core_rig_internal.h).
#include <gtest/gtest.h>

#include <algorithm>

#include "terrace/manager/core_rig_internal.h"
#include "terrace/manager/size_forecast_internal.h"

namespace terrace::manager {
namespace {

using rig::kBlockTokens;
using rig::Rig;
using rig::RigOptions;

struct Sizes {
  std::uint64_t host;
  std::uint64_t disk;  // 0 = none.
  bool is_demote;
  bool is_prompt_only;
};

RigOptions rig_of(const Sizes& sizes) {
  RigOptions options{.host_blocks = sizes.host, .device_blocks = 512, .has_disk = sizes.disk > 0};
  options.tune = [sizes](Options& of) {
    of.host.eviction = "hazard";
    of.disk.eviction = "lru";  // As MemoryDisk has it.
    of.disk.blocks = sizes.disk;
    of.disk.is_demote = sizes.is_demote;
    of.disk.queue_blocks = 4096;
    of.is_prompt_only = sizes.is_prompt_only;
    of.has_planner = false;
    of.pin_share = 1;
  };
  return options;
}

class Chat {
 public:
  explicit Chat(const Sizes& sizes)
      : last_tier_(sizes.disk > 0 ? Tier::kDisk : Tier::kHost),
        rig_(rig_of(sizes)),
        forecast_(rig_.options, rig_.clock.now()) {
    rig_.disk.capacity = sizes.disk;
  }

  void live() {
    std::vector<std::vector<std::uint32_t>> users;
    for (int turn = 0; turn < 900; ++turn) {
      // Half of the turns are of somebody who was there lately.
      const std::size_t known = std::min<std::size_t>(users.size(), 1U << rng_.below(6));
      if (users.empty() || rng_.chance(30)) users.emplace_back();
      const std::size_t back = known == 0 ? 0 : rng_.below(known);
      request(users[users.size() - 1 - back], 1 + rng_.below(6), 1 + rng_.below(6));
      rig_.clock.advance(seconds(static_cast<std::int64_t>(1 + rng_.below(8))));
    }
    learn();
  }

  // Ten users talk on, once in some minutes, and between them many ask once.
  void live_with_loyal_users() {
    std::vector<std::vector<std::uint32_t>> loyal(10);
    for (auto& talk : loyal) say(talk, 8);
    for (int round = 0; round < 14; ++round) {
      for (std::size_t turn = 0; turn < 70; ++turn) {
        std::vector<std::uint32_t> once;
        const bool is_loyal = turn % 7 == 0;
        request(is_loyal ? loyal[turn / 7] : once, is_loyal ? 1 : 8, 1);
        rig_.clock.advance(seconds(static_cast<std::int64_t>(1 + rng_.below(8))));
      }
    }
    learn();
  }

  [[nodiscard]] double real_percent() const {
    return 100 * static_cast<double>(loaded_) / static_cast<double>(asked_);
  }
  [[nodiscard]] double told_percent() const {
    const ForecastStatus status = forecast_.status();
    EXPECT_EQ(status.blocks_asked, asked_);
    for (const SizeForecastStatus& one : status.sizes) {
      if (one.tier == last_tier_ && one.factor == 1) return one.hit_percent;
    }
    return -1;
  }

 private:
  void say(std::vector<std::uint32_t>& talk, std::uint64_t blocks) {
    for (std::uint64_t i = 0; i < blocks * kBlockTokens; ++i) talk.push_back(++last_token_);
  }
  void learn() {
    while (forecast_.work(rig_.clock.now(), {rig_.counters.write_blocks.value(),
                                             rig_.counters.drop_demote.value()})) {
    }
  }
  // A prompt of so many more blocks, then its answer.
  void request(std::vector<std::uint32_t>& talk, std::uint64_t more, std::uint64_t answer) {
    say(talk, more);
    const RequestId id = rig_.begin(talk);
    const std::uint64_t prompt = talk.size() / kBlockTokens;
    forecast_.ask(asked_chain(*rig_.core.find(id), rig_.clock.now()));
    const std::uint64_t loaded = rig_.look_up(id);
    asked_ += prompt;
    loaded_ += loaded;
    const auto table = Rig::make_table(prompt + answer);
    ASSERT_TRUE(rig_.accept(id, 0, loaded, table).is_ok());
    compute(id, loaded, prompt, table);
    say(talk, answer);
    rig_.core.find(id)->chain.append(
        std::span<const std::uint32_t>(talk).last(answer * kBlockTokens));
    compute(id, prompt, prompt + answer, table);
    forecast_.end(*rig_.core.ended_chain(id, {}, rig_.clock.now()));
    (void)rig_.end(id);
    rig_.settle();
  }
  void compute(RequestId id, std::uint64_t from, std::uint64_t to,
               const std::vector<std::uint32_t>& table) {
    for (std::uint64_t block = from; block < to; ++block) rig_.compute(id, block, table[block]);
    rig_.advance(id, to, table);
    rig_.step();
    rig_.settle();
  }

  Rng rng_{1};
  const Tier last_tier_;
  Rig rig_;
  SizeForecast forecast_;
  std::uint32_t last_token_ = 0;
  std::uint64_t asked_ = 0;
  std::uint64_t loaded_ = 0;
};

// In a host of less than some prompts' blocks, as the smallest here, much is dropped before it is
// written: some of it is told.
TEST(CoreForecastTest, WhatIsToldOfHostAndDiskIsWhatTheyHit) {
  for (const bool is_demote : {false, true}) {
    for (const bool is_prompt_only : {false, true}) {
      for (const auto& [host, disk] :
           {std::pair(128U, 512U), {256U, 512U}, {512U, 768U}, {256U, 2048U}}) {
        Chat chat({host, disk, is_demote, is_prompt_only});
        chat.live();
        EXPECT_NEAR(chat.told_percent(), chat.real_percent(), 3)
            << host << " + " << disk << (is_demote ? ", demote" : ", through")
            << (is_prompt_only ? ", prompt" : ", all");
      }
    }
  }
}

// All that its class is known by.
TEST(CoreForecastTest, WhatIsToldOfAnEndIsWhatTheTiersAreTold) {
  Rig rig({.host_blocks = 64, .device_blocks = 64});
  std::vector<std::uint32_t> tokens(5 * kBlockTokens, 7);
  const RequestId id = rig.begin(tokens);
  (void)rig.look_up(id);
  const auto table = Rig::make_table(7);
  ASSERT_TRUE(rig.accept(id, 0, 0, table).is_ok());
  Request& request = *rig.core.find(id);
  request.chain.append(std::vector<std::uint32_t>(2 * kBlockTokens + 1, 8));
  for (std::uint64_t block = 0; block < 7; ++block) rig.compute(id, block, table[block]);
  rig.advance(id, 7, table);
  rig.core.hint(request, {.hints = {.priority = policy::Priority::kHigh}}, rig.clock.now());
  const auto ended = rig.core.ended_chain(id, {.ending = policy::Ending::kLength}, rig.clock.now());
  ASSERT_TRUE(ended.has_value());
  EXPECT_EQ(ended->id, id);
  EXPECT_EQ(ended->at, rig.clock.now());
  EXPECT_EQ(ended->chain.size(), 7U);
  EXPECT_EQ(ended->prompt_blocks, 5U);
  EXPECT_EQ(ended->answer_tokens, 2 * kBlockTokens + 1);
  EXPECT_EQ(ended->ending, policy::Ending::kLength);
  EXPECT_EQ(ended->hints.priority, policy::Priority::kHigh);
  const auto said = rig.core.ended_chain(id, {.answer = Tokens(100)}, rig.clock.now());
  EXPECT_EQ(said->answer_tokens, 100U);
  EXPECT_FALSE(rig.core.ended_chain(RequestId(99), {}, rig.clock.now()));
}

TEST(CoreForecastTest, WhatIsToldOfHostAloneIsWhatItHits) {
  for (const std::uint64_t host : {128U, 256U, 512U, 1024U}) {
    Chat chat({.host = host, .disk = 0, .is_demote = false, .is_prompt_only = false});
    chat.live();
    EXPECT_NEAR(chat.told_percent(), chat.real_percent(), 3) << host;
  }
}

TEST(CoreForecastTest, WhatHazardHoldsOfThoseWhoComeBackIsTold) {
  for (const std::uint64_t host : {128U, 192U, 256U, 384U, 512U, 1024U}) {
    Chat chat({.host = host, .disk = 0, .is_demote = false, .is_prompt_only = false});
    chat.live_with_loyal_users();
    EXPECT_NEAR(chat.told_percent(), chat.real_percent(), 3) << host;
  }
}

}  // namespace
}  // namespace terrace::manager
