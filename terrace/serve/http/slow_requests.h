// The requests of the last hour that took longest, each with its ledger.
// Threading: note() by the engine's one thread; the rest by one other thread. They share no lock.
// Owns: copies of ledgers.  Waits: never.  Memory: some 120 KiB, from the start.
#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "terrace/base/clock.h"
#include "terrace/manager/ledger.h"

namespace terrace::serve {

class SlowRequests {
 public:
  static constexpr std::size_t kWaiting = 512;  // Between two take_in(); more are left out.
  static constexpr std::size_t kKept = 20;      // Of each window, and of an answer.
  static constexpr std::size_t kWindows = 12;
  static constexpr Nanoseconds kWindow = seconds(300);

  SlowRequests() : waiting_(kWaiting) {}
  // Of a request that ended now.
  void note(const manager::Ledger& ledger, Nanoseconds now);
  // What was noted since the last time.
  void take_in();
  // One JSON object: `window_seconds`, `left_out` (not noted, since the start), `requests`, the
  // slowest first.
  [[nodiscard]] std::string json(Nanoseconds now) const;

 private:
  struct Entry {
    manager::Ledger ledger;
    Nanoseconds at;  // Its end.
  };
  struct Window {
    std::int64_t number = -1;  // Windows since the clock's 0.
    std::vector<Entry> slowest;
  };
  void keep(const Entry& entry);

  std::vector<Entry> waiting_;  // A ring: [taken_, noted_) is filled.
  std::atomic<std::uint64_t> noted_{0};
  std::atomic<std::uint64_t> taken_{0};
  std::atomic<std::uint64_t> left_out_{0};
  std::array<Window, kWindows> windows_;  // By number % kWindows.
};

// What Terrace and the engine took for its prompt: look-up, load, and computing the rest.
[[nodiscard]] Nanoseconds prompt_time(const manager::Ledger& ledger);

}  // namespace terrace::serve
