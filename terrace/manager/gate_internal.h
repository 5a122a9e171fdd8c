// May the owner serve? Until the host tier is there, every rank attached and the canary came back
// right from all of them, look-ups wait, each for a limited time; then they miss. A pure state
// machine.
//
//   opening --(host, ranks, canary)--> serving --(a rank died)--> opening
//   opening --(attach_timeout)--> late: misses at once, but a late rank still opens the gate
//   anything --(canary wrong, host refused)--> shut, for good
// Threading: thread-compatible; the manager's lock guards it.  Waits: never.
// Source: design.md sections 3 and 4.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "terrace/attach/attach_server.h"
#include "terrace/base/clock.h"
#include "terrace/wire/orders.h"

namespace terrace::manager {

class Gate {
 public:
  struct Options {
    std::uint16_t ranks = 1;
    Nanoseconds attach_timeout = seconds(120);
  };
  enum class State : std::uint8_t { kOpening, kServing, kLate, kShut };

  Gate(const Options& options, Nanoseconds now);

  void open_host() { has_host_ = true; }
  void shut(std::string reason);
  void on_attached(RankId rank, Epoch epoch, std::int64_t process = 0);
  void on_died(RankId rank, Epoch epoch, Nanoseconds now);

  // The canary has to be ordered.
  [[nodiscard]] bool wants_canary() const;
  void on_canary_ordered() { canary_ = Canary::kOrdered; }
  [[nodiscard]] bool is_canary_ordered() const { return canary_ == Canary::kOrdered; }
  // One entry per rank. A canary whose answers got lost is ordered again, a few times.
  void on_canary(const std::vector<wire::CanaryResult>& results);
  void on_canary_lost();

  [[nodiscard]] State state(Nanoseconds now) const;
  [[nodiscard]] bool is_serving() const { return state_ok() && canary_ == Canary::kPassed; }
  [[nodiscard]] bool all_attached() const { return attached_ == epochs_.size(); }
  // 0 = not attached.
  [[nodiscard]] Epoch epoch_of(RankId rank) const;
  [[nodiscard]] const std::vector<Epoch>& epochs() const { return epochs_; }
  // Of the rank's last attachment; 0 = never attached, or not to be seen from here.
  [[nodiscard]] std::int64_t process_of(RankId rank) const;
  // Why it does not serve; empty when it does.
  [[nodiscard]] std::string reason(Nanoseconds now) const;
  [[nodiscard]] bool has_run_canary() const { return has_run_canary_; }

 private:
  enum class Canary : std::uint8_t { kNeeded, kOrdered, kPassed };
  static constexpr int kMaxLostCanaries = 64;
  [[nodiscard]] bool state_ok() const {
    return has_host_ && all_attached() && shut_reason_.empty();
  }

  const Options options_;
  std::vector<Epoch> epochs_;            // [rank]
  std::vector<std::int64_t> processes_;  // [rank]
  std::size_t attached_ = 0;
  bool has_host_ = false;
  bool has_run_canary_ = false;
  Canary canary_ = Canary::kNeeded;
  int lost_canaries_ = 0;
  Nanoseconds attach_deadline_;
  std::string shut_reason_;
};

}  // namespace terrace::manager
