#include <fmt/format.h>

#include <algorithm>

#include "terrace/tier/disk/health_internal.h"

namespace terrace::tier::disk {

namespace {
constexpr unsigned kFailuresToShut = 5;
constexpr Nanoseconds kFirstRest = seconds(30);  // Doubles from check to check, up to
constexpr Nanoseconds kLongestRest = seconds(480);
constexpr Nanoseconds kRefusedTime = seconds(10);
}  // namespace

Health::Health(std::vector<std::string> directories, std::vector<std::string> start_problems,
               const Clock& clock, LogSink& log)
    : directories_(std::move(directories)),
      start_problems_(std::move(start_problems)),
      clock_(clock),
      log_(log),
      states_(directories_.size()),
      readable_(static_cast<int>(directories_.size())),
      current_(directories_.size()) {}

bool Health::may_read(std::uint32_t volume) const {
  const State& state = states_[volume];
  return !state.is_lost && !state.is_shut;
}

bool Health::may_write(std::uint32_t volume) const {
  const auto takes = [&](const State& state) {
    return !state.is_lost && !state.is_shut && clock_.now() >= state.refused_until;
  };
  if (!takes(states_[volume])) return false;
  return !states_[volume].is_slow || std::ranges::none_of(states_, [&](const State& other) {
    return takes(other) && !other.is_slow;
  });
}

void Health::say(std::uint32_t volume, const std::string& problem) {
  {
    const MutexLock lock(mutex_);
    if (current_[volume] == problem) return;
    current_[volume] = problem;
  }
  if (problem.empty()) {
    log_.write(LogLevel::kInfo, fmt::format("disk path={} state=healthy", directories_[volume]));
  } else {
    log_.write(LogLevel::kError, fmt::format("disk {}", problem));
  }
}

void Health::say_rest(std::uint32_t volume) {
  const State& state = states_[volume];
  if (state.is_lost || state.is_shut) return;
  if (state.is_refused) return say(volume, state.refused_text);
  if (state.is_stuck) return say(volume, state.stuck_text);
  say(volume, state.is_slow ? state.slow_text : std::string());
}

void Health::succeeded(std::uint32_t volume, bool is_write) {
  State& state = states_[volume];
  if (state.is_lost || state.is_shut) return;  // One of those that were under way.
  state.failures = 0;
  // Before that, it is one of those that were under way: others are still turned away.
  if (is_write && state.is_refused && clock_.now() >= state.refused_until) {
    state.is_refused = false;
    say_rest(volume);
  }
}

void Health::failed(std::uint32_t volume, const Status& status) {
  State& state = states_[volume];
  if (state.is_lost || state.is_shut) return;
  if (++state.failures < kFailuresToShut) return;
  shut(volume, fmt::format("path={} state=failing: {}; it is left alone, its blocks are misses, "
                           "and looked at first after 30 s: check the device and the kernel's log",
                           directories_[volume], status.message()));
}

void Health::write_failed(std::uint32_t volume, const Status& status) {
  const bool is_read_only = status.code() == Code::kRefused;
  if (status.code() == Code::kClosed) return;
  if (status.code() != Code::kExhausted && !is_read_only) return failed(volume, status);
  State& state = states_[volume];
  if (state.is_lost || state.is_shut) return;
  state.is_refused = true;
  state.refused_until = clock_.now() + kRefusedTime;
  state.refused_text =
      fmt::format("path={} state={}: {}; what is there is served, new blocks are dropped: {}",
                  directories_[volume], is_read_only ? "read-only" : "full", status.message(),
                  is_read_only ? "see the kernel's log, and mount it writable"
                               : "free space or lower disk.size");
  say_rest(volume);
}

void Health::stuck(std::uint32_t volume, const Status& status) {
  State& state = states_[volume];
  if (status.code() == Code::kRefused) return;  // Said by write_failed().
  if (status.code() == Code::kClosed || state.is_lost || state.is_shut) return;
  state.is_stuck = true;
  const bool is_full = status.code() == Code::kExhausted;
  state.stuck_text = fmt::format(
      "path={} state={}: {}; its slot file got no more space: new blocks take the place of others "
      "in what it has, and it is tried again every 10 s: {}",
      directories_[volume], is_full ? "full" : "stuck", status.message(),
      is_full ? "free space or lower disk.size" : "check the device and the kernel's log");
  say_rest(volume);
}

void Health::grew(std::uint32_t volume) {
  State& state = states_[volume];
  if (!state.is_stuck) return;
  state.is_stuck = false;
  say_rest(volume);
}

void Health::shut(std::uint32_t volume, const std::string& problem) {
  State& state = states_[volume];
  if (state.is_lost) return;
  if (!state.is_shut) state.rest = kFirstRest;
  state.is_shut = true;
  state.check_at = clock_.now() + state.rest;
  say(volume, problem);
}

void Health::gone(std::uint32_t volume, const std::string& why) {
  State& state = states_[volume];
  if (state.is_lost || state.is_gone) return;
  state.is_gone = true;
  shut(volume, fmt::format("path={} state=gone: {}; its blocks are misses until it is back: mount "
                           "it again, or restart the engine without it",
                           directories_[volume], why));
}

void Health::found(std::uint32_t volume) {
  State& state = states_[volume];
  if (!state.is_gone) return;
  state.is_gone = false;
  state.check_at = clock_.now();
}

bool Health::hangs(std::uint32_t volume, const std::string& why) {
  State& state = states_[volume];
  if (state.is_lost || state.is_hanging) return false;
  state.is_hanging = true;
  shut(volume,
       fmt::format("path={} state=hanging: {}; its blocks are misses until it answers: check the "
                   "device or file server and the kernel's log",
                   directories_[volume], why));
  return true;
}

void Health::let_go(std::uint32_t volume) {
  State& state = states_[volume];
  if (!state.is_hanging) return;
  state.is_hanging = false;
  state.check_at = clock_.now();
}

void Health::slow(std::uint32_t volume, double rate, double norm) {
  State& state = states_[volume];
  if (state.is_slow) return;
  state.is_slow = true;
  state.slow_text = fmt::format(
      "path={} state=slow: {:.1f} MB/s where {:.0f} were usual; new blocks go to "
      "other directories, if there are any: check the device",
      directories_[volume], rate * 1e-6, norm * 1e-6);
  say_rest(volume);
}

void Health::quick(std::uint32_t volume) {
  State& state = states_[volume];
  if (!state.is_slow) return;
  state.is_slow = false;
  say_rest(volume);
}

bool Health::is_check_due(std::uint32_t volume) const {
  const State& state = states_[volume];
  return state.is_shut && !state.is_lost && !state.is_gone && !state.is_hanging &&
         clock_.now() >= state.check_at;
}

void Health::check_failed(std::uint32_t volume, const Status& status) {
  State& state = states_[volume];
  state.rest = std::min(state.rest * 2, kLongestRest);
  shut(volume,
       fmt::format("path={} state=failing: it was looked at again: {}; it is left alone, its "
                   "blocks are misses, and looked at again ever more rarely: check the "
                   "device and the kernel's log",
                   directories_[volume], status.message()));
}

void Health::returned(std::uint32_t volume, const std::string& found) {
  State& state = states_[volume];
  if (state.is_lost) return;
  const bool is_slow = state.is_slow;
  std::string slow_text = std::move(state.slow_text);
  state = {};
  state.is_slow = is_slow;
  state.slow_text = std::move(slow_text);
  log_.write(LogLevel::kInfo,
             fmt::format("disk path={} state=returned {}", directories_[volume], found));
  say_rest(volume);
}

void Health::distrusted(std::uint32_t volume, const std::string& why) {
  State& state = states_[volume];
  if (state.is_lost) return;
  state.is_lost = true;
  readable_.fetch_sub(1, std::memory_order_relaxed);
  say(volume,
      fmt::format("path={} state=distrusted: {}; it stays unused: restart the engine, which "
                  "checks each block, or wipe it",
                  directories_[volume], why));
}

bool Health::lost(std::uint32_t volume) {
  State& state = states_[volume];
  if (state.is_lost) return false;
  state.is_lost = true;
  readable_.fetch_sub(1, std::memory_order_relaxed);
  say(volume, fmt::format("path={} state=lost: its files were deleted while in use; restart the "
                          "engine to make them anew",
                          directories_[volume]));
  return true;
}

std::vector<std::string> Health::problems() const {
  std::vector<std::string> all = start_problems_;
  const MutexLock lock(mutex_);
  for (const std::string& problem : current_) {
    if (!problem.empty()) all.push_back(problem);
  }
  return all;
}

}  // namespace terrace::tier::disk
