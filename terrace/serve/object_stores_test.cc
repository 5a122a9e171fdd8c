// A shared directory whose file server is away keeps whoever opens it for a moment, not for ever.
#include "terrace/serve/object_stores.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>

#include "terrace/testing/eventually.h"
#include "terrace/testing/fake_clock.h"
#include "terrace/testing/hang.h"
#include "terrace/testing/left_thread.h"
#include "terrace/testing/memory_log.h"
#include "terrace/testing/scratch_directory.h"

namespace terrace::serve {
namespace {

using ::testing::HasSubstr;

class ObjectStoresTest : public ::testing::Test {
 protected:
  ObjectStoresTest() {
    std::filesystem::create_directories(path_);
    settings_.path = path_;
    settings_.depth = 4;
    clock_.advance_with_each_look(milliseconds(100));
  }
  const testing::ScratchDirectory scratch_;
  const std::string path_ = scratch_.path() + "/shared";
  config::ObjectSettings settings_;
  testing::FakeClock clock_;
  testing::MemoryLog log_;
};

TEST_F(ObjectStoresTest, ADirectoryThatDoesNotAnswerIsUnavailableAndAskedByOneThreadAlone) {
  testing::Hang hang("stat", "terrace-store");
  hang.hold();
  const OpenObjectStore open = object_store(settings_);
  for (int attempt = 0; attempt < 5; ++attempt) {
    const auto store = open(clock_, log_);
    ASSERT_FALSE(store.has_value());
    EXPECT_EQ(store.error().code(), Code::kUnavailable);
    EXPECT_THAT(store.error().message(),
                HasSubstr("object.path: stat " + path_ + " has not come back in 2 s"));
  }
  EXPECT_TRUE(testing::eventually([&] { return hang.held() == 1; }));
  hang.release();
  EXPECT_TRUE(testing::eventually([] { return !testing::has_thread("terrace-store"); }));
  clock_.advance_with_each_look(Nanoseconds(0));
  const auto store = open(clock_, log_);
  EXPECT_TRUE(store.has_value()) << store.error().text();
}

TEST_F(ObjectStoresTest, OneThatAnswersIsOpened) {
  clock_.advance_with_each_look(Nanoseconds(0));
  EXPECT_TRUE(object_store(settings_)(clock_, log_).has_value());
  EXPECT_TRUE(testing::eventually([] { return !testing::has_thread("terrace-store"); }));
}

}  // namespace
}  // namespace terrace::serve
