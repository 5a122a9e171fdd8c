// The shared store that settings name, and the bounds they set it: for owners, and for commands
// that work on a store without one. Threading: pure functions; a store opens in the thread that
// calls, one at a time.  Waits: opening does, for files and servers; for a directory that does not
// answer two seconds, once, and a thread stays with it. One that goes away just then may keep it.
#pragma once

#include <functional>
#include <memory>

#include "terrace/base/clock.h"
#include "terrace/base/log.h"
#include "terrace/config/settings.h"
#include "terrace/tier/object/object_tier.h"
#include "terrace/transfer/object_store.h"

namespace terrace::serve {

using OpenObjectStore =
    std::function<Result<std::unique_ptr<transfer::ObjectStore>>(const Clock&, LogSink&)>;

// Empty when none is wanted. `may_begin`: an empty folder becomes a store, as owners need it; else
// it is refused. Errors of the call: those of make_dir_store() and make_s3_store(); kUnavailable =
// the directory does not answer: ask again.
[[nodiscard]] OpenObjectStore object_store(const config::ObjectSettings& object,
                                           bool may_begin = true);
[[nodiscard]] tier::CollectOptions collect_options(const config::ObjectSettings& object);

}  // namespace terrace::serve
