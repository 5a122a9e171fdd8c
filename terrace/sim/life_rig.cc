#include "terrace/sim/life_rig.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>

#include "terrace/base/check.h"
#include "terrace/tier/disk/disk_rig.h"

namespace terrace::sim {

using catalog::SlotState;

namespace {
constexpr std::uint64_t kNobodys = UINT64_MAX;
constexpr unsigned kDepth = 16;
constexpr int kMostRounds = 100'000;

std::uint64_t mark_of(SlotRef slot) {
  return std::uint64_t{slot.index.value()} << 32U | slot.generation.value();
}
SlotRef slot_of(std::uint64_t mark) {
  return {SlotIndex(static_cast<std::uint32_t>(mark >> 32U)),
          Generation(static_cast<std::uint32_t>(mark))};
}

class OpeningWatch final : public testing::FileWatch {
 public:
  explicit OpeningWatch(Device& device) : device_(device) {}
  void on_change(const testing::FileChange& change) override { device_.see(change); }

 private:
  Device& device_;
};

Fingerprint fingerprint_of(const LifeOptions& options) {
  Fingerprint fingerprint;
  fingerprint.content = {{"model", "a"}};
  fingerprint.layout = {{"ranks", std::to_string(options.ranks)},
                        {"groups", std::to_string(options.groups)}};
  return fingerprint;
}
}  // namespace

manager::rig::RigOptions Life::rig_options(const LifeOptions& options) {
  manager::rig::RigOptions rig;
  rig.ranks = options.ranks;
  rig.host_blocks = options.host_blocks;
  rig.device_blocks = options.device_blocks;
  rig.is_disk_opening = true;
  rig.opens = false;
  rig.tune = [options](manager::Options& made) {
    for (std::uint16_t group = 1; group < options.groups; ++group) {
      made.layout.groups.push_back(made.layout.groups.front());
      made.layout.groups.back().group = GroupId(group);
    }
    made.has_planner = false;
    made.has_events = true;
    made.disk.paths = options.disk_paths;
    made.disk.queue_blocks = 6;
    made.disk.is_demote = options.is_demote;
    made.offload_step_bytes = Bytes(std::uint64_t{4} * kPayloadBytes);
    if (options.store == nullptr) return;
    made.object.open_store = [](const Clock&, LogSink&) {
      return fail(Code::kInternal, "a simulation's own");
    };
  };
  return rig;
}

Life::Life(const LifeOptions& options, Device& device, ObservedLower::Watch watch)
    : rig(rig_options(options)), options_(options), device_(device), watch_(watch) {
  map_host();
  device_.set_witness(this);
  open_disk(options);
  if (options.store != nullptr) open_objects(options);
  open();
}

Life::~Life() { end(false); }

void Life::map_host() {
  catalog::Pool& pool = rig.core.context().pool();
  slots_ = pool.slots();
  seen_.resize(slots_);
  memory_.resize(slots_);
  for (std::uint32_t slot = 0; slot < slots_; ++slot) {
    for (std::uint16_t rank = 0; rank < options_.ranks; ++rank) {
      memory_[slot].push_back(rig.shard(SlotIndex(slot), rank).data());
      slot_of_[memory_[slot].back()] = slot;
    }
  }
}

void Life::open_disk(const LifeOptions& options) {
  tier::DiskTier::Options disk;
  disk.paths = options.disk_paths;
  disk.blocks = options.disk_blocks;
  disk.backend = "threads";
  disk.io = {.depth = kDepth, .threads = 1};
  disk.is_direct = false;
  disk.queue_blocks = 8;
  disk.layout = rig.options.layout;
  disk.fingerprint = fingerprint_of(options);
  disk.decorate = [this](std::unique_ptr<transfer::Backend>) {
    return device_.plug_in(rig.clock, kDepth);
  };
  const OpeningWatch opening(device_);
  auto opened = tier::DiskTier::open(std::move(disk), rig.clock, rig.log);
  if (!opened) {
    watch_.verdict.found(Wrong::kLostSealed, "the disk does not open: " + opened.error().message());
    rig.core.close_lower("", true);
    return;
  }
  disk_ = *std::move(opened);
  lower_ = std::make_unique<ObservedLower>(manager::make_disk_lower(*disk_), watch_);
  rig.core.open_lower(*lower_);
  rig.driver.set_lower(*lower_);
}

void Life::open_objects(const LifeOptions& options) {
  options.store->fault = [this](const transfer::ObjectRequest& request) {
    check_object(request);
    return Status();
  };
  tier::ObjectTier::Options wanted;
  wanted.layout = rig.options.layout;
  wanted.fingerprint = fingerprint_of(options);
  wanted.pack_blocks = 2;
  wanted.queue.seed = options.seed + 1;
  auto store = std::make_unique<transfer::FaultStore>(
      std::make_unique<testing::MemoryObjectStore>(options.store, 16), options.seed + 2);
  store_ = store.get();
  auto opened = tier::ObjectTier::create(std::move(wanted), std::move(store), rig.clock, rig.log);
  TERRACE_CHECK(opened.has_value());
  objects_ = *std::move(opened);
  rig.core.open_objects(*objects_);
  rig.driver.set_objects(*objects_);
}

void Life::open() {
  rig.open();
  settle();  // The canary's disk leg takes its time.
}

void Life::pass(Nanoseconds limit) {
  const Nanoseconds now = rig.clock.now();
  const Nanoseconds until = std::min(device_.next_due(), now + limit);
  if (until > now) rig.clock.advance(until - now);
}

void Life::settle() {
  for (int i = 0; i < kMostRounds; ++i) {
    const bool is_busy = tick();
    const bool is_idle = device_.in_flight() == 0 && rig.driver.is_idle();
    if (!is_busy && is_idle && !rig.core.has_jobs()) return;
    pass(milliseconds(50));
  }
  watch_.verdict.found(
      Wrong::kHang, fmt::format("the owner's I/O does not come to an end: {} transfers, tiers {}, "
                                "{}, {} reads, {} writes, {} packs",
                                device_.in_flight(), rig.driver.is_idle() ? "idle" : "busy",
                                rig.core.has_jobs() ? "jobs wait" : "no jobs", rig.core.reads(),
                                rig.core.writes(), rig.core.packs().size()));
}

void Life::rot_host(Rng& rng) {
  const SlotIndex slot(static_cast<std::uint32_t>(rng.below(slots_)));
  if (rig.core.context().pool().state(slot) != SlotState::kSealed) return;
  check_slots();
  const auto rank = static_cast<std::uint16_t>(rng.below(options_.ranks));
  rig.shard(slot, rank)[rng.below(kPayloadBytes)] ^= std::byte{8};
  seen_[slot.value()].right = nullptr;
  seen_[slot.value()].is_spoilt = true;
}

void Life::reset() { rig.core.reset(); }

void Life::check_slots() {
  manager::Context& context = rig.core.context();
  catalog::Pool& pool = context.pool();
  for (std::uint32_t i = 0; i < slots_; ++i) {
    const SlotIndex index(i);
    const SlotState state = pool.state(index);
    if (state != SlotState::kSealed && state != SlotState::kEvicting) continue;
    const SlotRef slot = pool.ref_of(index);
    Seen& seen = seen_[i];
    if (seen.slot != slot || seen.name_space != context.name_space) {
      const auto key = pool.key_of(slot);
      seen = {slot, context.name_space, nullptr, false};
      if (!key || key->name_space != context.name_space) continue;
      seen.right = &watch_.truth.of(key->group, key->hash, watch_.weights);
    }
    if (seen.right == nullptr) continue;
    for (std::uint16_t rank = 0; rank < options_.ranks; ++rank) {
      if (std::memcmp(memory_[i][rank], (*seen.right)[rank].data(), kPayloadBytes) == 0) continue;
      watch_.verdict.found(Wrong::kBytes,
                           fmt::format("host slot {} holds other bytes for rank {}", i, rank));
      seen.right = nullptr;
      break;
    }
  }
  std::uint32_t sum = 0;
  for (int i = 0; i < catalog::kSlotStateCount; ++i) sum += pool.count(static_cast<SlotState>(i));
  if (sum != slots_) watch_.verdict.found(Wrong::kLeak, "host slots do not add up");
  if (rig.core.is_poisoned()) {
    watch_.verdict.found(Wrong::kLeak, "poisoned: " + rig.core.poison_reason());
  }
}

std::uint64_t Life::begins(const transfer::Transfer& transfer) {
  if (transfer.piece_count != 2) return kNobodys;
  const auto found = slot_of_.find(transfer.pieces[1].data);
  if (found == slot_of_.end()) return kNobodys;
  return mark_of(rig.core.context().pool().ref_of(SlotIndex(found->second)));
}

void Life::moves(const transfer::Transfer& transfer, std::uint64_t mark) {
  if (mark == kNobodys) return;
  const SlotRef slot = slot_of(mark);
  catalog::Pool& pool = rig.core.context().pool();
  const SlotState state = pool.state(slot.index);
  const bool is_owned = pool.ref_of(slot.index) == slot && state != SlotState::kFree;
  const bool is_read = transfer.op == transfer::IoOp::kRead;
  const Seen& seen = seen_[slot.index.value()];
  if (!is_read && seen.is_spoilt && seen.slot == slot) {
    if (const auto key = pool.key_of(slot)) harms(key->group, key->hash);
  }
  if (is_owned && (!is_read || state == SlotState::kFilling)) return;
  watch_.verdict.found(
      Wrong::kBytes, fmt::format("the disk {} host slot {}, which was given to somebody else since",
                                 is_read ? "writes into" : "reads from", slot.index.value()));
}

// Just before the store moves the bytes.
void Life::check_object(const transfer::ObjectRequest& request) {
  const bool is_get = request.op == transfer::ObjectOp::kGet;
  for (const transfer::MemoryPiece& piece : request.pieces) {
    const auto found = slot_of_.find(piece.data);
    if (found == slot_of_.end()) continue;
    const SlotState state = rig.core.context().pool().state(SlotIndex(found->second));
    if (is_get ? state == SlotState::kFilling : state == SlotState::kSealed) continue;
    watch_.verdict.found(Wrong::kBytes, fmt::format("the store {} host slot {}, which is {}",
                                                    is_get ? "writes into" : "reads from",
                                                    found->second, static_cast<int>(state)));
  }
}

void Life::check_save(const wire::SaveOrder& save) {
  catalog::Pool& pool = rig.core.context().pool();
  const SlotState state = pool.state(save.slot.index);
  const bool is_kept = state == SlotState::kFilling || state == SlotState::kQuarantined;
  if (is_kept && pool.ref_of(save.slot.index) == save.slot) return;
  watch_.verdict.found(Wrong::kBytes, "a rank saves into a slot that was given to somebody else");
}

void Life::check_found() {
  if (disk_ == nullptr) return;
  tier::disk::BlockMemory memory(options_.ranks, kPayloadBytes);
  std::vector<tier::DiskDone> done;
  constexpr std::uint64_t kToken = 1;
  const auto blocks = watch_.stored.blocks();
  for (const auto& [key, state] : blocks) {
    const GroupId group(key.first);
    const bool is_sealed = state == Stored::State::kSealed;
    if (!disk_->contains(group, key.second)) {
      if (is_sealed) watch_.verdict.found(Wrong::kLostSealed, "a sealed block is not found again");
      continue;
    }
    const Status begun = disk_->begin_read(kToken, group, key.second, memory.shards(),
                                           transfer::IoClass::kTtftRead, kNoDeadline);
    done.clear();
    for (int i = 0; begun.is_ok() && done.empty() && i < kMostRounds; ++i) {
      disk_->wait(milliseconds(10));
      disk_->poll(done);
    }
    const Status status = done.empty() ? begun : done.front().status;
    TERRACE_CHECK(done.size() <= 1);  // The driver's own are over.
    if (status.is_ok()) {
      const auto& right = watch_.truth.of(group, key.second, watch_.weights);
      for (std::uint16_t rank = 0; rank < options_.ranks; ++rank) {
        if (std::memcmp(memory.shards()[rank].payload, right[rank].data(), kPayloadBytes) != 0) {
          watch_.verdict.found(Wrong::kBytes, "other bytes were found again as right ones");
        }
      }
    } else if (is_sealed) {
      watch_.verdict.found(Wrong::kLostSealed,
                           "a sealed block is not readable again: " + status.message());
    }
  }
}

void Life::check_no_leaks() {
  catalog::Pool& pool = rig.core.context().pool();
  const auto expect_none = [&](std::string_view what, std::uint64_t count) {
    if (count > 0) watch_.verdict.found(Wrong::kLeak, fmt::format("{} {} left", count, what));
  };
  expect_none("steps in flight", rig.core.steps().in_flight());
  expect_none("pinned slots", pool.pinned());
  expect_none("reserved slots", pool.count(SlotState::kReserved));
  expect_none("filling slots", pool.count(SlotState::kFilling));
  // Chosen to leave, and hit until their slots are wanted.
  const std::uint64_t leaving = rig.core.context().leaving();
  const std::uint64_t evicting = pool.count(SlotState::kEvicting);
  expect_none("evicting slots", evicting - std::min(evicting, leaving));
  expect_none("quarantined slots", pool.count(SlotState::kQuarantined));
  expect_none("reads", rig.core.reads());
  expect_none("writes", rig.core.writes());
  expect_none("pins of look-ups", rig.core.look_ups().waiting_pins());
  expect_none("requests", rig.core.requests());
  expect_none("transfers", device_.in_flight());
  if (disk_ == nullptr) return;
  expect_none("filling disk slots", disk_->count(SlotState::kFilling));
  expect_none("reserved disk slots", disk_->count(SlotState::kReserved));
}

void Life::end(bool is_abrupt) {
  if (is_abrupt) device_.cut_power();
  rig.driver.clear_lower();
  rig.driver.clear_objects();
  if (disk_ != nullptr) rig.core.close_lower("", true);
  if (objects_ != nullptr) rig.core.close_objects("");
  lower_.reset();
  disk_.reset();
  objects_.reset();
  if (options_.store != nullptr) options_.store->fault = {};
  store_ = nullptr;
  device_.set_witness(nullptr);
}

std::size_t Life::store_events() const {
  if (store_ == nullptr) return 0;
  std::size_t sum = 0;
  for (const Counter& counter : store_->counters().done) sum += counter.value() * 2;
  return sum;
}

}  // namespace terrace::sim
