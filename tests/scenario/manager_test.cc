// The owner with real workers, sockets, shared memory and disk files (manager_rig.h).
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <new>
#include <thread>

#include "scenario/manager_rig.h"
#include "terrace/attach/attach_server.h"
#include "terrace/attach/claim.h"

namespace terrace::scenario {
namespace {

using manager::MissReason;

constexpr auto kHost = static_cast<std::size_t>(Tier::kHost);
constexpr auto kDisk = static_cast<std::size_t>(Tier::kDisk);

TEST(ManagerScenario, ColdThenHitGivesEqualBytes) {
  const Scratch scratch;
  Engine engine(scratch, {.ranks = 2});
  ASSERT_TRUE(engine.wait_ready());
  const auto tokens = Engine::make_tokens(6, 1);
  const Outcome cold = engine.run(tokens);
  EXPECT_EQ(cold.loaded, 0U);
  EXPECT_EQ(cold.ledger.first_miss, MissReason::kNeverStored);
  const Outcome warm = engine.run(tokens);
  EXPECT_EQ(warm.loaded, 6U);
  EXPECT_TRUE(warm.is_right);
  EXPECT_EQ(warm.ledger.hit[kHost], Tokens(48));
  EXPECT_EQ(engine.run(tokens, "another salt").loaded, 0U);
}

TEST(ManagerScenario, TheFirstRequestAfterARestartHitsFromDisk) {
  const Scratch scratch;
  const EngineOptions options{.disk_path = scratch.path() + "/d"};
  const auto tokens = Engine::make_tokens(6, 1);
  {
    Engine engine(scratch, options);
    ASSERT_TRUE(engine.wait_ready());
    EXPECT_EQ(engine.run(tokens).loaded, 0U);
    ASSERT_TRUE(engine.wait_on_disk(7));
    engine.kill();
  }
  Engine engine(scratch, options);
  const Outcome outcome = engine.run(tokens);  // At once: it waits for the owner to open.
  EXPECT_EQ(outcome.loaded, 6U);
  EXPECT_TRUE(outcome.is_right);
  EXPECT_EQ(outcome.ledger.hit[kDisk], Tokens(48));
  EXPECT_EQ(engine.run(tokens).ledger.hit[kHost], Tokens(48));
}

TEST(ManagerScenario, WhatEvictionLearnedOutlivesAnOrderlyRestart) {
  const Scratch scratch;
  EngineOptions options{.disk_path = scratch.path() + "/d"};
  options.tune = [](manager::Options& of) { of.host.eviction = of.disk.eviction = "hazard"; };
  const auto run = [&](std::uint32_t seed) {
    Engine engine(scratch, options);
    EXPECT_TRUE(engine.wait_ready());
    engine.run(Engine::make_tokens(4, seed));
    EXPECT_TRUE(engine.wait_on_disk(5));
    engine.stop();
    return engine.logged();
  };
  EXPECT_THAT(run(1), ::testing::Not(::testing::HasSubstr("event=learned_found")));
  EXPECT_THAT(run(1), ::testing::HasSubstr("event=learned_found"));
}

TEST(ManagerScenario, AnotherModelOrTenantNeverSeesTheBlocks) {
  const Scratch scratch;
  EngineOptions options{.disk_path = scratch.path() + "/d"};
  const auto tokens = Engine::make_tokens(4, 1);
  {
    Engine engine(scratch, options);
    ASSERT_TRUE(engine.wait_ready());
    engine.run(tokens);
    ASSERT_TRUE(engine.wait_on_disk(5));
  }
  options.tune = [](manager::Options& other) { other.fingerprint.content[0].value = "another"; };
  {
    Engine engine(scratch, options);
    EXPECT_EQ(engine.run(tokens).loaded, 0U);
  }
  options.tune = {};
  Engine engine(scratch, options);
  EXPECT_EQ(engine.run(tokens).loaded, 4U);
}

// Flips one byte in the middle of every file of slots.
void damage_slot_files(const std::string& path) {
  for (const auto& entry : std::filesystem::recursive_directory_iterator(path)) {
    if (!entry.is_regular_file() || !entry.path().string().ends_with(".slots")) continue;
    std::fstream file(entry.path(), std::ios::in | std::ios::out | std::ios::binary);
    const auto size = static_cast<std::streamoff>(std::filesystem::file_size(entry.path()));
    for (std::streamoff at = 4096 + 100; at < size; at += 4096) {
      file.seekg(at);
      const auto byte = static_cast<char>(file.get() ^ 0x10);
      file.seekp(at);
      file.put(byte);
    }
  }
}

// Flips a byte in every page of every shared-memory file of this process.
void damage_host_memory() {
  for (const auto& entry : std::filesystem::directory_iterator("/proc/self/fd")) {
    std::error_code ignored;
    const std::string target = std::filesystem::read_symlink(entry.path(), ignored).string();
    if (!target.starts_with("/memfd:")) continue;
    const int fd = std::stoi(entry.path().filename().string());
    const auto size = static_cast<std::int64_t>(::lseek(fd, 0, SEEK_END));
    for (std::int64_t at = 100; at < size; at += 4096) {
      char byte = 0;
      if (::pread(fd, &byte, 1, at) != 1) continue;
      byte = static_cast<char>(byte ^ 4);
      if (::pwrite(fd, &byte, 1, at) != 1) continue;
    }
  }
}

TEST(ManagerScenario, FlippedBytesOnDiskAreAMissACounterAndTheRightAnswer) {
  const Scratch scratch;
  const EngineOptions options{.disk_path = scratch.path() + "/d"};
  const auto tokens = Engine::make_tokens(4, 1);
  {
    Engine engine(scratch, options);
    ASSERT_TRUE(engine.wait_ready());
    engine.run(tokens);
    ASSERT_TRUE(engine.wait_on_disk(5));
  }
  damage_slot_files(options.disk_path);
  Engine engine(scratch, options);
  const Outcome outcome = engine.run(tokens);
  EXPECT_EQ(outcome.loaded, 0U);
  EXPECT_TRUE(outcome.is_right);
  EXPECT_EQ(outcome.ledger.first_miss, MissReason::kCorrupt);
  EXPECT_GE(engine.manager().status().corrupt_blocks[kDisk], 1U);
  EXPECT_EQ(engine.run(tokens).loaded, 4U);  // Computed and stored again.
}

TEST(ManagerScenario, ALateDiskIsAnsweredAtTheDeadlineWithWhatIsThere) {
  const Scratch scratch;
  Engine engine(scratch, {.host_blocks = 32,
                          .disk_path = scratch.path() + "/d",
                          .tune = [](manager::Options& options) {
                            options.lookup_deadline = milliseconds(50);
                          }});
  ASSERT_TRUE(engine.wait_ready());
  const auto tokens = Engine::make_tokens(6, 1);
  for (std::uint32_t i = 1; i <= 5; ++i) {
    engine.run(Engine::make_tokens(6, i));
    ASSERT_TRUE(engine.wait_on_disk(1 + 6 * i));
  }
  engine.run(Engine::make_tokens(4, 6));  // Two blocks of the first chain leave host: the deepest.
  engine.in_io_thread([&] { engine.fault()->hold(true); });
  const Outcome late = engine.run(tokens);
  EXPECT_LT(late.loaded, 6U);
  EXPECT_GT(late.loaded, 0U);
  EXPECT_TRUE(late.is_right);
  EXPECT_EQ(late.ledger.first_miss, MissReason::kLate);
  engine.in_io_thread([&] { engine.fault()->hold(false); });
}

TEST(ManagerScenario, AFailingDiskIsAMiss) {
  const Scratch scratch;
  const EngineOptions options{.disk_path = scratch.path() + "/d"};
  const auto tokens = Engine::make_tokens(4, 1);
  {
    Engine engine(scratch, options);
    ASSERT_TRUE(engine.wait_ready());
    engine.run(tokens);
    ASSERT_TRUE(engine.wait_on_disk(5));
  }
  Engine engine(scratch, options);
  ASSERT_TRUE(engine.wait_ready());
  engine.in_io_thread(
      [&] { engine.fault()->aim(transfer::Fault::kError, transfer::IoOp::kRead, 1000); });
  const Outcome outcome = engine.run(tokens);
  EXPECT_EQ(outcome.loaded, 0U);
  EXPECT_TRUE(outcome.is_right);
}

TEST(ManagerScenario, WithoutAUsableDiskItServesFromHostAndSaysSo) {
  const Scratch scratch;
  const std::string path = scratch.path() + "/d";
  std::ofstream(path) << "a file where a directory should be";
  Engine engine(scratch, {.disk_path = path});
  ASSERT_TRUE(engine.wait_ready());
  const auto tokens = Engine::make_tokens(4, 1);
  engine.run(tokens);
  EXPECT_EQ(engine.run(tokens).loaded, 4U);
  EXPECT_FALSE(engine.manager().status().is_healthy);
}

// A file replaced between the engine's loading and our digest would put blocks of one model's under
// the other's name, for every later start.
TEST(ManagerScenario, WeightsThatChangedAfterTheStartKeepEverythingFromDisk) {
  const Scratch scratch;
  const std::string model = scratch.path() + "/model";
  std::filesystem::create_directories(model);
  std::ofstream(model + "/model.safetensors", std::ios::binary)
      << std::string("\x02\0\0\0\0\0\0\0{}", 10);
  const SystemClock clock;
  Nanoseconds loaded_from;
  EngineOptions options{.disk_path = scratch.path() + "/d", .tune = [&](manager::Options& made) {
                          made.model_directory = model;
                          made.weights_loaded_from = loaded_from;
                        }};
  const auto tokens = Engine::make_tokens(4, 1);
  loaded_from = seconds(clock.wall_seconds() - 10);
  {
    Engine engine(scratch, options);
    ASSERT_TRUE(engine.wait_ready());
    engine.run(tokens);
    EXPECT_EQ(engine.run(tokens).loaded, 4U);
    const auto status = engine.manager().status();
    EXPECT_FALSE(status.is_healthy);
    ASSERT_FALSE(status.problems.empty());
    EXPECT_THAT(status.problems[0], ::testing::HasSubstr(model));
    EXPECT_THAT(status.problems[0], ::testing::HasSubstr("start the engine again"));
    EXPECT_FALSE(std::filesystem::exists(options.disk_path));
  }
  loaded_from = seconds(clock.wall_seconds() + 10);  // The restart.
  {
    Engine engine(scratch, options);
    ASSERT_TRUE(engine.wait_ready());
    engine.run(tokens);
    ASSERT_TRUE(engine.wait_on_disk(5));
  }
  Engine engine(scratch, options);
  EXPECT_EQ(engine.run(tokens).loaded, 4U);
}

TEST(ManagerScenario, ADirectoryRemovedWhileRunningNeverStopsTheEngine) {
  const Scratch scratch;
  const std::string path = scratch.path() + "/d";
  Engine engine(scratch, {.host_blocks = 16, .disk_path = path});
  ASSERT_TRUE(engine.wait_ready());
  engine.run(Engine::make_tokens(6, 1));
  std::filesystem::remove_all(path);
  for (std::uint32_t i = 2; i < 6; ++i) {
    EXPECT_TRUE(engine.run(Engine::make_tokens(8, i)).is_right);
    EXPECT_TRUE(engine.run(Engine::make_tokens(6, 1)).is_right);
  }
}

TEST(ManagerScenario, ACorruptedHostByteIsReportedAndRecomputed) {
  const Scratch scratch;
  Engine engine(scratch, {});
  ASSERT_TRUE(engine.wait_ready());
  const auto tokens = Engine::make_tokens(3, 1);
  engine.run(tokens);
  damage_host_memory();
  const Outcome outcome = engine.run(tokens);
  EXPECT_EQ(outcome.failed.size(), 3U);
  EXPECT_TRUE(outcome.is_right);
  EXPECT_EQ(outcome.ledger.failed, Tokens(24));
  EXPECT_EQ(outcome.ledger.hit[kHost], Tokens(0));
  ASSERT_TRUE(wait_until([&] { return engine.manager().status().corrupt_blocks[kHost] == 3; }));
  engine.run(tokens);
  const Outcome again = engine.run(tokens);
  EXPECT_EQ(again.loaded, 3U);
  EXPECT_TRUE(again.is_right);
}

TEST(ManagerScenario, OneRankGoneMeansNoHitsUntilItIsBack) {
  const Scratch scratch;
  Engine engine(scratch, {.ranks = 2, .tune = [](manager::Options& options) {
                            options.attach_lookup_wait = milliseconds(20);
                          }});
  ASSERT_TRUE(engine.wait_ready());
  const auto tokens = Engine::make_tokens(4, 1);
  engine.run(tokens);
  ASSERT_EQ(engine.run(tokens).loaded, 4U);
  engine.close_worker(1);
  ASSERT_TRUE(wait_until([&] { return !engine.manager().status().is_ready; }));
  EXPECT_EQ(engine.run(tokens).loaded, 0U);
  engine.open_worker(1);
  ASSERT_TRUE(engine.wait_ready());
  const Outcome again = engine.run(tokens);
  EXPECT_EQ(again.loaded, 4U);
  EXPECT_TRUE(again.is_right);
}

// Nobody hears of a rank's end any more: no promise is kept, so none is given.
TEST(ManagerScenario, WithoutItsAttachThreadTheOwnerMissesAndHealthIsRed) {
  const Scratch scratch;
  Engine engine(scratch, {});
  ASSERT_TRUE(engine.wait_ready());
  const auto tokens = Engine::make_tokens(4, 1);
  engine.run(tokens);
  ASSERT_EQ(engine.run(tokens).loaded, 4U);
  EXPECT_TRUE(wait_until([&] { return problems_told(engine.manager()) == 0; }));
  base::set_sync_point("attach.server.turn", [] { throw std::bad_alloc(); });
  const auto path = attach::socket_path(scratch.path() + "/s", "engine");
  const auto stranger = attach::connect_to(path.value());  // Wakes the thread.
  EXPECT_TRUE(stranger.has_value());
  ASSERT_TRUE(wait_until([&] { return engine.manager().status().is_poisoned; }));
  base::set_sync_point("attach.server.turn", {});
  ASSERT_TRUE(wait_until([&] { return !engine.manager().status().attachments[0].is_attached; }));
  const auto status = engine.manager().status();
  EXPECT_FALSE(status.is_healthy);
  EXPECT_FALSE(status.is_ready);
  EXPECT_THAT(status.problems, ::testing::Contains(::testing::HasSubstr("attach: the thread")));
  const auto problems = static_cast<double>(status.problems.size());
  EXPECT_TRUE(wait_until([&] { return problems_told(engine.manager()) == problems; }));
  EXPECT_THAT(engine.logged(), ::testing::HasSubstr("event=poisoned reason=\"attach:"));
  const Outcome after = engine.run(tokens);
  EXPECT_EQ(after.loaded, 0U);
  EXPECT_TRUE(after.failed.empty());
  EXPECT_TRUE(after.is_right);
}

TEST(ManagerScenario, CutAndForeignReportsAreRefusedAndNothingBecomesVisible) {
  const Scratch scratch;
  Engine engine(scratch, {});
  ASSERT_TRUE(engine.wait_ready());
  const auto tokens = Engine::make_tokens(2, 1);
  const auto hashes = Engine::hash(tokens);
  const RequestId id = engine.begin(tokens);
  ASSERT_EQ(engine.look_up(id), 0U);
  const std::vector<std::uint32_t> table = {1, 2};
  engine.compute(hashes[0], 1);
  engine.compute(hashes[1], 2);
  engine.advance(id, 2, table);
  const std::string orders = engine.manager().build_orders().value();
  ASSERT_TRUE(engine.worker(0).run_saves(std::as_bytes(std::span(orders))).is_ok());
  const std::string report = engine.worker(0).build_report();
  for (std::size_t cut = 0; cut < report.size(); cut += 7) {
    EXPECT_FALSE(
        engine.manager().take_report(std::as_bytes(std::span(report)).first(cut)).is_ok() &&
        cut > 0);
  }
  std::string damaged = report;
  damaged[20] = static_cast<char>(damaged[20] ^ 1);
  EXPECT_FALSE(engine.manager().take_report(std::as_bytes(std::span(damaged))).is_ok());
  EXPECT_EQ(engine.look_up(engine.begin(tokens)), 0U);
  EXPECT_TRUE(engine.manager().take_report(std::as_bytes(std::span(report))).is_ok());
  EXPECT_EQ(engine.look_up(engine.begin(tokens)), 2U);
  EXPECT_FALSE(engine.manager().take_report(std::as_bytes(std::span(report))).is_ok());
}

TEST(ManagerScenario, TokensBeyondTheLimitOfARequestEndItsChainAndNothingElse) {
  const Scratch scratch;
  Engine engine(scratch, {.tune = [](manager::Options& options) {
                  options.max_request_tokens = Tokens(3 * Engine::kBlockTokens);
                }});
  ASSERT_TRUE(engine.wait_ready());
  auto tokens = Engine::make_tokens(2, 1);
  const RequestId id = engine.begin(tokens);
  ASSERT_EQ(engine.look_up(id), 0U);
  const auto more = Engine::make_tokens(2, 2);
  const std::vector<std::uint32_t> table = {1, 2, 3};
  manager::Progress progress;
  progress.request = id;
  progress.computed = Tokens(tokens.size());
  progress.new_tokens = more;
  progress.block_tables = {table};
  const Status refused = engine.manager().advance_request(progress);
  EXPECT_EQ(refused.code(), Code::kInvalid);
  EXPECT_NE(refused.message().find("at most 24 in all"), std::string::npos) << refused.message();
  // Fewer would fit, but those before them are missing: they would be of another sequence.
  progress.new_tokens = std::span(more).last(Engine::kBlockTokens);
  progress.computed = Tokens(3 * Engine::kBlockTokens);
  EXPECT_EQ(engine.manager().advance_request(progress).code(), Code::kInvalid);
  engine.step();
  tokens.insert(tokens.end(), more.end() - Engine::kBlockTokens, more.end());
  EXPECT_EQ(engine.look_up(engine.begin(tokens)), 0U);
  EXPECT_TRUE(engine.manager().end_request(id).has_value());
  const auto long_tokens = Engine::make_tokens(4, 3);
  EXPECT_FALSE(engine.manager().begin_request({.tokens = long_tokens, .extra_keys = {}}));
  const auto others = Engine::make_tokens(3, 4);
  engine.run(others);
  EXPECT_EQ(engine.run(others).loaded, 3U);
  EXPECT_TRUE(engine.manager().status().is_healthy);
}

TEST(ManagerScenario, CloseFlushesWhatIsQueuedForDisk) {
  const Scratch scratch;
  const EngineOptions options{
      .host_blocks = 64, .device_blocks = 64, .disk_path = scratch.path() + "/d"};
  const auto tokens = Engine::make_tokens(16, 1);
  {
    Engine engine(scratch, options);
    ASSERT_TRUE(engine.wait_ready());
    engine.run(tokens);
    engine.stop();
  }
  Engine engine(scratch, options);
  EXPECT_EQ(engine.run(tokens).loaded, 16U);
}

TEST(ManagerScenario, CloseEndsByItsDeadlineAlthoughTheDiskHangs) {
  const Scratch scratch;
  Engine engine(scratch, {.disk_path = scratch.path() + "/d"});
  ASSERT_TRUE(engine.wait_ready());
  engine.in_io_thread([&] { engine.fault()->hold(true); });
  engine.run(Engine::make_tokens(8, 1));
  engine.manager().close(milliseconds(30));
  engine.manager().close(milliseconds(30));  // Again: nothing happens.
  EXPECT_FALSE(engine.manager().begin_request({}).has_value());
}

TEST(ManagerScenario, ASwitchFromAnotherThreadActsOnTheNextRequestAndIsSaid) {
  const Scratch scratch;
  Engine engine(scratch, {.disk_path = scratch.path() + "/d"});
  ASSERT_TRUE(engine.wait_ready());
  const auto tokens = Engine::make_tokens(6, 1);
  engine.run(tokens);
  ASSERT_TRUE(engine.wait_on_disk(7));
  const auto switch_to = [&](manager::Mode mode) {
    std::jthread([&] { (void)engine.manager().set_mode(mode, "\"process 1, user 2\""); }).join();
  };
  switch_to(manager::Mode::kPaused);
  const Outcome paused = engine.run(tokens);
  EXPECT_EQ(paused.loaded, 0U);
  EXPECT_EQ(paused.ledger.first_miss, MissReason::kPaused);
  EXPECT_EQ(engine.manager().status().mode, manager::Mode::kPaused);
  EXPECT_TRUE(engine.manager().status().is_healthy);
  switch_to(manager::Mode::kReadOnly);
  EXPECT_EQ(engine.run(tokens).loaded, 6U);
  const auto fresh = Engine::make_tokens(6, 2);
  EXPECT_EQ(engine.run(fresh).loaded, 0U);
  EXPECT_EQ(engine.run(fresh).loaded, 0U);
  switch_to(manager::Mode::kOn);
  EXPECT_EQ(engine.run(fresh).loaded, 0U);
  EXPECT_EQ(engine.run(fresh).loaded, 6U);
  EXPECT_TRUE(engine.wait_on_disk(13));
  const std::string log = engine.logged();
  EXPECT_THAT(log, ::testing::HasSubstr("event=mode mode=paused by=\"process 1, user 2\""));
  EXPECT_THAT(log, ::testing::HasSubstr("event=mode mode=on by="));
}

TEST(ManagerScenario, WhoObservesIsToldWhenAStepThatOnlyComputesIsOver) {
  const Scratch scratch;
  Engine engine(
      scratch, {.ranks = 2, .tune = [](manager::Options& options) { options.observed.emplace(); }});
  ASSERT_TRUE(engine.wait_ready());
  for (std::uint32_t seed = 1; seed <= 3; ++seed) {
    EXPECT_EQ(engine.run(Engine::make_tokens(6, seed)).ledger.stages.computed_tokens, Tokens(48));
  }
  EXPECT_GT(engine.manager().status().prefill_tokens_per_second, 0);
}

TEST(ManagerScenario, DemotedBlocksComeBackFromDisk) {
  const Scratch scratch;
  Engine engine(scratch,
                {.host_blocks = 32,
                 .disk_path = scratch.path() + "/d",
                 .tune = [](manager::Options& options) { options.disk.is_demote = true; }});
  ASSERT_TRUE(engine.wait_ready());
  const auto tokens = Engine::make_tokens(1, 1);
  engine.run(tokens);
  EXPECT_EQ(engine.disk_blocks_stored(), 1U);  // The canary's.
  for (std::uint32_t i = 2; i < 40; ++i) {
    engine.run(Engine::make_tokens(1, i));
    // Two of 32 blocks are chosen to leave ahead of need, and written.
    EXPECT_TRUE(wait_until([&] {
      const auto status = engine.manager().status();
      const auto& slots = status.tiers[0].slots;
      const auto soon = slots[static_cast<std::size_t>(catalog::SlotState::kFree)] +
                        slots[static_cast<std::size_t>(catalog::SlotState::kEvicting)];
      return soon >= 2 && std::ranges::none_of(status.queues, [](const auto& queue) {
               return queue.name == "disk_write" && queue.waiting > 0;
             });
    })) << i;
  }
  const Outcome outcome = engine.run(tokens);
  EXPECT_EQ(outcome.ledger.hit[kDisk], Tokens(8))
      << (outcome.ledger.first_miss ? to_string(*outcome.ledger.first_miss) : "no miss") << ", "
      << engine.disk_blocks_stored() << " stored";
  EXPECT_TRUE(outcome.is_right);
}

}  // namespace
}  // namespace terrace::scenario
