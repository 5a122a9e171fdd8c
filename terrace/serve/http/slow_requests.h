// The requests of the last hour that took longest, each with its ledger.
// Threading: thread-compatible.  Owns: copies of ledgers.  Waits: for the ring's lock, as its other
// readers do.  Memory: up to 240 ledgers of 0.5 KiB.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "terrace/base/clock.h"
#include "terrace/manager/ledger_ring.h"

namespace terrace::serve {

class SlowRequests {
 public:
  static constexpr std::size_t kKept = 20;  // Of each window, and of an answer.
  static constexpr std::size_t kWindows = 12;
  static constexpr Nanoseconds kWindow = seconds(300);

  // `ring` outlives it; null = nothing ends.
  explicit SlowRequests(const manager::LedgerRing* ring) : ring_(ring) {}
  // Those that ended since the last time.
  void take_in();
  // One JSON object: `window_seconds`, `left_out` (gone from the ring before they were taken in,
  // since the start), `requests`, the slowest first.
  [[nodiscard]] std::string json(Nanoseconds now) const;

 private:
  static constexpr std::size_t kBatch = 256;
  struct Window {
    std::int64_t number = -1;  // Windows since the clock's 0.
    std::vector<manager::KeptLedger> slowest;
  };
  void keep(const manager::KeptLedger& kept);

  const manager::LedgerRing* const ring_;
  std::uint64_t next_ = 1;  // In the ring.
  std::uint64_t left_out_ = 0;
  std::array<Window, kWindows> windows_;  // By number % kWindows.
};

// What Terrace and the engine took for its prompt: look-up, load, and computing the rest.
[[nodiscard]] Nanoseconds prompt_time(const manager::Ledger& ledger);

}  // namespace terrace::serve
