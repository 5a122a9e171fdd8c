#include <fmt/format.h>

#include <algorithm>

#include "terrace/tier/disk/allocator_internal.h"

namespace terrace::tier::disk {

namespace {
constexpr std::uint64_t kAllocateStep = 1ULL << 30U;
constexpr std::uint64_t kZeroStep = 1ULL << 20U;
constexpr Nanoseconds kRetryTime = seconds(10);
}  // namespace

Allocator::Allocator(Context& context) : context_(context), states_(context.volumes.size()) {
  for (std::size_t i = 0; i < states_.size(); ++i) {
    states_[i].reached = context.volumes[i]->allocated_bytes();
    states_[i].step = kAllocateStep;
    states_[i].is_zeroing = context.options.preallocate == "zerofill";
  }
}

bool Allocator::is_done(std::uint32_t volume) const {
  return states_[volume].reached >= context_.volumes[volume]->capacity_bytes();
}

void Allocator::advance() {
  for (std::uint32_t v = 0; v < states_.size(); ++v) {
    State& state = states_[v];
    const Volume& volume = *context_.volumes[v];
    if (state.is_flying || is_done(v) || context_.clock.now() < state.retry_at) continue;
    const std::uint64_t left = volume.capacity_bytes() - state.reached;
    transfer::Transfer transfer;
    transfer.file = volume.data_file();
    transfer.offset = state.reached;
    if (state.is_zeroing) {
      if (zeros_.empty()) zeros_.resize(kZeroStep + kPageBytes);
      const auto address = reinterpret_cast<std::uintptr_t>(zeros_.data());
      transfer.token = Ticket{Purpose::kZeroFill, 0, v}.token();
      transfer.op = transfer::IoOp::kWrite;
      transfer.io_class = transfer::IoClass::kScrub;
      transfer.pieces[0] = {zeros_.data() + (kPageBytes - address % kPageBytes) % kPageBytes,
                            std::min(left, kZeroStep)};
      transfer.piece_count = 1;
    } else {
      transfer.token = Ticket{Purpose::kAllocate, 0, v}.token();
      transfer.op = transfer::IoOp::kAllocate;
      transfer.io_class = transfer::IoClass::kPrefetch;
      transfer.length = std::min(left, state.step);
    }
    state.is_flying = true;
    context_.push(transfer);
  }
}

bool Allocator::finish(Purpose purpose, std::uint32_t v, const Status& status) {
  State& state = states_[v];
  Volume& volume = *context_.volumes[v];
  state.is_flying = false;
  const std::uint64_t left = volume.capacity_bytes() - state.reached;
  if (status.is_ok()) {
    state.reached += std::min(left, purpose == Purpose::kAllocate ? state.step : kZeroStep);
    volume.set_allocated(state.reached - state.reached % volume.geometry().extent_bytes);
    state.is_full = false;
    if (state.is_zeroing) note_progress(v);
    return true;
  }
  if (status.code() == Code::kUnavailable && context_.options.preallocate == "auto") {
    state.is_zeroing = true;
    context_.log.write(LogLevel::kInfo,
                       fmt::format("disk path={} preallocate=zerofill reason=\"{}\"",
                                   volume.directory(), status.message()));
    return false;
  }
  // A smaller step may still fit.
  if (status.code() == Code::kExhausted && purpose == Purpose::kAllocate &&
      state.step > volume.geometry().extent_bytes) {
    state.step = std::max(state.step / 8, volume.geometry().extent_bytes);
    return false;
  }
  state.is_full = true;
  state.reason = status;
  state.retry_at = context_.clock.now() + kRetryTime;
  if (status.code() == Code::kExhausted) {
    context_.health.filled_up(v, status);
  } else {
    context_.health.failed(v, status);
  }
  return true;
}

void Allocator::note_progress(std::uint32_t v) {
  State& state = states_[v];
  const Volume& volume = *context_.volumes[v];
  const auto tenths = static_cast<unsigned>(state.reached * 10 / volume.capacity_bytes());
  if (tenths == state.said) return;
  state.said = tenths;
  context_.log.write(LogLevel::kInfo, fmt::format("disk path={} zeroed_percent={}",
                                                  volume.directory(), tenths * 10));
}

}  // namespace terrace::tier::disk
