#include "terrace/sim/world_rig.h"

#include <algorithm>

#include "terrace/base/check.h"
#include "terrace/tier/disk/disk_rig.h"

namespace terrace::sim {

using manager::Mode;

namespace {
constexpr std::uint32_t kDeviceBlocks = 512;
constexpr std::size_t kMostKnown = 20'000;

DeviceModel model_of(std::uint64_t seed) {
  Rng rng(seed ^ 0xDE71CEULL);
  return {.channels = static_cast<unsigned>(1 + rng.below(4)),
          .latency = microseconds(static_cast<std::int64_t>(20 + rng.below(200))),
          .per_page = microseconds(2),
          .sync = microseconds(static_cast<std::int64_t>(50 + rng.below(1000))),
          .jitter_percent = static_cast<unsigned>(rng.below(400))};
}
}  // namespace

void Tally::add(const Tally& other) {
  seeds += other.seeds;
  steps += other.steps;
  injected += other.injected;
  crash_points += other.crash_points;
  lives += other.lives;
  for (int i = 0; i < kWrongCount; ++i) {
    verdict.count[static_cast<std::size_t>(i)] += other.verdict.count[static_cast<std::size_t>(i)];
  }
  if (verdict.first.empty()) verdict.first = other.verdict.first;
  for (const auto& [what, count] : other.seen) seen[what] += count;
}

Tally run_world(std::uint64_t seed, std::uint64_t steps) {
  std::optional<World> world;
  try {
    world.emplace(seed);
    world->run(steps);
    return world->tally();
  } catch (const base::Breach& breach) {
    Tally tally;
    tally.seeds = 1;
    tally.verdict.found(Wrong::kBreach, breach.what());
    return tally;
  }
}

World::World(std::uint64_t seed)
    : rng_(seed),
      seed_(seed),
      scratch_(tier::disk::quick_directory()),
      has_faults_(seed % 4 != 0),
      device_(seed + 1, model_of(seed)) {
  shape_.ranks = static_cast<std::uint16_t>(1 + rng_.below(kMostRanks));
  shape_.groups = static_cast<std::uint16_t>(1 + rng_.below(2));
  shape_.host_blocks = (12 + rng_.below(20)) * shape_.groups;
  shape_.device_blocks = kDeviceBlocks;
  shape_.disk_blocks = 24 + rng_.below(60);
  shape_.is_demote = rng_.chance(25);
  shape_.disk_paths = {scratch_.path() + "/a"};
  if (rng_.chance(30)) shape_.disk_paths.push_back(scratch_.path() + "/b");
  if (rng_.chance(50)) place_ = std::make_shared<testing::MemoryPlace>();
  device_.keep_unsynced();
  meant_.resize(kDeviceBlocks);
  tally_.seeds = 1;
  start_life();
}

LifeOptions World::life_options() {
  LifeOptions options = shape_;
  options.store = place_;
  options.seed = rng_.next();
  return options;
}

void World::start_life() {
  ++tally_.lives;
  live_.clear();
  built_.clear();
  next_ = {};
  bad_.clear();
  for (auto& reports : reports_) reports.clear();
  free_.clear();
  for (std::uint32_t i = kDeviceBlocks; i > 0; --i) free_.push_back(i - 1);
  mode_ = Mode::kOn;
  weights_ = durable_weights_;
  set_faults(0);
  life_ = std::make_unique<Life>(life_options(), device_,
                                 ObservedLower::Watch{truth_, stored_, tally_.verdict, weights_});
  life_->check_found();
}

void World::note_counters() {
  const manager::Counters& counters = rig().counters;
  tally_.seen["loads"] += counters.loads.value();
  tally_.seen["failed_loads"] += counters.failed_loads.value();
  tally_.seen["tainted"] += counters.drop_tainted.value();
  tally_.seen["lost_steps"] += counters.steps_lost.value();
  tally_.seen["host_corrupt"] +=
      counters.corrupt_blocks[static_cast<std::size_t>(Tier::kHost)].value();
  tally_.seen["host_hits"] += counters.hit_blocks[static_cast<std::size_t>(Tier::kHost)].value();
  tally_.seen["disk_hits"] += counters.hit_blocks[static_cast<std::size_t>(Tier::kDisk)].value();
  tally_.seen["object_hits"] +=
      counters.hit_blocks[static_cast<std::size_t>(Tier::kObject)].value();
  if (life_->store() != nullptr) {
    store_events_ += life_->store_events();
    store_injected_ += life_->store()->injected();
  }
}

void World::end_life(bool is_abrupt) {
  const auto outcome = rig().core.drop_outcome();
  if (outcome && outcome->is_ok()) durable_weights_ = weights_;
  note_counters();
  life_->end(is_abrupt);
  life_.reset();
  if (!is_abrupt) {
    device_.leave();
  } else {
    ++tally_.crash_points;
    if (rng_.chance(30)) {  // The process was killed; what it wrote stays in the system's hands.
      device_.leave();
    } else {
      constexpr std::array<unsigned, 5> kPercents{0, 10, 50, 90, 100};
      device_.settle_power(kPercents[rng_.below(kPercents.size())]);
    }
  }
  if (truth_.size() > kMostKnown) truth_.forget();
}

void World::run(std::uint64_t steps) {
  const auto driven = [&] { return acts_ + device_.events() + store_events_; };
  while (driven() < steps && tally_.verdict.is_clean()) {
    if (act()) {
      ++acts_;
      life_->check_slots();
    }
  }
  if (tally_.verdict.is_clean()) {
    close_cleanly();
    end_life(false);
    start_life();  // Everything sealed is found once more.
    end_life(false);
  } else {
    end_life(true);
  }
  tally_.steps = driven();
  tally_.injected += device_.injected() + store_injected_;
}

bool World::act() {
  const std::uint64_t dice = rng_.below(100);
  if (dice < 11) return begin();
  if (dice < 25) return poll();
  if (dice < 39) return admit();
  if (dice < 49) return work();
  if (dice < 60) return execute();
  if (dice < 74) return deliver();
  if (dice < 79) return end_one();
  if (dice < 94) return tick();
  if (dice < 97) return pass_time();
  return misfortune();
}

bool World::tick() {
  if (rng_.chance(70)) life_->pass(milliseconds(100));
  const bool was_busy = life_->tick();
  check_pins();
  return was_busy;
}

bool World::pass_time() {
  rig().clock.advance(milliseconds(static_cast<std::int64_t>(rng_.below(200))));
  return false;
}

bool World::misfortune() {
  const std::uint64_t dice = rng_.below(100);
  if (dice < 8) {
    kill_rank();
  } else if (dice < 11) {
    reset();
  } else if (dice < 20) {
    life_->rot_host(rng_);
    ++tally_.injected;
  } else if (dice < 28) {
    switch_to(rng_.chance(50) ? Mode::kPaused : Mode::kReadOnly);
  } else if (dice < 45) {
    switch_to(Mode::kOn);
  } else if (dice < 49) {
    rig().clock.advance(rig().options.step_timeout);
  } else if (dice < 55) {
    (void)rig().core.take_events();
  } else if (dice < 58) {
    rig().clock.advance(seconds(static_cast<std::int64_t>(1 + rng_.below(40))));
  } else if (dice < 62) {
    end_life(true);
    start_life();
  } else if (dice < 63) {
    close_cleanly();
    end_life(false);
    start_life();
  } else if (!has_faults_) {
    return false;
  } else {
    return trouble_below(rng_.below(100));
  }
  return true;
}

bool World::trouble_below(std::uint64_t dice) {
  if (dice < 25) {
    set_faults(0);
  } else if (dice < 45) {
    set_faults(static_cast<unsigned>(1 + rng_.below(3)));
  } else if (dice < 65) {
    device_.rot_frame();
  } else if (dice < 75) {
    device_.rot_record();
  } else if (life_->store() == nullptr) {
    return false;
  } else if (dice < 80) {
    life_->store()->hold(true);
  } else if (dice < 90) {
    life_->store()->hold(false);
  } else if (dice < 95) {
    life_->store()->aim(transfer::ObjectFault::kLose, transfer::ObjectOp::kGet, 2);
  } else {
    life_->store()->release_lost();
  }
  return true;
}

void World::set_faults(unsigned level) {
  device_.set_faults({.read_error = 40 * level,
                      .write_error = 40 * level,
                      .sync_error = 60 * level,
                      .no_space = 20 * level,
                      .flipped_read = 60 * level,
                      .short_read = 40 * level,
                      .misplaced_read = 60 * level,
                      .flipped_write = 40 * level,
                      .torn_write = 40 * level,
                      .hanging = 60 * level});
  if (life_ == nullptr || life_->store() == nullptr) return;
  life_->store()->set_rates({.error = 2 * level,
                             .busy = 2 * level,
                             .full = level,
                             .flipped = 2 * level,
                             .short_object = level,
                             .misplaced = 2 * level,
                             .landed_and_failed = level,
                             .falsely_there = level,
                             .delayed = 5 * level});
}

void World::switch_to(Mode mode) {
  (void)rig().core.set_mode(mode);
  mode_ = mode;
}

void World::kill_rank() {
  const auto rank = static_cast<std::uint16_t>(rng_.below(shape_.ranks));
  ++tally_.injected;
  execute_all();
  rig().kill(rank);
  reports_[rank].clear();
  rig().attach(rank);
  build();
}

void World::reset() {
  execute_all();
  const auto outcome = rig().core.drop_outcome();
  if (outcome && outcome->is_ok()) durable_weights_ = weights_;
  life_->reset();
  weights_ = ++last_weights_;
  // What has computed something goes on as it is: nothing of it may be stored any more.
  for (Live& live : live_) live.weights = live.computed == 0 ? weights_ : live.weights;
}

void World::close_cleanly() {
  set_faults(0);
  switch_to(Mode::kOn);
  if (life_->store() != nullptr) {
    life_->store()->aim(transfer::ObjectFault::kNone, transfer::ObjectOp::kGet, 0);
    life_->store()->hold(false);
    life_->tick();  // What is to be lost is lost when it is answered.
    life_->store()->release_lost();
  }
  execute_all();
  while (!live_.empty()) {
    end(live_.back());
    live_.pop_back();
  }
  for (std::uint16_t rank = 0; rank < shape_.ranks; ++rank) {
    for (const wire::Report& report : reports_[rank]) {
      (void)rig().core.take_report(report, rig().clock.now());
    }
    reports_[rank].clear();
    rig().kill(rank);
  }
  for (int i = 0; i < 100; ++i) {
    life_->settle();
    rig().clock.advance(seconds(1));
  }
  life_->check_slots();
  life_->check_no_leaks();
}

}  // namespace terrace::sim
