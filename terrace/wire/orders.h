// What the owner tells every rank in one engine step, and what a rank answers: opaque byte strings
// in the engine's own metadata. Slot i is the same block in every rank's lane, so all ranks get the
// same orders. Parsers are bounded and never throw: a cut or foreign string is kInvalid / kRefused.
// Threading: immutable values.  Source: docs/formats/orders.md.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "terrace/base/status.h"
#include "terrace/base/strong.h"
#include "terrace/block/checksum.h"
#include "terrace/block/location.h"

namespace terrace::wire {

// Copy host slot -> device block, verify. `checksums` has one entry per rank. A load whose slot is
// gone is sent with `is_void`: the rank reports the block failed without touching it.
struct LoadOrder {
  SlotRef slot;
  GroupId group;
  std::uint32_t device_block = 0;
  bool is_void = false;
  std::vector<Checksum> checksums;
  friend bool operator==(const LoadOrder&, const LoadOrder&) = default;
};

// Copy device block -> host slot, checksum.
struct SaveOrder {
  SlotRef slot;
  GroupId group;
  std::uint32_t device_block = 0;
  friend bool operator==(const SaveOrder&, const SaveOrder&) = default;
};

struct Orders {
  std::uint64_t owner = 0;  // Instance of the owner; a worker refuses orders of another one.
  StepId step;
  std::uint32_t canary_slot =
      UINT32_MAX;  // Run the canary through this host slot; UINT32_MAX = no.
  std::vector<LoadOrder> loads;
  std::vector<SaveOrder> saves;
  friend bool operator==(const Orders&, const Orders&) = default;
};

struct SaveReport {
  SlotRef slot;
  GroupId group;
  bool is_filled = false;
  Checksum checksum;
  friend bool operator==(const SaveReport&, const SaveReport&) = default;
};

struct LoadFailure {
  SlotRef slot;
  GroupId group;
  std::uint32_t device_block = 0;
  friend bool operator==(const LoadFailure&, const LoadFailure&) = default;
};

enum class CanaryResult : std::uint8_t { kNotRun = 0, kPassed = 1, kFailed = 2 };

struct Report {
  std::uint64_t owner = 0;
  Epoch epoch;  // Of the attachment that did the work.
  RankId rank;
  StepId step;
  CanaryResult canary = CanaryResult::kNotRun;
  std::uint64_t load_ns = 0;  // Time spent copying in, and how much.
  std::uint64_t load_bytes = 0;
  std::uint64_t save_ns = 0;
  std::uint64_t save_bytes = 0;
  std::vector<SaveReport> saves;
  std::vector<LoadFailure> failures;  // Loads not listed here succeeded.
  friend bool operator==(const Report&, const Report&) = default;
};

[[nodiscard]] std::string encode(const Orders& orders);
[[nodiscard]] std::string encode(const Report& report);
// Errors: kInvalid = cut or inconsistent, kRefused = other version.
[[nodiscard]] Result<Orders> decode_orders(std::span<const std::byte> bytes);
[[nodiscard]] Result<Report> decode_report(std::span<const std::byte> bytes);
// Several reports, one right after the other. Errors as above: then none of them counts.
[[nodiscard]] Result<std::vector<Report>> decode_reports(std::span<const std::byte> bytes);

}  // namespace terrace::wire
