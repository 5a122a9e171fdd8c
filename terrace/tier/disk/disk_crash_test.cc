// What a crash leaves. A machine crash is simulated: every write and sync is recorded, and for many
// moments the medium is rebuilt with what was synced by then and a random part of the rest, sector
// by sector. A process crash is a real kill -9.
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <deque>
#include <fstream>
#include <map>
#include <set>

#include "terrace/base/thread.h"
#include "terrace/tier/disk/disk_rig.h"
#include "terrace/transfer/backends/fault/recorder.h"

namespace terrace::tier::disk {
namespace {

constexpr std::size_t kNever = SIZE_MAX;

struct Life {  // Of one block; moments of the recorder.
  std::size_t begun = kNever;
  std::size_t acknowledged = kNever;
  std::size_t gone = kNever;       // Evicted or reset: need not be found from here on,
  std::size_t forbidden = kNever;  // and must not from here on (a durable reset).
};

class Workload {
 public:
  Workload(const Rig::Shape& shape, std::uint64_t seed) : shape_(shape), rng_(seed), rig_(shape) {}

  Rig& rig() { return rig_; }
  transfer::Recorder& recorder() { return recorder_; }
  [[nodiscard]] const std::map<std::uint64_t, Life>& lives() const { return lives_; }
  [[nodiscard]] const std::string& snapshot() const { return snapshot_.path(); }

  void open() {
    rig_.options().decorate = [this](std::unique_ptr<transfer::Backend> inner) {
      return std::make_unique<transfer::RecordingBackend>(std::move(inner), recorder_);
    };
    ASSERT_EQ(rig_.open().text(), Status().text());
    rig_.settle();
    std::filesystem::copy(rig_.path(), snapshot_.path(), std::filesystem::copy_options::recursive);
    start_ = recorder_.now();
  }

  // Keeps up to 8 writes under way; the first third of them without a reset, then now and then one.
  // What is acknowledged after one is served as long as the tier lives.
  void run(int writes, bool has_resets) {
    for (int i = 0; i < writes; ++i) {
      while (under_way_.size() >= 8) step();
      if (has_resets && i > writes / 3 && rng_.chance(8)) reset();
      write(next_number_++);
      if (rng_.chance(50)) step();
    }
    while (!under_way_.empty()) step();
    if (!was_reset_) return;
    for (const auto& [number, life] : lives_) {
      if (rig_.has(number)) {
        EXPECT_EQ(rig_.read(number).text(), Status().text()) << "block " << number;
      }
    }
    EXPECT_EQ(rig_.metric("terrace_disk_corrupt_blocks_total"), 0);
  }

  // Rebuilds the medium as it may be after a crash at `moment`, in `target`.
  void rebuild(std::size_t moment, unsigned percent, Rng& rng, const std::string& target) {
    std::filesystem::copy(snapshot_.path(), target, std::filesystem::copy_options::recursive);
    for (const auto& landed : recorder_.survivors(moment, rng, percent)) {
      if (landed.kind != transfer::Recorder::Kind::kWrite) continue;
      ASSERT_TRUE(landed.path.starts_with(rig_.path()));
      std::fstream file(target + landed.path.substr(rig_.path().size()),
                        std::ios::in | std::ios::out | std::ios::binary);
      ASSERT_TRUE(file.good()) << landed.path;
      file.seekp(static_cast<std::streamoff>(landed.offset));
      file.write(reinterpret_cast<const char*>(landed.bytes.data()),
                 static_cast<std::streamsize>(landed.bytes.size()));
    }
  }

  void crash_at(std::size_t moment, unsigned percent, Rng& rng) {
    Rig after(shape_);
    rebuild(moment, percent, rng, after.path());
    after.options().blocks = rig_.options().blocks;
    after.options().crypt = rig_.options().crypt;
    after.options().paths.clear();
    for (const std::string& path : rig_.options().paths) {
      after.options().paths.push_back(after.path() + path.substr(rig_.path().size()));
    }
    ASSERT_EQ(after.open().text(), Status().text());
    for (const auto& [number, life] : lives_) {
      const bool is_found = after.has(number);
      if (life.acknowledged <= moment && life.gone > moment) {
        EXPECT_TRUE(is_found) << "acknowledged block " << number << " is lost";
      }
      if (life.begun > moment || life.forbidden <= moment) {
        EXPECT_FALSE(is_found) << "block " << number << " must not be there";
      }
      if (is_found) {
        EXPECT_EQ(after.read(number).text(), Status().text()) << "block " << number;
      }
    }
    EXPECT_EQ(after.metric("terrace_disk_corrupt_blocks_total"), 0);
    // And life goes on.
    EXPECT_EQ(after.write(1'000'000).text(), Status().text());
    EXPECT_EQ(after.read(1'000'000).text(), Status().text());
  }

  void crash_often(int times) {
    for (int i = 0; i < times; ++i) {
      const std::size_t moment = start_ + rng_.below(recorder_.now() - start_ + 1);
      const unsigned percents[] = {0, 10, 50, 90, 100};
      const unsigned percent = percents[rng_.below(5)];
      SCOPED_TRACE("moment " + std::to_string(moment) + " percent " + std::to_string(percent));
      crash_at(moment, percent, rng_);
      if (::testing::Test::HasFailure()) return;
    }
  }

 private:
  void write(std::uint64_t number) {
    memory_.emplace(number, rig_.block(number));
    lives_[number].begun = recorder_.now() + 1;
    if (was_reset_) lives_[number].gone = lives_[number].forbidden = 0;  // Ends with the process.
    const Status status =
        rig_.tier().begin_write(number, GroupId(0), hash_of(number), number * 3,
                                memory_.at(number).shards(), memory_.at(number).checksums());
    for (const catalog::Eviction& eviction : rig_.tier().take_evicted()) {
      for (auto& [old, life] : lives_) {
        if (hash_of(old) == eviction.key.hash) life.gone = std::min(life.gone, recorder_.now());
      }
    }
    ASSERT_EQ(status.text(), Status().text());
    under_way_.insert(number);
  }

  void step() {
    std::vector<DiskDone> done;
    rig_.tier().wait(milliseconds(50));
    rig_.tier().poll(done);
    for (const DiskDone& item : done) {
      under_way_.erase(item.token);
      memory_.erase(item.token);
      if (item.status.is_ok()) lives_[item.token].acknowledged = recorder_.now();
    }
  }

  // With writes under way, which go on meanwhile.
  void reset() {
    rig_.tier().forget_all();
    was_reset_ = true;
    for (auto& [number, life] : lives_) {
      life.gone = std::min(life.gone, recorder_.now());
      EXPECT_FALSE(rig_.has(number)) << number;
    }
    std::vector<std::uint64_t> before;
    for (const auto& [number, life] : lives_) before.push_back(number);
    while (rig_.tier().is_drop_pending()) {
      if (under_way_.size() < 8) write(next_number_++);
      step();
    }
    for (const std::uint64_t number : before) {
      lives_[number].forbidden = std::min(lives_[number].forbidden, recorder_.now());
    }
  }

  Rig::Shape shape_;
  Rng rng_;
  transfer::Recorder recorder_;
  ScratchDirectory snapshot_;
  Rig rig_;
  std::map<std::uint64_t, Life> lives_;
  std::map<std::uint64_t, BlockMemory> memory_;
  std::set<std::uint64_t> under_way_;
  std::uint64_t next_number_ = 1;
  std::size_t start_ = 0;
  bool was_reset_ = false;
};

struct CrashCase {
  const char* name;
  std::uint16_t ranks;
  std::uint64_t payload_bytes;
  const char* backend;
  bool has_resets;
  int paths = 1;
  bool is_encrypted = false;
};

void PrintTo(const CrashCase& item, std::ostream* out) { *out << item.name; }

class DiskCrashTest : public ::testing::TestWithParam<CrashCase> {};

TEST_P(DiskCrashTest, WhatWasAcknowledgedIsFoundAndWhatIsFoundIsRight) {
  const std::uint64_t seed = random_u64();
  SCOPED_TRACE("seed " + std::to_string(seed));
  Workload workload({GetParam().ranks, {GetParam().payload_bytes}}, seed);
  workload.rig().options().backend = GetParam().backend;
  if (GetParam().paths == 2) {
    workload.rig().options().paths = {workload.rig().path() + "/a", workload.rig().path() + "/b"};
  }
  const auto hands = thread_hands("terrace-crypt", 2, [](const char*) {});
  if (GetParam().is_encrypted) {
    auto ring = std::make_shared<KeyRing>();
    ring->add(*parse_master_key(std::string(64, '7')));
    workload.rig().options().crypt = {std::move(ring), hands->get()};
  }
  workload.open();
  workload.run(60, GetParam().has_resets);
  workload.crash_often(60);
  workload.rig().close();  // Before the hands.
}

INSTANTIATE_TEST_SUITE_P(
    Cases, DiskCrashTest,
    ::testing::Values(CrashCase{"IoUring", 1, 8192, "io_uring", false},
                      CrashCase{"Threads", 1, 8192, "threads", false},
                      CrashCase{"TwoRanks", 2, 5000, "io_uring", false},
                      CrashCase{"TwoPaths", 1, 8192, "io_uring", false, 2},
                      CrashCase{"Encrypted", 2, 5000, "io_uring", false, 1, true},
                      CrashCase{"EncryptedOnTwoPathsWithResets", 1, 8192, "threads", true, 2, true},
                      CrashCase{"WithResets", 1, 4096, "io_uring", true},
                      CrashCase{"WithResetsByThreads", 2, 8192, "threads", true},
                      CrashCase{"WithResetsOnTwoPaths", 1, 8192, "io_uring", true, 2}),
    [](const auto& item) { return item.param.name; });

// Another namespace takes the space of an older one: a crash in the middle must leave neither with
// a block whose bytes are the other's.
TEST(DiskCrashNamespaceTest, ATakenExtentIsNeverReadAsTheOldNamespaces) {
  const std::uint64_t seed = random_u64();
  SCOPED_TRACE("seed " + std::to_string(seed));
  Rng rng(seed);
  Workload workload({1, {8192}}, seed);
  Rig& rig = workload.rig();
  ASSERT_TRUE(rig.open().is_ok());
  for (std::uint64_t n = 500; n < 516; ++n) ASSERT_TRUE(rig.write(n).is_ok());
  rig.close();
  rig.set_model("model-b");
  workload.open();
  workload.run(24, false);
  for (int i = 0; i < 60; ++i) {
    const std::size_t moment = rng.below(workload.recorder().now() + 1);
    SCOPED_TRACE("moment " + std::to_string(moment));
    Rig after({1, {8192}});
    workload.rebuild(moment, 50, rng, after.path());
    ASSERT_TRUE(after.open().is_ok());  // As model-a.
    for (std::uint64_t n = 500; n < 516; ++n) {
      if (after.has(n)) {
        ASSERT_EQ(after.read(n).text(), Status().text()) << n;
      }
    }
    for (std::uint64_t n = 1; n < 25; ++n) ASSERT_FALSE(after.has(n)) << n;
    EXPECT_EQ(after.metric("terrace_disk_corrupt_blocks_total"), 0);
    after.set_model("model-b");
    ASSERT_TRUE(after.reopen().is_ok());
    for (const auto& [number, life] : workload.lives()) {
      if (life.acknowledged <= moment && life.gone > moment) {
        ASSERT_TRUE(after.has(number));
      }
      if (after.has(number)) {
        ASSERT_EQ(after.read(number).text(), Status().text()) << number;
      }
    }
  }
}

// Writes for ever in a child; each acknowledged number goes to the parent through a pipe.
[[noreturn]] void write_until_killed(const DiskTier::Options& options, int pipe,
                                     std::uint64_t first) {
  const SystemClock clock;
  NullLog log;
  auto tier = DiskTier::open(options, clock, log);
  if (!tier) ::_exit(2);
  std::deque<std::pair<std::uint64_t, BlockMemory>> memory;
  std::vector<DiskDone> done;
  for (std::uint64_t n = first;; ++n) {
    while (memory.size() >= 6) {
      (*tier)->wait(milliseconds(50));
      done.clear();
      (*tier)->poll(done);
      for (const DiskDone& item : done) {
        if (item.status.is_ok() && ::write(pipe, &item.token, 8) != 8) ::_exit(3);
        std::erase_if(memory, [&](const auto& held) { return held.first == item.token; });
      }
    }
    memory.emplace_back(n, BlockMemory(1, 8192));
    memory.back().second.fill(n);
    if (!(*tier)
             ->begin_write(n, GroupId(0), hash_of(n), n * 3, memory.back().second.shards(),
                           memory.back().second.checksums())
             .is_ok()) {
      ::_exit(4);
    }
  }
}

TEST(DiskKillTest, AcknowledgedBlocksOutliveKillNine) {
  const std::uint64_t seed = random_u64();
  SCOPED_TRACE("seed " + std::to_string(seed));
  Rng rng(seed);
  Rig rig;
  rig.options().blocks = 4096;
  std::uint64_t next = 1;
  std::vector<std::uint64_t> acknowledged;
  for (int round = 0; round < 8; ++round) {
    int ends[2];
    ASSERT_EQ(::pipe(ends), 0);
    const pid_t child = ::fork();
    ASSERT_GE(child, 0);
    if (child == 0) {
      ::close(ends[0]);
      write_until_killed(rig.options(), ends[1], next);
    }
    ::close(ends[1]);
    std::uint64_t number = 0;
    const std::uint64_t enough = 1 + rng.below(40);
    std::uint64_t got = 0;
    while (got < enough && ::read(ends[0], &number, 8) == 8) {
      acknowledged.push_back(number);
      ++got;
    }
    EXPECT_EQ(got, enough);
    ::kill(child, SIGKILL);
    ::waitpid(child, nullptr, 0);
    while (::read(ends[0], &number, 8) == 8) acknowledged.push_back(number);
    ::close(ends[0]);
    next = acknowledged.back() + 100;
    ASSERT_EQ(rig.open().text(), Status().text());
    for (const std::uint64_t n : acknowledged) {
      ASSERT_TRUE(rig.has(n)) << n;
      ASSERT_EQ(rig.read(n).text(), Status().text());
    }
    for (std::uint64_t n = 1; n < next; ++n) {
      if (rig.has(n)) {
        ASSERT_EQ(rig.read(n).text(), Status().text());
      }
    }
    rig.close();
  }
}

// Acknowledges its reset through the pipe, then goes on writing.
[[noreturn]] void reset_until_killed(const DiskTier::Options& options, int pipe) {
  const SystemClock clock;
  NullLog log;
  auto tier = DiskTier::open(options, clock, log);
  if (!tier) ::_exit(2);
  std::vector<DiskDone> done;
  const auto write = [&](std::uint64_t n) {
    BlockMemory memory(1, 8192);
    memory.fill(n);
    const bool is_begun =
        (*tier)
            ->begin_write(n, GroupId(0), hash_of(n), n * 3, memory.shards(), memory.checksums())
            .is_ok();
    const auto is_over = [&] {
      return std::ranges::any_of(done, [&](const DiskDone& item) { return item.token == n; });
    };
    done.clear();
    while (is_begun && !is_over()) {
      (*tier)->wait(milliseconds(50));
      (*tier)->poll(done);
    }
  };
  for (std::uint64_t n = 0; n < 6; ++n) write(n);
  const BlockMemory under_way(1, 8192);
  (void)(*tier)->begin_write(50, GroupId(0), hash_of(50), 0, under_way.shards(),
                             under_way.checksums());
  (*tier)->forget_all();
  while ((*tier)->is_drop_pending()) {
    (*tier)->wait(milliseconds(50));
    (*tier)->poll(done);
  }
  for (std::uint64_t n = 0;; ++n) {
    if (::write(pipe, &n, 8) != 8) ::_exit(3);
    write(n % 6);
    write(100 + n % 20);
  }
}

TEST(DiskKillTest, KilledRightAfterTheAnswerToAResetNothingIsFound) {
  Rng rng(random_u64());
  Rig rig;
  for (int round = 0; round < 12; ++round) {
    int ends[2];
    ASSERT_EQ(::pipe(ends), 0);
    const pid_t child = ::fork();
    ASSERT_GE(child, 0);
    if (child == 0) {
      ::close(ends[0]);
      reset_until_killed(rig.options(), ends[1]);
    }
    ::close(ends[1]);
    std::uint64_t number = 0;
    for (std::uint64_t i = round % 2 == 0 ? 1 : rng.below(40) + 1; i > 0; --i) {
      ASSERT_EQ(::read(ends[0], &number, 8), 8);
    }
    ::kill(child, SIGKILL);
    ::waitpid(child, nullptr, 0);
    ::close(ends[0]);
    ASSERT_EQ(rig.open().text(), Status().text());
    for (std::uint64_t n = 0; n < 150; ++n) ASSERT_FALSE(rig.has(n)) << n;
    ASSERT_TRUE(rig.write(0).is_ok());  // The next child's reset drops this too.
    rig.close();
  }
}

// The lock of a killed owner is free at once even while a child it forked lives on.
TEST(DiskKillTest, AnOrphanOfAKilledOwnerDoesNotKeepTheDirectory) {
  Rig rig;
  int ends[2];
  ASSERT_EQ(::pipe(ends), 0);
  const pid_t owner = ::fork();
  ASSERT_GE(owner, 0);
  if (owner == 0) {
    const SystemClock clock;
    NullLog log;
    auto tier = DiskTier::open(rig.options(), clock, log);
    if (!tier) ::_exit(2);
    const pid_t orphan = ::fork();
    if (orphan == 0) {
      ::pause();  // Holds every descriptor of the tier until the test ends it.
      ::_exit(0);
    }
    if (::write(ends[1], &orphan, sizeof orphan) != sizeof orphan) ::_exit(3);
    ::pause();
    ::_exit(0);
  }
  pid_t orphan = 0;
  ASSERT_EQ(::read(ends[0], &orphan, sizeof orphan), static_cast<ssize_t>(sizeof orphan));
  ASSERT_EQ(rig.open().text(), Status().text());
  EXPECT_TRUE(std::filesystem::exists(rig.owner(1))) << "the live owner's directory must be kept";
  rig.close();
  std::filesystem::remove_all(rig.owner(1));
  ::kill(owner, SIGKILL);
  ::waitpid(owner, nullptr, 0);
  ASSERT_EQ(rig.open().text(), Status().text());
  EXPECT_FALSE(std::filesystem::exists(rig.owner(1)));
  ::kill(orphan, SIGKILL);
  ::close(ends[0]);
  ::close(ends[1]);
}

}  // namespace
}  // namespace terrace::tier::disk
