#include "terrace/policy/admission/admission.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <limits>
#include <map>

#include "contract/admission_contract.h"
#include "terrace/testing/property.h"

namespace terrace::policy {
namespace {

using testing::key;

INSTANTIATE_TEST_SUITE_P(All, AdmissionContract, ::testing::Values(make_admit_all));
INSTANTIATE_TEST_SUITE_P(Frequency, AdmissionContract,
                         ::testing::Values([] { return make_frequency({.entries = 1000}); }));
INSTANTIATE_TEST_SUITE_P(Reuse, AdmissionContract, ::testing::Values([] {
                           return make_reuse({.entries = 1000, .tier_blocks = 100});
                         }));

INSTANTIATE_TEST_SUITE_P(Expected, AdmissionContract, ::testing::Values([] {
                           return make_expected({.entries = 1000, .tier_blocks = 100});
                         }));

TEST(AdmitAllTest, AdmitsAtFirstSight) { EXPECT_TRUE(make_admit_all()->admit(key(1), seconds(0))); }

TEST(FrequencyTest, RefusesAtFirstSightAndAdmitsAtTheSecond) {
  const auto filter = make_frequency({});
  EXPECT_FALSE(filter->admit(key(1), seconds(0)));
  EXPECT_TRUE(filter->admit(key(1), seconds(0)));
  EXPECT_FALSE(filter->admit(key(2), seconds(0)));
}

TEST(FrequencyTest, AHitCountsAsASighting) {
  const auto filter = make_frequency({});
  filter->on_hit(key(1), seconds(0));
  EXPECT_TRUE(filter->admit(key(1), seconds(0)));
}

TEST(FrequencyTest, EqualHashesOfTwoNamespacesCountApart) {
  const auto filter = make_frequency({});
  EXPECT_FALSE(filter->admit(key(1, 1), seconds(0)));
  EXPECT_FALSE(filter->admit(key(1, 2), seconds(0)));
}

TEST(FrequencyTest, ASightingIsForgottenAfterOneInterval) {
  const auto filter = make_frequency({});
  EXPECT_FALSE(filter->admit(key(1), seconds(0)));
  EXPECT_FALSE(filter->admit(key(1), seconds(600)));
  EXPECT_TRUE(filter->admit(key(1), seconds(1199)));
}

TEST(FrequencyTest, FourSightingsOutlastSevenIntervals) {
  const auto filter = make_frequency({});
  for (int i = 0; i < 4; ++i) static_cast<void>(filter->admit(key(1), seconds(0)));  // 1 2 4 8
  for (int i = 0; i < 4; ++i) static_cast<void>(filter->admit(key(2), seconds(0)));
  EXPECT_TRUE(filter->admit(key(1), seconds(7 * 600)));   // 8 - 7 = 1, doubled.
  EXPECT_FALSE(filter->admit(key(2), seconds(8 * 600)));  // 8 - 8 = 0, forgotten.
}

TEST(FrequencyTest, OverTheLimitAllDecayUntilTheyFit) {
  const auto filter = make_frequency({.entries = 3});
  for (const std::uint64_t n : {1U, 1U, 2U, 2U, 3U})
    static_cast<void>(filter->admit(key(n), seconds(0)));
  EXPECT_FALSE(filter->admit(key(4), seconds(0)));  // Counts 2 2 1 1 become 1 1.
  EXPECT_TRUE(filter->admit(key(1), seconds(0)));
  EXPECT_FALSE(filter->admit(key(3), seconds(0))) << "forgotten";
}

TEST(FrequencyTest, ToBeAskedOnLeavingIsNoSighting) {
  const auto filter = make_frequency({});
  EXPECT_FALSE(filter->is_wanted(key(1), seconds(0)));
  EXPECT_FALSE(filter->admit(key(1), seconds(0)));
  for (int i = 0; i < 3; ++i) EXPECT_FALSE(filter->is_wanted(key(1), seconds(0)));
  filter->on_hit(key(1), seconds(0));
  EXPECT_TRUE(filter->is_wanted(key(1), seconds(0)));
  EXPECT_FALSE(filter->is_wanted(key(1), seconds(1200))) << "2 - 2 decays";
}

TEST(ReuseTest, RefusesAtFirstSightAndAdmitsAtTheSecond) {
  const auto filter = make_reuse({.tier_blocks = 10});
  EXPECT_FALSE(filter->admit(key(1), seconds(0)));
  EXPECT_TRUE(filter->admit(key(1), seconds(1'000'000))) << "the tier is not full: it holds all";
  EXPECT_FALSE(filter->admit(key(1, 2), seconds(1'000'000))) << "another namespace's";
}

TEST(ReuseTest, ToBeAskedOnLeavingIsNoSighting) {
  const auto filter = make_reuse({.tier_blocks = 10});
  EXPECT_FALSE(filter->is_wanted(key(1), seconds(0)));
  EXPECT_FALSE(filter->admit(key(1), seconds(0)));
  for (int i = 0; i < 3; ++i) EXPECT_FALSE(filter->is_wanted(key(1), seconds(0)));
  filter->on_hit(key(1), seconds(0));
  EXPECT_TRUE(filter->is_wanted(key(1), seconds(0)));
}

// One new block a second is admitted into 128 slots: what lies there leaves after 128 s.
void fill(AdmissionFilter& filter, std::int64_t until) {
  for (std::int64_t second = 0; second <= until; ++second) {
    const auto number = static_cast<std::uint64_t>(1000 + second);
    static_cast<void>(filter.admit(key(number), seconds(second)));
    ASSERT_TRUE(filter.admit(key(number), seconds(second)));
  }
}

TEST(ReuseTest, ASightingCountsForAsLongAsTheTierHoldsABlock) {
  const auto filter = make_reuse({.tier_blocks = 128});
  fill(*filter, 300);
  for (const std::uint64_t n : {1U, 2U, 3U}) EXPECT_FALSE(filter->admit(key(n), seconds(300)));
  EXPECT_TRUE(filter->admit(key(1), seconds(420)));
  EXPECT_FALSE(filter->is_wanted(key(2), seconds(420)));
  const auto later = make_reuse({.tier_blocks = 128});
  EXPECT_FALSE(later->admit(key(1), seconds(0)));
  fill(*later, 300);
  EXPECT_FALSE(later->admit(key(1), seconds(300))) << "longer ago than any block stays";
  EXPECT_TRUE(later->admit(key(1), seconds(301))) << "and that was a sighting in time";
}

TEST(ReuseTest, WhatWasWantedOnceIsNotForEver) {
  const auto filter = make_reuse({.tier_blocks = 128});
  filter->on_hit(key(1), seconds(0));
  filter->on_hit(key(1), seconds(0));
  EXPECT_TRUE(filter->is_wanted(key(1), seconds(0)));
  fill(*filter, 300);
  EXPECT_FALSE(filter->is_wanted(key(1), seconds(300)));
}

TEST(ReuseTest, TheOldestSightingsGiveWay) {
  const auto filter = make_reuse({.entries = 3});
  for (const std::uint64_t n : {1U, 2U, 3U}) filter->on_hit(key(n), seconds(0));
  filter->on_hit(key(1), seconds(1));  // Now 2 is the oldest.
  filter->on_hit(key(4), seconds(2));
  EXPECT_TRUE(filter->admit(key(1), seconds(3)));
  EXPECT_FALSE(filter->admit(key(2), seconds(3)));
}

TEST(AdmissionRegistryTest, WrongNamesAndOptionsAreRefusedByName) {
  EXPECT_EQ(make_admission("bloom", {}).error().message(),
            "admission policy \"bloom\" is unknown; known: all, expected, frequency, reuse");
  EXPECT_EQ(make_admission("frequency", {.frequency = {.threshold = 0}}).error().code(),
            Code::kInvalid);
  EXPECT_EQ(
      make_admission("frequency", {.frequency = {.decay_interval = seconds(0)}}).error().code(),
      Code::kInvalid);
  EXPECT_EQ(make_admission("frequency", {.frequency = {.entries = 0}}).error().code(),
            Code::kInvalid);
  EXPECT_EQ(make_admission("reuse", {.reuse = {.entries = 0}}).error().code(), Code::kInvalid);
  EXPECT_EQ(make_admission("expected", {.expected = {.entries = 3'000'000'000}}).error().code(),
            Code::kInvalid);
  for (const double loss : {-0.01, 1.01, std::numeric_limits<double>::quiet_NaN()}) {
    EXPECT_EQ(make_admission("expected", {.expected = {.most_lost = loss}}).error().code(),
              Code::kInvalid)
        << loss;
  }
  EXPECT_TRUE(make_admission("all", {}));
  EXPECT_TRUE(make_admission("expected", {}));
  EXPECT_TRUE(make_admission("reuse", {}));
  EXPECT_TRUE(make_admission("frequency", {}));
}

// KVBM's rules, word for word.
class NaiveFrequency {
 public:
  explicit NaiveFrequency(const FrequencyOptions& options) : options_(options) {}
  bool sight(const BlockKey& k, Nanoseconds now) {
    if (!started_) next_ = now + options_.decay_interval;
    started_ = true;
    for (; now >= next_; next_ += options_.decay_interval) decay();
    auto [entry, is_new] = counts_.emplace(k, 1);
    if (!is_new) entry->second = std::min(entry->second * 2, std::uint64_t{1} << 62U);
    const bool is_admitted = entry->second >= options_.threshold;
    while (counts_.size() > options_.entries) {
      decay();
      next_ = now + options_.decay_interval;
    }
    return is_admitted;
  }

 private:
  void decay() {
    for (auto entry = counts_.begin(); entry != counts_.end();) {
      entry = --entry->second == 0 ? counts_.erase(entry) : std::next(entry);
    }
  }
  FrequencyOptions options_;
  std::map<BlockKey, std::uint64_t> counts_;
  bool started_ = false;
  Nanoseconds next_{0};
};

TEST(FrequencyProperty, AgreesWithTheRulesWordForWord) {
  const auto [seed, steps] = testing::property(11, 600'000);
  Rng rng(seed);
  for (const std::uint64_t entries : {1U, 4U, 40U}) {
    const FrequencyOptions options{.threshold = static_cast<std::uint32_t>(2 + rng.below(3)),
                                   .decay_interval = seconds(10),
                                   .entries = entries};
    const auto filter = make_frequency(options);
    NaiveFrequency naive(options);
    Nanoseconds now{0};
    for (std::uint64_t i = 0; i < steps / 3; ++i) {
      // Mostly the same moment, so that limits are met; at times many intervals at once.
      if (rng.chance(10)) now += seconds(static_cast<std::int64_t>(rng.below(12)));
      if (rng.below(2000) == 0) now += seconds(300);
      // Skewed, so that counts differ widely; bounded, so that the naive decay ends.
      const BlockKey k = key(rng.below(rng.chance(30) ? 4 : 2 * entries + 2));
      if (rng.chance(20)) {
        filter->on_hit(k, now);
        static_cast<void>(naive.sight(k, now));
      } else {
        ASSERT_EQ(filter->admit(k, now), naive.sight(k, now)) << "step " << i;
      }
      if (i % 20 == 0) now += seconds(10);
    }
  }
}

// The rule word for word, with every admission's time kept.
class NaiveReuse {
 public:
  explicit NaiveReuse(std::uint64_t tier_blocks) : tier_blocks_(tier_blocks) {}
  bool sight(const BlockKey& k, Nanoseconds now, bool is_candidate) {
    const std::int64_t residence =
        admissions_.size() <= tier_blocks_
            ? INT64_MAX
            : (now - admissions_[admissions_.size() - tier_blocks_]).value();
    const auto [entry, is_new] = last_.emplace(k, now);
    const bool is_again = !is_new && (now - entry->second).value() <= residence;
    entry->second = now;
    if (is_again && is_candidate) admissions_.push_back(now);
    return is_again;
  }

 private:
  std::uint64_t tier_blocks_;
  std::map<BlockKey, Nanoseconds> last_;
  std::vector<Nanoseconds> admissions_;
};

TEST(ReuseProperty, AgreesWithTheRuleWordForWord) {
  const auto [seed, steps] = testing::property(12, 300'000);
  Rng rng(seed);
  for (const std::uint64_t tier_blocks : {1U, 7U, 64U}) {  // Each admission has its mark.
    const auto filter = make_reuse({.entries = 2000, .tier_blocks = tier_blocks});
    NaiveReuse naive(tier_blocks);
    Nanoseconds now{0};
    for (std::uint64_t i = 0; i < steps / 3; ++i) {
      if (rng.chance(30)) now += seconds(static_cast<std::int64_t>(rng.below(5)));
      const BlockKey k = key(rng.below(rng.chance(50) ? 50 : 2000));
      if (rng.chance(20)) {
        filter->on_hit(k, now);
        static_cast<void>(naive.sight(k, now, false));
      } else {
        ASSERT_EQ(filter->admit(k, now), naive.sight(k, now, true)) << "step " << i;
      }
    }
  }
}

}  // namespace
}  // namespace terrace::policy
