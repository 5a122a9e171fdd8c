// From the C ABI's plain structs and settings to the rooms' types. Everything foreign is checked
// here. Threading: thread-safe.
#pragma once

#include <terrace/terrace.h>

#include <vector>

#include "terrace/base/status.h"
#include "terrace/block/layout.h"
#include "terrace/block/sequence_hash.h"
#include "terrace/config/environment.h"
#include "terrace/config/load.h"
#include "terrace/manager/options.h"
#include "terrace/worker/worker.h"

namespace terrace::capi {

// A caller's struct may be shorter than ours (older) but must hold the fields up to `needed` bytes.
[[nodiscard]] Status check_size(const char* what, std::uint32_t struct_size, std::size_t needed);

[[nodiscard]] Result<std::vector<ExtraKey>> convert_extra_keys(const terrace_extra_key* keys,
                                                               std::uint64_t count);
[[nodiscard]] Result<manager::Options> convert_owner(const terrace_owner_options& options,
                                                     const config::Settings& settings);
[[nodiscard]] Result<worker::Worker::Options> convert_worker(const terrace_worker_options& options,
                                                             const config::Settings& settings);
// The engine's JSON over the process's environment over the file.
[[nodiscard]] Result<config::Loaded> load_settings(const char* settings_json);

}  // namespace terrace::capi
