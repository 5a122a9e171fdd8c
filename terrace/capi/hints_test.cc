// What a caller says of a request: taken, or ignored and counted, and never an error.
#include <gtest/gtest.h>

#include <string>

#include "terrace/capi/convert_internal.h"

namespace terrace::capi {
namespace {

terrace_hints of(std::string_view session) {
  terrace_hints hints = {};
  hints.struct_size = sizeof hints;
  hints.session = reinterpret_cast<const std::uint8_t*>(session.data());
  hints.session_length = session.size();
  return hints;
}

TEST(ConvertHintsTest, AllFieldsArrive) {
  terrace_hints given = of("a user's");
  given.flags = TERRACE_HINT_TOOL_CALL;
  given.return_ns = 5'000'000'000;
  given.priority = TERRACE_PRIORITY_LOW;
  given.ignored = 3;
  const auto made = convert_hints(given);
  ASSERT_TRUE(made.has_value());
  EXPECT_TRUE(made->hints.session.has_value());
  EXPECT_TRUE(made->hints.is_tool_call);
  EXPECT_FALSE(made->hints.is_over);
  EXPECT_EQ(made->hints.returns_in, seconds(5));
  EXPECT_EQ(made->hints.priority, policy::Priority::kLow);
  EXPECT_EQ(made->told, 3U);
  EXPECT_EQ(made->wrong, 0U);
}

TEST(ConvertHintsTest, ZerosSayNothing) {
  const auto made = convert_hints(of(""));
  ASSERT_TRUE(made.has_value());
  EXPECT_FALSE(made->hints.session.has_value());
  EXPECT_EQ(policy::promise_of(made->hints), policy::kPromiseNothing);
  EXPECT_EQ(made->wrong + made->told, 0U);
}

TEST(ConvertHintsTest, SessionsAreToldApartByAllOfTheirBytes) {
  const auto session = [](const std::string& name) {
    return convert_hints(of(name)).value().hints.session.value();
  };
  EXPECT_EQ(session("a"), session("a"));
  EXPECT_NE(session("a"), session("b"));
  EXPECT_NE(session(std::string("a\0a", 3)), session(std::string("a\0b", 3)));
  EXPECT_NE(session(std::string(256, 'x')), session(std::string(255, 'x')));
}

TEST(ConvertHintsTest, WhatIsOutOfRangeIsLeftOutAndCounted) {
  const std::string longest(kMaxSessionBytes + 1, 'x');
  terrace_hints given = of(longest);
  given.flags = TERRACE_HINT_SESSION_OVER | 0x80000000U;
  given.return_ns = INT64_MIN;
  given.priority = 77;
  const auto made = convert_hints(given);
  ASSERT_TRUE(made.has_value());
  EXPECT_EQ(made->wrong, 4U);
  EXPECT_FALSE(made->hints.session.has_value());
  EXPECT_TRUE(made->hints.is_over);  // The rest is as good as it was.
  EXPECT_EQ(made->hints.returns_in, Nanoseconds(0));
  EXPECT_EQ(made->hints.priority, policy::Priority::kNormal);
  given.return_ns = INT64_MAX;
  EXPECT_EQ(convert_hints(given)->wrong, 4U);
}

TEST(ConvertHintsTest, ALengthWithoutAPointerIsRefused) {
  terrace_hints given = of("");
  given.session = nullptr;
  given.session_length = 5;
  const auto made = convert_hints(given);
  ASSERT_FALSE(made.has_value());
  EXPECT_NE(made.error().message().find("session_length"), std::string::npos);
}

TEST(ConvertEndingTest, ReasonsArriveAndUnknownOnesAreUnknown) {
  EXPECT_EQ(convert_ending(nullptr)->ending, policy::Ending::kUnknown);
  const std::pair<std::uint32_t, policy::Ending> reasons[] = {
      {TERRACE_ENDING_UNKNOWN, policy::Ending::kUnknown},
      {TERRACE_ENDING_STOP, policy::Ending::kDone},
      {TERRACE_ENDING_LENGTH, policy::Ending::kLength},
      {TERRACE_ENDING_ABORT, policy::Ending::kAborted},
      {TERRACE_ENDING_TOOL_CALL, policy::Ending::kToolCall},
      {UINT32_MAX, policy::Ending::kUnknown}};
  for (const auto& [reason, ending] : reasons) {
    const terrace_ending given = {sizeof given, reason, UINT64_MAX};
    const auto made = convert_ending(&given);
    ASSERT_TRUE(made.has_value());
    EXPECT_EQ(made->ending, ending) << reason;
    EXPECT_EQ(made->answer, Tokens(UINT64_MAX));
  }
  const terrace_ending broken = {4, 0, 0};
  EXPECT_FALSE(convert_ending(&broken).has_value());
}

}  // namespace
}  // namespace terrace::capi
