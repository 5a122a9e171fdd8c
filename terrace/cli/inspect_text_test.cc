#include "terrace/cli/inspect_text.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

namespace terrace::cli {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

Fingerprint print_of(const std::string& dtype) {
  Fingerprint print;
  print.content = {{"model", "tiny"}, {"dtype", dtype}};
  print.layout = {{"block_tokens", "32"}};
  return print;
}

tier::InspectedNamespace namespace_of(std::uint32_t number, const Fingerprint& print) {
  tier::InspectedNamespace one;
  one.number = number;
  one.fingerprint = print.text();
  one.content_digest = print.content_digest();
  one.layout_digest = print.layout_digest();
  one.used_seconds = 86400;
  one.slots = 64;
  one.sealed = 12;
  one.bytes = 3U << 20U;
  one.era = 0x0102;
  return one;
}

std::vector<PathReport> sample() {
  tier::InspectedOwner owner;
  owner.directory = "/kv/terrace-00";
  owner.state = "usable";
  owner.is_locked = true;
  owner.extent_bytes = 1U << 20U;
  owner.file_bytes = 64U << 20U;
  owner.namespaces = {namespace_of(1, print_of("float32")), namespace_of(2, print_of("bfloat16"))};
  return {{"/kv", {owner}}};
}

TEST(InspectTextTest, BlocksThatTheNextStartDropsAreTold) {
  auto reports = sample();
  EXPECT_THAT(inspect_text(reports, {}), Not(HasSubstr("earlier Terrace")));
  reports[0].owners[0].namespaces[1].era = 0;
  EXPECT_THAT(inspect_text(reports, {}), HasSubstr("written by an earlier Terrace"));
}

TEST(InspectTextTest, WhatEvictionLearnedIsTold) {
  auto reports = sample();
  EXPECT_THAT(inspect_text(reports, {}), Not(HasSubstr("eviction learned")));
  reports[0].owners[0].namespaces[1].learned_bytes = 3U << 20U;
  EXPECT_THAT(inspect_text(reports, {}),
              HasSubstr("eviction learned from its requests: 3.0 MiB for the next start"));
}

TEST(InspectTextTest, NamespacesAreInClearTextWithWhatChanged) {
  const std::string text = inspect_text(sample(), {});
  EXPECT_THAT(text, HasSubstr("/kv/terrace-00: usable, in use by an engine"));
  EXPECT_THAT(text, HasSubstr("content.model=tiny"));
  EXPECT_THAT(text, HasSubstr("12 of 64 slots hold a block, 3.0 MiB; last used 1970-01-02"));
  EXPECT_THAT(text, HasSubstr("differs from namespace 1 in 1 fields\n"
                              "      content.dtype: here \"bfloat16\", there \"float32\""));
}

TEST(InspectTextTest, GivenFingerprintIsComparedFieldByField) {
  const std::string text = inspect_text(sample(), {print_of("float16")});
  EXPECT_THAT(text, HasSubstr("content.dtype: given \"float16\", here \"float32\""));
  EXPECT_TRUE(is_match_missing(sample(), print_of("float16")));
  EXPECT_FALSE(is_match_missing(sample(), print_of("bfloat16")));
  EXPECT_THAT(inspect_text(sample(), {print_of("bfloat16")}),
              HasSubstr("matches the given fingerprint"));
}

TEST(InspectTextTest, DamageIsAProblemAndSaid) {
  EXPECT_FALSE(has_problem(sample()));
  auto damaged = sample();
  damaged[0].owners[0].namespaces[0].damaged = 3;
  EXPECT_TRUE(has_problem(damaged));
  EXPECT_THAT(inspect_text(damaged, {}), HasSubstr("3 damaged records"));
  auto cut = sample();
  cut[0].owners[0].namespaces[1].problem = "0.slots was cut: 3 blocks";
  EXPECT_TRUE(has_problem(cut));
  EXPECT_THAT(inspect_text(cut, {}), HasSubstr("    problem: 0.slots was cut: 3 blocks\n"));
  auto claims = sample();
  claims[0].owners[0].damaged_extents = 2;
  EXPECT_TRUE(has_problem(claims));
  EXPECT_THAT(inspect_text(claims, {}), HasSubstr("2 damaged records in extents.meta"));
  auto unreadable = sample();
  unreadable[0].owners[0].namespaces[1].fingerprint.clear();
  EXPECT_TRUE(has_problem(unreadable));
  unreadable[0].owners[0].namespaces[1].fingerprint_problem = "fingerprint line 1: no =";
  EXPECT_THAT(inspect_text(unreadable, {}),
              HasSubstr("its fingerprint is damaged (fingerprint line 1: no =): its frames"));
  unreadable[0].owners[0].namespaces[1].content_digest.clear();
  EXPECT_THAT(inspect_text(unreadable, {}), HasSubstr("no engine finds it"));
  auto foreign = sample();
  foreign[0].owners[0].problem = "of a newer format; upgrade or name another path";
  EXPECT_TRUE(has_problem(foreign));
  EXPECT_THAT(inspect_text(foreign, {}), HasSubstr("problem: of a newer format"));
}

TEST(InspectTextTest, JsonHoldsFieldsAndDifferences) {
  const auto json = nlohmann::json::parse(inspect_json(sample(), {print_of("float32")}));
  const auto& owner = json[0]["owners"][0];
  EXPECT_EQ(owner["locked"], true);
  EXPECT_EQ(owner["namespaces"][1]["content"]["dtype"], "bfloat16");
  EXPECT_TRUE(owner["namespaces"][0]["differences"].empty());
  EXPECT_EQ(owner["namespaces"][1]["differences"][0]["name"], "dtype");
}

TEST(InspectTextTest, ControlBytesDoNotReachTheTerminal) {
  auto reports = sample();
  reports[0].owners[0].namespaces[1] = namespace_of(2, print_of("\x1b[31mred"));
  EXPECT_THAT(inspect_text(reports, {}), Not(HasSubstr("\x1b")));
}

TEST(InspectTextTest, EmptyPathSaysSo) {
  EXPECT_THAT(inspect_text({{"/kv", {}}}, {}), HasSubstr("/kv: no owner has stored anything here"));
}

}  // namespace
}  // namespace terrace::cli
