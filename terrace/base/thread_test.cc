#include "terrace/base/thread.h"

#include <gtest/gtest.h>
#include <pthread.h>
#include <signal.h>

#include <atomic>
#include <memory>
#include <new>
#include <string>
#include <vector>

#include "terrace/base/check.h"
#include "terrace/testing/eventually.h"
#include "terrace/testing/left_thread.h"

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

TEST(ThreadTest, ABreachThatCannotBeReportedDoesNotEndTheProcess) {
  bool is_called = false;
  {
    auto thread = start_thread(
        "breach", [](const std::stop_token&) { throw std::bad_alloc(); },
        [&](const char*) {
          is_called = true;
          throw std::bad_alloc();
        });
    ASSERT_TRUE(thread.has_value());
  }
  EXPECT_TRUE(is_called);
}

TEST(CrewTest, EachPartIsDoneOnceByItsOwnThread) {
  for (const std::size_t size : {1U, 2U, 5U}) {
    const Crew crew = thread_crew("crew", size);
    std::vector<int> done(crew.size, 0);
    std::vector<pthread_t> threads(crew.size);
    for (int round = 0; round < 3; ++round) {
      crew.run([&](std::size_t number) {
        ++done[number];
        threads[number] = pthread_self();
      });
    }
    EXPECT_EQ(done, std::vector<int>(size, 3));
    EXPECT_EQ(threads[0], pthread_self());
    for (std::size_t i = 1; i < size; ++i) EXPECT_NE(threads[i], pthread_self());
  }
}

TEST(CrewTest, ABreachInAPartComesOutOfRunAfterTheOthers) {
  const Crew crew = thread_crew("crew", 3);
  std::vector<int> done(3, 0);
  EXPECT_THROW(crew.run([&](std::size_t number) {
    TERRACE_CHECK(number != 1);
    done[number] = 1;
  }),
               base::Breach);
  EXPECT_EQ(done, (std::vector<int>{1, 0, 1}));
}

TEST(CrewTest, WithoutThreadsThePartsAreDoneInTurn) {
  Crew crew;
  crew.size = 3;
  std::vector<std::size_t> done;
  crew.run([&](std::size_t number) { done.push_back(number); });
  EXPECT_EQ(done, (std::vector<std::size_t>{0, 1, 2}));
}

TEST(ThreadHandsTest, DoesAllThatIsPostedUrgentOnesFirst) {
  std::vector<int> order;
  Mutex mutex;
  CondVar condition;
  bool is_open = false;
  const auto add = [&](int number) {
    return [&, number] {
      const MutexLock lock(mutex);
      order.push_back(number);
      condition.notify_all();
    };
  };
  auto hands = thread_hands("terrace-crypt", 1, [](const char*) {});
  ASSERT_TRUE(hands.has_value());
  // Holds the one thread until all have been posted.
  (*hands)->post(
      [&] {
        const MutexLock lock(mutex);
        while (!is_open) (void)condition.wait_for(mutex, seconds(1));
      },
      true);
  for (const int number : {1, 2}) (*hands)->post(add(number), false);
  for (const int number : {3, 4}) (*hands)->post(add(number), true);
  const MutexLock lock(mutex);
  is_open = true;
  condition.notify_all();
  while (order.size() < 4) (void)condition.wait_for(mutex, seconds(1));
  EXPECT_EQ(order, (std::vector<int>{3, 4, 1, 2}));
}

TEST(ThreadHandsTest, EndsWithWhatNobodyHasBegun) {
  Mutex mutex;
  CondVar condition;
  bool has_begun = false;
  bool is_open = false;
  int done = 0;
  {
    auto hands = thread_hands("terrace-crypt", 1, [](const char*) {});
    ASSERT_TRUE(hands.has_value());
    (*hands)->post(
        [&] {
          const MutexLock lock(mutex);
          has_begun = true;
          condition.notify_all();
          while (!is_open) (void)condition.wait_for(mutex, seconds(1));
          ++done;
        },
        false);
    const MutexLock lock(mutex);
    while (!has_begun) (void)condition.wait_for(mutex, seconds(1));
    is_open = true;
    condition.notify_all();
  }
  EXPECT_EQ(done, 1);
}

TEST(LoneHandTest, DoesWhatIsPostedOneAfterTheOther) {
  std::vector<int> order;
  std::atomic<bool> is_done{false};
  {
    auto hand = lone_hand("terrace-lone");
    ASSERT_TRUE(hand.has_value());
    for (const int number : {1, 2, 3}) {
      (*hand)->post([&, number] { order.push_back(number); }, false);
    }
    (*hand)->post([&] { is_done = true; }, false);
    EXPECT_TRUE(testing::eventually([&] { return is_done.load(); }));
  }
  EXPECT_EQ(order, (std::vector<int>{1, 2, 3}));
  EXPECT_FALSE(testing::has_thread("terrace-lone")) << "one that is idle is waited for";
}

// As in a call of the system that does not come back.
TEST(LoneHandTest, AJobThatHangsIsNotWaitedForAndFreesWhatItHasWhenItEnds) {
  struct Facts {
    std::atomic<bool> is_held{true};
    std::atomic<bool> is_begun{false};
  };
  auto facts = std::make_shared<Facts>();
  const std::weak_ptr<Facts> left = facts;
  auto undone = std::make_shared<int>(0);
  const std::weak_ptr<int> never = undone;
  {
    auto hand = lone_hand("terrace-lone");
    ASSERT_TRUE(hand.has_value());
    (*hand)->post(
        [facts] {
          facts->is_begun = true;
          (void)testing::eventually([&] { return !facts->is_held; });
        },
        false);
    (*hand)->post([undone = std::move(undone)] { ++*undone; }, false);
    ASSERT_TRUE(testing::eventually([&] { return facts->is_begun.load(); }));
  }
  EXPECT_TRUE(testing::has_thread("terrace-lone"));
  EXPECT_TRUE(never.expired()) << "what was not begun is not done";
  const auto soil = testing::soil_freed_memory();
  facts->is_held = false;
  facts.reset();
  EXPECT_TRUE(testing::eventually([] { return !testing::has_thread("terrace-lone"); }));
  EXPECT_TRUE(left.expired());
}

}  // namespace
}  // namespace terrace
