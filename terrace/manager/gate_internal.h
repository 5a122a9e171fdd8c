// May the owner serve? Until the host tier is there, every rank attached and the canary came back
// right from all of them, look-ups wait, each for a limited time; then they miss. A pure state
// machine.
//
//   opening --(host, ranks, canary)--> serving --(a rank died)--> opening
//   opening --(attach_timeout)--> late: misses at once, but a late rank still opens the gate
//   opening --(canary lost often)--> late: it is ordered again, ever more rarely
//   anything --(canary wrong, host refused)--> shut, for good
// Threading: thread-compatible; the manager's lock guards it.  Waits: never.
// Source: docs/architecture.md.
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
  [[nodiscard]] bool wants_canary(Nanoseconds now) const;
  void on_canary_ordered();
  [[nodiscard]] bool is_canary_ordered() const { return canary_ == Canary::kOrdered; }
  // One entry per rank. An answer that comes late counts, as long as it is of the same processes.
  // False = a rank ran none, as it was not attached yet when the order came: it is lost.
  [[nodiscard]] bool on_canary(const std::vector<wire::CanaryResult>& results);
  // A canary whose answers got lost says nothing: it is ordered again, at first at once. True when
  // that has not helped so often that it becomes rare now.
  bool on_canary_lost(Nanoseconds now);

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

 private:
  enum class Canary : std::uint8_t { kNeeded, kOrdered, kPassed };
  static constexpr int kQuickCanaries = 64;
  static constexpr Nanoseconds kFirstCanaryRest = seconds(60);  // Doubles up to the longest.
  static constexpr Nanoseconds kLongestCanaryRest = seconds(600);
  void need_canary();
  [[nodiscard]] bool state_ok() const {
    return has_host_ && all_attached() && shut_reason_.empty();
  }

  const Options options_;
  std::vector<Epoch> epochs_;            // [rank]
  std::vector<std::int64_t> processes_;  // [rank]
  std::size_t attached_ = 0;
  bool has_host_ = false;
  Canary canary_ = Canary::kNeeded;
  bool is_order_current_ = false;  // Some canary was ordered from just these processes.
  int lost_canaries_ = 0;
  Nanoseconds canary_rest_{0};
  Nanoseconds canary_after_{INT64_MIN};
  Nanoseconds attach_deadline_;
  std::string shut_reason_;
};

}  // namespace terrace::manager
