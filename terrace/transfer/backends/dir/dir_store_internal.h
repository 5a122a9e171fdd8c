// The dir store over system calls of the caller's choice. Threading: as dir_store.h.
// Waits: as dir_store.h.
#pragma once

#include <memory>

#include "terrace/transfer/backends/dir/dir_store.h"
#include "terrace/transfer/backends/dir/file_calls_internal.h"

namespace terrace::transfer::dir {

[[nodiscard]] Result<std::unique_ptr<ObjectStore>> make_store(const DirStoreOptions& options,
                                                              std::unique_ptr<FileCalls> calls);

}  // namespace terrace::transfer::dir
