// The effective settings as plain typed values, grouped as in their names: `host.size` is
// `settings.host.size`. Filled only by config::load(); defaults stand in the table, not here.
// Threading: immutable values.  Owns: its texts.  Waits: never.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "terrace/base/log.h"
#include "terrace/base/strong.h"

namespace terrace::config {

// Enumerators stand in the order of the row's choices.
enum class Mode : std::uint8_t { kOn, kObserve };
enum class AutoOff : std::uint8_t { kAuto, kOff };
enum class DirectAt : std::uint8_t { kOpen, kFcntl };
enum class Preallocate : std::uint8_t { kAuto, kFallocate, kZerofill };
enum class DiskBackend : std::uint8_t { kAuto, kIoUring, kThreads };
enum class DiskWrite : std::uint8_t { kThrough, kDemote };
enum class OffloadScope : std::uint8_t { kAll, kPrompt };
enum class EventsMode : std::uint8_t { kTiers, kMerged, kPassthrough };
enum class KvbmNames : std::uint8_t { kOff, kKvbm, kDynamoKvbm, kBoth };
enum class ObjectStyle : std::uint8_t { kPath, kVirtual };
enum class Mla : std::uint8_t { kPerRank, kLoadOnce };

struct HostSettings {
  Bytes size;     // 0 and no blocks = staging only.
  Blocks blocks;  // 0 = by size; else beats size.
  Bytes staging;  // Size of the host pool when it is staging only.
  AutoOff huge_pages{};
  AutoOff numa{};
  bool write_combined = false;
  std::string eviction;
  // Derived: neither size nor blocks given, disk serves through a host pool of `staging` bytes.
  bool is_staging = false;
};

struct DiskSettings {
  Bytes size;                      // 0 and no blocks = no disk tier.
  Blocks blocks;                   // 0 = by size; else beats size.
  std::vector<std::string> paths;  // Absolute; never empty after load() when there is a disk tier.
  bool direct = true;
  DirectAt direct_at{};
  Preallocate preallocate{};
  DiskBackend backend{};
  std::string backend_library;  // Absolute; beats `backend`. Empty = none.
  std::uint32_t depth = 0;
  std::uint32_t threads = 0;
  std::string admission;
  std::uint32_t admission_threshold = 0;
  Nanoseconds admission_decay;
  std::uint64_t admission_entries = 0;
  double admission_loss = 0;  // Percent of the blocks asked for.
  Bytes write_budget;         // A day; 0 = none.
  double dwpd = 0;            // Device writes a day; 0 = no bound.
  DiskWrite write{};
  Blocks queue;
  std::string eviction;
  Bytes scrub_rate;  // Per second; 0 = only when asked.
  Nanoseconds scrub_interval;
  [[nodiscard]] bool is_used() const { return size.value() > 0 || blocks.value() > 0; }
};

struct OffloadSettings {
  OffloadScope scope{};
  std::uint32_t inflight = 0;
  Blocks batch;
  Bytes step_bytes;
  double time_share = 0;
  std::uint32_t min_priority = 0;
};

struct LookupSettings {
  Nanoseconds deadline;
  Nanoseconds pin_time;
  double pin_share = 0;
};

struct ShadowSettings {
  double share = 0;
  double tolerance = 0;
  std::string evidence;  // Empty: below disk.paths or attach.directory.
};

struct AttachSettings {
  Nanoseconds timeout;
  Nanoseconds lookup_wait;
  Nanoseconds step_timeout;
  std::string directory;
};

struct AdminSettings {
  bool enabled = true;
};

struct PlannerSettings {
  bool enabled = true;
};

struct EventsSettings {
  bool enabled = false;
  EventsMode mode{};
  std::string bind;
  std::string engine;
};

struct MetricsSettings {
  bool enabled = false;
  std::string address;
  std::uint32_t port = 0;
  KvbmNames kvbm_names{};
  std::uint32_t window = 0;
};

struct LogSettings {
  LogLevel level = LogLevel::kInfo;
  Nanoseconds rates_every;
  Nanoseconds hits_every;
};

struct LedgerSettings {
  std::uint32_t keep = 0;  // Of requests that ended, in memory.
  std::string file;        // Absolute; empty = none.
  double share = 0;        // Of the requests, in the file.
  Bytes file_size;
};

struct WorkerSettings {
  std::uint32_t threads = 0;  // 0 = chosen from the number of cores.
};

struct ShutdownSettings {
  Nanoseconds flush;
};

struct TraceSettings {
  bool record = false;
};

struct ParallelSettings {
  Mla mla{};
};

struct TransferSettings {
  std::vector<std::string> backends;  // Empty = all that this build has.
};

struct ObjectSettings {
  std::string path;           // Of a directory that nodes share; empty = none.
  bool shared_group = false;  // Its files are for users of its group, too.
  bool enabled = false;       // An S3 bucket.
  std::string bucket;
  std::string prefix;
  std::string endpoint;
  std::string region;
  ObjectStyle style{};
  std::string access_key;  // Without one: from the file.
  std::string secret_key;
  std::string session_token;
  std::string credentials_file;
  std::string profile;
  std::string ca_file;
  Blocks blocks;  // Bounds of the whole store; 0 = none.
  Bytes size;
  Nanoseconds max_age;
  Nanoseconds gc_every;
  Nanoseconds touch_every;
  std::string admission;
  bool promote = true;  // What was read from it goes to the disk, too.
  std::uint32_t depth = 0;
  std::uint32_t pack_blocks = 0;
  std::uint32_t queue_packs = 0;
  [[nodiscard]] bool is_used() const { return enabled || !path.empty(); }
};

struct EncryptionSettings {
  std::string key_file;  // This or `key`, or neither: then nothing is encrypted.
  std::string key;
  std::vector<std::string> old_key_files;
  bool accept_plain = false;
  std::uint32_t threads = 0;
  [[nodiscard]] bool is_used() const { return !key_file.empty() || !key.empty(); }
};

struct PeerSettings {
  std::string admission;
};

struct ClusterSettings {
  std::string etcd;
  std::string nats;
};

struct Settings {
  Mode mode{};
  std::string tenant;
  std::string preset;
  std::string config_file;
  HostSettings host;
  DiskSettings disk;
  OffloadSettings offload;
  LookupSettings lookup;
  ShadowSettings shadow;
  AttachSettings attach;
  AdminSettings admin;
  PlannerSettings planner;
  EventsSettings events;
  MetricsSettings metrics;
  LogSettings log;
  LedgerSettings ledger;
  WorkerSettings worker;
  ShutdownSettings shutdown;
  TraceSettings trace;
  ParallelSettings parallel;
  TransferSettings transfer;
  ObjectSettings object;
  EncryptionSettings encryption;
  PeerSettings peer;
  ClusterSettings cluster;
};

}  // namespace terrace::config
