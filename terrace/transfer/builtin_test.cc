#include "terrace/transfer/builtin.h"

#include <gtest/gtest.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstddef>
#include <functional>

namespace terrace::transfer {
namespace {

// What Docker's default profile does to io_uring, with the error it gives.
bool deny_io_uring(std::uint32_t error) {
  const sock_filter program[] = {
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, nr)),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_io_uring_setup, 0, 1),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | error),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
  };
  sock_fprog filter{4, const_cast<sock_filter*>(program)};
  return ::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 &&
         ::prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &filter) == 0;
}

// The exit code of `body` in a child process: filters cannot be taken off again.
int in_child(const std::function<int()>& body) {
  const pid_t child = ::fork();
  if (child == 0) ::_exit(body());
  int status = 0;
  ::waitpid(child, &status, 0);
  return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

TEST(BuiltinTest, AutoTakesThreadsWhereTheSandboxDeniesIoUringAndSaysWhy) {
  for (const int error : {EPERM, ENOSYS}) {
    const int code = in_child([error] {
      if (!deny_io_uring(static_cast<std::uint32_t>(error))) return 10;
      const auto chosen = make_backend("auto", {8, 2});
      if (!chosen) return 11;
      if (chosen->backend->name() != "threads") return 12;
      if (chosen->reason.find("io_uring is denied") == std::string::npos) return 13;
      const auto asked = make_backend("io_uring", {8, 2});
      return asked ? 14 : asked.error().code() == Code::kRefused ? 0 : 15;
    });
    EXPECT_EQ(code, 0) << error;
  }
}

TEST(BuiltinTest, AnUnknownBackendIsRefusedWithTheKnownOnes) {
  const auto chosen = make_backend("spdk", {});
  ASSERT_FALSE(chosen.has_value());
  EXPECT_EQ(chosen.error().code(), Code::kInvalid);
  EXPECT_NE(chosen.error().message().find("io_uring or threads"), std::string::npos);
}

TEST(BuiltinTest, TheLibraryThatIsNamedIsTheOneThatIsLoaded) {
  const auto chosen = make_backend("library", {.library = "/nowhere/x.so"});
  ASSERT_FALSE(chosen.has_value());
  EXPECT_NE(chosen.error().message().find("/nowhere/x.so"), std::string::npos);
}

}  // namespace
}  // namespace terrace::transfer
