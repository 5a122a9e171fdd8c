// What every admission filter must do. A filter's test instantiates it with its factory:
//   INSTANTIATE_TEST_SUITE_P(All, AdmissionContract, ::testing::Values(make_admit_all));
// Threading: tests only.
#pragma once

#include <gtest/gtest.h>

#include <functional>
#include <memory>

#include "terrace/base/rng.h"
#include "terrace/policy/admission/admission.h"
#include "terrace/testing/keys.h"

namespace terrace::policy {

using AdmissionMaker = std::function<std::unique_ptr<AdmissionFilter>()>;

class AdmissionContract : public ::testing::TestWithParam<AdmissionMaker> {
 protected:
  static std::unique_ptr<AdmissionFilter> make() { return GetParam()(); }
};

TEST_P(AdmissionContract, ABlockThatKeepsComingIsAdmitted) {
  const auto filter = make();
  bool is_admitted = false;
  for (int i = 0; i < 64 && !is_admitted; ++i) {
    is_admitted = filter->admit(testing::key(1), seconds(i));
  }
  EXPECT_TRUE(is_admitted);
}

TEST_P(AdmissionContract, ABlockThatKeepsBeingHitIsAdmitted) {
  const auto filter = make();
  for (int i = 0; i < 64; ++i) filter->on_hit(testing::key(1), seconds(i));
  EXPECT_TRUE(filter->admit(testing::key(1), seconds(64)));
}

TEST_P(AdmissionContract, WhatIsAdmittedIsWantedStill) {
  const auto filter = make();
  Rng rng(2);
  for (int i = 0; i < 5'000; ++i) {
    const BlockKey key = testing::key(rng.below(300));
    if (filter->admit(key, seconds(i))) {
      ASSERT_TRUE(filter->is_wanted(key, seconds(i)));
    }
  }
}

TEST_P(AdmissionContract, ToAskAgainChangesNoAnswer) {
  const auto asked = make();
  const auto left = make();
  const BlockKey key = testing::key(1);
  for (int i = 0; i < 8; ++i) {
    const bool is_wanted = asked->is_wanted(key, seconds(i));
    EXPECT_EQ(asked->is_wanted(key, seconds(i)), is_wanted);
    EXPECT_EQ(asked->admit(key, seconds(i)), left->admit(key, seconds(i)));
  }
}

TEST_P(AdmissionContract, ToLeaveTheTierAboveIsNoSighting) {
  const auto told = make();
  const auto left = make();
  const BlockKey key = testing::key(1);
  for (int i = 0; i < 8; ++i) {
    told->note_leaving(key);
    EXPECT_EQ(told->is_wanted(key, seconds(i)), left->is_wanted(key, seconds(i)));
    EXPECT_EQ(told->admit(key, seconds(i)), left->admit(key, seconds(i)));
  }
}

TEST_P(AdmissionContract, EqualHistoriesGiveEqualAnswers) {
  const auto first = make();
  const auto second = make();
  Rng rng(1);
  for (int i = 0; i < 20'000; ++i) {
    const BlockKey key = testing::key(rng.below(500));
    if (rng.chance(30)) {
      first->on_hit(key, seconds(i));
      second->on_hit(key, seconds(i));
    } else {
      ASSERT_EQ(first->admit(key, seconds(i)), second->admit(key, seconds(i)));
    }
  }
}

TEST_P(AdmissionContract, MemoryIsTakenAtCreationOnly) {
  const auto filter = make();
  const Bytes before = filter->memory();
  for (std::uint64_t n = 0; n < 100'000; ++n)
    static_cast<void>(filter->admit(testing::key(n), seconds(1)));
  EXPECT_EQ(filter->memory(), before);
}

TEST_P(AdmissionContract, TimeMayStandStillOrLeap) {
  const auto filter = make();
  for (const std::int64_t at : {std::int64_t{0}, std::int64_t{0}, INT64_MAX / 4, INT64_MAX / 2}) {
    static_cast<void>(filter->admit(testing::key(1), Nanoseconds(at)));
    filter->on_hit(testing::key(2), Nanoseconds(at));
  }
  SUCCEED();
}

}  // namespace terrace::policy
