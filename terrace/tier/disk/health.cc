#include <fmt/format.h>

#include "terrace/tier/disk/health_internal.h"

namespace terrace::tier::disk {

namespace {
constexpr unsigned kFailuresToClose = 5;
constexpr Nanoseconds kClosedTime = seconds(30);
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
  return !state.is_lost && clock_.now() >= state.closed_until;
}

bool Health::may_write(std::uint32_t volume) const {
  return may_read(volume) && clock_.now() >= states_[volume].refused_until;
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

void Health::succeeded(std::uint32_t volume, bool is_write) {
  State& state = states_[volume];
  if (state.is_lost) return;
  if (state.failures >= kFailuresToClose) say(volume, {});
  state.failures = 0;
  // Before that, it is one of those that were under way: others are still turned away.
  if (is_write && state.is_refused && clock_.now() >= state.refused_until) {
    state.is_refused = false;
    say(volume, {});
  }
}

void Health::failed(std::uint32_t volume, const Status& status) {
  State& state = states_[volume];
  if (state.is_lost || ++state.failures < kFailuresToClose) return;
  state.closed_until = clock_.now() + kClosedTime;
  say(volume,
      fmt::format("path={} state=failing: {}; it is left alone for 30 s at a time: check the "
                  "device and the kernel's log",
                  directories_[volume], status.message()));
}

void Health::write_failed(std::uint32_t volume, const Status& status) {
  const bool is_read_only = status.code() == Code::kRefused;
  if (status.code() == Code::kClosed) return;
  if (status.code() != Code::kExhausted && !is_read_only) return failed(volume, status);
  State& state = states_[volume];
  if (state.is_lost) return;
  state.is_refused = true;
  state.refused_until = clock_.now() + kRefusedTime;
  say(volume,
      fmt::format("path={} state={}: {}; what is there is served, new blocks are dropped: {}",
                  directories_[volume], is_read_only ? "read-only" : "full", status.message(),
                  is_read_only ? "see the kernel's log, and mount it writable"
                               : "free space or lower disk.size"));
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
