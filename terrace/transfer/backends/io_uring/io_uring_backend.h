// The io_uring backend: one plain ring (no SQPOLL: its kernel thread starves busy cores),
// cooperative completion work where the kernel has it, an eventfd in the ring for wake().
// Threading: as Backend; waits and bounds, too. The ring is not bound to one thread (no
// SINGLE_ISSUER): the tier is opened by one thread, served by another and closed by a third.
// Source: io_uring_setup(2), io_uring_enter(2).
#pragma once

#include <memory>

#include "terrace/transfer/backend.h"

namespace terrace::transfer {

// Errors: kRefused when the kernel or its sandbox denies io_uring (EPERM, ENOSYS, EACCES): use
// threads; kExhausted when it has no memory for the ring.
[[nodiscard]] Result<std::unique_ptr<Backend>> make_io_uring_backend(
    const Backend::Options& options);

}  // namespace terrace::transfer
