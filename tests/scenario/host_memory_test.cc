// Host memory that the system refuses, at the start and later: the engine goes on, every look-up is
// an honest miss, health is red, and the problem names host.size and the way out.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <fstream>

#include "scenario/manager_rig.h"

namespace terrace::scenario {
namespace {

using ::testing::Contains;
using ::testing::HasSubstr;
using ::testing::Not;

// Of this process, until the end of the test.
class Limit {
 public:
  Limit(__rlimit_resource resource, rlim_t value) : resource_(resource) {
    EXPECT_EQ(::getrlimit(resource_, &before_), 0);
    const rlimit lower{value, before_.rlim_max};
    EXPECT_EQ(::setrlimit(resource_, &lower), 0);
  }
  Limit(const Limit&) = delete;
  Limit& operator=(const Limit&) = delete;
  ~Limit() { ::setrlimit(resource_, &before_); }

 private:
  const __rlimit_resource resource_;
  rlimit before_{};
};

void write_file(const std::string& path, const std::string& text) {
  std::filesystem::create_directories(std::filesystem::path(path).parent_path());
  std::ofstream(path) << text;
}

// Requests are answered, at once and with nothing, and what a person should know is said once.
void expect_honest_misses(Engine& engine, const std::vector<std::string>& parts) {
  ASSERT_TRUE(wait_until([&] { return !engine.manager().status().is_healthy; }));
  const auto tokens = Engine::make_tokens(4, 1);
  for (int round = 0; round < 2; ++round) {
    const Outcome outcome = engine.run(tokens);
    EXPECT_EQ(outcome.loaded, 0U);
    EXPECT_TRUE(outcome.is_right);
    EXPECT_TRUE(outcome.failed.empty());
  }
  const auto status = engine.manager().status();
  EXPECT_FALSE(status.is_poisoned);
  const std::string log = engine.logged();
  for (const std::string& part : parts) {
    EXPECT_THAT(status.problems, Contains(HasSubstr(part)));
    EXPECT_THAT(log, HasSubstr(part));
  }
  EXPECT_THAT(log, HasSubstr("event=shut reason=\"host.size: "));
}

TEST(HostMemoryScenario, AFileLimitBelowTheHostTierIsMissedNotDiedOf) {
  const Scratch scratch;
  const Limit limit(RLIMIT_FSIZE, rlim_t{64} << 10U);
  Engine engine(scratch, {});
  expect_honest_misses(engine,
                       {"host.size: ", "raise RLIMIT_FSIZE (ulimit -f) or lower host.size"});
}

TEST(HostMemoryScenario, MoreThanTheMachineHasIsMissedNotDiedOf) {
  const Scratch scratch;
  const auto pages = static_cast<std::uint64_t>(::sysconf(_SC_PHYS_PAGES));
  Engine engine(scratch, {.host_blocks = pages});  // A block takes 12 KiB, a page 4.
  expect_honest_misses(engine, {"do not fit, MemAvailable of /proc/meminfo leaves"});
}

// The tiers below host are never opened then. Whoever asks is told so at once, and by a reset that
// what lies there was not dropped; nobody waits for an opening that will not come.
TEST(HostMemoryScenario, WithoutHostNothingBelowItIsSaidToBeOpening) {
  const Scratch scratch;
  const EngineOptions options{.disk_path = scratch.path() + "/disk"};
  {
    Engine engine(scratch, options);
    ASSERT_TRUE(engine.wait_ready());
    engine.run(Engine::make_tokens(4, 1));
    ASSERT_TRUE(engine.wait_on_disk(4));
  }
  const Limit limit(RLIMIT_FSIZE, rlim_t{64} << 10U);
  Engine engine(scratch, options);
  ASSERT_TRUE(wait_until([&] { return !engine.manager().status().is_healthy; }));
  const auto tier = [&](Tier wanted) {
    const auto status = engine.manager().status();
    return *std::ranges::find(status.tiers, wanted, &manager::TierStatus::tier);
  };
  EXPECT_TRUE(wait_until([&] { return tier(Tier::kDisk).state == manager::TierState::kFailed; }));
  EXPECT_THAT(tier(Tier::kDisk).detail, HasSubstr("the disk tier is not opened"));
  EXPECT_EQ(tier(Tier::kHost).state, manager::TierState::kFailed);
  EXPECT_THAT(tier(Tier::kHost).detail, HasSubstr("host.size: "));
  EXPECT_THAT(engine.logged(), HasSubstr("event=disk_off reason=\"nothing is served"));
  const Status status = engine.manager().reset(seconds(60));
  EXPECT_EQ(status.code(), Code::kUnavailable);
  EXPECT_THAT(status.message(), HasSubstr("would match after a restart"));
  EXPECT_THAT(status.message(), Not(HasSubstr("opening")));
}

struct Group {
  const char* name;
  std::vector<std::pair<std::string, std::string>> files;
  const char* limit;  // As it is named.
};

class GroupLimitScenario : public ::testing::TestWithParam<Group> {};

// As a container's memory limit: over it, the kernel would kill the engine, so this is no warning.
TEST_P(GroupLimitScenario, BelowHostSizeIsSeenAtTheStart) {
  const Scratch scratch;
  const std::string root = scratch.path() + "/root";
  for (const auto& [path, text] : GetParam().files) write_file(root + path, text);
  const auto tune = [&](manager::Options& options) {
    options.host.huge_pages = false;
    options.host.system_root = root;
  };
  {
    Engine engine(scratch, {.tune = tune});
    expect_honest_misses(engine, {std::string("root") + GetParam().limit + " leaves 100000 bytes",
                                  "lower host.size, or raise that limit"});
  }
  // Someone raised it.
  for (const auto& [path, text] : GetParam().files) {
    if (path == GetParam().limit) write_file(root + path, "100000000\n");
  }
  Engine engine(scratch, {.tune = tune});
  ASSERT_TRUE(engine.wait_ready());
  EXPECT_TRUE(engine.manager().status().is_healthy);
}

INSTANTIATE_TEST_SUITE_P(
    Versions, GroupLimitScenario,
    ::testing::Values(Group{"second",
                            {{"/proc/meminfo", "MemAvailable: 9000000 kB\n"},
                             {"/proc/self/cgroup", "0::/pod\n"},
                             {"/sys/fs/cgroup/pod/memory.max", "150000\n"},
                             {"/sys/fs/cgroup/pod/memory.current", "50000\n"}},
                            "/sys/fs/cgroup/pod/memory.max"},
                      Group{"private_namespace",
                            {{"/proc/meminfo", "MemAvailable: 9000000 kB\n"},
                             {"/proc/self/cgroup", "0::/\n"},
                             {"/sys/fs/cgroup/memory.max", "150000\n"},
                             {"/sys/fs/cgroup/memory.current", "50000\n"}},
                            "/sys/fs/cgroup/memory.max"},
                      Group{"first",
                            {{"/proc/meminfo", "MemAvailable: 9000000 kB\n"},
                             {"/proc/self/cgroup", "5:memory:/docker/abc\n"},
                             {"/sys/fs/cgroup/memory/memory.limit_in_bytes", "150000\n"},
                             {"/sys/fs/cgroup/memory/memory.usage_in_bytes", "50000\n"}},
                            "/sys/fs/cgroup/memory/memory.limit_in_bytes"}),
    [](const auto& of) { return std::string(of.param.name); });

}  // namespace
}  // namespace terrace::scenario
