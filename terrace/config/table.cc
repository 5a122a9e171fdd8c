#include "terrace/config/table.h"

#include <algorithm>
#include <cctype>

namespace terrace::config {
namespace {

template <typename E>
EnumField enum_field(E& target) {
  return {&target, [](void* t, std::size_t i) { *static_cast<E*>(t) = static_cast<E>(i); },
          [](const void* t) { return static_cast<std::size_t>(*static_cast<const E*>(t)); }};
}

constexpr double kKi = 1024.0;
constexpr double kMi = kKi * kKi;
constexpr double kGi = kKi * kMi;
constexpr double kTi = kKi * kGi;
constexpr double kSecond = 1e9;
constexpr double kHour = 3600 * kSecond;
constexpr double kMost32 = 4294967294.0;  // 2^32 - 2: pools number slots in 32 bits; one is none.
// A Unix socket's path ends at 107 bytes; 40 of them are kept for the file's name.
constexpr double kSocketDirectory = 66;

using enum Type;
using enum AliasKind;
using S = Settings;

// FIELD(host.size): where the value of a row lives.
#define FIELD(member) [](S& s) -> Field { return &s.member; }
#define ENUM_FIELD(member) [](S& s) -> Field { return enum_field(s.member); }

// clang-format off: a row is a paragraph; one field a line would hide the table.
constexpr Row kRows[] = {
    {.name = "mode", .type = kChoice, .fallback = "on", .choices = "on|observe",
     .text = "`on` stores and loads. `observe` stores and loads nothing, and learns what tiers would do: "
         "`terrace advise` tells.",
     .field = ENUM_FIELD(mode)},
    {.name = "tenant", .type = kText, .fallback = "", .high = 128,
     .text = "Part of the content fingerprint: blocks of different tenants never match.",
     .field = FIELD(tenant)},
    {.name = "preset", .type = kChoice, .fallback = "none", .choices = "none|chat|agents|rag|batch",
     .text = "What the engine is used for: moves the defaults of some policies, and gives way to "
         "whatever else is set. `none` moves none.", .field = FIELD(preset)},
    {.name = "config.file", .type = kPath, .fallback = "", .high = 4096,
     .text = "TOML file with settings; lowest of the sources, above `preset`.", .field = FIELD(config_file),
     .fallback_note = "none"},

    {.name = "host.size", .type = kSize, .fallback = "0", .high = 1024 * kTi, .low_nonzero = kMi,
     .text = "Bytes of the host tier, all ranks together. 0 with a disk tier = staging only.",
     .field = FIELD(host.size), .aliases = {{{"DYN_KVBM_CPU_CACHE_GB", kGigabytes}}}},
    {.name = "host.blocks", .type = kBlocks, .fallback = "0", .high = kMost32,
     .text = "Exact number of blocks of the host tier; beats `host.size`. 0 = by size.",
     .field = FIELD(host.blocks),
     .aliases = {{{"DYN_KVBM_CPU_CACHE_OVERRIDE_NUM_BLOCKS", kCount}}}},
    {.name = "host.staging", .type = kSize, .fallback = "256MiB", .low = 16 * kMi, .high = kTi,
     .text = "Size of the host pool through which the disk tier serves when the host tier itself "
         "has no size.", .field = FIELD(host.staging)},
    {.name = "host.huge_pages", .type = kChoice, .fallback = "auto", .choices = "auto|off",
     .text = "Use huge pages for the host segment when the system has any.",
     .field = ENUM_FIELD(host.huge_pages)},
    {.name = "host.numa", .type = kChoice, .fallback = "auto", .choices = "auto|off",
     .text = "`auto`: each rank's own threads touch its lane first, so it lies on their node.",
     .field = ENUM_FIELD(host.numa),
     .aliases = {{{"DYN_MEMORY_DISABLE_NUMA", kBoolMap, "off/auto"}}},
     .missing = "lanes cannot be placed otherwise yet"},
    {.name = "host.write_combined", .type = kBool, .fallback = "false",
     .text = "Pin the host segment write-combined. The CPU reads it to verify: slow.",
     .field = FIELD(host.write_combined),
     .aliases = {{{"DYN_KVBM_DISABLE_WRITE_COMBINED", kPresence, "false"}}},
     .missing = "pinned memory of accelerators is not built, so nothing is write-combined"},
    {.name = "host.eviction", .type = kChoice, .fallback = "hazard", .choices = "hazard|lru",
     .text = "Which block leaves the full host tier: `hazard` learns which conversations come back, "
         "and when; `lru` takes the one that was used longest ago.", .field = FIELD(host.eviction)},

    {.name = "disk.size", .type = kSize, .fallback = "0", .high = 1024 * 1024 * kTi,
     .low_nonzero = kMi, .text = "Bytes of the disk tier, per owner. 0 = no disk tier. 5 % of a file "
         "system, 1 to 64 GiB, always stay free (of a small one a quarter): the tier is smaller then.",
     .field = FIELD(disk.size), .aliases = {{{"DYN_KVBM_DISK_CACHE_GB", kGigabytes}}}},
    {.name = "disk.blocks", .type = kBlocks, .fallback = "0", .high = kMost32,
     .text = "Exact number of blocks of the disk tier; beats `disk.size`. 0 = by size.",
     .field = FIELD(disk.blocks),
     .aliases = {{{"DYN_KVBM_DISK_CACHE_OVERRIDE_NUM_BLOCKS", kCount}}}},
    {.name = "disk.paths", .type = kPathList, .fallback = "", .high = 4096,
     .text = "Directories of the disk tier; blocks are striped over them. None may be another one "
         "or lie in it.",
     .field = FIELD(disk.paths), .aliases = {{{"DYN_KVBM_DISK_CACHE_DIR", kAsIs}}},
     .fallback_note = "$XDG_CACHE_HOME/terrace, else ~/.cache/terrace"},
    {.name = "disk.direct", .type = kBool, .fallback = "true",
     .text = "Bypass the page cache (O_DIRECT).", .field = FIELD(disk.direct),
     .aliases = {{{"DYN_KVBM_DISK_DISABLE_O_DIRECT", kPresence, "false"}}}},
    {.name = "disk.direct_at", .type = kChoice, .fallback = "open", .choices = "open|fcntl",
     .text = "When O_DIRECT is asked for: at open, or later by fcntl.",
     .field = ENUM_FIELD(disk.direct_at),
     .aliases = {{{"DYN_KVBM_DISK_ALLOCATOR_TYPE", kWordMap, "default=fcntl,open-direct=open"}}}},
    {.name = "disk.preallocate", .type = kChoice, .fallback = "auto",
     .choices = "auto|fallocate|zerofill",
     .text = "How slot files get their blocks; `auto` writes zeros where fallocate is refused.",
     .field = ENUM_FIELD(disk.preallocate),
     .aliases = {{{"DYN_KVBM_DISK_ZEROFILL_FALLBACK", kPresence, "auto"}}}},
    {.name = "disk.backend", .type = kChoice, .fallback = "auto",
     .choices = "auto|io_uring|threads",
     .text = "What moves bytes to and from disk; `auto` takes io_uring, or threads where the "
         "kernel denies it or `disk.direct` is false.", .field = ENUM_FIELD(disk.backend)},
    {.name = "disk.backend_library", .type = kPath, .fallback = "", .high = 4096,
     .text = "Library of a backend that was built outside Terrace; it moves the bytes instead of "
         "`disk.backend`. It runs in the engine's process: `terrace backend check` it first.",
     .field = FIELD(disk.backend_library), .fallback_note = "none"},
    {.name = "disk.depth", .type = kInteger, .fallback = "16", .low = 1, .high = 1024,
     .text = "Requests in flight at the disk, divided among `disk.paths`; at least four for each of several.", .field = FIELD(disk.depth)},
    {.name = "disk.threads", .type = kInteger, .fallback = "4", .low = 1, .high = 64,
     .text = "Threads of the `threads` backend that read and write, divided among `disk.paths`, at least two for each of several; two more of each sync and allocate.", .field = FIELD(disk.threads)},
    {.name = "disk.admission", .type = kChoice, .fallback = "all", .choices = "all|expected|frequency|reuse",
     .text = "Which blocks may enter the disk tier; `expected` waits until host evicts a block and "
         "refuses what is least likely to be asked for again, aiming to give up `disk.admission_loss`; "
         "`frequency` refuses a block at first sight, `reuse` all that is not sighted again within the "
         "time that a block stays on the disk.",
     .field = FIELD(disk.admission),
     .aliases = {{{"DYN_KVBM_DISABLE_DISK_OFFLOAD_FILTER", kDiskFilter},
         {"DYN_KVBM_DISK_CACHE_GB", kConfiguresTier, "frequency", true},
         {"DYN_KVBM_DISK_CACHE_OVERRIDE_NUM_BLOCKS", kConfiguresTier, "frequency", true}}}},
    {.name = "disk.admission_threshold", .type = kInteger, .fallback = "2", .low = 1, .high = 1e6,
     .text = "`frequency`: count from which a block is admitted.",
     .field = FIELD(disk.admission_threshold)},
    {.name = "disk.admission_decay", .type = kDuration, .fallback = "600s", .low = kSecond,
     .high = 24 * kHour, .text = "`frequency`: every count loses 1 per this time.",
     .field = FIELD(disk.admission_decay)},
    {.name = "disk.admission_entries", .type = kInteger, .fallback = "0", .high = 1e8,
     .low_nonzero = 1024,
     .text = "All but `all`: most blocks remembered, in each KV group, 54 to 70 bytes for one. 0 = "
         "1,000,000; `expected` as many as host has and a quarter more, and twice those of the disk, up "
         "to 4,000,000 (a share of larger disks), together 1,000,000 at least.",
     .field = FIELD(disk.admission_entries)},
    {.name = "disk.admission_loss", .type = kFloat, .fallback = "0.45", .high = 20,
     .text = "`expected`: hits to aim to give up beside writing all, in percent of the blocks asked "
         "for. The more, the less is written.", .field = FIELD(disk.admission_loss)},
    {.name = "disk.write_budget", .type = kSize, .fallback = "0", .high = 1024 * 1024 * kTi,
     .low_nonzero = kMi, .text = "Bytes that may be written in 24 hours, per owner; what goes beyond is "
         "dropped and counted. 0 = no bound.", .field = FIELD(disk.write_budget)},
    {.name = "disk.dwpd", .type = kFloat, .fallback = "0", .high = 100,
     .text = "The same as device writes per day: how often the file systems of `disk.paths` may be "
         "written over in 24 hours, each for itself. 0 = no bound.", .field = FIELD(disk.dwpd)},
    {.name = "disk.write", .type = kChoice, .fallback = "through", .choices = "through|demote",
     .text = "`through` queues a block for disk when it is sealed, `demote` only when host evicts "
         "it.", .field = ENUM_FIELD(disk.write)},
    {.name = "disk.queue", .type = kBlocks, .fallback = "1024", .low = 1, .high = 1e6,
     .text = "Blocks that may wait to be written; more are dropped and counted.",
     .field = FIELD(disk.queue)},
    {.name = "disk.eviction", .type = kChoice, .fallback = "hazard", .choices = "hazard|lru",
     .text = "Which block leaves the full disk tier: `hazard` learns which conversations come back, "
         "and when; `lru` takes the one that was used longest ago.", .field = FIELD(disk.eviction)},
    {.name = "disk.scrub_rate", .type = kSize, .fallback = "16MiB", .high = kTi, .low_nonzero = 64 * kKi,
     .text = "Bytes a second at which what lies on disk is read and verified while the disk has "
         "nothing else to do. 0 = only when `terrace scrub` asks.", .field = FIELD(disk.scrub_rate)},
    {.name = "disk.scrub_interval", .type = kDuration, .fallback = "168h", .low = 60 * kSecond,
     .high = 366 * 24 * kHour, .text = "From the end of such a pass to the next one; the first begins "
         "ten minutes after the start.", .field = FIELD(disk.scrub_interval)},

    {.name = "offload.scope", .type = kChoice, .fallback = "all", .choices = "all|prompt",
     .text = "Store blocks of prompts and answers, or of prompts only.",
     .field = ENUM_FIELD(offload.scope)},
    {.name = "offload.inflight", .type = kInteger, .fallback = "4", .low = 1, .high = 1024,
     .text = "Offload batches in flight per path.", .field = FIELD(offload.inflight),
     .aliases = {{{"DYN_KVBM_MAX_CONCURRENT_TRANSFERS", kAsIs}}},
     .missing = "offloads leave once per engine step; offload.step_bytes bounds them"},
    {.name = "offload.batch", .type = kBlocks, .fallback = "16", .low = 1, .high = 4096,
     .text = "Blocks per offload batch.", .field = FIELD(offload.batch),
     .aliases = {{{"DYN_KVBM_MAX_TRANSFER_BATCH_SIZE", kAsIs},
                  {"DYN_KVBM_TRANSFER_BATCH_SIZE", kAsIs}}},
     .missing = "offloads leave once per engine step; offload.step_bytes bounds them"},
    {.name = "offload.step_bytes", .type = kSize, .fallback = "1GiB", .low = kMi, .high = kTi,
     .text = "Most bytes per rank copied out in one engine step; the rest waits for the request's "
         "next steps, and is dropped and counted at its end.",
     .field = FIELD(offload.step_bytes)},
    {.name = "offload.time_share", .type = kFloat, .fallback = "0.25", .low = 0.001, .high = 1,
     .text = "Most of the engine's time that copies out may take, as they were measured, and so most "
         "of its memory's bandwidth; what ten seconds left unused is kept for a burst. The rest "
         "waits as above. 1 = no bound.",
     .field = FIELD(offload.time_share)},
    {.name = "offload.min_priority", .type = kInteger, .fallback = "0", .high = 100,
     .text = "A request's blocks are stored up to its first block below this priority.",
     .field = FIELD(offload.min_priority),
     .aliases = {{{"DYN_KVBM_HOST_OFFLOAD_PREFIX_MIN_PRIORITY", kAsIs}}},
     .missing = "no engine here gives block priorities yet; every block is stored"},

    {.name = "lookup.deadline", .type = kDuration, .fallback = "2s", .high = kHour,
     .text = "How long a request may wait for blocks below host; then it takes what is there.",
     .field = FIELD(lookup.deadline)},
    {.name = "lookup.pin_time", .type = kDuration, .fallback = "30s", .low = kSecond, .high = kHour,
     .text = "How long blocks found for a waiting request stay pinned.",
     .field = FIELD(lookup.pin_time)},
    {.name = "lookup.pin_share", .type = kFloat, .fallback = "0.5", .low = 0.01, .high = 0.95,
     .text = "Most of the host tier that pins of waiting requests may hold.",
     .field = FIELD(lookup.pin_share)},

    {.name = "shadow.share", .type = kFloat, .fallback = "0.001", .low = 0, .high = 1,
     .text = "Share of hits that are computed all the same, to compare the result with what is "
         "stored: every n-th on average, n = 1 / share, rounded. 0 = none.", .field = FIELD(shadow.share)},
    {.name = "shadow.tolerance", .type = kFloat, .fallback = "1", .low = 0, .high = 1000,
     .text = "How far the two may differ, times the noise floor of the KV's type; 0 = their bytes "
         "must be equal, for engines that compute the same bytes whatever runs beside.",
     .field = FIELD(shadow.tolerance)},
    {.name = "shadow.evidence", .type = kPath, .fallback = "", .high = 4096,
     .text = "Directory for both versions of blocks that differ, at most eight and not encrypted, "
         "and for the mark that keeps later starts from serving.", .field = FIELD(shadow.evidence),
     .fallback_note = "`evidence` in the first of disk.paths, the mark in each of them; without a "
         "disk in attach.directory; with encryption for the mark alone"},

    {.name = "attach.timeout", .type = kDuration, .fallback = "120s", .low = kSecond,
     .high = 24 * kHour,
     .text = "How long the owner waits for all ranks; then the engine runs without Terrace.",
     .field = FIELD(attach.timeout),
     .aliases = {{{"DYN_KVBM_LEADER_WORKER_INIT_TIMEOUT_SECS", kSeconds}}}},
    {.name = "attach.lookup_wait", .type = kDuration, .fallback = "5s", .high = kHour,
     .text = "How long the first requests may wait until all ranks are attached and the tiers "
         "open; at most `attach.timeout`.", .field = FIELD(attach.lookup_wait)},
    {.name = "attach.step_timeout", .type = kDuration, .fallback = "600s", .low = kSecond,
     .high = 24 * kHour,
     .text = "How long a rank may owe an engine step's report; then nothing of the step counts.",
     .field = FIELD(attach.step_timeout)},
    {.name = "attach.directory", .type = kPath, .fallback = "", .high = kSocketDirectory,
     .text = "Directory of the sockets over which ranks attach.", .field = FIELD(attach.directory),
     .fallback_note = "$XDG_RUNTIME_DIR/terrace, else /tmp/terrace-<uid>"},

    {.name = "admin.enabled", .type = kBool, .fallback = "true",
     .text = "Answer `terrace status` and its like on a socket in attach.directory.",
     .field = FIELD(admin.enabled)},

    {.name = "planner.enabled", .type = kBool, .fallback = "true",
     .text = "Load only what is measured to be cheaper than computing; off: load all that is "
         "found.", .field = FIELD(planner.enabled)},

    {.name = "events.enabled", .type = kBool, .fallback = "false",
     .text = "Report stored and removed blocks as KV events through the engine.",
     .field = FIELD(events.enabled),
     .aliases = {{{"DYN_KVBM_KV_EVENTS_ENABLE_CONSOLIDATOR", kBoolMap, "true/false"}}}},
    {.name = "events.mode", .type = kChoice, .fallback = "tiers",
     .choices = "tiers|merged|passthrough",
     .text = "One event per tier, merged with the engine's own, or the engine's passed through.",
     .field = ENUM_FIELD(events.mode),
     .aliases = {{{"DYN_KVBM_KV_EVENTS_CONSOLIDATOR_MODE", kWordMap,
         "dedup=merged,passthrough=passthrough"}}},
     .missing = "events are per tier; merging with the engine's is not built"},
    {.name = "events.bind", .type = kText, .fallback = "tcp://127.0.0.1:57001", .high = 256,
     .text = "Address of Terrace's own event publisher.", .field = FIELD(events.bind),
     .aliases = {{{"DYN_KVBM_LEADER_ZMQ_PUB_PORT", kPublisherPort, "", true}}},
     .missing = "a publisher of our own is not built; events leave through the engine"},
    {.name = "events.engine", .type = kText, .fallback = "", .high = 256,
     .text = "Address of the engine's event publisher, for merging.", .field = FIELD(events.engine),
     .aliases = {{{"DYN_KVBM_TRTLLM_ZMQ_PORT", kEnginePort}, {"DYN_VLLM_KV_EVENT_PORT",
         kEnginePort, "", true}}}, .fallback_note = "none",
     .missing = "the engine's events are not read yet"},

    {.name = "metrics.enabled", .type = kBool, .fallback = "false",
     .text = "Serve `/metrics` and a web page on a TCP port, which only tells and changes nothing.",
     .field = FIELD(metrics.enabled), .aliases = {{{"DYN_KVBM_METRICS", kBoolMap, "true/false"}}}},
    {.name = "metrics.port", .type = kInteger, .fallback = "6880", .low = 1, .high = 65535,
     .text = "That port; each engine of a machine needs its own.", .field = FIELD(metrics.port),
     .aliases = {{{"DYN_KVBM_METRICS_PORT", kAsIs}}}},
    {.name = "metrics.address", .type = kText, .fallback = "127.0.0.1", .high = 45,
     .text = "Address of that port, in figures. Another one than this machine's own (`0.0.0.0` is "
         "all) lets whoever reaches it read; there is no password.",
     .field = FIELD(metrics.address)},
    {.name = "metrics.kvbm_names", .type = kChoice, .fallback = "off",
     .choices = "off|kvbm|dynamo_kvbm|both",
     .text = "Export KVBM's metric names too, with its exporter's prefix, its dashboard's, or "
         "both.", .field = ENUM_FIELD(metrics.kvbm_names),
     .aliases = {{{"DYN_KVBM_METRICS", kBoolMap, "kvbm/", true}}}},
    {.name = "metrics.window", .type = kInteger, .fallback = "1000", .low = 1, .high = 1e6,
     .text = "Finished requests over which hit rates are taken.", .field = FIELD(metrics.window),
     .aliases = {{{"DYN_KVBM_CACHE_STATS_MAX_REQUESTS", kAsIs}}}},

    {.name = "log.level", .type = kChoice, .fallback = "info", .choices = "debug|info|warn|error",
     .text = "Lowest level that is logged.", .field = ENUM_FIELD(log.level)},
    {.name = "log.rates_every", .type = kDuration, .fallback = "1min", .high = 24 * kHour,
     .low_nonzero = kSecond, .text = "Time between log lines with rates, shares of the tiers and "
         "reasons of misses, while requests come. 0 = never.", .field = FIELD(log.rates_every)},
    {.name = "log.hits_every", .type = kDuration, .fallback = "0s", .high = 24 * kHour,
     .low_nonzero = kSecond, .text = "Time between KVBM's log lines with the hit rates, word for word. "
         "0 = never.", .field = FIELD(log.hits_every),
     .aliases = {{{"DYN_KVBM_CACHE_STATS_LOG_INTERVAL_SECS", kSeconds},
         {"DYN_KVBM_CPU_CACHE_GB", kConfiguresTier, "5s", true},
         {"DYN_KVBM_CPU_CACHE_OVERRIDE_NUM_BLOCKS", kConfiguresTier, "5s", true},
         {"DYN_KVBM_DISK_CACHE_GB", kConfiguresTier, "5s", true},
         {"DYN_KVBM_DISK_CACHE_OVERRIDE_NUM_BLOCKS", kConfiguresTier, "5s", true}}}},

    {.name = "ledger.keep", .type = kInteger, .fallback = "1024", .high = 65536,
     .text = "Requests that ended whose ledgers are kept in memory for `terrace why`, 0.5 KiB each.",
     .field = FIELD(ledger.keep)},
    {.name = "ledger.file", .type = kPath, .fallback = "", .high = 4096,
     .text = "File to which ledgers are written, one JSON object a line; engines may share it.",
     .field = FIELD(ledger.file), .fallback_note = "none"},
    {.name = "ledger.share", .type = kFloat, .fallback = "1", .high = 1,
     .text = "Share of the requests whose ledgers go to `ledger.file`; which ones is left to chance.",
     .field = FIELD(ledger.share)},
    {.name = "ledger.file_size", .type = kSize, .fallback = "64MiB", .low = kMi, .high = kTi,
     .text = "When `ledger.file` would be longer it is renamed to `….1`, in the place of the one before.",
     .field = FIELD(ledger.file_size)},

    {.name = "worker.threads", .type = kInteger, .fallback = "0", .high = 256,
     .text = "Copying threads per rank, the engine's own included. 0 = two.",
     .field = FIELD(worker.threads)},
    {.name = "shutdown.flush", .type = kDuration, .fallback = "5s", .high = kHour,
     .text = "How long closing may take to write what is queued for disk; the rest is dropped.",
     .field = FIELD(shutdown.flush)},
    {.name = "trace.record", .type = kBool, .fallback = "false",
     .text = "Record requests for replay.", .field = FIELD(trace.record),
     .aliases = {{{"DYN_KVBM_ENABLE_RECORD", kBoolMap, "true/false"}, {"ENABLE_KVBM_RECORD",
         kBoolMap, "true/false"}}}, .missing = "recording is not built"},
    {.name = "parallel.mla", .type = kChoice, .fallback = "per_rank",
     .choices = "per_rank|load_once",
     .text = "Ranks that hold equal KV: each loads its copy, or one loads and sends it on.",
     .field = ENUM_FIELD(parallel.mla),
     .aliases = {{{"DYN_KVBM_NCCL_MLA_MODE", kBoolMap, "load_once/per_rank"}}},
     .missing = "load_once is not built; per_rank is active"},
    {.name = "transfer.backends", .type = kWordList, .fallback = "", .high = 64,
     .text = "Backends that may move bytes.", .field = FIELD(transfer.backends),
     .fallback_note = "all that this build has",
     .missing = "backends cannot be chosen yet, all are used; disk.backend chooses the disk's"},
    {.name = "peer.admission", .type = kChoice, .fallback = "disabled",
     .choices = "after_first_reuse|eager|disabled", .text = "Which blocks other nodes may fetch.",
     .field = FIELD(peer.admission),
     .aliases = {{{"DYN_KVBM_G2PB_ADMISSION_POLICY", kAsIs}, {"DYN_KVBM_G3PB_ADMISSION_POLICY",
         kAsIs}}}, .missing = "the peer tier is not built"},

    {.name = "object.path", .type = kPath, .fallback = "", .high = 4096,
     .text = "Directory, on a file system that nodes share, that keeps packs of blocks as the lowest "
         "tier; it has to be there.", .field = FIELD(object.path), .fallback_note = "none"},
    {.name = "object.shared_group", .type = kBool, .fallback = "false",
     .text = "Let users of the directory's group share `object.path`; else it is for one user.",
     .field = FIELD(object.shared_group)},
    {.name = "object.enabled", .type = kBool, .fallback = "false",
     .text = "Keep packs of blocks in an S3 bucket as the lowest tier.",
     .field = FIELD(object.enabled),
     .aliases = {{{"DYN_KVBM_OBJECT_ENABLED", kBoolMap, "true/false"}}}},
    {.name = "object.bucket", .type = kText, .fallback = "", .high = 256, .text = "Bucket.",
     .field = FIELD(object.bucket), .aliases = {{{"DYN_KVBM_OBJECT_BUCKET", kAsIs}}}},
    {.name = "object.prefix", .type = kText, .fallback = "", .high = 256,
     .text = "What the names of all objects in the bucket begin with.",
     .field = FIELD(object.prefix)},
    {.name = "object.endpoint", .type = kText, .fallback = "", .high = 1024,
     .text = "Address of the S3 service: http:// or https://, host and port.",
     .field = FIELD(object.endpoint),
     .aliases = {{{"DYN_KVBM_OBJECT_ENDPOINT", kAsIs}, {"AWS_ENDPOINT_URL_S3", kAsIs, "", true}}}},
    {.name = "object.region", .type = kText, .fallback = "us-east-1", .high = 256,
     .text = "Region that requests are signed for.", .field = FIELD(object.region),
     .aliases = {{{"DYN_KVBM_OBJECT_REGION", kAsIs}, {"AWS_REGION", kAsIs, "", true}}}},
    {.name = "object.style", .type = kChoice, .fallback = "path", .choices = "path|virtual",
     .text = "Where the bucket stands in an address: in the path, or before the host's name.",
     .field = ENUM_FIELD(object.style)},
    {.name = "object.access_key", .type = kText, .fallback = "", .high = 1024,
     .text = "Access key; without one the credentials file is read.",
     .field = FIELD(object.access_key),
     .aliases = {{{"DYN_KVBM_OBJECT_ACCESS_KEY", kAsIs}, {"AWS_ACCESS_KEY_ID", kAsIs, "", true}}},
     .is_secret = true},
    {.name = "object.secret_key", .type = kText, .fallback = "", .high = 1024,
     .text = "Secret key; never printed.", .field = FIELD(object.secret_key),
     .aliases = {{{"DYN_KVBM_OBJECT_SECRET_KEY", kAsIs},
                  {"AWS_SECRET_ACCESS_KEY", kAsIs, "", true}}}, .is_secret = true},
    {.name = "object.session_token", .type = kText, .fallback = "", .high = 4096,
     .text = "Token of temporary credentials; never printed.",
     .field = FIELD(object.session_token),
     .aliases = {{{"AWS_SESSION_TOKEN", kAsIs, "", true}}}, .is_secret = true},
    {.name = "object.credentials_file", .type = kPath, .fallback = "", .high = 4096,
     .text = "File with credentials, as the AWS tools write it; read again when it changes.",
     .field = FIELD(object.credentials_file),
     .aliases = {{{"AWS_SHARED_CREDENTIALS_FILE", kAsIs, "", true}}}, .fallback_note = "none"},
    {.name = "object.profile", .type = kText, .fallback = "default", .high = 256,
     .text = "Profile in the credentials file.", .field = FIELD(object.profile),
     .aliases = {{{"AWS_PROFILE", kAsIs, "", true}}}},
    {.name = "object.ca_file", .type = kPath, .fallback = "", .high = 4096,
     .text = "Certificates to trust for https.", .field = FIELD(object.ca_file),
     .fallback_note = "those of the system"},
    {.name = "object.blocks", .type = kBlocks, .fallback = "0", .high = 1e15,
     .text = "Most blocks in the shared store, of all engines: the packs that were not used for "
         "longest go. 0 = no bound.", .field = FIELD(object.blocks),
     .aliases = {{{"DYN_KVBM_OBJECT_NUM_BLOCKS", kCount}}}},
    {.name = "object.size", .type = kSize, .fallback = "0", .high = 1024 * 1024 * kTi,
     .low_nonzero = kMi, .text = "Most bytes of packs in the shared store, likewise. 0 = no bound.",
     .field = FIELD(object.size)},
    {.name = "object.max_age", .type = kDuration, .fallback = "0s", .high = 100'000 * kHour,
     .low_nonzero = 600 * kSecond, .text = "Packs that were not used for so long go. 0 = no bound.",
     .field = FIELD(object.max_age)},
    {.name = "object.gc_every", .type = kDuration, .fallback = "1h", .low = 60 * kSecond,
     .high = 1000 * kHour, .text = "How often one of the engines looks whether packs have to go.",
     .field = FIELD(object.gc_every)},
    {.name = "object.touch_every", .type = kDuration, .fallback = "24h", .high = 1000 * kHour,
     .low_nonzero = 60 * kSecond, .text = "A pack that is in use counts as new again when this has "
         "passed since it last did, or a quarter of `object.max_age`. 0 = it ages since it was put.",
     .field = FIELD(object.touch_every)},
    {.name = "object.admission", .type = kChoice, .fallback = "all", .choices = "all|frequency",
     .text = "Which packs are put; `frequency` puts one when a second request has its blocks.",
     .field = FIELD(object.admission)},
    {.name = "object.promote", .type = kBool, .fallback = "true",
     .text = "Write blocks that came from the shared store to the disk tier, as `disk.admission` "
         "and `disk.write` say; else they are left to the store.", .field = FIELD(object.promote)},
    {.name = "object.depth", .type = kInteger, .fallback = "16", .low = 1, .high = 256,
     .text = "Requests in flight at the store.", .field = FIELD(object.depth)},
    {.name = "object.pack_blocks", .type = kInteger, .fallback = "16", .low = 1, .high = 4096,
     .text = "Blocks of a pack; engines that share a store find only packs of their own length.",
     .field = FIELD(object.pack_blocks)},
    {.name = "object.queue", .type = kInteger, .fallback = "16", .low = 1, .high = 4096,
     .text = "Packs that may wait to be put; more are dropped and counted.",
     .field = FIELD(object.queue_packs)},

    {.name = "encryption.key_file", .type = kPath, .fallback = "", .high = 4096,
     .text = "File with the key (`terrace key new PATH` makes one) that blocks on disk, in a shared "
         "directory or in a bucket are encrypted with. Its owner alone may have access.",
     .field = FIELD(encryption.key_file), .fallback_note = "none: nothing is encrypted"},
    {.name = "encryption.key", .type = kText, .fallback = "", .high = 128,
     .text = "The key itself; in the environment only, and never printed. A file is safer: an "
         "environment is in core dumps and goes to children.",
     .field = FIELD(encryption.key), .is_secret = true, .is_environment_only = true},
    {.name = "encryption.old_key_files", .type = kPathList, .fallback = "", .high = 4096,
     .text = "Files with keys that blocks may still be encrypted with; they are read with them, and "
         "written with the key above.", .field = FIELD(encryption.old_key_files),
     .fallback_note = "none"},
    {.name = "encryption.accept_plain", .type = kBool, .fallback = "false",
     .text = "With a key: serve blocks, too, that are not encrypted. Without this they are missed, "
         "so that nobody who writes to the medium can plant any.",
     .field = FIELD(encryption.accept_plain)},
    {.name = "encryption.threads", .type = kInteger, .fallback = "2", .low = 1, .high = 64,
     .text = "Threads that encrypt and decrypt; some 2 GB/s each.",
     .field = FIELD(encryption.threads)},

    {.name = "cluster.etcd", .type = kText, .fallback = "", .high = 1024,
     .text = "etcd endpoints for membership.", .field = FIELD(cluster.etcd),
     .aliases = {{{"ETCD_ENDPOINTS", kAsIs, "", true}}}, .fallback_note = "none",
     .missing = "clusters are not built; this node works alone"},
    {.name = "cluster.nats", .type = kText, .fallback = "", .high = 1024,
     .text = "NATS server for events.", .field = FIELD(cluster.nats),
     .aliases = {{{"NATS_SERVER", kAsIs, "", true}}}, .fallback_note = "none",
     .missing = "clusters are not built; this node works alone"},
};
// clang-format on
#undef FIELD
#undef ENUM_FIELD

constexpr Ineffective kIneffective[] = {
    {"DYN_KVBM_LEADER_ZMQ_HOST", "one node needs no port between its processes"},
    {"DYN_KVBM_LEADER_ZMQ_ACK_PORT", "one node needs no port between its processes"},
    {"DYN_KVBM_NCCL_MAX_CTAS", "NCCL is not used"},
    {"DYN_KVBM_ENABLE_NUMA",
     "deprecated by KVBM: NUMA placement is on; host.numa=off turns it off"},
    {"DYN_KVBM_OBJECT_WRITE_THROUGH", "of a branch of KVBM only"},
    {"DYN_KVBM_PREFETCH_TIMEOUT_SECS", "of a branch of KVBM only; see lookup.deadline"},
    {"DYN_KVBM_FLUSH_BATCH_SIZE", "of a branch of KVBM only"},
    {"DYN_KVBM_G4_CHECKSUM_VALIDATION", "of a branch of KVBM only; checksums are always verified"},
    {"DYN_KVBM_G4_TRANSFER_TIMEOUT_SECS", "of a branch of KVBM only"},
    {"DYN_RUNTIME_ENABLED_KVBM", "Dynamo's runtime is not needed; see cluster.etcd, cluster.nats"},
    {"DYN_FATBIN_PATH", "KVBM's copy kernel is not used"},
};

// Where the build tools keep things, which library Python loads and which program it runs.
constexpr std::string_view kToolNames[] = {"TERRACE_CACHE_DIR", "TERRACE_LIBRARY",
                                           "TERRACE_PROGRAM"};

}  // namespace

std::span<const Row> rows() { return kRows; }

const Row* find_row(std::string_view name) {
  const auto* row = std::ranges::find(kRows, name, &Row::name);
  return row == std::end(kRows) ? nullptr : row;
}

std::span<const Ineffective> ineffective_names() { return kIneffective; }
std::span<const std::string_view> tool_names() { return kToolNames; }

std::string environment_name(std::string_view name) {
  std::string out = "TERRACE_";
  for (const char c : name) {
    out += c == '.' ? '_' : static_cast<char>(std::toupper(static_cast<unsigned char>(c)));
  }
  return out;
}

}  // namespace terrace::config
