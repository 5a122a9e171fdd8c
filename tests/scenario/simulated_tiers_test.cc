// The same requests through simulated tiers and through real ones: memory and files, threads, ranks
// that copy. What `terrace simulate` says has to be what an engine then gets.
#include <gtest/gtest.h>

#include <atomic>
#include <cstdint>
#include <string>
#include <vector>

#include "scenario/manager_rig.h"
#include "terrace/testing/property.h"
#include "terrace/trace/replay.h"
#include "terrace/trace/scenario.h"

namespace terrace::scenario {
namespace {

constexpr std::uint32_t kHostBlocks = 200;
constexpr std::uint32_t kDiskBlocks = 800;
constexpr std::uint32_t kDeviceBlocks = 1024;
constexpr double kMostApart = 1.5;  // Percent of all blocks asked for, in each tier and together.

struct Case {
  std::string name;
  std::string eviction = "lru";
  std::string admission = "all";
  std::uint32_t disk_blocks = kDiskBlocks;
};

// The system's clock, but between requests it jumps to the next one's time.
class JumpingClock final : public Clock {
 public:
  [[nodiscard]] Nanoseconds now() const override {
    return system_.now() + Nanoseconds(ahead_ns_.load());
  }
  [[nodiscard]] std::int64_t wall_seconds() const override { return system_.wall_seconds(); }
  // Never back.
  void jump_to(Nanoseconds time) { ahead_ns_ += std::max<std::int64_t>(0, (time - now()).value()); }

 private:
  const SystemClock system_;
  std::atomic<std::int64_t> ahead_ns_{0};
};

std::vector<std::uint32_t> tokens_of(const std::vector<std::uint32_t>& blocks) {
  std::vector<std::uint32_t> tokens;
  tokens.reserve(blocks.size() * Engine::kBlockTokens);
  for (const std::uint32_t block : blocks) {
    for (std::uint32_t i = 0; i < Engine::kBlockTokens; ++i) {
      tokens.push_back(block * static_cast<std::uint32_t>(Engine::kBlockTokens) + i);
    }
  }
  return tokens;
}

// A chat without those prompts that are too long for the device. Nothing is said of the answers, as
// a run here has none.
struct Chat {
  std::vector<trace::Request> requests;
  std::vector<std::vector<std::uint32_t>> prompts;  // Blocks of each.

  // As a replay wants it, with the requests' times as they are now.
  [[nodiscard]] trace::Workload workload() const {
    trace::Workload made;
    trace::Scope scope(made);
    for (std::size_t i = 0; i < requests.size(); ++i) {
      trace::Request request = requests[i];
      request.tip = scope.tip(std::vector<std::uint64_t>(prompts[i].begin(), prompts[i].end()));
      made.add_request(request);
    }
    return made;
  }
};

Chat make_chat(std::uint64_t seed) {
  const trace::Workload made =
      trace::make_chat({.seed = seed, .span = seconds(300), .conversations = 70});
  Chat chat;
  std::vector<std::uint32_t> blocks;
  for (trace::Request request : made.requests()) {
    made.chain(request, blocks);
    if (blocks.size() > kHostBlocks / 4) continue;
    request.answer_tokens = 0;
    request.ending = policy::Ending::kUnknown;
    chat.requests.push_back(request);
    chat.prompts.push_back(blocks);
  }
  return chat;
}

// Nothing is left to be written, nor, where the disk's filter chooses, to be chosen for it: a real
// engine is slower than this one.
bool settle(Engine& engine, bool is_chosen) {
  const auto is_idle = [&] {
    const auto queues = engine.manager().status().queues;
    return std::ranges::none_of(
        queues, [](const auto& one) { return one.name == "disk_write" && one.waiting > 0; });
  };
  if (!wait_until(is_idle)) return false;
  if (!is_chosen) return true;
  engine.in_io_thread([] {});
  return wait_until(is_idle);
}

class SimulatedTiers : public ::testing::TestWithParam<Case> {
 protected:
  void SetUp() override { std::filesystem::create_directories(scratch_.path() + "/disk"); }
  [[nodiscard]] EngineOptions options() const {
    return {.host_blocks = kHostBlocks,
            .device_blocks = kDeviceBlocks,
            .disk_path = GetParam().disk_blocks == 0 ? "" : scratch_.path() + "/disk",
            .disk_blocks = GetParam().disk_blocks,
            .tune =
                [](manager::Options& made) {
                  made.host.eviction = GetParam().eviction;
                  made.disk.eviction = GetParam().eviction;
                  made.disk.admission = GetParam().admission;
                },
            .clock = &clock_};
  }
  // Moves each request to when it really came.
  trace::Counts run_real(Chat& chat) {
    Engine* running = nullptr;
    EngineOptions given = options();
    given.pause = [&] {
      EXPECT_TRUE(running == nullptr || settle(*running, GetParam().admission != "all"));
    };
    Engine engine(scratch_, given);
    running = &engine;
    EXPECT_TRUE(engine.wait_ready());
    const Nanoseconds start = clock_.now();
    trace::Counts counts;
    for (std::size_t i = 0; i < chat.requests.size(); ++i) {
      clock_.jump_to(start + chat.requests[i].at);
      chat.requests[i].at = clock_.now();
      const Outcome outcome = engine.run(tokens_of(chat.prompts[i]));
      EXPECT_TRUE(outcome.is_right);
      given.pause();
      ++counts.requests;
      counts.blocks += chat.prompts[i].size();
      const auto hits = [&](Tier tier) {
        return outcome.ledger.hit[static_cast<std::size_t>(tier)].value() / Engine::kBlockTokens;
      };
      counts.host_hits += hits(Tier::kHost);
      counts.disk_hits += hits(Tier::kDisk);
    }
    return counts;
  }

  const Scratch scratch_;
  JumpingClock clock_;
};

TEST_P(SimulatedTiers, HitAsRealOnesDo) {
  const std::uint64_t seed = testing::property(7, 1).seed;
  SCOPED_TRACE(seed);
  Chat chat = make_chat(seed);
  const trace::Counts real = run_real(chat);
  auto replay = trace::Replay::create({.host_slots = kHostBlocks,
                                       .disk_slots = GetParam().disk_blocks,
                                       .eviction = GetParam().eviction,
                                       .admission = GetParam().admission,
                                       .step_tokens = 0});  // As Engine::run() does.
  ASSERT_TRUE(replay.has_value()) << replay.error().text();
  const trace::Counts simulated = replay->run(chat.workload());
  ASSERT_EQ(real.blocks, simulated.blocks);
  const auto percent = [&](std::uint64_t part) { return simulated.percent(part); };
  EXPECT_NEAR(percent(real.host_hits), percent(simulated.host_hits), kMostApart);
  EXPECT_NEAR(percent(real.disk_hits), percent(simulated.disk_hits), kMostApart);
  EXPECT_NEAR(percent(real.host_hits + real.disk_hits),
              percent(simulated.host_hits + simulated.disk_hits), kMostApart);
  // The tiers had to choose, and what they chose mattered.
  EXPECT_GT(percent(simulated.host_hits), 10);
  EXPECT_LT(percent(simulated.host_hits + simulated.disk_hits), 90);
}

INSTANTIATE_TEST_SUITE_P(
    Policies, SimulatedTiers,
    ::testing::Values(Case{.name = "lru"}, Case{.name = "host_alone", .disk_blocks = 0},
                      Case{.name = "hazard", .eviction = "hazard"},
                      Case{.name = "hazard_host_alone", .eviction = "hazard", .disk_blocks = 0},
                      Case{.name = "frequency", .admission = "frequency"},
                      Case{.name = "expected", .admission = "expected"},
                      Case{.name = "learned", .eviction = "hazard", .admission = "expected"}),
    [](const auto& one) { return one.param.name; });

}  // namespace
}  // namespace terrace::scenario
