#include <fmt/format.h>

#include <algorithm>

#include "terrace/manager/gate_internal.h"

namespace terrace::manager {

Gate::Gate(const Options& options, Nanoseconds now)
    : options_(options),
      epochs_(options.ranks),
      processes_(options.ranks),
      attach_deadline_(now + options.attach_timeout) {}

void Gate::shut(std::string reason) {
  if (shut_reason_.empty()) shut_reason_ = std::move(reason);
}

void Gate::on_attached(RankId rank, Epoch epoch, std::int64_t process) {
  if (rank.value() >= epochs_.size() || epoch == Epoch(0)) return;
  processes_[rank.value()] = process;
  Epoch& known = epochs_[rank.value()];
  if (known == epoch) return;
  if (known == Epoch(0)) ++attached_;
  known = epoch;
  need_canary();  // A new process has a new layout of its own memory.
}

void Gate::on_died(RankId rank, Epoch epoch, Nanoseconds now) {
  if (rank.value() >= epochs_.size() || epochs_[rank.value()] != epoch || epoch == Epoch(0)) return;
  epochs_[rank.value()] = Epoch(0);
  --attached_;
  need_canary();
  attach_deadline_ = now + options_.attach_timeout;
}

void Gate::need_canary() {
  canary_ = Canary::kNeeded;
  is_order_current_ = false;
  lost_canaries_ = 0;
  canary_rest_ = Nanoseconds(0);
  canary_after_ = Nanoseconds(INT64_MIN);
}

bool Gate::wants_canary(Nanoseconds now) const {
  return state_ok() && canary_ == Canary::kNeeded && now >= canary_after_;
}

void Gate::on_canary_ordered() {
  canary_ = Canary::kOrdered;
  is_order_current_ = true;
}

bool Gate::on_canary(const std::vector<wire::CanaryResult>& results) {
  if (!is_order_current_) return true;  // A rank went meanwhile: this answer is about the old ones.
  for (std::size_t rank = 0; rank < results.size(); ++rank) {
    if (results[rank] == wire::CanaryResult::kFailed) {
      shut(
          fmt::format("canary: rank {} got other bytes back than it saved: the layout that it "
                      "registered is not the one of its memory",
                      rank));
      return true;
    }
  }
  if (std::ranges::find(results, wire::CanaryResult::kNotRun) != results.end()) return false;
  canary_ = Canary::kPassed;
  return true;
}

bool Gate::on_canary_lost(Nanoseconds now) {
  if (canary_ != Canary::kOrdered) return false;
  canary_ = Canary::kNeeded;
  if (++lost_canaries_ < kQuickCanaries) return false;
  canary_rest_ = lost_canaries_ == kQuickCanaries ? kFirstCanaryRest
                                                  : std::min(canary_rest_ * 2, kLongestCanaryRest);
  canary_after_ = now + canary_rest_;
  return lost_canaries_ == kQuickCanaries;
}

Gate::State Gate::state(Nanoseconds now) const {
  if (!shut_reason_.empty()) return State::kShut;
  if (is_serving()) return State::kServing;
  if (lost_canaries_ >= kQuickCanaries) return State::kLate;
  // Once all are attached only the canary is missing: one step of the engine, not a late rank.
  return now >= attach_deadline_ && !all_attached() ? State::kLate : State::kOpening;
}

Epoch Gate::epoch_of(RankId rank) const {
  return rank.value() < epochs_.size() ? epochs_[rank.value()] : Epoch(0);
}

std::int64_t Gate::process_of(RankId rank) const {
  return rank.value() < processes_.size() ? processes_[rank.value()] : 0;
}

std::string Gate::reason(Nanoseconds now) const {
  if (!shut_reason_.empty()) return shut_reason_;
  if (is_serving()) return {};
  if (!has_host_) return "opening: the host tier is not there yet";
  if (!all_attached()) {
    return fmt::format("{}: {} of {} ranks attached",
                       now >= attach_deadline_ ? "attach" : "opening", attached_, epochs_.size());
  }
  if (lost_canaries_ >= kQuickCanaries) {
    return fmt::format(
        "canary: ordered {} times and never reported; it is ordered again, ever more "
        "rarely: look whether the ranks' processes run",
        lost_canaries_);
  }
  return "opening: the canary has not come back yet";
}

}  // namespace terrace::manager
