// The host tier's memory: one lane per rank, each lane a row of equal slots in sealed memfds that
// other processes map. Slot i lies at the same place in every lane. An extent (32 MiB) is the step
// in which a lane is populated; a file holds one or several extents, so that a segment of any size
// takes at most 256 descriptors and a few more (docs/adr/0009-lanes-in-sealed-memfds.md).
// Threading: geometry is immutable; populate() may run in any thread while slots are in use.
// Owns: descriptors and mappings. A forked child inherits neither mapping nor duty: its destructors
// leave everything alone.
// Waits: populate() touches memory (0.15-0.4 s per GiB): never call it in an engine hook.
// Source: docs/adr/0009-lanes-in-sealed-memfds.md, docs/formats/attach.md.
#pragma once

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

inline constexpr Bytes kExtentBytes = 32_MiB;  // At most, unless one slot is larger.
inline constexpr Bytes kPageBytes = 4_KiB;
inline constexpr Bytes kHugePageBytes = 2_MiB;
inline constexpr std::uint32_t kSegmentFiles = 256;  // Aimed at, over all lanes.

struct SegmentGeometry {
  Bytes slot_bytes;  // Shard rounded up to 4 KiB.
  std::uint32_t slots = 0;
  std::uint16_t lanes = 1;

  // Errors: kInvalid = zero, not a multiple of 4 KiB, over 64 lanes, or beyond 2^47 bytes a lane.
  [[nodiscard]] Status validate() const;
  [[nodiscard]] std::uint32_t slots_per_extent() const;
  // A whole number of slots: at most 32 MiB, or one larger slot. The last extent may be shorter.
  [[nodiscard]] Bytes extent_bytes() const;
  [[nodiscard]] std::uint32_t extents() const;  // Per lane.
  [[nodiscard]] std::uint32_t extents_per_file() const;
  [[nodiscard]] std::uint32_t files() const;                 // Per lane.
  [[nodiscard]] Bytes file_bytes(std::uint32_t file) const;  // Without rounding to huge pages.
  [[nodiscard]] Bytes lane_bytes() const;
  friend bool operator==(const SegmentGeometry&, const SegmentGeometry&) = default;
};

// One rank's memory, mapped in this process.
class Lane {
 public:
  // Makes memfds (CLOEXEC, sealed against shrinking and growing), maps them without touching them,
  // left out of core dumps and forked children. Huge pages where `huge_pages` is true and the
  // system has enough free ones for the whole lane; else silently without, see uses_huge_pages().
  // Errors: kInvalid geometry; kExhausted when address space, descriptors or file size are limited:
  // the text names host.size, the limit and the way out.
  static Result<Lane> create(const SegmentGeometry& geometry, bool huge_pages,
                             const std::string& name);
  // Maps descriptors got from the owner after checking their seals and sizes; closes them.
  // Errors: kRefused when a seal is missing or number or size differs; kExhausted.
  static Result<Lane> map(const SegmentGeometry& geometry, std::vector<UniqueFd> files);
  Lane(Lane&&) noexcept;
  Lane& operator=(Lane&&) noexcept;
  ~Lane();

  // slot_bytes long. A slot outside the geometry breaks an invariant: check what comes from
  // outside.
  [[nodiscard]] std::span<std::byte> slot(SlotIndex slot) const;
  [[nodiscard]] const SegmentGeometry& geometry() const;
  // One per file, in order; empty in a lane made by map().
  [[nodiscard]] std::span<const UniqueFd> files() const;
  [[nodiscard]] bool uses_huge_pages() const;
  // Makes every page of extent `extent` present, so that later copies do not fault, in steps of at
  // most 32 MiB. Keeps what is written there. Errors: kExhausted when memory is refused: asked
  // before touching, so that no OOM killer and no SIGBUS answers instead.
  [[nodiscard]] Status populate(std::uint32_t extent) const;
  // How many leading extents populate() has made present in this process; populate in order.
  [[nodiscard]] std::uint32_t populated_extents() const;
  [[nodiscard]] bool is_populated(SlotIndex slot) const;

 private:
  struct State;
  explicit Lane(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

}  // namespace terrace::memory
