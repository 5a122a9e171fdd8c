// From the C ABI's plain structs and settings to the rooms' types. Everything foreign is checked
// here; of structs given by reference only as many bytes are read as they say they have. Threading:
// thread-safe.
#pragma once

#include <terrace/terrace.h>

#include <vector>

#include "terrace/base/status.h"
#include "terrace/block/layout.h"
#include "terrace/block/sequence_hash.h"
#include "terrace/config/environment.h"
#include "terrace/config/load.h"
#include "terrace/manager/block_manager.h"
#include "terrace/manager/options.h"
#include "terrace/worker/worker.h"

namespace terrace::capi {

// What a call may carry: far beyond any engine, small enough that no sum or size wraps around and
// nothing absurd is allocated. A request of kMaxTokens has 256 MiB of token ids, and at one token a
// block 1 GiB of hashes. A block is what a SequenceChain takes: 4 MiB of ids. Extra keys are at
// most 64 Ki * 56 bytes = 3.5 MiB and their identities, all together, 16 MiB.
inline constexpr std::uint64_t kMaxTokens = std::uint64_t{1} << 26U;
inline constexpr std::uint64_t kMaxBlockTokens = std::uint64_t{1} << 20U;
inline constexpr std::uint64_t kMaxExtraKeys = std::uint64_t{1} << 16U;
inline constexpr std::uint64_t kMaxIdentityBytes = std::uint64_t{1} << 24U;
// Of hints: a name that is longer is none, and nobody comes back after a month.
inline constexpr std::uint64_t kMaxSessionBytes = 256;
inline constexpr Nanoseconds kMaxReturn = seconds(30LL * 24 * 3600);

// kInvalid if `value` exceeds `limit`; `what` names the field.
[[nodiscard]] Status check_limit(const char* what, std::uint64_t value, std::uint64_t limit);
// kInvalid if elements are announced where there is no array, or more than `limit` of them.
[[nodiscard]] Status check_array(const char* what, const void* array, std::uint64_t count,
                                 std::uint64_t limit = INT64_MAX);
[[nodiscard]] Status check_block_tokens(std::uint64_t block_tokens);

// The spans of what follows borrow from the caller's arrays.
using BlockTables = std::vector<std::span<const std::uint32_t>>;
[[nodiscard]] Result<BlockTables> convert_tables(std::size_t groups,
                                                 const std::uint32_t* const* blocks,
                                                 const std::uint64_t* counts);
[[nodiscard]] Result<manager::RequestOptions> convert_request(const terrace_request_options& given);
[[nodiscard]] Result<manager::GivenHints> convert_hints(const terrace_hints& given);
// Null says nothing.
[[nodiscard]] Result<manager::AnswerEnd> convert_ending(const terrace_ending* given);
[[nodiscard]] Result<manager::Progress> convert_progress(const terrace_progress& given,
                                                         std::size_t groups);
[[nodiscard]] Result<std::vector<ExtraKey>> convert_extra_keys(const terrace_extra_key* keys,
                                                               std::uint64_t count);
[[nodiscard]] Result<manager::Options> convert_owner(const terrace_owner_options& given,
                                                     const config::Settings& settings);
[[nodiscard]] Result<worker::Worker::Options> convert_worker(const terrace_worker_options& given,
                                                             const config::Settings& settings);
// The engine's JSON over the process's environment over the file.
[[nodiscard]] Result<config::Loaded> load_settings(const char* settings_json);

}  // namespace terrace::capi
