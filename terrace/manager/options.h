// What a BlockManager is made from: plain values; the C API fills them from settings.
// Threading: immutable values.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "terrace/base/clock.h"
#include "terrace/base/log.h"
#include "terrace/block/element.h"
#include "terrace/block/fingerprint.h"
#include "terrace/block/key_ring.h"
#include "terrace/block/layout.h"
#include "terrace/policy/admission/admission.h"
#include "terrace/tier/first_look.h"
#include "terrace/tier/object/object_tier.h"
#include "terrace/transfer/backend.h"
#include "terrace/transfer/object_store.h"

namespace terrace::manager {

struct HostOptions {
  Bytes size;
  std::uint64_t blocks = 0;
  bool huge_pages = true;
  std::string eviction = "lru";
  std::string system_root;  // Before /proc and /sys when asking for free memory; for tests.
};

struct DiskOptions {
  std::vector<std::string> paths;  // Empty = no disk tier.
  Bytes size;
  std::uint64_t blocks = 0;
  std::string backend = "auto";
  transfer::Backend::Options io;
  bool is_direct = true;
  bool is_direct_by_fcntl = false;
  std::string preallocate = "auto";
  std::string eviction = "lru";
  std::string admission = "all";
  policy::AdmissionOptions filter;  // The tier's blocks are entered by BlockManager.
  Bytes write_budget{0};            // A day, and
  double writes_per_day = 0;        // how often each device may be written over; 0 = no bound.
  bool is_demote = false;           // Write only at eviction from host; else through.
  std::uint32_t queue_blocks = 256;
  std::uint64_t scrub_bytes_per_second = 0;  // 0 = only when asked.
  Nanoseconds scrub_interval{0};
  Nanoseconds scrub_first{0};  // From the opening to the first pass.
  // How long each path has to answer when the tier opens. One that does not costs its own blocks.
  Nanoseconds first_look_limit = tier::kFirstLookLimit;
  std::function<std::unique_ptr<transfer::Backend>(std::unique_ptr<transfer::Backend>)> decorate;
};

// Whether all that is stored in host is written at once, if nothing refuses it; else when host
// gives it up.
[[nodiscard]] inline bool disk_has_copies(const DiskOptions& disk) {
  return !disk.is_demote && disk.admission != "expected";
}

// Of what lies below host.
struct EncryptionOptions {
  std::shared_ptr<const KeyRing> keys;  // Null: none.
  bool accepts_plain = false;
  std::uint32_t threads = 2;
};

struct ObjectOptions {
  // Called by the opening thread; empty = no object tier. Errors say what to do.
  std::function<Result<std::unique_ptr<transfer::ObjectStore>>(const Clock&, LogSink&)> open_store;
  std::uint32_t pack_blocks = 16;
  std::uint32_t queue_packs = 16;  // Waiting to be put.
  std::uint64_t known_blocks = 65'536;
  Nanoseconds write_time = seconds(60);
  tier::CollectOptions collect;   // How the store is kept from filling up.
  std::string admission = "all";  // Of packs.
  bool is_promoted = true;        // What was read from it may enter the disk.
  // A store that cannot be opened is tried again after so long; doubles, up to
  Nanoseconds first_retry = seconds(1);
  Nanoseconds longest_retry = seconds(60);
};

// Hits that are computed all the same, to compare.
struct ShadowOptions {
  double share = 0;                      // Of hits; rounded to one in a whole number of them.
  double tolerance = 1;                  // Times the noise floor; 0 = bytes must be equal.
  std::optional<ElementType> element{};  // Without one nothing is checked.
  std::string evidence{};                // Directory for blocks that differ; empty = none is kept.
  // Directories where a quarantine outlives the process, in each of them, as one may be gone or
  // hang at the next start; none = it does not.
  std::vector<std::string> marks{};
};

// What a KV group needs of the past, and how it looks in block tables.
struct GroupRule {
  // 0 = all of it; else a token sees itself and the window - 1 tokens before it.
  Tokens window{0};
  std::optional<std::uint32_t> null_block{};  // Stands for "no block" in the group's tables.
};

// Tiers that are only asked about, as settings give them.
struct ObservedTiers {
  static constexpr std::uint64_t kPool = 8;  // Blocks of host memory that there are all the same.
  Bytes host;
  std::uint64_t host_blocks = 0;
  Bytes disk;
  std::uint64_t disk_blocks = 0;
  bool disk_has_copies = true;
  std::string disk_eviction = "lru";  // That of host is HostOptions'.
};

struct Options {
  Layout layout;
  std::vector<GroupRule> group_rules;  // [group]; none = each group needs all, without null block.
  Fingerprint fingerprint;  // Weights are added from model_directory by the opening thread.
  std::string model_directory;
  // When the engine may have begun to load them, wall clock since 1970: weights that changed later
  // are not those it has, so nothing of it is kept on disk.
  Nanoseconds weights_loaded_from{INT64_MAX};
  std::string engine_id;
  std::string attach_directory;
  HostOptions host;
  DiskOptions disk;
  ObjectOptions object;
  EncryptionOptions encryption;
  ShadowOptions shadow;
  bool can_store = true;
  bool can_load = true;
  bool is_prompt_only = false;  // offload.scope = prompt
  bool has_planner = true;
  bool has_events = false;
  // Given = observe: nothing is stored or loaded. The host pool is a few slots for the canary.
  std::optional<ObservedTiers> observed;
  // Over all calls of one request: 256 MiB of ids, and at one token a block 1 GiB of hashes.
  Tokens max_request_tokens{std::uint64_t{1} << 26U};
  Bytes offload_step_bytes;          // Copy-out cap of one rank and engine step; the rest waits.
  double offload_time_share = 0.25;  // Of the engine's time, for copies out; 1 = no bound.
  double pin_share = 0.5;            // Of host slots, for waiting requests.
  Nanoseconds lookup_deadline = seconds(2);
  Nanoseconds pin_time = seconds(30);
  Nanoseconds attach_lookup_wait = seconds(5);
  Nanoseconds attach_timeout = seconds(120);
  Nanoseconds flush_limit = seconds(5);
  std::uint32_t hit_window = 1000;    // Ended requests over which hit rates are taken.
  Nanoseconds log_hits_every{0};      // KVBM's line; 0 = never.
  Nanoseconds log_rates_every{0};     // Our own; 0 = never.
  std::uint32_t ledgers_kept = 1024;  // Of requests that ended: 0.5 KiB each.
  // An engine step without all reports counts as lost then. A first step on a busy machine took 74
  // s.
  Nanoseconds step_timeout = seconds(600);
};

}  // namespace terrace::manager
