#include "campaign/disk_storm.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>

namespace terrace::campaign {

namespace {
constexpr std::uint64_t kNumbers = 40;
constexpr std::size_t kMostUnderWay = 12;
constexpr std::size_t kGraves = 32;
constexpr std::size_t kMostLost = 4;

tier::disk::Rig::Shape shape_of(Rng& rng) {
  const std::uint64_t payloads[] = {4096, 5000, 8192};
  return {static_cast<std::uint16_t>(1 + rng.below(2)), {payloads[rng.below(3)]}};
}
}  // namespace

DiskStorm::DiskStorm(const std::string& backend, std::uint64_t seed, Figures& figures)
    : backend_(backend), rng_(seed), figures_(figures), rig_(shape_of(rng_)) {
  rig_.use_clock(clock_);
  rig_.options().backend = backend;
  rig_.options().decorate = [this](std::unique_ptr<transfer::Backend> inner) {
    auto faults = std::make_unique<transfer::FaultBackend>(std::move(inner), rng_.next());
    faults_ = faults.get();
    return faults;
  };
}

void DiskStorm::find(std::uint64_t& counter, const std::string& what) {
  figures_.find(counter, fmt::format("disk tier over {}: {}", backend_, what));
}

DiskStorm::BlockMemory DiskStorm::filled(std::uint64_t number, std::uint32_t version) const {
  BlockMemory memory = rig_.blank();
  memory.fill((std::uint64_t{version} << 20U) + number);
  return memory;
}

void DiskStorm::run(int rounds, int steps) {
  const std::size_t descriptors = open_descriptors();
  const std::size_t threads = live_threads();
  for (int i = 0; i < rounds && figures_.findings.empty(); ++i) round(steps);
  if (open_descriptors() != descriptors) find(figures_.leaks, "descriptors are left open");
  if (!are_threads_back_to(threads)) find(figures_.leaks, "threads are left");
}

bool DiskStorm::open() {
  const Status status = rig_.open();
  if (!status.is_ok()) find(figures_.lost_sealed, "it does not open: " + status.text());
  for (auto& [number, block] : blocks_) block.current.reset();
  return status.is_ok();
}

void DiskStorm::draw_rates() {
  const auto some = [&] { return static_cast<unsigned>(rng_.below(6)); };
  transfer::FaultRates rates;
  rates.read_error = some();
  rates.write_error = some();
  rates.sync_error = some();
  rates.no_space = rng_.chance(30) ? 1 : 0;
  rates.read_only = rng_.chance(20) ? 1 : 0;
  rates.flipped_read = some();
  rates.flipped_write = some();
  rates.short_read = some();
  rates.torn_write = some();
  rates.misplaced_read = some();
  rates.replayed_read = 2 + some();
  rates.interrupted = some() / 2;
  rates.again = some() / 2;
  rates.delayed = 2 * some();
  rates.duplicated = 2 * some();
  rates.reordered = 2 * some();
  rates.lost = some() / 3;
  faults_->set_rates(rates);
}

void DiskStorm::round(int steps) {
  if (!open()) return;
  draw_rates();
  held_steps_ = 0;
  for (int i = 0; i < steps; ++i) step();
  end_faults();
  settle_accounts();
  for (int kind = 0; kind < transfer::kFaultCount; ++kind) {
    const auto fault = static_cast<transfer::Fault>(kind);
    figures_.inject(backend_, std::string(to_string(fault)), faults_->injected(fault));
  }
  // A header that its device does not take is waited for until some time.
  clock_.advance_with_each_look(milliseconds(50));
  rig_.close();
  clock_.advance_with_each_look(Nanoseconds(0));
  faults_ = nullptr;
}

void DiskStorm::step() {
  clock_.advance(Nanoseconds(200'000 + static_cast<std::int64_t>(rng_.below(2'000'000))));
  if (held_steps_ > 0) {
    --held_steps_;
    if (held_steps_ == 0) faults_->hold(false);
  }
  if (held_steps_ == 0 && rng_.below(1000) < 3) {
    // Past every deadline that is given below, or to just before.
    held_steps_ = static_cast<int>(1 + rng_.below(60));
    faults_->hold(true);
    figures_.inject(backend_, "hang");
  }
  if (faults_->lost() >= kMostLost) faults_->release_lost();
  if (rng_.below(2000) == 0) reset();
  const std::uint64_t number = rng_.below(kNumbers);
  if (under_way_.size() < kMostUnderWay) {
    if (rng_.chance(40)) {
      write(number);
    } else {
      read(number);
    }
  }
  const bool has_room = under_way_.size() < kMostUnderWay;
  poll(has_room || held_steps_ > 0 ? Nanoseconds(0) : milliseconds(1));
}

void DiskStorm::write(std::uint64_t number) {
  Block& block = blocks_[number];
  if (block.under_way > 0) return;
  const std::uint32_t version = next_version_++;
  const std::uint64_t token = next_token_++;
  BlockMemory memory = filled(number, version);
  const Status status = rig_.tier().begin_write(token, GroupId(0), tier::disk::hash_of(number),
                                                number * 3, memory.shards(), memory.checksums());
  ++figures_.operations;
  // A path that is left alone for a while.
  if (status.code() == Code::kUnavailable) clock_.advance(seconds(2));
  if (!status.is_ok()) return;
  block.written.insert(version);
  block.is_writing = true;
  ++block.under_way;
  under_way_.emplace(token, Operation{false, number, version, {}, std::move(memory)});
}

void DiskStorm::read(std::uint64_t number) {
  Block& block = blocks_[number];
  if (block.is_writing) return;
  const std::uint64_t token = next_token_++;
  BlockMemory memory = rig_.blank();
  const Nanoseconds deadline =
      rng_.chance(40) ? clock_.now() + milliseconds(1 + static_cast<std::int64_t>(rng_.below(40)))
                      : kNoDeadline;
  const auto io_class = static_cast<transfer::IoClass>(rng_.below(2));
  const Status status = rig_.tier().begin_read(token, GroupId(0), tier::disk::hash_of(number),
                                               memory.shards(), io_class, deadline);
  ++figures_.operations;
  if (status.code() == Code::kUnavailable) clock_.advance(seconds(2));
  if (!status.is_ok()) return;
  ++block.under_way;
  std::set<std::uint32_t> right = block.written;
  if (block.current) right = {*block.current};
  under_way_.emplace(token, Operation{true, number, 0, std::move(right), std::move(memory)});
}

void DiskStorm::reset() {
  rig_.tier().forget_all();
  figures_.inject(backend_, "reset_under_way");
  for (auto& [number, block] : blocks_) block.current.reset();
  // What is under way may still end as ok only if it was begun after this.
  for (auto& [token, operation] : under_way_) operation.right.clear();
}

void DiskStorm::poll(Nanoseconds limit) {
  std::vector<tier::DiskDone> done;
  rig_.tier().wait(limit);
  rig_.tier().poll(done);
  for (const tier::DiskDone& item : done) finish(item);
  for (const Grave& grave : graves_) {
    if (grave.memory.checksums() != grave.checksums) {
      find(figures_.wrong_bytes, "memory that was given back was written");
    }
  }
}

void DiskStorm::finish(const tier::DiskDone& done) {
  const auto found = under_way_.find(done.token);
  if (found == under_way_.end()) return find(figures_.leaks, "an operation ended twice");
  Operation operation = std::move(found->second);
  under_way_.erase(found);
  Block& block = blocks_[operation.number];
  --block.under_way;
  if (operation.is_read) {
    finish_read(operation, done);
    // The pages of a short life: only now and then, each poll looks at all of them.
    if (rng_.chance(10)) {
      std::vector<Checksum> checksums = operation.memory.checksums();
      graves_.push_back({std::move(operation.memory), std::move(checksums)});
      if (graves_.size() > kGraves / 4) graves_.pop_front();
    }
    return;
  }
  block.is_writing = false;
  if (done.status.is_ok()) block.current = operation.version;
}

void DiskStorm::finish_read(const Operation& operation, const tier::DiskDone& done) {
  if (!done.status.is_ok()) return;
  const bool is_right = std::ranges::any_of(operation.right, [&](std::uint32_t version) {
    const BlockMemory wanted = filled(operation.number, version);
    return operation.memory.equals(wanted) && done.checksums == wanted.checksums();
  });
  if (!is_right || done.alias != operation.number * 3) {
    find(figures_.wrong_bytes, fmt::format("wrong bytes of block {}", operation.number));
  }
}

void DiskStorm::end_faults() {
  faults_->set_rates({});
  faults_->hold(false);
  held_steps_ = 0;
  const SystemClock clock;
  const Nanoseconds limit = clock.now() + seconds(30);
  // What the tier does for itself may be lost, too, while it is idle.
  const auto has_ended = [&] {
    return under_way_.empty() && rig_.tier().is_idle() && faults_->lost() == 0;
  };
  while (!has_ended() && clock.now() < limit) {
    faults_->release_lost();
    clock_.advance(seconds(1));
    poll(milliseconds(2));
  }
  if (under_way_.empty() && rig_.tier().is_idle()) return;
  find(figures_.hangs, fmt::format("{} operations do not end", under_way_.size()));
}

void DiskStorm::settle_accounts() {
  using catalog::SlotState;
  graves_.clear();
  for (const SlotState state :
       {SlotState::kReserved, SlotState::kFilling, SlotState::kEvicting, SlotState::kQuarantined}) {
    if (const std::uint32_t count = rig_.tier().count(state); count > 0) {
      find(figures_.leaks, fmt::format("{} slots stay {}", count, catalog::to_string(state)));
    }
  }
  const std::uint32_t all =
      rig_.tier().count(SlotState::kFree) + rig_.tier().count(SlotState::kSealed);
  if (all != rig_.tier().slots()) {
    find(figures_.leaks,
         fmt::format("{} of {} slots are free or sealed", all, rig_.tier().slots()));
  }
  if (rng_.chance(50)) return;  // The next round begins with what this one has left on the medium.
  // A pin that was left behind would keep its block here: all of them have to go.
  // A path that failed too often is looked at again after a rest, eight minutes long at most, by a
  // few dozen reads, one after the other.
  for (int i = 0; i < 500 && (i == 0 || !rig_.tier().problems().empty()); ++i) {
    clock_.advance(seconds(i < 10 ? 60 : 2));
    rig_.settle();
    if (i >= 10) rig_.tier().wait(milliseconds(1));
  }
  for (const std::string& problem : rig_.tier().problems()) {
    if (problem.find("state=distrusted") != std::string::npos) return;  // Unused until a restart.
  }
  for (std::uint64_t n = 0; n < rig_.tier().slots(); ++n) {
    const Status status = rig_.write(100'000 + next_version_++);
    if (!status.is_ok()) {
      find(figures_.leaks, fmt::format("afterwards: {}; {}", status.text(),
                                       fmt::join(rig_.tier().problems(), "; ")));
    }
  }
  for (const auto& [number, block] : blocks_) {
    if (rig_.has(number)) find(figures_.leaks, fmt::format("block {} stays pinned", number));
  }
}

}  // namespace terrace::campaign
