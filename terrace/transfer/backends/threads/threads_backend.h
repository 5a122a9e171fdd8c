// The threads backend: a few threads with preadv and pwritev, and two with fdatasync and fallocate,
// for machines and containers where io_uring is denied. Higher classes first. Each volume has its
// own of both, so that one whose device hangs keeps no other waiting.
// Threading: as Backend, waits and bounds, too; the worker threads are its own.
#pragma once

#include <memory>

#include "terrace/transfer/backend.h"

namespace terrace::transfer {

// Errors: kExhausted when the system refuses threads; kInvalid for a depth, volume or
// thread count of 0.
[[nodiscard]] Result<std::unique_ptr<Backend>> make_threads_backend(
    const Backend::Options& options);

}  // namespace terrace::transfer
