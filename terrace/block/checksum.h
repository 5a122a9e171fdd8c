// 64-bit checksum of a shard's payload, computed while copying. Defined over the payload alone, by
// offset, so it is the same however the payload was cut into pieces (docs/formats/checksum.md, ADR).
// Threading: values and functions are thread-safe; ShardCopier is thread-compatible.  Waits: never.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

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
  void copy(std::byte* target, const std::byte* source, std::size_t bytes);
  // Adds bytes that are in place already.
  void add(const std::byte* source, std::size_t bytes);
  [[nodiscard]] Checksum finish();  // Resets the copier.

 private:
  std::uint64_t offset_ = 0;
  std::uint64_t state_[8] = {};  // Meaning is checksum.cc's own.
  std::byte tail_[64] = {};
};

// Name of the code path chosen for this CPU, such as "avx512"; for `terrace inspect` and benches.
[[nodiscard]] const char* checksum_path();

}  // namespace terrace
