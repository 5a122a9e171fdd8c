// The ledgers of the requests that ended last, for whoever asks why one was slow or missed: a ring
// of a fixed number of entries, the oldest goes. Entries are numbered from 1 on without gaps, so a
// reader asks for what came since, and sees what it lost.
// Threading: thread-safe. add() and amend() are the engine's, beside the manager's lock; readers
// copy a few entries at a time, so that the engine waits for none of them for longer than that
// takes (16 x 0.5 KiB).  Owns: its entries, by value; readers get copies.  Waits: never (its own
// lock is the lowest of all: terrace/README.md).
// Memory: 0.5 KiB an entry, from the start; a reader's copies are its own.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "terrace/base/clock.h"
#include "terrace/base/mutex.h"
#include "terrace/manager/ledger.h"

namespace terrace::manager {

class LedgerRing {
 public:
  // 0 keeps nothing. `clock` outlives it.
  LedgerRing(std::size_t entries, const Clock& clock)
      : capacity_(entries), clock_(clock), entries_(entries) {}

  // Returns the number that the entry got. Its wall time is now.
  std::uint64_t add(const KeptLedger& kept);
  // What of entry `number` was not known when it was added. Nothing happens if it has gone.
  void amend(std::uint64_t number, const Ledger& ledger, LedgerState state);

  // The number of the newest; 0 = none was ever added. Those before it that are still here are the
  // capacity() last ones.
  [[nodiscard]] std::uint64_t last() const;
  [[nodiscard]] std::size_t capacity() const { return capacity_; }
  // At most `most` of those with numbers from `from` on that are here, oldest first. What is added
  // meanwhile may be left out, and what goes meanwhile is: numbers go up, with gaps where entries
  // went.
  [[nodiscard]] std::vector<KeptLedger> read(std::uint64_t from, std::size_t most) const;
  // The newest ones, newest first.
  [[nodiscard]] std::vector<KeptLedger> newest(std::size_t most) const;

 private:
  static constexpr std::size_t kAtOnce = 16;

  const std::size_t capacity_;
  const Clock& clock_;
  mutable Mutex mutex_;
  std::vector<KeptLedger> entries_ TERRACE_GUARDED_BY(mutex_);
  std::uint64_t last_ TERRACE_GUARDED_BY(mutex_) = 0;
};

}  // namespace terrace::manager
