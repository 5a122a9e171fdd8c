#include "terrace/base/thread.h"

#include <gtest/gtest.h>
#include <pthread.h>
#include <signal.h>

#include <string>

#include "terrace/base/check.h"

namespace terrace {
namespace {

TEST(ThreadTest, BlocksAllSignalsAndHasItsName) {
  bool is_blocked = false;
  std::string name;
  {
    auto thread = start_thread(
        "terrace-io",
        [&](const std::stop_token&) {
          sigset_t mask;
          pthread_sigmask(SIG_SETMASK, nullptr, &mask);
          is_blocked = sigismember(&mask, SIGINT) == 1 && sigismember(&mask, SIGTERM) == 1;
          char buffer[16];
          pthread_getname_np(pthread_self(), buffer, sizeof buffer);
          name = buffer;
        },
        [](const char*) {});
    ASSERT_TRUE(thread.has_value());
  }
  EXPECT_TRUE(is_blocked);
  EXPECT_EQ(name, "terrace-io");
  sigset_t mine;
  pthread_sigmask(SIG_SETMASK, nullptr, &mine);
  EXPECT_EQ(sigismember(&mine, SIGINT), 0);
}

TEST(ThreadTest, BreachIsReportedAndDoesNotEndTheProcess) {
  std::string message;
  {
    auto thread = start_thread(
        "breach", [](const std::stop_token&) { TERRACE_CHECK(1 + 1 == 3); },
        [&](const char* text) { message = text; });
    ASSERT_TRUE(thread.has_value());
  }
  EXPECT_NE(message.find("1 + 1 == 3"), std::string::npos);
}

}  // namespace
}  // namespace terrace
