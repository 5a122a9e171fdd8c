// The core and the one lock that guards it. Engine calls, the I/O thread and the opening thread
// meet here; nobody does I/O, hashes, logs or allocates anything of size while holding it.
// Threading: thread-safe.  Lock order: terrace/README.md.
#pragma once

#include "terrace/base/clock.h"
#include "terrace/base/mutex.h"
#include "terrace/manager/answer_board_internal.h"
#include "terrace/manager/core_internal.h"
#include "terrace/manager/figures_internal.h"
#include "terrace/manager/ledger_ring.h"

namespace terrace::manager {

struct Shared {
  Shared(const Options& options, std::uint64_t owner, Counters& counters, const Clock& clock)
      : ledgers(options.ledgers_kept, clock),
        core(options, owner, counters, answers, ledgers, clock.now()) {}
  mutable Mutex mutex;
  AnswerBoard answers;  // Written under the lock, read without.
  LedgerRing ledgers;   // The same.
  Figures figures;      // The same.
  Core core TERRACE_GUARDED_BY(mutex);
};

}  // namespace terrace::manager
