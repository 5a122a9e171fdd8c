#include <gtest/gtest.h>

#include "terrace/capi/json_internal.h"

namespace terrace::capi {
namespace {

TEST(JsonTest, TextIsEscaped) { EXPECT_EQ(json_text("a\"b\\c\n\x7f"), R"("a\"b\\c\u000a\u007f")"); }

TEST(JsonTest, EventsAreSelfDescribingAndNoneIsEmpty) {
  EXPECT_EQ(events_to_json({}), "");
  manager::Event stored;
  stored.hash = {1, 2};
  stored.alias = 7;
  stored.tokens = {5, 6};
  stored.extra_keys = {{ExtraKey::Kind::kSalt, "A", 0}, {ExtraKey::Kind::kMultimodal, "m", -3}};
  manager::Event removed;
  removed.kind = manager::Event::Kind::kRemoved;
  removed.tier = Tier::kDisk;
  EXPECT_EQ(events_to_json({stored, removed}),
            R"([{"op":"stored","tier":"host","group":0,"hash":"00000000000000010000000000000002",)"
            R"("alias":7,"locality":"local","parent":null,"parent_alias":null,"block_tokens":2,)"
            R"("tokens":[5,6],"extra_keys":[{"kind":1,"identity":"41"},)"
            R"({"kind":3,"identity":"6d","offset":-3}]},)"
            R"({"op":"removed","tier":"disk","group":0,"hash":"00000000000000000000000000000000",)"
            R"("alias":null,"locality":"local"}])");
}

}  // namespace
}  // namespace terrace::capi
