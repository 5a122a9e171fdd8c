#include <fmt/format.h>

#include <algorithm>

#include "terrace/base/sync_point.h"
#include "terrace/base/thread.h"
#include "terrace/manager/opening_internal.h"
#include "terrace/manager/quarantine_internal.h"
#include "terrace/manager/weights.h"

namespace terrace::manager {

namespace {

// Halves the time until ten million blocks can be found again; a third would mostly wait for
// memory, and the engine is starting beside us.
constexpr std::size_t kLoadThreads = 2;

void shut(Shared& shared, LogSink& log, const std::string& reason) {
  {
    const MutexLock lock(shared.mutex);
    shared.core.shut(reason);
  }
  log.write(LogLevel::kError, fmt::format("event=shut reason=\"{}\"", reason));
}

// Before anybody else asks for something below those paths. Each waits for its own file system.
tier::FirstLook look_at_disk(const Options& options, const Clock& clock, LogSink& log,
                             const std::stop_token& stop) {
  return tier::look_first(options.disk.paths, lone_hand, options.disk.first_look_limit, clock, log,
                          stop);
}

void go_without_disk(const Options& options, const tier::FirstLook& first_look, Shared& shared,
                     LogSink& log, const std::string& reason) {
  const bool has_remains = tier::DiskTier::may_hold_blocks(options.disk.paths, first_look);
  {
    const MutexLock lock(shared.mutex);
    shared.core.close_lower(reason, has_remains);
  }
  if (!reason.empty()) {
    log.write(LogLevel::kError, fmt::format("event=disk_off reason=\"{}\"", reason));
  }
}

// No tier below host is opened then, in this process: nobody is to wait for one.
void stay_shut(const Options& options, const Clock& clock, Shared& shared, LogSink& log,
               const std::string& reason, const std::stop_token& stop) {
  shut(shared, log, reason);
  go_without_disk(
      options, look_at_disk(options, clock, log, stop), shared, log,
      options.disk.paths.empty() ? "" : "nothing is served, so the disk tier is not opened");
  go_without_objects(
      shared, log,
      options.object.open_store ? "nothing is served, so the shared store is not opened" : "");
}

std::shared_ptr<const policy::ReturnModel> returns_of(Shared& shared) {
  const MutexLock lock(shared.mutex);
  return shared.core.returns();
}

// The segment stays where it is for as long as the process serves.
Result<const tier::HostTier*> open_host(const Options& options, Shared& shared) {
  tier::HostTier::Options wanted;
  wanted.layout = options.layout;
  wanted.size = options.host.size;
  wanted.blocks = options.host.blocks;
  wanted.huge_pages = options.host.huge_pages;
  wanted.eviction = options.host.eviction;
  wanted.returns = returns_of(shared);
  wanted.system_root = options.host.system_root;
  TERRACE_ASSIGN_OR_RETURN(auto host, tier::HostTier::create(wanted));
  const tier::HostTier* opened = host.get();
  const MutexLock lock(shared.mutex);
  shared.core.open_host(std::move(host));
  return opened;
}

Status open_attach(const Options& options, std::uint64_t owner, const Clock& clock, LogSink& log,
                   const tier::HostTier& host, IoDriver& driver, Opened& opened) {
  attach::AttachServer::Options attach{.directory = options.attach_directory,
                                       .engine_id = options.engine_id,
                                       .owner = owner,
                                       .layout = options.layout,
                                       .geometry = host.geometry(),
                                       .lanes = {}};
  for (const memory::Lane& lane : host.lanes()) attach.lanes.push_back(&lane);
  TERRACE_ASSIGN_OR_RETURN(opened.attach,
                           attach::AttachServer::start(std::move(attach), clock, log));
  opened.has_attach.store(true);
  driver.set_attach(opened.attach.get());
  driver.wake();
  return {};
}

Result<Fingerprint> whole_fingerprint(const Options& options) {
  Fingerprint fingerprint = options.fingerprint;
  if (!options.model_directory.empty()) {
    TERRACE_ASSIGN_OR_RETURN(std::string digest, digest_weights(options.model_directory));
    // What lies in host memory ends with this engine.
    if (!options.disk.paths.empty() || options.object.open_store) {
      TERRACE_RETURN_IF_ERROR(
          check_unchanged(options.model_directory, options.weights_loaded_from));
    }
    TERRACE_RETURN_IF_ERROR(add_weights(fingerprint, std::move(digest)));
  }
  TERRACE_RETURN_IF_ERROR(fingerprint.validate());
  return fingerprint;
}

Status open_disk(const Options& options, const tier::FirstLook& first_look, const Clock& clock,
                 LogSink& log, Shared& shared, IoDriver& driver, Opened& opened) {
  const DiskOptions& disk = options.disk;
  TERRACE_ASSIGN_OR_RETURN(
      opened.disk, tier::DiskTier::open({.paths = disk.paths,
                                         .size = disk.size,
                                         .blocks = disk.blocks,
                                         .backend = disk.backend,
                                         .io = disk.io,
                                         .is_direct = disk.is_direct,
                                         .is_direct_by_fcntl = disk.is_direct_by_fcntl,
                                         .preallocate = disk.preallocate,
                                         .eviction = disk.eviction,
                                         .returns = returns_of(shared),
                                         .queue_blocks = disk.queue_blocks,
                                         .scrub_bytes_per_second = disk.scrub_bytes_per_second,
                                         .scrub_interval = disk.scrub_interval,
                                         .scrub_first = disk.scrub_first,
                                         .write_budget = disk.write_budget,
                                         .writes_per_day = disk.writes_per_day,
                                         .layout = options.layout,
                                         .fingerprint = opened.fingerprint,
                                         .crypt = open_crypt(options, log, shared, opened),
                                         .crew = thread_crew("terrace-load", kLoadThreads),
                                         .make_hand = lone_hand,
                                         .first_look = first_look,
                                         .decorate = disk.decorate},
                                        clock, log));
  opened.lower = make_disk_lower(*opened.disk);
  opened.has_disk.store(true);
  {
    const MutexLock lock(shared.mutex);
    shared.core.open_lower(*opened.lower);
  }
  driver.set_lower(*opened.lower);
  driver.wake();
  return {};
}

// Where a difference is written down that is found from now on.
void name_marks(const Options& options, const Fingerprint& fingerprint, Shared& shared) {
  const MutexLock lock(shared.mutex);
  shared.core.open_quarantine(quarantine_paths(options.shadow, fingerprint), std::nullopt);
}

// Before a tier opens that has blocks of earlier owners. Returns why nobody can say whether they
// are to be believed; empty = somebody can.
[[nodiscard]] std::string look_for_quarantine(const Options& options,
                                              const tier::FirstLook& first_look,
                                              const Fingerprint& fingerprint, Shared& shared,
                                              LogSink& log) {
  const std::vector<std::string> marks = quarantine_paths(options.shadow, fingerprint);
  std::vector<std::string> answering;
  for (const std::string& path : marks) {
    if (!first_look.is_in_silence(path)) {
      answering.push_back(path);
      continue;
    }
    log.write(LogLevel::kWarn,
              fmt::format("event=quarantine_unknown reason=\"{} does not answer\": what an earlier "
                          "start may have written down there alone is not known",
                          path));
  }
  auto found = find_quarantine(answering);
  if (found) {  // The others were lost or silent then.
    std::erase_if(answering, [&](const auto& path) {
      return std::ranges::find(found->paths, path) != found->paths.end();
    });
    const auto written = write_quarantines(answering, found->text, lone_hand);
    if (written) found->paths.insert(found->paths.end(), written->begin(), written->end());
  }
  const bool is_unknown = !found && answering.empty() && !marks.empty();
  const MutexLock lock(shared.mutex);
  shared.core.open_quarantine(marks, found);
  if (!is_unknown) return {};
  return "whether an earlier start found this model's blocks to be wrong is not known, as no "
         "directory answers that would have it written down";
}

}  // namespace

tier::CryptOptions open_crypt(const Options& options, LogSink& log, Shared& shared,
                              Opened& opened) {
  const EncryptionOptions& wanted = options.encryption;
  if (wanted.keys == nullptr) return {};
  const bool is_needed = !options.disk.paths.empty() || options.object.open_store;
  if (is_needed && opened.hands == nullptr) {
    auto hands = thread_hands("terrace-crypt", wanted.threads, [&shared](const char* text) {
      const MutexLock lock(shared.mutex);
      shared.core.poison(text);
    });
    if (hands) {
      opened.hands = *std::move(hands);
    } else {
      log.write(LogLevel::kWarn,
                fmt::format("encryption threads=0 reason=\"{}\"", hands.error().message()));
    }
    log.write(LogLevel::kInfo, fmt::format("encryption keys=\"{}\" accept_plain={}",
                                           wanted.keys->ids(), wanted.accepts_plain));
  }
  return {wanted.keys, opened.hands.get(), wanted.accepts_plain};
}

namespace {
std::uint64_t shard_groups(const Layout& layout, std::uint64_t blocks, Bytes size) {
  const std::uint64_t groups = layout.groups.size();
  if (blocks > 0) return blocks * groups;
  std::uint64_t bytes = 0;
  for (const GroupLayout& group : layout.groups) {
    bytes += group.shard_bytes().value() * layout.ranks;
  }
  return size.value() / std::max<std::uint64_t>(bytes, 1) * groups;
}
}  // namespace

std::uint64_t disk_blocks(const Options& options) {
  return shard_groups(options.layout, options.disk.blocks, options.disk.size);
}

std::uint64_t host_blocks(const Options& options) {
  return shard_groups(options.layout, options.host.blocks, options.host.size);
}

namespace {
void warn_of_few(const policy::ExpectedOptions& filter, LogSink& log) {
  if (filter.entries == 0 || filter.entries >= filter.least_entries()) return;
  log.write(
      LogLevel::kWarn,
      fmt::format("event=admission_entries entries={} host_blocks={} detail=\"disk.admission = "
                  "expected forgets blocks before they leave host, and judges them as any: "
                  "leave disk.admission_entries out, or give {}\"",
                  filter.entries, filter.upper_blocks, filter.usual_entries()));
}

}  // namespace

Result<std::unique_ptr<policy::AdmissionFilter>> make_disk_admission(const Options& options,
                                                                     LogSink& log) {
  policy::AdmissionOptions filter = options.disk.filter;
  filter.reuse.tier_blocks = filter.expected.tier_blocks = disk_blocks(options);
  filter.expected.upper_blocks = host_blocks(options);
  if (options.disk.admission == "expected") warn_of_few(filter.expected, log);
  return policy::make_admission(options.disk.admission, filter);
}

void run_opening(const Options& options, std::uint64_t owner, const Clock& clock, LogSink& log,
                 Shared& shared, IoDriver& driver, Opened& opened, const std::stop_token& stop) {
  TERRACE_SYNC_POINT("manager.open.start");
  const auto host = open_host(options, shared);
  if (!host) return stay_shut(options, clock, shared, log, host.error().message(), stop);
  if (const Status status = open_attach(options, owner, clock, log, **host, driver, opened);
      !status.is_ok()) {
    return stay_shut(options, clock, shared, log, status.message(), stop);
  }
  auto fingerprint = whole_fingerprint(options);
  if (fingerprint) name_marks(options, *fingerprint, shared);
  const tier::FirstLook first_look = look_at_disk(options, clock, log, stop);
  Status objects_status;
  if (!fingerprint) {
    // In host memory only this engine's own blocks lie; on disk those of others do.
    const std::string reason = fmt::format("fingerprint: {}", fingerprint.error().message());
    go_without_disk(options, first_look, shared, log, reason);
    go_without_objects(shared, log, options.object.open_store ? reason : "");
  } else {
    opened.fingerprint = std::move(*fingerprint);
    opened.has_fingerprint.store(true);
    const std::string doubt =
        look_for_quarantine(options, first_look, opened.fingerprint, shared, log);
    TERRACE_SYNC_POINT("manager.open.disk");
    if (options.disk.paths.empty() || !doubt.empty()) {
      go_without_disk(options, first_look, shared, log, options.disk.paths.empty() ? "" : doubt);
    } else if (const Status status =
                   open_disk(options, first_look, clock, log, shared, driver, opened);
               !status.is_ok()) {
      go_without_disk(options, first_look, shared, log,
                      status.message() + "; the disk tier is not used until the engine restarts");
    }
    // After the disk: a shared directory whose server is away may hang for long.
    if (!doubt.empty() || stop.stop_requested()) {
      go_without_objects(shared, log,
                         !options.object.open_store ? ""
                         : doubt.empty()            ? "the engine closes"
                                                    : doubt);
    } else {
      objects_status = open_objects(options, clock, log, shared, driver, opened);
    }
  }
  const auto is_stopped = [&] { return stop.stop_requested(); };
  const Status populated = (*host)->populate(is_stopped);
  if (!populated.is_ok()) shut(shared, log, populated.message());
  if (opened.disk != nullptr) opened.disk->note_foreign(is_stopped);
  if (may_open_later(objects_status)) {
    open_objects_later(options, objects_status.message(), clock, log, shared, driver, opened, stop);
  }
}

Result<std::uint64_t> Opened::start_scrub(std::uint64_t bytes_per_second, bool has_paths) {
  const MutexLock lock(guard);
  if (!has_disk.load() || disk == nullptr) {
    return fail(Code::kUnavailable,
                has_paths
                    ? "the disk tier is not open: `terrace status` says why, or ask again later"
                    : "there is no disk tier: nothing to scrub");
  }
  return disk->start_scrub(bytes_per_second);
}

}  // namespace terrace::manager
