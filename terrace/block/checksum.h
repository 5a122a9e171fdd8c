// 64-bit checksum of a shard's payload, computed while copying. Defined over the payload alone, by
// offset, so it is the same however the payload was cut into pieces (docs/formats/checksum.md,
// docs/adr/0002-payload-checksum.md).
// Threading: values and functions are thread-safe; ShardCopier is thread-compatible.  Waits: never.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "terrace/block/checksum_kernel.h"

namespace terrace {

struct Checksum {
  std::uint64_t value = 0;
  friend auto operator<=>(const Checksum&, const Checksum&) = default;
};

// Of a whole payload in memory.
[[nodiscard]] Checksum checksum_of(std::span<const std::byte> payload);

// Copies a payload piece by piece and checks it in the same pass. Pieces must not overlap.
//   for each piece in payload order: copier.copy(target, source, bytes);  copier.finish()
class ShardCopier {
 public:
  // `next` is a hint: where the following piece will be read from; it is asked for early. Any
  // address is safe. Writes past the cache where the piece is large and the target aligned to 64
  // bytes; the bytes are visible to other threads like those of an ordinary copy.
  void copy(std::byte* target, const std::byte* source, std::size_t bytes,
            const std::byte* next = nullptr);
  // Adds bytes that are in place already.
  void add(const std::byte* source, std::size_t bytes);
  [[nodiscard]] Checksum finish();  // Resets the copier.

 private:
  void take(std::byte* target, const std::byte* source, std::size_t bytes, const std::byte* next);

  checksum_kernel::PayloadState state_;
  std::size_t tail_bytes_ = 0;  // Bytes of the stripe begun, < 64.
  std::byte tail_[64] = {};
};

// The same copy without a checksum, for measuring what checking costs.
void copy_unchecked(std::byte* target, const std::byte* source, std::size_t bytes,
                    const std::byte* next = nullptr);

// Name of the code path chosen for this CPU, such as "avx512"; for `terrace inspect` and benches.
[[nodiscard]] const char* checksum_path();

}  // namespace terrace
