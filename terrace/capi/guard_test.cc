#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>

#include <atomic>
#include <cstdio>
#include <memory>
#include <thread>

#include "terrace/capi/guard_internal.h"
#include "terrace/testing/eventually.h"

namespace terrace::capi {
namespace {

class Handle final : public ExitClosed {
 public:
  explicit Handle(std::atomic<int>& closes) : closes_(closes) {}
  void close_at_exit() noexcept override { ++closes_; }

 private:
  std::atomic<int>& closes_;
};

class ExitTest : public ::testing::Test {
 public:
  ~ExitTest() override {
    for (const char* point : {"capi.exit.waiting", "capi.registry.locked"}) {
      base::set_sync_point(point, {});
    }
  }

 protected:
  std::unique_ptr<Handle> open_handle() {
    auto handle = std::make_unique<Handle>(closes_);
    handle->watch_exit();
    return handle;
  }
  // The exit code of a forked child that runs `body`, or -1 where it does not end.
  template <typename Body>
  static int in_child(Body&& body) {
    std::fflush(nullptr);
    const pid_t child = ::fork();
    if (child == 0) ::_exit(body());
    int status = 0;
    if (testing::eventually([&] { return ::waitpid(child, &status, WNOHANG) == child; })) {
      return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
    }
    ::kill(child, SIGKILL);
    ::waitpid(child, &status, 0);
    return -1;
  }
  std::atomic<int> closes_{0};
};

TEST_F(ExitTest, ClosesWhatIsOpenOnce) {
  const auto handle = open_handle();
  close_all_at_exit();
  close_all_at_exit();
  EXPECT_EQ(closes_, 1);
}

TEST_F(ExitTest, KeepsOffAHandleThatIsBeingClosedAndWaitsForIt) {
  std::atomic<bool> is_waiting{false};
  std::atomic<bool> is_over{false};
  base::set_sync_point("capi.exit.waiting", [&] { is_waiting.store(true); });
  auto handle = open_handle();
  std::jthread exit;
  {
    const Closing closing(*handle);
    ASSERT_TRUE(closing.is_admitted());
    exit = std::jthread([&] {
      close_all_at_exit();
      is_over.store(true);
    });
    EXPECT_TRUE(testing::eventually([&] { return is_waiting.load() || is_over.load(); }));
    EXPECT_EQ(closes_, 0);
    handle.reset();
  }
  exit.join();
  EXPECT_EQ(closes_, 0);
}

TEST_F(ExitTest, LeavesNothingToCloseForAnybodyElse) {
  const auto handle = open_handle();
  close_all_at_exit();
  EXPECT_FALSE(Closing(*handle).is_admitted());
}

TEST_F(ExitTest, GetsAHandleBackWhoseCloseDidNotFreeIt) {
  const auto handle = open_handle();
  {
    const Closing closing(*handle);
  }
  close_all_at_exit();
  EXPECT_EQ(closes_, 1);
}

TEST_F(ExitTest, OfAForkedChildTakesNoLockOfItsParent) {
  std::atomic<bool> has_lock{false};
  std::atomic<bool> may_go_on{false};
  base::set_sync_point("capi.registry.locked", [&] {
    has_lock.store(true);
    EXPECT_TRUE(testing::eventually([&] { return may_go_on.load(); }));
  });
  std::jthread opener([&] { (void)open_handle(); });
  ASSERT_TRUE(testing::eventually([&] { return has_lock.load(); }));
  const int code = in_child([] {
    close_all_at_exit();
    return 0;
  });
  may_go_on.store(true);
  opener.join();
  EXPECT_EQ(code, 0);
}

TEST_F(ExitTest, OfAForkedChildClosesItsOwnHandlesOnly) {
  const auto parents = open_handle();
  EXPECT_EQ(in_child([&] {
              std::atomic<int> closes{0};
              Handle own(closes);
              own.watch_exit();
              close_all_at_exit();
              return closes * 16 + closes_;
            }),
            16);
}

}  // namespace
}  // namespace terrace::capi
