// The sub-commands behind `terrace`. Each returns what to print; main() chooses streams and exit
// code. Threading: single-threaded.  Waits: for the files it is asked
// about, and up to a limit for each engine.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "terrace/cli/keys_at_hand.h"

namespace terrace::cli {

// 0 done, 1 failed or found something wrong, 2 command line not understood.
inline constexpr int kDone = 0;
inline constexpr int kFailed = 1;
inline constexpr int kUsage = 2;

struct Answer {
  int exit_code = kDone;
  std::string out;    // Standard output.
  std::string error;  // Standard error.
};

struct ConfigOptions {
  bool is_explain = false;
  bool is_json = false;
  bool is_markdown = false;
  std::string file;
  std::string engine_json;
  std::vector<std::string> set;  // "name=value".
};
[[nodiscard]] Answer run_config(const ConfigOptions& options);

struct MetricsOptions {
  bool is_json = false;
  bool is_markdown = false;
};
[[nodiscard]] Answer run_metrics(const MetricsOptions& options);

struct InspectOptions {
  std::vector<std::string> paths;  // Empty = disk.paths of the settings.
  std::string against;             // File with a fingerprint in clear text.
  SettingsOptions settings;        // For the keys, and for paths that are not given.
  bool is_json = false;
};
// Failed also when something in the directory is damaged, no namespace matches `against`, or keys
// that the settings name cannot be had.
[[nodiscard]] Answer run_inspect(const InspectOptions& options);

struct ObjectGcOptions {
  bool is_dry_run = false;
  bool is_json = false;
  SettingsOptions settings;
  std::uint32_t requests_per_second = 200;
};
// Removes packs that are too old or too many from the shared store that the settings name; tells
// how far it is on standard error. Failed also when some could not be removed.
[[nodiscard]] Answer run_object_gc(const ObjectGcOptions& options);

enum class LiveVerb : std::uint8_t {
  kStatus,
  kPause,
  kReadOnly,
  kResume,
  kScrub,
  kAdvise,
  kWhy,
  kTop
};

struct LiveOptions {
  LiveVerb verb = LiveVerb::kStatus;
  std::string engine = {};  // Empty = the only one; of status: all.
  bool is_all = false;
  std::string directory = {};  // Empty = attach.directory of the settings.
  bool is_json = false;
};
// Asks running engines, or switches them. Failed also when one is not well.
[[nodiscard]] Answer run_live(const LiveOptions& options);

struct AdviseOptions {
  LiveOptions live{.verb = LiveVerb::kAdvise};
  std::string host;  // With either of them only these sizes are asked about.
  std::string disk;
};
// What other tier sizes would do for running engines.
[[nodiscard]] Answer run_advise(const AdviseOptions& options);

struct WhyOptions {
  LiveOptions live{.verb = LiveVerb::kWhy};
  std::string request;  // The engine's id, or how it begins; empty = list the last ones.
};
// Why a request hit or missed. Failed also when nobody knows it; where several are meant they are
// listed.
[[nodiscard]] Answer run_why(const WhyOptions& options);

struct TopOptions {
  LiveOptions live{.verb = LiveVerb::kTop};
  bool is_once = false;
  double every_s = 2;
};
// Running engines, on a screen that goes on until somebody ends it; once where there is none.
[[nodiscard]] Answer run_top(const TopOptions& options);

struct BackendCheckOptions {
  std::string library;
  std::string directory = "/tmp";  // On the file system that it is to be checked on.
  double patience_s = 10;          // For one completion.
  std::uint64_t seed = 1;
  bool is_json = false;
  std::function<void(const std::string& line)> progress;
};
// Runs the contract of backends on a plug-in, each check in a process of its own. Failed also when
// a promise is broken.
[[nodiscard]] Answer run_backend_check(const BackendCheckOptions& options);
// A new key in a new file, or what the key in a file is called; never the key.
[[nodiscard]] Answer run_key_new(const std::string& path);
// Without a path: of those that the settings name.
struct KeyIdOptions {
  std::string path;
  SettingsOptions settings;
  bool is_json = false;
};
[[nodiscard]] Answer run_key_id(const KeyIdOptions& options);

struct ScrubOptions {
  LiveOptions live{.verb = LiveVerb::kScrub};
  bool is_waiting = false;
  std::string rate;  // Per second, as a size; empty = the engine's own.
};
// Asks running engines to verify what lies on their disks. While it waits, progress goes to
// standard error. Failed also when a block was bad, or was not looked at.
[[nodiscard]] Answer run_scrub(const ScrubOptions& options);

struct VerifyOptions {
  std::vector<std::string> paths;
  SettingsOptions settings;  // For the keys.
  bool is_offline = false;
  bool is_json = false;
};
// Failed also when something is damaged, could not be looked at, or keys that the settings name
// cannot be had.
[[nodiscard]] Answer run_verify(const VerifyOptions& options);

struct WipeOptions {
  std::vector<std::string> paths;
  std::string name_space;
  bool is_sure = false;  // Else it only says what would go.
  bool is_json = false;
};
[[nodiscard]] Answer run_wipe(const WipeOptions& options);

struct MoveOptions {
  std::string from;
  std::string to;
  bool is_json = false;
};
[[nodiscard]] Answer run_move(const MoveOptions& options);

struct SimulateOptions {
  std::vector<std::string> traces;  // None = one that is made up, if there is a scenario.
  std::string host = "2%";          // Of a trace's distinct blocks, or a number of blocks.
  std::string disk = "0";
  std::string preset;  // Whose settings hold where the four below are empty.
  std::vector<std::string> policies;
  std::string admission;
  std::string admission_loss;
  std::string write;
  std::string scope;
  std::vector<std::string> scenario;
  bool is_compared = false;
  std::vector<std::string> sizes{"1%", "2%", "5%", "10%", "20%"};  // In place of host, compared.
  std::uint64_t seed = 1;
  double window_minutes = 60;
  double rate = 1;
  std::uint32_t block_tokens = 0;  // 0 = those of the trace.
  double prefill_rate = 10'000;    // Tokens a second.
  std::string token_bytes = "128KiB";
  std::string host_bandwidth = "20GB";  // A second.
  std::string disk_bandwidth = "3GB";
  std::string disk_latency = "200us";
  bool is_json = false;
};
// What caches of these sizes would hit on recorded prompts, and how soon the first tokens would
// come. Failed also when one of the traces cannot be read.
[[nodiscard]] Answer run_simulate(const SimulateOptions& options);

[[nodiscard]] Answer run_version(bool is_json);

}  // namespace terrace::cli
