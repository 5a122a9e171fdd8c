// Seeded random operations over the whole core: many requests on a tree of prefixes, two ranks
// whose reports come late, twice or never, ranks that die, bytes that rot in host and on disk, a
// disk that fails and hangs, switches, resets to other weights. Checked after every few steps:
// - an engine block that was not reported bad has the bytes of its key,
// - everything findable, in host or on disk, has its key's bytes unless the test broke it,
// - slots sum up, waiting requests pin at most their share, no look-up waits beyond its deadline,
// - paused, no look-up hits and the disk begins nothing; read-only, it begins no write,
// - when all is over nothing is pinned, filling or quarantined.
// Threading: one thread.  `--seed=N --steps=N` replays and lengthens.
#include <gtest/gtest.h>

#include <algorithm>
#include <deque>
#include <map>
#include <string>

#include "terrace/manager/core_rig_internal.h"
#include "terrace/testing/property.h"

namespace terrace::manager {
namespace {

using rig::Rig;

constexpr std::uint16_t kRanks = 2;
constexpr std::uint32_t kDeviceBlocks = 512;
constexpr std::uint64_t kMaxBlocks = 8;

struct Live {
  RequestId id;
  std::vector<std::uint32_t> tokens;
  std::vector<SequenceHash> hashes;
  std::vector<std::uint32_t> table;  // Own device blocks; empty before admission.
  std::uint64_t computed = 0;        // Blocks.
  bool is_admitted = false;
  std::uint32_t weights = 0;  // That it computes with.
  // First poll without an answer while opening, and while serving: each has its own limit.
  std::optional<Nanoseconds> opening_since;
  std::optional<Nanoseconds> waiting_since;
};

// A step between build and the delivery of its reports.
struct Flight {
  wire::Orders orders;
  struct Compute {
    SequenceHash hash;
    std::uint32_t block = 0;
    std::uint32_t weights = 0;
    std::vector<std::uint32_t> reads;  // The request's device blocks before it: bad in, bad out.
  };
  std::vector<Compute> computes;  // What the engine computes in it, in order.
};

class Model {
 public:
  explicit Model(std::uint64_t seed)
      : rng_(seed),
        rig_({.ranks = kRanks,
              .host_blocks = 24,
              .device_blocks = kDeviceBlocks,
              .has_disk = true,
              .opens = true,
              .tune = [](Options& options) {
                options.has_planner = false;
                options.has_events = true;
                options.disk.queue_blocks = 6;
                options.offload_step_bytes = Bytes(4 * rig::kPieceBytes * rig::kPieces);
              }}) {
    rig_.disk.capacity = 40;
    rig_.disk.fault = [this](const SequenceHash&, bool is_read) { return disk_fault(is_read); };
    for (std::uint32_t i = kDeviceBlocks; i > 0; --i) free_.push_back(i - 1);
  }

  void run(std::uint64_t steps) {
    for (std::uint64_t i = 0; i < steps; ++i) {
      act();
      if (i % 4 == 0) check();
      if (::testing::Test::HasFailure()) {
        FAIL() << "at step " << i;
      }
    }
    wind_up();
  }
  [[nodiscard]] const Counters& counters() const { return rig_.counters; }

 private:
  Status disk_fault(bool is_read) {
    if (!faults_on_ || !rng_.chance(10)) return {};
    if (!is_read) return {Code::kIo, "made up"};
    return rng_.chance(50) ? Status(Code::kCorrupt, "made up") : Status(Code::kIo, "made up");
  }

  void act() {
    const std::uint64_t dice = rng_.below(20);
    if (dice < 2) return begin();
    if (dice < 5) return poll();
    if (dice < 8) return admit();
    if (dice < 10) return work();
    if (dice < 12) return execute();
    if (dice < 15) return deliver();
    if (dice < 16) return end();
    if (dice < 18) {
      rig_.driver.tick();
    } else if (dice < 19) {
      rig_.clock.advance(milliseconds(static_cast<std::int64_t>(rng_.below(200))));
    } else {
      misfortune();
    }
  }

  Live* pick() { return live_.empty() ? nullptr : &live_[rng_.below(live_.size())]; }

  void begin() {
    if (live_.size() >= 12) return;
    Live live;
    const std::uint64_t blocks = 1 + rng_.below(kMaxBlocks);
    for (std::uint64_t block = 0; block < blocks; ++block) {
      const auto branch = static_cast<std::uint32_t>(rng_.below(block < 2 ? 2 : 3));
      for (std::uint32_t i = 0; i < rig::kBlockTokens; ++i)
        live.tokens.push_back(branch * 1000 + i);
    }
    live.id = rig_.begin(live.tokens);
    live.hashes = rig_.hashes(live.id);
    live_.push_back(std::move(live));
  }

  void poll() {
    Live* live = pick();
    if (live == nullptr || live->is_admitted) return;
    const MatchAnswer answer = rig_.poll(live->id, rng_.chance(80) ? 0 : rng_.below(3));
    EXPECT_TRUE(answer.external == Tokens(0) || mode_ != Mode::kPaused);
    if (answer.is_ready) return;
    const bool is_serving = rig_.core.gate().is_serving();
    auto& since = is_serving ? live->waiting_since : live->opening_since;
    if (!since) since = rig_.clock.now();
    const Nanoseconds longest =
        is_serving ? rig_.options.lookup_deadline : rig_.options.attach_lookup_wait;
    EXPECT_LT((rig_.clock.now() - *since).value(), longest.value());
  }

  // The engine has room: asks once more, takes what is offered, computes the rest.
  void admit() {
    Live* live = pick();
    if (live == nullptr || live->is_admitted || free_.size() < live->hashes.size()) return;
    const std::uint64_t blocks = live->hashes.size();
    const MatchAnswer answer = rig_.poll(live->id);
    if (!answer.is_ready) return;
    if (rng_.chance(5)) rig_.clock.advance(rig_.options.pin_time);
    if (rng_.chance(5)) rig_.driver.tick();
    live->table.clear();
    for (std::uint64_t i = 0; i < blocks; ++i) {
      live->table.push_back(free_.back());
      free_.pop_back();
    }
    const std::uint64_t external = answer.external.value() / rig::kBlockTokens;
    EXPECT_LE(external, blocks);
    ASSERT_TRUE(rig_.accept(live->id, 0, external, live->table).is_ok());
    live->is_admitted = true;
    live->weights = weights_;
    live->computed = external;
    if (external > 0 || rng_.chance(70)) work_on(*live);
  }

  void work() {
    Live* live = pick();
    if (live != nullptr && live->is_admitted) work_on(*live);
  }

  // Computes some more blocks in the step being put together.
  void work_on(Live& live) {
    const std::uint64_t more =
        std::min<std::uint64_t>(1 + rng_.below(4), live.hashes.size() - live.computed);
    for (std::uint64_t i = 0; i < more; ++i, ++live.computed) {
      const auto before = live.table.begin() + static_cast<std::ptrdiff_t>(live.computed);
      next_.computes.push_back({live.hashes[live.computed],
                                live.table[live.computed],
                                live.weights,
                                {live.table.begin(), before}});
    }
    rig_.advance(live.id, live.computed, live.table);
    if (rng_.chance(80)) build();
  }

  void build() {
    auto orders = rig_.build();
    if (orders) next_.orders = std::move(*orders);
    next_.orders.step = orders ? next_.orders.step : StepId(0);
    built_.push_back(std::exchange(next_, Flight{}));
    if (built_.size() > 2) execute();
  }

  // All ranks work off the oldest step; the engine learns of bad blocks at its end.
  void execute() {
    if (built_.empty()) return;
    Flight flight = std::move(built_.front());
    built_.pop_front();
    std::set<std::uint32_t> failed;
    std::vector<wire::Report> reports;
    wire::Orders loads = flight.orders;
    loads.saves.clear();
    wire::Orders saves = flight.orders;
    saves.loads.clear();
    saves.canary_slot = UINT32_MAX;
    std::vector<wire::Report> loaded;
    for (std::uint16_t rank = 0; rank < kRanks; ++rank) {
      if (rig_.ranks[rank].epoch == Epoch(0)) continue;
      loaded.push_back(rig_.obey(rank, loads));
      for (const auto& failure : loaded.back().failures) failed.insert(failure.device_block);
    }
    for (const wire::LoadOrder& load : flight.orders.loads) {
      if (loaded.size() < kRanks) failed.insert(load.device_block);
    }
    check_loads(flight.orders, failed);
    bad_.insert(failed.begin(), failed.end());
    for (const auto& [hash, block, weights, reads] : flight.computes) {
      const bool has_bad =
          std::ranges::any_of(reads, [&](std::uint32_t read) { return bad_.contains(read); });
      for (std::uint16_t rank = 0; rank < kRanks; ++rank) {
        rig_.ranks[rank].device[block] = has_bad ? std::string(rig::kPieceBytes * rig::kPieces, 'X')
                                                 : content(hash, rank, weights);
      }
      if (has_bad) {
        bad_.insert(block);
      } else {
        bad_.erase(block);
      }
    }
    std::size_t at = 0;
    for (std::uint16_t rank = 0; rank < kRanks; ++rank) {
      if (rig_.ranks[rank].epoch == Epoch(0)) continue;
      wire::Report report = rig_.obey(rank, saves);
      report.failures = loaded[at].failures;
      report.canary = loaded[at].canary;
      report.load_bytes = loaded[at].load_bytes;
      report.load_ns = loaded[at++].load_ns;
      if (flight.orders.step != StepId(0)) reports_[rank].push_back(std::move(report));
    }
    if (!failed.empty()) recompute(failed);
  }

  void check_loads(const wire::Orders& orders, const std::set<std::uint32_t>& failed) {
    for (const wire::LoadOrder& load : orders.loads) {
      if (failed.contains(load.device_block)) continue;
      bad_.erase(load.device_block);
      const auto owner = std::ranges::find_if(live_, [&](const Live& live) {
        return std::ranges::find(live.table, load.device_block) != live.table.end();
      });
      if (owner == live_.end()) continue;
      const auto block = static_cast<std::size_t>(
          std::ranges::find(owner->table, load.device_block) - owner->table.begin());
      for (std::uint16_t rank = 0; rank < kRanks; ++rank) {
        EXPECT_EQ(rig_.ranks[rank].device[load.device_block], content(owner->hashes[block], rank))
            << "wrong bytes reached the engine";
      }
    }
  }

  // The engine falls back to the first bad block of each request and goes on from there.
  void recompute(const std::set<std::uint32_t>&) {
    for (Live& live : live_) {
      for (std::uint64_t i = 0; i < std::min<std::uint64_t>(live.computed, live.table.size());
           ++i) {
        if (!bad_.contains(live.table[i])) continue;
        live.computed = i;
        break;
      }
    }
  }

  void deliver() {
    auto& queue = reports_[rng_.below(kRanks)];
    if (queue.empty()) return;
    const wire::Report report = queue.front();
    queue.pop_front();
    if (rng_.chance(3)) return;  // Lost.
    (void)rig_.core.take_report(report, rig_.clock.now());
    if (!rng_.chance(3)) return;
    EXPECT_FALSE(rig_.core.take_report(report, rig_.clock.now()).is_ok());  // Told twice.
  }

  void end() {
    if (live_.empty()) return;
    const std::size_t at = rng_.below(live_.size());
    end(live_[at]);
    live_.erase(live_.begin() + static_cast<std::ptrdiff_t>(at));
  }
  void end(Live& live) {
    // Steps under way still use its device blocks: an engine frees them after those.
    while (!built_.empty()) execute();
    std::erase_if(next_.computes, [&](const auto& compute) {
      return std::ranges::find(live.table, compute.block) != live.table.end();
    });
    const Ledger ledger = rig_.end(live.id);
    EXPECT_LE(ledger.hit[static_cast<std::size_t>(Tier::kHost)].value() +
                  ledger.hit[static_cast<std::size_t>(Tier::kDisk)].value(),
              live.tokens.size());
    for (const std::uint32_t block : live.table) {
      bad_.erase(block);
      free_.push_back(block);
    }
  }

  void misfortune() {
    switch (rng_.below(24)) {
      case 0:
        kill();
        break;
      case 1:
        reset();
        break;
      case 2:
      case 3:
      case 4:
        rot_host();
        break;
      case 5:
      case 6:
        rot_disk();
        break;
      case 7:
      case 8:
        faults_on_ = !faults_on_;
        break;
      case 9:
        rig_.disk.is_stuck = !rig_.disk.is_stuck;
        break;
      case 10:
        rig_.clock.advance(rig_.options.step_timeout);
        break;
      case 11:
        (void)rig_.core.take_events();
        break;
      case 12:
      case 13:
        switch_to(rng_.chance(50) ? Mode::kPaused : Mode::kReadOnly);
        break;
      default:
        rig_.disk.is_stuck = false;
        switch_to(Mode::kOn);
        break;
    }
  }

  void switch_to(Mode mode) {
    (void)rig_.core.set_mode(mode);
    mode_ = mode;
    begun_ = {rig_.disk.begun_reads, rig_.disk.begun_writes};
  }
  void kill() {
    const auto rank = static_cast<std::uint16_t>(rng_.below(kRanks));
    if (rig_.ranks[rank].epoch == Epoch(0)) return;
    while (!built_.empty()) execute();
    rig_.kill(rank);
    reports_[rank].clear();
    rig_.attach(rank);
    build();
  }
  void reset() {
    while (!built_.empty()) execute();
    rig_.core.reset();
    broken_.clear();
    ++weights_;
    // What has computed something goes on as it is: nothing of it may be stored any more.
    for (Live& live : live_) live.weights = live.computed == 0 ? weights_ : live.weights;
  }
  void rot_host() {
    const SlotIndex slot(static_cast<std::uint32_t>(rng_.below(24)));
    catalog::Pool& pool = rig_.core.context().pool();
    if (pool.state(slot) != catalog::SlotState::kSealed) return;
    const auto key = pool.key_of(pool.ref_of(slot));
    if (!key) return;
    rig_.shard(slot, static_cast<std::uint16_t>(rng_.below(kRanks)))[rng_.below(100)] ^=
        std::byte{8};
    broken_.insert(key->hash);
  }
  void rot_disk() {
    if (rig_.disk.blocks.empty()) return;
    auto it = rig_.disk.blocks.begin();
    std::advance(it, static_cast<std::ptrdiff_t>(rng_.below(rig_.disk.blocks.size())));
    it->second.payloads[0][3] = static_cast<char>(it->second.payloads[0][3] ^ 1);
    broken_.insert(it->first.hash);
  }

  const std::string& content(const SequenceHash& hash, std::uint16_t rank) {
    return content(hash, rank, weights_);
  }
  const std::string& content(const SequenceHash& hash, std::uint16_t rank, std::uint32_t weights) {
    const SequenceHash of_weights{hash.high, hash.low + weights};
    auto [at, is_new] = contents_.try_emplace({of_weights, rank});
    if (is_new) at->second = Rig::content(of_weights, rank);
    return at->second;
  }

  void check() {
    catalog::Pool& pool = rig_.core.context().pool();
    std::uint32_t sum = 0;
    for (int i = 0; i < catalog::kSlotStateCount; ++i) {
      sum += pool.count(static_cast<catalog::SlotState>(i));
    }
    EXPECT_EQ(sum, 24U);
    EXPECT_TRUE(mode_ != Mode::kPaused || rig_.disk.begun_reads == begun_.first);
    EXPECT_TRUE(mode_ == Mode::kOn || rig_.disk.begun_writes == begun_.second);
    EXPECT_LE(rig_.core.look_ups().waiting_pins(), 12U);
    for (std::uint32_t i = 0; i < 24; ++i) {
      const SlotIndex slot(i);
      if (pool.state(slot) != catalog::SlotState::kSealed) continue;
      const auto key = pool.key_of(pool.ref_of(slot));
      if (!key || key->name_space != rig_.core.context().name_space) continue;
      if (broken_.contains(key->hash)) continue;
      for (std::uint16_t rank = 0; rank < kRanks; ++rank) {
        const auto payload = rig_.shard(slot, rank);
        EXPECT_EQ(std::memcmp(payload.data(), content(key->hash, rank).data(), payload.size()), 0)
            << "a host block has the wrong bytes";
      }
    }
    for (const auto& [place, block] : rig_.disk.blocks) {
      if (broken_.contains(place.hash) || ~place.hash.low == 0) continue;
      for (std::uint16_t rank = 0; rank < kRanks; ++rank) {
        EXPECT_EQ(block.payloads[rank], content(place.hash, rank)) << "wrong bytes on disk";
      }
    }
  }

  void wind_up() {
    rig_.disk.is_stuck = false;
    switch_to(Mode::kOn);
    faults_on_ = false;
    while (!built_.empty()) execute();
    while (!live_.empty()) {
      end(live_.back());
      live_.pop_back();
    }
    for (std::uint16_t rank = 0; rank < kRanks; ++rank) {
      while (!reports_[rank].empty()) {
        (void)rig_.core.take_report(reports_[rank].front(), rig_.clock.now());
        reports_[rank].pop_front();
      }
      rig_.kill(rank);
    }
    for (int i = 0; i < 200; ++i) {
      rig_.settle();
      rig_.clock.advance(seconds(1));
    }
    catalog::Pool& pool = rig_.core.context().pool();
    EXPECT_EQ(rig_.core.steps().in_flight(), 0U);
    EXPECT_EQ(pool.pinned(), 0U);
    EXPECT_EQ(pool.count(catalog::SlotState::kFilling), 0U);
    EXPECT_EQ(pool.count(catalog::SlotState::kQuarantined), 0U);
    EXPECT_EQ(rig_.core.reads(), 0U);
    EXPECT_EQ(rig_.core.writes(), 0U);
    EXPECT_EQ(rig_.core.look_ups().waiting_pins(), 0U);
    EXPECT_EQ(rig_.core.requests(), 0U);
    EXPECT_FALSE(rig_.core.is_poisoned());
  }

  Rng rng_;
  Rig rig_;
  std::vector<Live> live_;
  std::vector<std::uint32_t> free_;
  std::set<std::uint32_t> bad_;    // Device blocks with bytes that are not their key's.
  std::set<SequenceHash> broken_;  // Keys whose stored bytes the test broke at some time.
  std::map<std::pair<SequenceHash, std::uint16_t>, std::string> contents_;
  Flight next_;
  std::deque<Flight> built_;
  std::array<std::deque<wire::Report>, kRanks> reports_;
  bool faults_on_ = false;
  Mode mode_ = Mode::kOn;
  std::pair<std::uint64_t, std::uint64_t> begun_;  // Reads and writes when it was switched.
  std::uint32_t weights_ = 0;
};

TEST(CorePropertyTest, RandomOperationsNeverGiveWrongBytesAndLeaveNothingBehind) {
  constexpr std::uint64_t kLife = 2'000;
  const auto chosen = testing::property(20261122, 100'000);
  std::map<std::string, std::uint64_t> seen;
  for (std::uint64_t done = 0; done < chosen.steps; done += kLife) {
    Model model(chosen.seed + done / kLife);
    model.run(std::min(kLife, chosen.steps - done));
    ASSERT_FALSE(HasFailure()) << "--seed=" << chosen.seed + done / kLife;
    const Counters& counters = model.counters();
    seen["loads"] += counters.loads.value();
    seen["failed loads"] += counters.failed_loads.value();
    seen["tainted"] += counters.drop_tainted.value();
    seen["disk hits"] += counters.hit_tokens[static_cast<std::size_t>(Tier::kDisk)].value();
    seen["corrupt"] += counters.corrupt_blocks[static_cast<std::size_t>(Tier::kHost)].value();
    seen["lost steps"] += counters.steps_lost.value();
    seen["bytes written"] += counters.write_bytes.value();
  }
  if (chosen.steps < 100'000) return;  // Else all of this happened, many times.
  EXPECT_GT(seen["loads"], 500U);
  EXPECT_GT(seen["failed loads"], 10U);
  EXPECT_GT(seen["tainted"], 10U);
  EXPECT_GT(seen["disk hits"], 100U);
  EXPECT_GT(seen["corrupt"], 3U);
  EXPECT_GT(seen["lost steps"], 10U);
  EXPECT_GT(seen["bytes written"], 10'000U);
}

}  // namespace
}  // namespace terrace::manager
