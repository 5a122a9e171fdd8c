// The engine of a world: requests, steps, ranks and their reports.
#include <fmt/format.h>

#include <algorithm>
#include <cstring>

#include "terrace/sim/world_rig.h"

namespace terrace::sim {

using manager::Mode;
using manager::rig::kBlockTokens;

bool World::begin() {
  if (live_.size() >= 12) return false;
  Live live;
  std::vector<std::uint32_t> tokens;
  const std::uint64_t blocks = 1 + rng_.below(8);
  for (std::uint64_t block = 0; block < blocks; ++block) {
    const auto branch = static_cast<std::uint32_t>(rng_.below(block < 2 ? 2 : 3));
    for (std::uint32_t i = 0; i < kBlockTokens; ++i) tokens.push_back(branch * 1000 + i);
  }
  live.id = rig().begin(tokens);
  live.hashes = rig().hashes(live.id);
  live_.push_back(std::move(live));
  return true;
}

manager::MatchAnswer World::ask(Live& live, std::uint64_t local_blocks) {
  live.last_poll = rig().clock.now();
  return rig().poll(live.id, local_blocks);
}

// An engine that asks and does not come back holds nothing for long.
void World::check_pins() {
  if (rig().core.look_ups().waiting_pins() == 0) return;
  const manager::Options& options = rig().options;
  const Nanoseconds longest = (options.lookup_deadline + options.pin_time) * 2;
  const bool is_awaited = std::ranges::any_of(live_, [&](const Live& live) {
    return !live.is_admitted && live.last_poll + longest > rig().clock.now();
  });
  if (!is_awaited) tally_.verdict.found(Wrong::kLeak, "pins of answers that nobody took are kept");
}

bool World::poll() {
  Live* live = pick();
  if (live == nullptr || live->is_admitted) return false;
  const manager::MatchAnswer answer = ask(*live, rng_.chance(80) ? 0 : rng_.below(3));
  if (answer.external != Tokens(0) && mode_ == Mode::kPaused) {
    tally_.verdict.found(Wrong::kBytes, "a paused owner offers blocks");
  }
  if (answer.is_ready) return true;
  const bool is_serving = rig().core.gate().is_serving() && life_->is_below_settled();
  auto& since = is_serving ? live->waiting_since : live->opening_since;
  if (!since) since = rig().clock.now();
  const Nanoseconds longest =
      is_serving ? rig().options.lookup_deadline : rig().options.attach_lookup_wait;
  if (rig().clock.now() - *since >= longest) {
    tally_.verdict.found(Wrong::kHang, "a look-up goes on beyond its deadline");
  }
  return true;
}

// The engine has room: asks once more, takes what is offered, computes the rest.
bool World::admit() {
  Live* live = pick();
  if (live == nullptr || live->is_admitted) return false;
  const std::uint64_t blocks = live->hashes.size();
  if (free_.size() < blocks * shape_.groups) return false;
  const manager::MatchAnswer answer = ask(*live, 0);
  if (!answer.is_ready) return true;
  if (rng_.chance(5)) rig().clock.advance(rig().options.pin_time);
  if (rng_.chance(5)) life_->tick();
  live->tables.assign(shape_.groups, {});
  manager::rig::Rig::Tables tables;
  for (std::uint16_t group = 0; group < shape_.groups; ++group) {
    for (std::uint64_t i = 0; i < blocks; ++i) {
      live->tables[group].push_back(free_.back());
      meant_[free_.back()] = {GroupId(group), live->hashes[i]};
      free_.pop_back();
    }
    tables.push_back(live->tables[group]);
  }
  const std::uint64_t external = answer.external.value() / kBlockTokens;
  if (external > blocks || !rig().accept_all(live->id, 0, external, tables).is_ok()) {
    tally_.verdict.found(Wrong::kBytes, "more is offered than there is, or not given");
    return true;
  }
  live->is_admitted = true;
  live->weights = weights_;
  live->computed = external;
  if (external > 0 || rng_.chance(70)) work_on(*live);
  return true;
}

bool World::work() {
  Live* live = pick();
  if (live == nullptr || !live->is_admitted) return false;
  work_on(*live);
  return true;
}

// Computes some more blocks in the step being put together.
void World::work_on(Live& live) {
  const std::uint64_t more =
      std::min<std::uint64_t>(1 + rng_.below(4), live.hashes.size() - live.computed);
  manager::rig::Rig::Tables tables;
  for (std::uint16_t group = 0; group < shape_.groups; ++group) {
    tables.push_back(live.tables[group]);
  }
  for (std::uint64_t i = 0; i < more; ++i, ++live.computed) {
    std::vector<std::uint32_t> reads;
    for (const auto& table : tables) {
      reads.insert(reads.end(), table.begin(),
                   table.begin() + static_cast<std::ptrdiff_t>(live.computed));
    }
    for (std::uint16_t group = 0; group < shape_.groups; ++group) {
      next_.computes.push_back({GroupId(group), live.hashes[live.computed],
                                live.tables[group][live.computed], live.weights, reads});
    }
  }
  rig().advance_all(live.id, live.computed, tables);
  if (rng_.chance(80)) build();
}

bool World::build() {
  auto orders = rig().build();
  if (orders) next_.orders = std::move(*orders);
  next_.orders.step = orders ? next_.orders.step : StepId(0);
  built_.push_back(std::exchange(next_, Flight{}));
  if (built_.size() > 2) execute();
  return true;
}

// All ranks work off the oldest step; the engine learns of bad blocks at its end.
bool World::execute() {
  if (built_.empty()) return false;
  const Flight flight = std::move(built_.front());
  built_.pop_front();
  std::vector<wire::Report> loaded;
  const std::set<std::uint32_t> failed = load(flight, loaded);
  check_loaded(flight, failed);
  bad_.insert(failed.begin(), failed.end());
  compute(flight);
  for (const wire::SaveOrder& save : flight.orders.saves) life_->check_save(save);
  wire::Orders saves = flight.orders;
  saves.loads.clear();
  saves.canary_slot = UINT32_MAX;
  std::size_t at = 0;
  for (std::uint16_t rank = 0; rank < shape_.ranks; ++rank) {
    if (!is_attached(rank)) continue;
    wire::Report report = rig().obey(rank, saves);
    leave_unfilled(report);
    report.failures = std::move(loaded[at].failures);
    report.canary = loaded[at].canary;
    report.load_bytes = loaded[at].load_bytes;
    report.load_ns = loaded[at++].load_ns;
    if (flight.orders.step != StepId(0)) reports_[rank].push_back(std::move(report));
  }
  if (!failed.empty()) recompute();
  return true;
}

// Now and then a rank could not fill a slot, whose part of the block is anything.
void World::leave_unfilled(wire::Report& report) {
  for (wire::SaveReport& save : report.saves) {
    if (!rng_.chance(2)) continue;
    ++tally_.injected;
    save.is_filled = false;
    rig().shard(save.slot.index, report.rank.value())[0] ^= std::byte{1};
  }
}

std::set<std::uint32_t> World::load(const Flight& flight, std::vector<wire::Report>& loaded) {
  std::set<std::uint32_t> failed;
  wire::Orders loads = flight.orders;
  loads.saves.clear();
  for (std::uint16_t rank = 0; rank < shape_.ranks; ++rank) {
    if (!is_attached(rank)) continue;
    loaded.push_back(rig().obey(rank, loads));
    for (const auto& failure : loaded.back().failures) failed.insert(failure.device_block);
  }
  if (loaded.size() < shape_.ranks) {
    for (const wire::LoadOrder& load : loads.loads) failed.insert(load.device_block);
  }
  return failed;
}

// All ranks and groups, or the block is one that failed.
void World::check_loaded(const Flight& flight, const std::set<std::uint32_t>& failed) {
  for (const wire::LoadOrder& load : flight.orders.loads) {
    if (failed.contains(load.device_block)) continue;
    bad_.erase(load.device_block);
    const Meant& meant = meant_[load.device_block];
    const auto& right = truth_.of(meant.group, meant.hash, weights_);
    for (std::uint16_t rank = 0; rank < shape_.ranks; ++rank) {
      const std::string& got = rig().ranks[rank].device[load.device_block];
      if (std::memcmp(got.data(), right[rank].data(), kPayloadBytes) == 0) continue;
      tally_.verdict.found(Wrong::kBytes, fmt::format("rank {} loaded other bytes", rank));
    }
  }
}

void World::compute(const Flight& flight) {
  for (const Compute& item : flight.computes) {
    const bool is_bad =
        std::ranges::any_of(item.reads, [&](std::uint32_t read) { return bad_.contains(read); });
    const auto& right = truth_.of(item.group, item.hash, item.weights);
    for (std::uint16_t rank = 0; rank < shape_.ranks; ++rank) {
      std::string& device = rig().ranks[rank].device[item.block];
      if (is_bad) {
        std::ranges::fill(device, 'X');
      } else {
        std::memcpy(device.data(), right[rank].data(), kPayloadBytes);
      }
    }
    if (is_bad) {
      bad_.insert(item.block);
    } else {
      bad_.erase(item.block);
    }
  }
}

// The engine falls back to the first bad block of each request and goes on from there.
void World::recompute() {
  for (Live& live : live_) {
    if (!live.is_admitted) continue;
    for (std::uint64_t i = 0; i < live.computed; ++i) {
      const bool is_bad = std::ranges::any_of(
          live.tables, [&](const auto& table) { return bad_.contains(table[i]); });
      if (!is_bad) continue;
      live.computed = i;
      break;
    }
  }
}

bool World::deliver() {
  auto& queue = reports_[rng_.below(shape_.ranks)];
  if (queue.empty()) return false;
  const wire::Report report = std::move(queue.front());
  queue.pop_front();
  if (rng_.chance(2)) {  // Lost.
    ++tally_.injected;
    return true;
  }
  (void)rig().core.take_report(report, rig().clock.now());
  if (!rng_.chance(2)) return true;
  ++tally_.injected;  // Told twice.
  if (rig().core.take_report(report, rig().clock.now()).is_ok()) {
    tally_.verdict.found(Wrong::kLeak, "a report was taken twice");
  }
  return true;
}

bool World::end_one() {
  if (live_.empty()) return false;
  const std::size_t at = rng_.below(live_.size());
  end(live_[at]);
  live_.erase(live_.begin() + static_cast<std::ptrdiff_t>(at));
  return true;
}

void World::end(Live& live) {
  execute_all();  // Steps under way still use its device blocks: an engine frees them after those.
  std::erase_if(next_.computes, [&](const Compute& item) {
    return std::ranges::any_of(live.tables, [&](const auto& table) {
      return std::ranges::find(table, item.block) != table.end();
    });
  });
  (void)rig().end(live.id);
  for (const auto& table : live.tables) {
    for (const std::uint32_t block : table) {
      bad_.erase(block);
      free_.push_back(block);
    }
  }
}

}  // namespace terrace::sim
