// Where a tier below host reads a shard into, or writes it from.
// Threading: a plain value; the memory is the caller's.
#pragma once

#include <cstddef>

namespace terrace::tier {

// One rank's payload in memory, 4 KiB aligned, `padded_bytes` readable and writable.
struct ShardMemory {
  std::byte* payload = nullptr;
  std::size_t payload_bytes = 0;
  std::size_t padded_bytes = 0;  // payload_bytes rounded up to 4 KiB.
};

}  // namespace terrace::tier
