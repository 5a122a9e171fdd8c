#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "terrace/tier/disk/allocator_internal.h"

namespace terrace::tier::disk {

namespace {
constexpr std::uint64_t kAllocateStep = 1ULL << 30U;
constexpr std::uint64_t kZeroStep = 1ULL << 20U;
constexpr std::uint64_t kLeastMetaStep = 64ULL << 10U;  // 1024 records.
constexpr Nanoseconds kRetryTime = seconds(10);
constexpr Nanoseconds kOldSight = seconds(2);  // Looks are made each second.
}  // namespace

Allocator::Allocator(Context& context, BudgetKeeper& budget)
    : context_(context), budget_(budget), states_(context.volumes.size()) {
  for (std::size_t i = 0; i < states_.size(); ++i) {
    const Volume& volume = *context.volumes[i];
    states_[i].data = {volume.allocated_bytes(), kAllocateStep, 0};
    states_[i].meta = {volume.reserved_meta_bytes(), kAllocateStep, 0};
    states_[i].device = volume.device();
    states_[i].is_zeroing = context.options.preallocate == "zerofill";
  }
}

bool Allocator::is_done(std::uint32_t v) const {
  const Volume& volume = *context_.volumes[v];
  return states_[v].data.reached >= volume.capacity_bytes() &&
         states_[v].meta.reached >= volume.meta_bytes();
}

// One run ahead of the frames, so that zeros for many records keep no frame waiting.
bool Allocator::is_meta_due(std::uint32_t v) const {
  const Volume& volume = *context_.volumes[v];
  const State& state = states_[v];
  if (state.data.reached >= volume.capacity_bytes()) return true;
  const std::uint64_t runs = state.data.reached / volume.geometry().run_bytes() + 1;
  const std::uint64_t wanted = runs < volume.run_count()
                                   ? volume.records_end(static_cast<std::uint32_t>(runs - 1))
                                   : volume.meta_bytes();
  return state.meta.reached < wanted;
}

// Zeros over records that may count would lose them: such runs stay as they are.
void Allocator::pass_over_records(std::uint32_t v) {
  State& state = states_[v];
  Volume& volume = *context_.volumes[v];
  if (!state.is_zeroing || state.meta.reached >= volume.meta_bytes()) return;
  state.meta.reached = volume.next_meta_gap(state.meta.reached, kZeroStep).first;
  volume.set_reserved_meta(state.meta.reached);
}

void Allocator::advance() {
  if (is_stopped_) return;
  for (std::uint32_t v = 0; v < states_.size(); ++v) {
    State& state = states_[v];
    const Volume& volume = *context_.volumes[v];
    if (state.is_flying || context_.clock.now() < state.retry_at) continue;
    pass_over_records(v);
    if (is_done(v)) continue;
    state.is_meta = is_meta_due(v);
    Target& target = state.is_meta ? state.meta : state.data;
    const std::uint64_t end = state.is_meta ? volume.meta_bytes() : volume.capacity_bytes();
    const std::uint64_t step = state.is_zeroing ? kZeroStep : target.step;
    target.flying = std::min(end, target.reached + step);
    if (state.is_zeroing && state.is_meta) {
      target.flying = volume.next_meta_gap(target.reached, step).second;
    }
    if (waits_for_room(v)) continue;
    if (state.is_zeroing) {
      start_zeros(v, target.reached, target.flying - target.reached);
    } else {
      start_fallocate(v, target.reached, target.flying - target.reached);
    }
  }
}

// Others share the file system: it was divided when the tier opened, and they may have grown since.
// As when the medium is full, a smaller step may still fit. Records are few, and have no frames
// without room of their own.
bool Allocator::waits_for_room(std::uint32_t v) {
  State& state = states_[v];
  if (state.is_meta) return false;
  Target& target = state.data;
  if (!knows_room(v, target.flying - target.reached)) return true;
  const std::uint64_t least = context_.volumes[v]->geometry().extent_bytes;
  const Sight& sight = context_.lookers[v].sight();
  const auto lack_of = [&] {
    return lack_of_room(sight, unseen(v) + target.flying - target.reached);
  };
  std::string lack = lack_of();
  while (!lack.empty() && !state.is_zeroing && target.step > least) {
    target.step = std::max(target.step / 8, least);
    target.flying = std::min(target.flying, target.reached + target.step);
    lack = lack_of();
  }
  if (lack.empty()) return false;
  note_full(v, {Code::kExhausted, std::move(lack)});
  return true;
}

bool Allocator::knows_room(std::uint32_t v, std::uint64_t bytes) {
  State& state = states_[v];
  Looker& looker = context_.lookers[v];
  looker.take();
  const bool is_old = looker.number() == 0 || looker.age() > kOldSight;
  const auto is_no = [&] { return !lack_of_room(looker.sight(), unseen(v) + bytes).empty(); };
  if (state.asked == 0 && (is_old || (unseen(v) > 0 && is_no()))) state.asked = looker.ask();
  if (looker.number() < state.asked) return false;
  state.asked = 0;
  return true;
}

void Allocator::note_growth(std::uint32_t volume, std::uint64_t bytes) {
  for (std::uint32_t v = 0; v < states_.size(); ++v) {
    State& state = states_[v];
    if (state.device != states_[volume].device) continue;
    const Looker& looker = context_.lookers[v];
    if (looker.begun() > state.since) {
      if (looker.number() >= state.since) state.older = 0;
      state.older += std::exchange(state.newer, 0);
      state.since = looker.begun();
    }
    state.newer += bytes;
  }
}

std::uint64_t Allocator::unseen(std::uint32_t volume) const {
  const State& state = states_[volume];
  const std::uint64_t seen = context_.lookers[volume].number();
  if (seen > state.since) return 0;
  return seen == state.since ? state.newer : state.older + state.newer;
}

void Allocator::note_full(std::uint32_t v, Status reason) {
  State& state = states_[v];
  state.is_full = true;
  state.was_full = true;
  state.reason = std::move(reason);
  state.retry_at = context_.clock.now() + kRetryTime;
  context_.health.stuck(v, state.reason);
}

void Allocator::start_zeros(std::uint32_t v, std::uint64_t offset, std::uint64_t bytes) {
  if (zeros_.empty()) zeros_.resize(kZeroStep + kPageBytes);
  const auto address = reinterpret_cast<std::uintptr_t>(zeros_.data());
  transfer::Transfer transfer;
  transfer.op = transfer::IoOp::kWrite;
  transfer.io_class = transfer::IoClass::kScrub;
  transfer.pieces[0] = {zeros_.data() + (kPageBytes - address % kPageBytes) % kPageBytes, bytes};
  transfer.piece_count = 1;
  start(v, Purpose::kZeroFill, offset, transfer);
}

void Allocator::start_fallocate(std::uint32_t v, std::uint64_t offset, std::uint64_t bytes) {
  transfer::Transfer transfer;
  transfer.op = transfer::IoOp::kAllocate;
  transfer.io_class = transfer::IoClass::kPrefetch;
  transfer.length = bytes;
  start(v, Purpose::kAllocate, offset, transfer);
}

void Allocator::start(std::uint32_t v, Purpose purpose, std::uint64_t offset,
                      transfer::Transfer& transfer) {
  const Volume& volume = *context_.volumes[v];
  transfer.token = Ticket{purpose, 0, v}.token();
  transfer.file = states_[v].is_meta ? volume.meta_file() : volume.data_file();
  transfer.offset = offset;
  states_[v].is_flying = true;
  context_.push(v, transfer);
}

void Allocator::finish(Purpose purpose, std::uint32_t v, const Status& status) {
  State& state = states_[v];
  Target& target = state.is_meta ? state.meta : state.data;
  Volume& volume = *context_.volumes[v];
  state.is_flying = false;
  if (purpose == Purpose::kZeroFill) budget_.charge(target.flying - target.reached);
  if (status.is_ok()) {
    note_growth(v, target.flying - target.reached);
    target.reached = target.flying;
    volume.set_reserved_meta(state.meta.reached);
    volume.set_allocated(state.data.reached - state.data.reached % volume.geometry().extent_bytes);
    state.is_full = false;
    context_.health.grew(v);
    if (state.is_zeroing) note_progress(v);
    return;
  }
  if (status.code() == Code::kUnavailable && context_.options.preallocate == "auto") {
    state.is_zeroing = true;
    context_.log.write(LogLevel::kInfo,
                       fmt::format("disk path={} preallocate=zerofill reason=\"{}\"",
                                   volume.directory(), status.message()));
    return;
  }
  // A smaller step may still fit.
  const std::uint64_t least = state.is_meta ? kLeastMetaStep : volume.geometry().extent_bytes;
  if (status.code() == Code::kExhausted && purpose == Purpose::kAllocate && target.step > least) {
    target.step = std::max(target.step / 8, least);
    return;
  }
  // Behind the file's end nothing is written: what has room before it goes on.
  if (status.code() != Code::kExhausted) context_.health.write_failed(v, status);
  note_full(v, status);
}

void Allocator::note_progress(std::uint32_t v) {
  State& state = states_[v];
  const Volume& volume = *context_.volumes[v];
  const auto tenths = static_cast<unsigned>(state.data.reached * 10 / volume.capacity_bytes());
  if (tenths == state.said) return;
  state.said = tenths;
  context_.log.write(LogLevel::kInfo, fmt::format("disk path={} zeroed_percent={}",
                                                  volume.directory(), tenths * 10));
}

}  // namespace terrace::tier::disk
