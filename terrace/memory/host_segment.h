// The host tier's memory: one lane per rank, each lane a list of sealed memfds (extents) that other
// processes map. Slot i lies at the same place in every lane.
// Threading: HostSegment's geometry is immutable; populate() may run in another thread while slots
// below populated() are in use.  Owns: descriptors and mappings.
// Waits: populate() touches memory (0.15-0.4 s per GiB): never call it in an engine hook.
// Source: design.md section 4.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "terrace/base/file.h"
#include "terrace/base/status.h"
#include "terrace/base/strong.h"

namespace terrace::memory {

inline constexpr Bytes kExtentBytes = 32_MiB;  // Larger when one slot is larger: the slot rounded up.

struct SegmentGeometry {
  Bytes slot_bytes;        // Shard rounded up to 4 KiB.
  std::uint32_t slots = 0;
  std::uint16_t lanes = 1;
  [[nodiscard]] Bytes extent_bytes() const;
  [[nodiscard]] std::uint32_t slots_per_extent() const;
  [[nodiscard]] std::uint32_t extents() const;  // Per lane.
  friend bool operator==(const SegmentGeometry&, const SegmentGeometry&) = default;
};

// One rank's memory, mapped in this process.
class Lane {
 public:
  // Makes memfds (MFD_CLOEXEC | MFD_ALLOW_SEALING, F_SEAL_SHRINK | F_SEAL_GROW), maps them
  // MADV_DONTDUMP; huge pages where the system has them free and `huge_pages` is true.
  static Result<Lane> create(const SegmentGeometry& geometry, bool huge_pages, const std::string& name);
  // Maps descriptors got from the owner after checking their seals and sizes.
  // Errors: kRefused when a seal is missing or a size differs.
  static Result<Lane> map(const SegmentGeometry& geometry, std::vector<UniqueFd> extents);
  Lane(Lane&&) noexcept;
  Lane& operator=(Lane&&) noexcept;
  ~Lane();

  [[nodiscard]] std::span<std::byte> slot(SlotIndex slot) const;  // slot_bytes long
  [[nodiscard]] std::span<const UniqueFd> extents() const;
  [[nodiscard]] bool uses_huge_pages() const;
  // Touches extent `extent` so that later copies do not fault. kExhausted when memory is refused.
  [[nodiscard]] Status populate(std::uint32_t extent);

 private:
  struct State;
  explicit Lane(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

}  // namespace terrace::memory
