// The manners of a guest in a foreign process: its signals, its descriptors, its children, its end
// and its other libraries are its own.
#include <dirent.h>
#include <fcntl.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>
#include <terrace/terrace.h>
#include <unistd.h>

#include <array>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <map>
#include <set>
#include <string>

#include "scenario/guest_options.h"
#include "terrace/testing/eventually.h"
#include "terrace/testing/scratch_directory.h"

namespace {
bool is_forked_child = false;
}  // namespace

// The threads that hold what is the parent's are not in its child, where all of it looks lost.
extern "C" [[gnu::visibility("default")]] int
__lsan_is_turned_off() {  // NOLINT(bugprone-reserved-identifier,readability-identifier-naming)
  return is_forked_child ? 1 : 0;
}

namespace {

using terrace::testing::eventually;

// An owner with all tiers and its rank, in this process.
class GuestTest : public testing::Test {
 protected:
  void open() {
    const terrace_owner_options options = guest_.options();
    ASSERT_EQ(terrace_open_owner(&options, &owner_), TERRACE_OK) << terrace_last_error();
    const terrace_region region = {sizeof region, 0, memory_.data(), guest::Guest::kBlockBytes,
                                   guest::Guest::kBlockBytes};
    const terrace_group_regions group = {sizeof group, 1, &region, 8, 0, 1};
    terrace_worker_options worker{};
    worker.struct_size = sizeof worker;
    worker.rank_count = 1;
    worker.block_tokens = guest::Guest::kBlockTokens;
    worker.group_count = 1;
    worker.groups = &group;
    worker.engine_id = guest::Guest::kEngine;
    worker.settings_json = guest_.settings();
    ASSERT_EQ(terrace_open_worker(&worker, &worker_), TERRACE_OK) << terrace_last_error();
    ASSERT_TRUE(eventually([&] { return status().find("\"attached\":true") != std::string::npos; }))
        << status();
  }
  void TearDown() override {
    terrace_close_worker(worker_, 5'000'000'000);
    terrace_close_owner(owner_, 5'000'000'000);
  }
  std::string status() {
    terrace_bytes text{};
    if (terrace_read_status(owner_, &text) != TERRACE_OK) return "";
    return {reinterpret_cast<const char*>(text.data), text.length};
  }

  const terrace::testing::ScratchDirectory scratch_;
  const guest::Guest guest_{scratch_.path()};
  alignas(64) std::array<std::uint8_t, 8 * guest::Guest::kBlockBytes> memory_{};
  terrace_owner* owner_ = nullptr;
  terrace_worker* worker_ = nullptr;
};

// A field of a status file in /proc.
std::string field(const std::filesystem::path& file, const std::string& name) {
  std::ifstream text(file);
  for (std::string line; std::getline(text, line);) {
    if (line.starts_with(name + ":"))
      return line.substr(line.find_first_not_of(" \t", name.size() + 1));
  }
  return "";
}

// Signals of a mask without the two that the C library keeps to itself for threads.
std::uint64_t signals(const std::string& mask) {
  constexpr std::uint64_t kOfTheLibrary = std::uint64_t{3} << 31U;
  return std::stoull(mask, nullptr, 16) & ~kOfTheLibrary;
}

std::map<std::string, std::string> our_threads(const std::string& name) {
  std::map<std::string, std::string> found;
  for (const auto& entry : std::filesystem::directory_iterator("/proc/self/task")) {
    const std::string thread = field(entry.path() / "status", "Name");
    if (thread.starts_with("terrace-")) found[thread] = field(entry.path() / "status", name);
  }
  return found;
}

std::set<int> descriptors() {
  std::set<int> found;
  for (const auto& entry : std::filesystem::directory_iterator("/proc/self/fd")) {
    found.insert(std::stoi(entry.path().filename()));
  }
  return found;
}

TEST_F(GuestTest, InstallsNoHandlerAndItsThreadsBlockEverySignal) {
  std::map<std::string, std::uint64_t> before;
  for (const char* name : {"SigCgt", "SigIgn", "SigBlk"}) {
    before[name] = signals(field("/proc/self/status", name));
  }
  open();
  for (const auto& [name, mask] : before) {
    EXPECT_EQ(signals(field("/proc/self/status", name)), mask) << name;
  }
  auto threads = our_threads("SigBlk");
  std::erase_if(threads, [](const auto& thread) { return thread.second.empty(); });  // Has ended.
  EXPECT_GE(threads.size(), 3U);
  for (const auto& [thread, mask] : threads) {
    constexpr std::uint64_t kCannotBe = 1ULL << (SIGKILL - 1) | 1ULL << (SIGSTOP - 1);
    EXPECT_EQ(signals(mask), signals("ffffffffffffffff") & ~kCannotBe) << thread;
  }
}

TEST_F(GuestTest, EveryDescriptorClosesInAProgramThatTheHostStarts) {
  const auto before = descriptors();
  open();
  std::size_t ours = 0;
  for (const int fd : descriptors()) {
    if (before.contains(fd)) continue;
    const int flags = ::fcntl(fd, F_GETFD);
    if (flags < 0) continue;  // The one that listed them.
    ++ours;
    EXPECT_NE(flags & FD_CLOEXEC, 0)
        << fd << " " << std::filesystem::read_symlink("/proc/self/fd/" + std::to_string(fd));
  }
  EXPECT_GE(ours, 5U);
}

TEST_F(GuestTest, ForkedChildGetsErrorsAndItsEndTouchesNothing) {
  open();
  const pid_t child = ::fork();
  ASSERT_GE(child, 0);
  if (child == 0) {
    is_forked_child = true;
    terrace_bytes bytes{};
    std::uint64_t number = 0;
    bool is_closed = terrace_read_status(owner_, &bytes) == TERRACE_CLOSED;
    is_closed &= terrace_build_orders(owner_, &bytes) == TERRACE_CLOSED;
    is_closed &= terrace_poll_request(owner_, 1, 0, 16, &number) == TERRACE_CLOSED;
    is_closed &= terrace_reset_owner(owner_) == TERRACE_CLOSED;
    is_closed &= terrace_build_report(worker_, &bytes) == TERRACE_CLOSED;
    terrace_close_worker(worker_, 1'000'000'000);
    terrace_close_owner(owner_, 1'000'000'000);
    std::exit(is_closed ? 0 : 1);  // With all exit hooks.
  }
  int code = -1;
  ASSERT_EQ(::waitpid(child, &code, 0), child);
  EXPECT_EQ(code, 0);
  EXPECT_NE(status().find("\"attached\":true"), std::string::npos);
  std::size_t sockets = 0;
  for (const auto& entry : std::filesystem::directory_iterator(scratch_.path() + "/attach")) {
    sockets += entry.is_socket() ? 1 : 0;
  }
  EXPECT_GE(sockets, 1U);
}

struct Ended {
  int status = -1;
  std::string output;
};

Ended run_host(const std::string& words) {
  Ended ended;
  FILE* const pipe =
      ::popen(("exec " TERRACE_GUEST_HOST " " TERRACE_LIBRARY_PATH " " + words).c_str(), "re");
  if (pipe == nullptr) return ended;
  std::array<char, 4096> part{};
  while (std::fgets(part.data(), part.size(), pipe) != nullptr) ended.output += part.data();
  ended.status = ::pclose(pipe);
  return ended;
}

TEST(GuestHostTest, AnotherLibrarysFunctionsOfTheSameNamesAreNotCalled) {
  const Ended alone = run_host("hash");
  const Ended beside = run_host("hash " TERRACE_FOREIGN_CRYPTO);
  EXPECT_EQ(alone.status, 0);
  EXPECT_EQ(alone.output.size(), 128U);
  EXPECT_EQ(beside.status, 0);
  EXPECT_EQ(beside.output, alone.output);
}

TEST(GuestHostTest, HostThatEndsWithoutClosingEnds) {
  for (const char* mode : {"exit ", "hurry "}) {
    const terrace::testing::ScratchDirectory scratch;
    const Ended ended = run_host(mode + scratch.path());
    EXPECT_EQ(ended.status, 0) << mode;
    EXPECT_EQ(ended.output, "leaving\n") << mode;
  }
}

}  // namespace
