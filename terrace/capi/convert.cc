#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <string>
#include <string_view>

#include "terrace/base/clock.h"
#include "terrace/block/fingerprint.h"
#include "terrace/capi/convert_internal.h"
#include "terrace/capi/structs_internal.h"
#include "terrace/manager/key_files.h"
#include "terrace/manager/weights.h"
#include "terrace/serve/object_stores.h"

namespace terrace::capi {

namespace {
constexpr std::uint32_t kMaxGroups = 64;
constexpr std::uint32_t kMaxPieces = 4096;

// As far as it is kept: what lies behind is not read.
std::string_view label_of(const char* text) {
  if (text == nullptr) return {};
  return {text, ::strnlen(text, manager::Label::kMost)};
}

std::string text_or_empty(const char* text) { return text == nullptr ? "" : text; }

Result<Layout> owner_layout(const terrace_owner_options& options) {
  if (options.group_count == 0 || options.group_count > kMaxGroups || options.groups == nullptr ||
      options.rank_count > UINT16_MAX) {
    return fail(Code::kInvalid, fmt::format("layout: {} groups, {} ranks", options.group_count,
                                            options.rank_count));
  }
  Layout layout{.block_tokens = Tokens(options.block_tokens),
                .ranks = static_cast<std::uint16_t>(options.rank_count),
                .groups = {}};
  for (std::uint32_t g = 0; g < options.group_count; ++g) {
    TERRACE_ASSIGN_OR_RETURN(const terrace_group_layout group,
                             adopt_element("terrace_group_layout", options.groups, g));
    if (group.piece_count == 0 || group.piece_count > kMaxPieces || group.piece_bytes == nullptr) {
      return fail(Code::kInvalid,
                  fmt::format("layout: group {} has {} pieces", g, group.piece_count));
    }
    GroupLayout made{.group = GroupId(static_cast<std::uint16_t>(g)), .piece_bytes = {}};
    for (std::uint32_t p = 0; p < group.piece_count; ++p) {
      made.piece_bytes.emplace_back(group.piece_bytes[p]);
    }
    layout.groups.push_back(std::move(made));
  }
  TERRACE_RETURN_IF_ERROR(layout.validate());
  return layout;
}

// owner_layout() has looked at them.
Result<std::vector<manager::GroupRule>> group_rules(const terrace_owner_options& options) {
  std::vector<manager::GroupRule> rules;
  for (std::uint32_t g = 0; g < options.group_count; ++g) {
    TERRACE_ASSIGN_OR_RETURN(const terrace_group_layout group,
                             adopt_element("terrace_group_layout", options.groups, g));
    manager::GroupRule rule{.window = Tokens(group.window_tokens), .null_block = std::nullopt};
    if (group.window_tokens > kMaxTokens) {
      return fail(Code::kInvalid, fmt::format("layout: group {} has a window of {} tokens", g,
                                              group.window_tokens));
    }
    if (group.has_null_block != 0) rule.null_block = group.null_block;
    rules.push_back(rule);
  }
  return rules;
}

manager::HostOptions host_options(const config::HostSettings& host) {
  return {.size = host.is_staging ? host.staging : host.size,
          .blocks = host.blocks.value(),
          .huge_pages = host.huge_pages == config::AutoOff::kAuto,
          .eviction = host.eviction,
          .system_root = {}};
}

std::string backend_name(config::DiskBackend backend) {
  switch (backend) {
    case config::DiskBackend::kAuto:
      return "auto";
    case config::DiskBackend::kIoUring:
      return "io_uring";
    case config::DiskBackend::kThreads:
      return "threads";
  }
  return "auto";
}

std::string preallocate_name(config::Preallocate preallocate) {
  switch (preallocate) {
    case config::Preallocate::kAuto:
      return "auto";
    case config::Preallocate::kFallocate:
      return "fallocate";
    case config::Preallocate::kZerofill:
      return "zerofill";
  }
  return "auto";
}

manager::DiskOptions disk_options(const config::DiskSettings& disk) {
  manager::DiskOptions options;
  if (!disk.is_used()) return options;
  options.paths = disk.paths;
  options.size = disk.size;
  options.blocks = disk.blocks.value();
  options.backend = disk.backend_library.empty() ? backend_name(disk.backend) : "library";
  options.io = {.depth = disk.depth, .threads = disk.threads, .library = disk.backend_library};
  options.is_direct = disk.direct;
  options.is_direct_by_fcntl = disk.direct_at == config::DirectAt::kFcntl;
  options.preallocate = preallocate_name(disk.preallocate);
  options.eviction = disk.eviction;
  options.admission = disk.admission;
  options.filter.frequency = {.threshold = disk.admission_threshold,
                              .decay_interval = disk.admission_decay};
  if (disk.admission_entries > 0) {
    options.filter.frequency.entries = disk.admission_entries;
    options.filter.reuse.entries = disk.admission_entries;
  }
  options.filter.expected.entries = disk.admission_entries;
  options.filter.expected.most_lost = disk.admission_loss / 100;
  options.write_budget = disk.write_budget;
  options.writes_per_day = disk.dwpd;
  options.is_demote = disk.write == config::DiskWrite::kDemote;
  // An engine that restarts often scrubs, too; one that lives minutes is left alone.
  constexpr Nanoseconds kFirstScrub = seconds(600);
  options.scrub_bytes_per_second = disk.scrub_rate.value();
  options.scrub_interval = disk.scrub_interval;
  options.scrub_first = kFirstScrub;
  options.queue_blocks =
      static_cast<std::uint32_t>(std::min<std::uint64_t>(disk.queue.value(), UINT32_MAX));
  return options;
}

manager::ObjectOptions object_options(const config::ObjectSettings& object) {
  manager::ObjectOptions options;
  options.pack_blocks = object.pack_blocks;
  options.queue_packs = object.queue_packs;
  options.open_store = serve::object_store(object);
  options.collect = serve::collect_options(object);
  options.admission = object.admission;
  options.is_promoted = object.promote;
  return options;
}

Result<manager::EncryptionOptions> encryption_options(const config::EncryptionSettings& given) {
  manager::EncryptionOptions options;
  TERRACE_ASSIGN_OR_RETURN(
      options.keys,
      manager::load_keys(
          {.key_file = given.key_file, .key = given.key, .old_key_files = given.old_key_files}));
  options.accepts_plain = given.accept_plain;
  options.threads = given.threads;
  return options;
}

Result<worker::GroupRegions> group_regions(const terrace_group_regions* groups,
                                           std::uint32_t number) {
  TERRACE_ASSIGN_OR_RETURN(const terrace_group_regions group,
                           adopt_element("terrace_group_regions", groups, number));
  if (group.region_count == 0 || group.region_count > kMaxPieces || group.regions == nullptr) {
    return fail(Code::kInvalid,
                fmt::format("layout: group {} has {} regions", number, group.region_count));
  }
  worker::GroupRegions made;
  made.block_count = group.block_count;
  made.has_null_block = group.has_null_block != 0;
  made.null_block = group.null_block;
  for (std::uint32_t r = 0; r < group.region_count; ++r) {
    TERRACE_ASSIGN_OR_RETURN(const terrace_region region,
                             adopt_element("terrace_region", group.regions, r));
    made.regions.push_back({.address = reinterpret_cast<std::byte*>(region.address),
                            .block_stride = region.block_stride,
                            .piece_bytes = region.piece_bytes});
  }
  return made;
}

}  // namespace

Status check_limit(const char* what, std::uint64_t value, std::uint64_t limit) {
  if (value <= limit) return {};
  return {Code::kInvalid, fmt::format("{} is {}, allowed are at most {}", what, value, limit)};
}

Status check_array(const char* what, const void* array, std::uint64_t count, std::uint64_t limit) {
  if (array == nullptr && count > 0) {
    return {Code::kInvalid, fmt::format("{} is {}, but the pointer is NULL", what, count)};
  }
  return check_limit(what, count, limit);
}

Status check_block_tokens(std::uint64_t block_tokens) {
  if (block_tokens == 0) return {Code::kInvalid, "block_tokens is 0"};
  return check_limit("block_tokens", block_tokens, kMaxBlockTokens);
}

Result<BlockTables> convert_tables(std::size_t groups, const std::uint32_t* const* blocks,
                                   const std::uint64_t* counts) {
  if (blocks == nullptr || counts == nullptr) {
    return fail(Code::kInvalid, "block tables: a pointer is NULL");
  }
  BlockTables tables;
  tables.reserve(groups);
  for (std::size_t g = 0; g < groups; ++g) {
    TERRACE_RETURN_IF_ERROR(check_array("block_counts", blocks[g], counts[g], kMaxTokens));
    tables.emplace_back(blocks[g], counts[g]);
  }
  return tables;
}

Result<manager::RequestOptions> convert_request(const terrace_request_options& given) {
  TERRACE_ASSIGN_OR_RETURN(const auto options, adopt("terrace_request_options", &given));
  TERRACE_RETURN_IF_ERROR(
      check_array("token_count", options.tokens, options.token_count, kMaxTokens));
  TERRACE_RETURN_IF_ERROR(check_limit("prompt_tokens", options.prompt_tokens, kMaxTokens));
  TERRACE_ASSIGN_OR_RETURN(auto keys,
                           convert_extra_keys(options.extra_keys, options.extra_key_count));
  return manager::RequestOptions{
      .tokens = {options.tokens, options.token_count},
      .extra_keys = std::move(keys),
      .prompt_tokens =
          Tokens(options.prompt_tokens != 0 ? options.prompt_tokens : options.token_count),
      .is_unkeyable = (options.flags & TERRACE_REQUEST_UNKEYABLE) != 0,
      .can_load = (options.flags & TERRACE_REQUEST_NO_LOAD) == 0,
      .can_store = (options.flags & TERRACE_REQUEST_NO_STORE) == 0,
      .name = label_of(options.name),
      .unkeyable = label_of(options.unkeyable),
  };
}

Result<manager::Progress> convert_progress(const terrace_progress& given, std::size_t groups) {
  TERRACE_ASSIGN_OR_RETURN(const auto progress, adopt("terrace_progress", &given));
  TERRACE_RETURN_IF_ERROR(check_limit("computed_tokens", progress.computed_tokens, kMaxTokens));
  TERRACE_RETURN_IF_ERROR(
      check_array("new_token_count", progress.new_tokens, progress.new_token_count, kMaxTokens));
  TERRACE_RETURN_IF_ERROR(
      check_array("alias_count", progress.aliases, progress.alias_count, kMaxTokens));
  TERRACE_ASSIGN_OR_RETURN(auto tables,
                           convert_tables(groups, progress.blocks, progress.block_counts));
  return manager::Progress{
      .request = RequestId(progress.request),
      .computed = Tokens(progress.computed_tokens),
      .new_tokens = {progress.new_tokens, progress.new_token_count},
      .block_tables = std::move(tables),
      .aliases = {progress.aliases, progress.alias_count},
      .alias_first = progress.alias_first,
  };
}

Result<std::vector<ExtraKey>> convert_extra_keys(const terrace_extra_key* keys,
                                                 std::uint64_t count) {
  TERRACE_RETURN_IF_ERROR(check_array("extra_key_count", keys, count, kMaxExtraKeys));
  std::uint64_t identity_bytes = 0;
  std::vector<ExtraKey> made;
  made.reserve(count);
  for (std::uint64_t i = 0; i < count; ++i) {
    TERRACE_ASSIGN_OR_RETURN(const auto key, adopt_element("terrace_extra_key", keys, i));
    if (key.kind < 1 || key.kind > 3) {
      return fail(Code::kInvalid, fmt::format("extra key {}: kind {} is unknown", i, key.kind));
    }
    TERRACE_RETURN_IF_ERROR(check_array("identity_length", key.identity, key.identity_length,
                                        kMaxIdentityBytes - identity_bytes));
    identity_bytes += key.identity_length;
    made.push_back(
        {.kind = static_cast<ExtraKey::Kind>(key.kind),
         .identity = std::string(reinterpret_cast<const char*>(key.identity), key.identity_length),
         .first_token = key.first_token,
         .token_count = key.token_count});
  }
  return made;
}

// Evidence lies where what was stored lies, if that is a disk: a directory of sockets may be gone
// with the session. Bytes of KV lie in the clear only where somebody has said so, or where nothing
// is encrypted.
void choose_shadow(const config::Settings& settings, manager::Options& made) {
  manager::ShadowOptions& shadow = made.shadow;
  shadow.share = settings.shadow.share;
  shadow.tolerance = settings.shadow.tolerance;
  shadow.element = element_type(made.fingerprint);
  shadow.evidence = settings.shadow.evidence;
  if (!shadow.evidence.empty()) {
    shadow.marks = {shadow.evidence};
    return;
  }
  for (const std::string& path : made.disk.paths) shadow.marks.push_back(path + "/evidence");
  if (shadow.marks.empty()) shadow.marks = {settings.attach.directory + "/evidence"};
  if (made.encryption.keys == nullptr) shadow.evidence = shadow.marks.front();
}

// The tiers that the settings ask for are forecast, not made.
void observe(const config::Settings& settings, manager::Options& made) {
  manager::DiskOptions disk;
  disk.admission = settings.disk.admission;
  disk.is_demote = settings.disk.write == config::DiskWrite::kDemote;
  made.observed =
      manager::ObservedTiers{.host = settings.host.is_staging ? Bytes(0) : settings.host.size,
                             .host_blocks = settings.host.blocks.value(),
                             .disk = settings.disk.size,
                             .disk_blocks = settings.disk.blocks.value(),
                             .disk_has_copies = manager::disk_has_copies(disk),
                             .disk_eviction = settings.disk.eviction};
  made.host.blocks = manager::ObservedTiers::kPool;
  made.disk = {};
  made.object = {};
}

Result<manager::Options> convert_owner(const terrace_owner_options& given,
                                       const config::Settings& settings) {
  TERRACE_ASSIGN_OR_RETURN(const auto options, adopt("terrace_owner_options", &given));
  TERRACE_RETURN_IF_ERROR(check_block_tokens(options.block_tokens));
  TERRACE_ASSIGN_OR_RETURN(Layout layout, owner_layout(options));
  TERRACE_ASSIGN_OR_RETURN(Fingerprint fingerprint,
                           Fingerprint::parse(text_or_empty(options.fingerprint)));
  if (!settings.tenant.empty()) {
    TERRACE_RETURN_IF_ERROR(
        fingerprint.add_content("tenant", settings.tenant, "the setting tenant"));
  }
  manager::Options made;
  made.layout = std::move(layout);
  TERRACE_ASSIGN_OR_RETURN(made.group_rules, group_rules(options));
  made.fingerprint = std::move(fingerprint);
  made.model_directory = text_or_empty(options.model_directory);
  if (!made.model_directory.empty()) {
    // Only tried: their digest takes long, and the opening thread adds it.
    Fingerprint tried = made.fingerprint;
    TERRACE_RETURN_IF_ERROR(manager::add_weights(tried, ""));
  }
  made.weights_loaded_from = process_start();  // Ranks are its children, or start beside it.
  made.engine_id = text_or_empty(options.engine_id);
  if (made.engine_id.empty()) return fail(Code::kInvalid, "engine_id is empty");
  made.attach_directory = settings.attach.directory;
  made.host = host_options(settings.host);
  made.disk = disk_options(settings.disk);
  made.object = object_options(settings.object);
  TERRACE_ASSIGN_OR_RETURN(made.encryption, encryption_options(settings.encryption));
  if (settings.mode == config::Mode::kObserve) observe(settings, made);
  made.can_store = options.can_store != 0;
  made.can_load = options.can_load != 0;
  made.is_prompt_only = settings.offload.scope == config::OffloadScope::kPrompt;
  made.has_planner = settings.planner.enabled;
  made.has_events = settings.events.enabled;
  made.offload_step_bytes = settings.offload.step_bytes;
  made.offload_time_share = settings.offload.time_share;
  made.pin_share = settings.lookup.pin_share;
  made.lookup_deadline = settings.lookup.deadline;
  made.pin_time = settings.lookup.pin_time;
  choose_shadow(settings, made);
  made.attach_lookup_wait = settings.attach.lookup_wait;
  made.attach_timeout = settings.attach.timeout;
  made.step_timeout = settings.attach.step_timeout;
  made.flush_limit = settings.shutdown.flush;
  made.hit_window = settings.metrics.window;
  made.log_hits_every = settings.log.hits_every;
  made.log_rates_every = settings.log.rates_every;
  made.ledgers_kept = settings.ledger.keep;
  return made;
}

Result<worker::Worker::Options> convert_worker(const terrace_worker_options& given,
                                               const config::Settings& settings) {
  TERRACE_ASSIGN_OR_RETURN(const auto options, adopt("terrace_worker_options", &given));
  TERRACE_RETURN_IF_ERROR(check_block_tokens(options.block_tokens));
  if (options.group_count == 0 || options.group_count > kMaxGroups || options.groups == nullptr ||
      options.rank_count == 0 || options.rank_count > UINT16_MAX ||
      options.rank >= options.rank_count) {
    return fail(Code::kInvalid, fmt::format("worker: rank {} of {}, {} groups", options.rank,
                                            options.rank_count, options.group_count));
  }
  worker::Worker::Options made;
  made.rank = RankId(static_cast<std::uint16_t>(options.rank));
  made.layout.block_tokens = Tokens(options.block_tokens);
  made.layout.ranks = static_cast<std::uint16_t>(options.rank_count);
  for (std::uint32_t g = 0; g < options.group_count; ++g) {
    TERRACE_ASSIGN_OR_RETURN(worker::GroupRegions regions, group_regions(options.groups, g));
    GroupLayout layout{.group = GroupId(static_cast<std::uint16_t>(g)), .piece_bytes = {}};
    for (const worker::DeviceRegion& region : regions.regions) {
      layout.piece_bytes.emplace_back(region.piece_bytes);
    }
    made.layout.groups.push_back(std::move(layout));
    made.groups.push_back(std::move(regions));
  }
  TERRACE_RETURN_IF_ERROR(made.layout.validate());
  made.engine_id = text_or_empty(options.engine_id);
  if (made.engine_id.empty()) return fail(Code::kInvalid, "engine_id is empty");
  made.attach_directory = settings.attach.directory;
  made.attach_timeout = settings.attach.timeout;
  if (settings.worker.threads != 0) made.threads = settings.worker.threads;
  return made;
}

Result<config::Loaded> load_settings(const char* settings_json) {
  return config::load(config::read_sources(text_or_empty(settings_json)));
}

}  // namespace terrace::capi
