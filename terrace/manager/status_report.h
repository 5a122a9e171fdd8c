// What an owner knows about itself at one moment: plain data for people and for monitoring.
// Rendered by serve/, filled by BlockManager::status(). Threading: immutable values.  Owns: its
// texts.  Waits: never.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "terrace/base/clock.h"
#include "terrace/base/strong.h"
#include "terrace/block/location.h"
#include "terrace/catalog/pool.h"
#include "terrace/manager/ledger.h"
#include "terrace/manager/mode.h"
#include "terrace/tier/scrub_report.h"

namespace terrace::manager {

enum class TierState : std::uint8_t { kOff, kOpening, kOpen, kFailed };

struct TierStatus {
  Tier tier = Tier::kHost;
  TierState state = TierState::kOff;
  std::string detail;  // "io_uring, O_DIRECT", "512 of 2048 MiB populated", or why it failed.
  Bytes capacity;
  std::array<std::uint32_t, catalog::kSlotStateCount> slots{};  // By SlotState.
  std::uint32_t pinned = 0;                                     // Of the sealed ones.
};

// What the disk has been written for.
struct DiskFlowStatus {
  std::uint64_t written_bytes = 0;      // To the medium, all together, since the start.
  std::uint64_t served_bytes = 0;       // Of blocks, verified.
  std::uint64_t budget_bytes = 0;       // Of 24 hours; 0 = no bound.
  std::int64_t budget_left = 0;         // Now; below 0 = debt.
  std::uint64_t dropped_admission = 0;  // Blocks.
  std::uint64_t dropped_budget = 0;
};

// What a tier of another size would have held: of all blocks that prompts asked for, also those
// that the engine had itself. With the eviction that it has. kDisk: host and disk together, host as
// it is, by the way in which the disk is written.
struct SizeForecastStatus {
  Tier tier = Tier::kHost;
  double factor = 1;  // Of the size that the tier has.
  Bytes size;
  double hit_percent = 0;
};
// One cache of this size with host's eviction, in place of all tiers and the engine's own cache.
struct CurvePoint {
  Bytes size;
  double hit_percent = 0;
};
struct ForecastStatus {
  std::uint64_t blocks_asked = 0;   // Learned from; older ones weigh less.
  Nanoseconds window{0};            // The time in which they were asked for, which ages likewise,
  std::uint64_t prompt_tokens = 0;  // and the tokens of prompts in it,
  std::uint64_t engine_tokens = 0;  // and what of them the engine's own cache had.
  std::uint64_t longest_usual = 0;  // Blocks: 99 of 100 prompts ask for no more.
  Bytes least_host{0};              // That may lend as many to one request that waits.
  // What host holds lies on disk as well, so that both hold no more than the larger one.
  bool disk_has_copies = true;
  std::vector<SizeForecastStatus> sizes;
  Bytes block;  // All ranks and groups.
  Tokens block_tokens;
  std::vector<CurvePoint>
      curve;  // Sizes go up, powers of two among them; empty = nothing asked for yet.
};

struct QueueStatus {
  std::string name;
  std::uint64_t waiting = 0;   // Blocks.
  std::uint64_t capacity = 0;  // Blocks; 0 = not bounded by a count.
  std::uint64_t dropped = 0;   // Blocks, since the start.
};

struct AttachmentStatus {
  RankId rank;
  Epoch epoch;
  std::int64_t process = 0;  // Process id; 0 = not attached yet.
  bool is_attached = false;
  std::string detail;  // Why it was refused or lost.
};

struct NamespaceStatus {
  std::string content;  // 64 hex digits each.
  std::string layout;
  // Sealed slots: one for each KV group of a block. What lies in several tiers counts in each.
  std::array<std::uint64_t, kTierCount> slots{};
  // Of them, distinct ones, at least: those of the tier that holds most.
  std::uint64_t blocks = 0;
  bool is_ours = false;  // The namespace of this engine.
};

// Of planned loads: actual time / predicted time. 0 = none yet.
struct PlanRatio {
  double p50 = 0;
  double p90 = 0;
};

// Hits that were computed all the same, to compare.
struct ShadowStatus {
  double share = 0;      // Of hits; 0 = none is checked.
  std::string why_none;  // Where it is wanted, and cannot be.
  // The noise floor, tolerance included: of one number, and of half a layer's all together.
  double floor_element = 0;
  double floor_rms = 0;
  std::uint64_t requests = 0;
  std::uint64_t tokens = 0;  // Computed although a tier had them.
  std::uint64_t equal = 0;   // Blocks, in each KV group.
  std::uint64_t within = 0;
  std::uint64_t beyond = 0;
  std::uint64_t skipped = 0;
  bool is_quarantined = false;
};

struct StatusReport {
  std::string engine;        // Its id.
  std::string page;          // Address of its web page, "http://127.0.0.1:6880/"; empty = none.
  std::int64_t process = 0;  // The owner's.
  // Red when a person should look: a tier failed, poisoned, the engine cannot be served, the canary
  // differed. Each reason says what to do.
  bool is_healthy = true;
  std::vector<std::string> problems;
  bool is_poisoned = false;
  Mode mode = Mode::kOn;    // What somebody has switched to; no matter of health.
  bool is_ready = false;    // All ranks attached and the host tier serves.
  std::string canary;       // "pending", "passed", "failed: …"
  std::string fingerprint;  // Clear text, one field a line.
  Nanoseconds uptime;

  std::vector<TierStatus> tiers;
  DiskFlowStatus disk_flow;
  ShadowStatus shadow;
  std::optional<tier::ScrubReport> scrub;  // Of the disk tier, if one is open.
  ForecastStatus forecast;
  std::vector<QueueStatus> queues;
  std::vector<AttachmentStatus> attachments;
  std::vector<NamespaceStatus> namespaces;

  std::uint64_t requests = 0;
  std::uint64_t prompt_tokens = 0;  // Of requests that ended,
  std::uint64_t engine_tokens = 0;  // and those that the engine's own cache had of them.
  std::uint64_t unkeyable_requests = 0;
  std::uint64_t active_requests = 0;
  std::uint64_t match_blocks = 0;
  std::uint64_t loads = 0;
  std::uint64_t failed_loads = 0;
  std::uint64_t slow_loads = 0;       // Slower than computing was predicted to be, or given up.
  std::uint64_t abandoned_loads = 0;  // Given up.
  std::uint64_t failed_tokens = 0;    // Promised, then not delivered.
  std::array<std::uint64_t, kTierCount> hit_tokens{};  // By the tier they came from.
  std::array<std::uint64_t, kMissReasonCount> miss_blocks{};
  std::array<std::uint64_t, kTierCount> corrupt_blocks{};

  std::array<double, kTierCount> load_bytes_per_second{};  // Measured; 0 = not yet.
  double prefill_tokens_per_second = 0;
  std::array<PlanRatio, kTierCount> plan_ratios{};  // By the slowest tier of the load.
};

}  // namespace terrace::manager
