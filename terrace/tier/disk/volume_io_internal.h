// Plain blocking calls on the files of a volume, while it opens. Threading: thread-safe.  Waits:
// file I/O. Errors: kExhausted = the medium is full; kIo. Both name operation and path.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

#include "terrace/base/status.h"

namespace terrace::tier::disk {

[[nodiscard]] Status write_at(int file, std::span<const std::byte> bytes, std::uint64_t offset,
                              const std::string& path);
// fdatasync.
[[nodiscard]] Status sync_file(int file, const std::string& path);

}  // namespace terrace::tier::disk
