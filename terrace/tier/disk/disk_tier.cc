#include "terrace/tier/disk/disk_tier.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <bit>
#include <iterator>

#include "terrace/base/left_behind.h"
#include "terrace/base/rng.h"
#include "terrace/tier/disk/checker_internal.h"
#include "terrace/tier/disk/foreign_blocks_internal.h"
#include "terrace/tier/disk/frame_check_internal.h"
#include "terrace/tier/disk/learned_keeper_internal.h"
#include "terrace/tier/disk/loader_internal.h"
#include "terrace/tier/disk/open_volumes_internal.h"
#include "terrace/tier/disk/reader_internal.h"
#include "terrace/tier/disk/scrubber_internal.h"
#include "terrace/tier/disk/shares_internal.h"
#include "terrace/tier/disk/watch_internal.h"
#include "terrace/tier/disk/writer_internal.h"
#include "terrace/transfer/builtin.h"

namespace terrace::tier {

namespace {
using disk::Purpose;
using disk::Ticket;

constexpr Nanoseconds kDrainLimit = seconds(2);
constexpr Nanoseconds kLookLimit = milliseconds(100);  // At least, for looks that are under way.
constexpr std::uint32_t kSweepSlots = 8192;            // Per poll: well under a millisecond.

std::array<std::uint8_t, 32> random_digest() {
  const std::array words{random_u64(), random_u64(), random_u64(), random_u64()};
  return std::bit_cast<std::array<std::uint8_t, 32>>(words);
}

constexpr std::string_view kUndropped =
    "blocks of before the last reset would be found there after a restart";
}  // namespace

struct DiskTier::State {
  State(Options options_in, const Clock& clock_in, LogSink& log_in,
        std::unique_ptr<transfer::Backend> backend_in, std::unique_ptr<FrameCrypt> crypt_in,
        std::vector<std::unique_ptr<disk::Volume>> volumes_in, disk::Lookers lookers_in,
        std::unique_ptr<disk::Slots> slots_in, std::vector<std::string> problems,
        std::vector<std::string> unopened_in)
      : options(std::move(options_in)),
        clock(clock_in),
        log(log_in),
        backend(std::move(backend_in)),
        crypt(std::move(crypt_in)),
        volumes(std::move(volumes_in)),
        lookers(std::move(lookers_in)),
        slots(std::move(slots_in)),
        unopened(std::move(unopened_in)),
        health(directories(), std::move(problems), clock_in, log_in),
        pages(disk::pages_of(*backend)),
        queue(*backend, clock_in,
              {disk::queue_capacity(options, volumes.size()),
               {1ULL << 40U, 64ULL << 20U, 16ULL << 20U, 4ULL << 20U},
               backend->joined_bytes(),
               [this](transfer::Transfer& transfer) { return prepare(transfer); },
               [this](transfer::Transfer& transfer) { release(transfer); },
               static_cast<std::uint32_t>(volumes.size())}),
        corrupt_log(clock_in, log_in, "disk corrupt=1"),
        context{options, clock_in, log_in, corrupt_log, volumes, *slots,
                health,  queue,    pages,  meters,      *crypt,  lookers},
        writer(context),
        learned(context, writer.budget()),
        reader(context, writer),
        watch(context),
        scrubber(context, writer,
                 {options.scrub_bytes_per_second, options.scrub_interval, options.scrub_first}) {
    context.content_digest = disk::digest_bytes(options.fingerprint.content_digest());
    context.layout_digest = disk::digest_bytes(options.fingerprint.layout_digest());
    context.session_digest = random_digest();
    for (const auto& volume : volumes) {
      checkers.push_back(std::make_unique<disk::Checker>(
          context, writer, static_cast<std::uint32_t>(checkers.size())));
      backend->name_file(volume->data_file(), volume->data_path());
      backend->name_file(volume->meta_file(), volume->meta_path());
      backend->name_file(volume->extents_file(), volume->extents_path());
    }
    writer.budget().name_files(*backend);
    learned.name_files(*backend);
  }

  [[nodiscard]] std::vector<std::string> directories() const {
    std::vector<std::string> names;
    names.reserve(volumes.size());
    for (const auto& volume : volumes) names.push_back(volume->directory());
    return names;
  }

  [[nodiscard]] bool is_at_work() const {
    return backend->in_flight() > 0 || crypt->under_way() > 0;
  }
  [[nodiscard]] bool is_busy() {
    return is_at_work() || writer.is_drop_due() || writer.budget().is_saving() ||
           learned.is_saving();
  }

  bool prepare(transfer::Transfer& transfer) {
    const Ticket ticket = Ticket::of(transfer.token);
    const bool is_read = ticket.purpose == Purpose::kReadFrame;
    const bool is_write = ticket.purpose == Purpose::kWriteFrame;
    if (is_read && !reader.prepare(ticket, transfer)) return false;
    if (is_write && !writer.prepare(ticket, transfer)) return false;
    watch.began(ticket, transfer);
    return true;
  }

  // It waits again, and is not at its device.
  void release(transfer::Transfer& transfer) {
    const Ticket ticket = Ticket::of(transfer.token);
    watch.ended(ticket, false);
    if (ticket.purpose == Purpose::kReadFrame) {
      reader.release(ticket);
    } else if (ticket.purpose == Purpose::kWriteFrame) {
      writer.release(ticket);
    } else {
      return;
    }
    transfer.pieces[0].data = nullptr;
  }

  void finish(transfer::Completion& completion) {
    const Ticket ticket = Ticket::of(completion.token);
    watch.ended(ticket);
    switch (ticket.purpose) {
      case Purpose::kReadFrame:
        return reader.finish(ticket, std::move(completion.status), ready);
      case Purpose::kWriteFrame:
        return writer.finish_frame(ticket, std::move(completion.status), ready);
      case Purpose::kDataSync:
        return writer.finish_data_sync(ticket.number, completion.status, ready);
      case Purpose::kMetaWrite:
        return writer.finish_meta_write(ticket.number, completion.status, ready);
      case Purpose::kMetaSync:
        return writer.finish_meta_sync(ticket.number, completion.status, ready);
      case Purpose::kAllocate:
      case Purpose::kZeroFill:
        return writer.allocator().finish(ticket.purpose, ticket.number, completion.status);
      case Purpose::kAccountWrite:
      case Purpose::kAccountSync:
        return writer.budget().finish(ticket.purpose, ticket.number, completion.status);
      case Purpose::kLearnedWrite:
      case Purpose::kLearnedSync:
        return learned.finish(ticket.purpose, ticket.number, completion.status);
      case Purpose::kScrub:
        return scrubber.finish(ticket.number, completion.status);
      case Purpose::kCheck:
        return checkers[ticket.number]->finish(completion.status);
      case Purpose::kLoad:
      case Purpose::kSealFrame:
      case Purpose::kOpenFrame:
        return;
    }
  }

  // What others' hands have done; false if that was nothing.
  bool take_crypt() {
    crypt_done.clear();
    crypt->take_done(crypt_done);
    for (const std::uint64_t token : crypt_done) {
      const Ticket ticket = Ticket::of(token);
      if (ticket.purpose == Purpose::kOpenFrame) {
        reader.finish_open(ticket, ready);
      } else {
        writer.finish_seal(ticket, ready);
      }
    }
    return !crypt_done.empty();
  }

  void advance() {
    writer.advance(ready);
    for (const auto& checker : checkers) {
      checker->advance();
      if (checker->take_doubt()) (void)scrubber.ask(0);
    }
    scrubber.advance();
  }

  void pump() {
    corrupt_log.tick();
    (void)take_crypt();
    advance();
    completions.clear();
    queue.poll(completions);
    for (transfer::Completion& completion : completions) finish(completion);
    watch.look();  // Behind what has come back: it may have waited for us, and not for its device.
    (void)slots->sweep(kSweepSlots);
    watch.hide_unreadable();
    if (!take_crypt() && completions.empty()) return;
    // What finished may have made more due; the device should not wait for the next call.
    advance();
    completions.clear();
    queue.poll(completions);
    for (transfer::Completion& completion : completions) finish(completion);
    watch.hide_unreadable();
  }

  const Options options;
  const Clock& clock;
  LogSink& log;
  std::unique_ptr<transfer::Backend> backend;
  std::unique_ptr<FrameCrypt> crypt;
  std::vector<std::unique_ptr<disk::Volume>> volumes;
  disk::Lookers lookers;
  std::unique_ptr<disk::Slots> slots;
  const std::vector<std::string> unopened;  // Of the paths.
  disk::ForeignBlocks foreign;
  disk::Health health;
  disk::Meters meters;
  disk::Pages pages;
  transfer::Queue queue;
  LogLimit corrupt_log;
  disk::Context context;
  disk::Writer writer;
  disk::LearnedKeeper learned;
  disk::Reader reader;
  disk::Watch watch;
  std::vector<std::unique_ptr<disk::Checker>> checkers;  // [volume]
  disk::Scrubber scrubber;
  std::vector<transfer::Completion> completions;
  std::vector<std::uint64_t> crypt_done;
  std::vector<DiskDone> ready;
};

Result<std::unique_ptr<DiskTier>> DiskTier::open(Options options, const Clock& clock,
                                                 LogSink& log) {
  TERRACE_RETURN_IF_ERROR(disk::check_options(options));
  if (!options.first_look) {
    options.first_look =
        look_first(options.paths, options.make_hand, options.first_look_limit, clock, log);
  }
  TERRACE_RETURN_IF_ERROR(disk::refuse_aliases(options.first_look->answering(options.paths)));
  disk::divide(options);
  // A ring has one thread copy out of the page cache; threads copy, and look at it, side by side.
  const bool copies = options.backend == "auto" && !options.is_direct;
  TERRACE_ASSIGN_OR_RETURN(
      auto chosen, transfer::make_backend(copies ? "threads" : options.backend, options.io));
  if (copies) chosen.reason = "without O_DIRECT threads copy side by side";
  log.write(LogLevel::kInfo,
            fmt::format("disk backend={} reason=\"{}\"", chosen.backend->name(), chosen.reason));
  if (options.decorate) chosen.backend = options.decorate(std::move(chosen.backend));
  disk::OpenedVolumes opened = disk::open_volumes(options, clock, log);
  disk::fit_volumes(options, opened);
  for (const std::string& problem : opened.problems) {
    log.write(LogLevel::kError, "disk problem=\"" + problem + "\"");
  }
  if (opened.volumes.empty()) {
    std::string reasons;
    for (const std::string& problem : opened.problems) reasons += "; " + problem;
    return fail(Code::kRefused, "no directory of disk.paths can be used" + reasons,
                Scope::kBackend);
  }
  std::vector<std::uint32_t> counts;
  counts.reserve(opened.volumes.size());
  for (const auto& volume : opened.volumes) counts.push_back(volume->slots());
  const std::uint64_t most = options.blocks > 0 ? options.blocks : UINT32_MAX;
  disk::SlotMap map(counts, static_cast<std::uint32_t>(std::min<std::uint64_t>(most, UINT32_MAX)));
  const std::uint32_t slots = map.size();
  TERRACE_ASSIGN_OR_RETURN(auto pool, disk::Slots::create({options.layout.groups.size(), slots,
                                                           options.eviction, options.returns},
                                                          std::move(map), opened.volumes.size()));
  std::vector<std::string> unopened = opened.unopened(options);
  TERRACE_ASSIGN_OR_RETURN(auto crypt,
                           disk::make_crypt(options, *chosen.backend, opened.volumes.size()));
  TERRACE_ASSIGN_OR_RETURN(auto lookers,
                           disk::Lookers::create(opened.volumes, options.make_hand, clock, log));
  auto state =
      std::make_unique<State>(std::move(options), clock, log, std::move(chosen.backend),
                              std::move(crypt), std::move(opened.volumes), std::move(lookers),
                              std::move(pool), std::move(opened.problems), std::move(unopened));
  TERRACE_RETURN_IF_ERROR(disk::Loader(state->context, *state->backend, state->writer).load());
  state->slots->tell();
  log.write(LogLevel::kInfo,
            fmt::format("disk state=open slots={} blocks={} paths={}", state->slots->size(),
                        state->meters.adopted_blocks.value(), state->volumes.size()));
  return std::unique_ptr<DiskTier>(new DiskTier(std::move(state)));
}

DiskTier::DiskTier(std::unique_ptr<State> state) : state_(std::move(state)) {}

DiskTier::~DiskTier() {
  if (state_ != nullptr) (void)close(kDrainLimit);
}

bool DiskTier::close(Nanoseconds limit) {
  stop_writes();
  state_->corrupt_log.flush();
  const Nanoseconds deadline = state_->clock.now() + limit;
  while (state_->is_busy() && state_->clock.now() < deadline) {
    state_->backend->wait(milliseconds(50));
    state_->pump();
  }
  // A device that does not answer may still write into these pages, and a thread may still use this
  // backend: leave them to the process's end rather than hang or corrupt the engine.
  const bool has_ended = !state_->is_at_work();
  // Where a look does not come back, closing the files may not either: then they stay as they are.
  const bool has_looked =
      state_->lookers.end(std::max(deadline - state_->clock.now(), kLookLimit), state_->log);
  if (!has_ended || !has_looked) leave_behind(std::move(state_));
  state_.reset();
  return has_ended;
}

std::size_t DiskTier::match(GroupId group, std::span<const SequenceHash> hashes) const {
  if (group.value() >= state_->options.layout.groups.size() || !state_->health.any_readable()) {
    return 0;
  }
  return state_->slots->match(group.value(), hashes);
}

bool DiskTier::contains(GroupId group, const SequenceHash& hash) const {
  return group.value() < state_->options.layout.groups.size() && state_->health.any_readable() &&
         state_->slots->contains(group.value(), hash);
}

void DiskTier::note_foreign(const std::function<bool()>& is_stopped) {
  const Fingerprint& own = state_->options.fingerprint;
  state_->foreign.read(state_->directories(), own.content_digest(), own.layout_digest(),
                       is_stopped);
}

bool DiskTier::is_foreign(const SequenceHash& hash) const { return state_->foreign.may_hold(hash); }

void DiskTier::touch(GroupId group, const SequenceHash& hash) {
  if (group.value() < state_->options.layout.groups.size()) {
    state_->slots->touch(group.value(), hash);
  }
}

void DiskTier::touch_chain(GroupId group, const catalog::UsedRun& run) {
  if (group.value() < state_->options.layout.groups.size()) {
    state_->slots->touch_chain(group.value(), run);
  }
}

void DiskTier::note_last_use(GroupId group, const SequenceHash& hash,
                             const catalog::LastUse& last) {
  if (group.value() < state_->options.layout.groups.size()) {
    state_->slots->note_last_use(group.value(), hash, last);
  }
}

void DiskTier::forget_all() {
  state_->slots->forget_all();
  state_->backend->wake();
}

std::uint32_t DiskTier::resets() const { return state_->slots->epoch(); }

bool DiskTier::is_drop_pending() const {
  for (std::uint32_t v = 0; v < state_->volumes.size(); ++v) {
    if (!state_->slots->is_dropped(v)) return true;
  }
  return false;
}

std::vector<std::string> DiskTier::undropped() const {
  std::vector<std::string> all;
  if (resets() == 0) return all;
  for (std::uint32_t v = 0; v < state_->volumes.size(); ++v) {
    if (state_->slots->is_dropped(v)) continue;
    all.push_back(fmt::format(
        "disk path={}: {}; dropping them is tried again and again while the engine runs: check the "
        "device and the kernel's log, or delete the directory before the next start",
        state_->volumes[v]->directory(), kUndropped));
  }
  for (const std::string& path : state_->unopened) {
    all.push_back(
        fmt::format("disk.paths {}: {}, for it could not be opened: delete terrace-* "
                    "there before the next start",
                    path, kUndropped));
  }
  return all;
}

Status DiskTier::begin_write(std::uint64_t token, GroupId group, const SequenceHash& hash,
                             std::uint64_t alias, std::span<const ShardMemory> ranks,
                             std::span<const Checksum> checksums,
                             std::optional<std::uint32_t> resets) {
  return state_->writer.begin(token, group.value(), hash, alias, ranks, checksums, resets);
}

Status DiskTier::begin_read(std::uint64_t token, GroupId group, const SequenceHash& hash,
                            std::span<const ShardMemory> ranks, transfer::IoClass io_class,
                            Nanoseconds deadline) {
  return state_->reader.begin(token, group.value(), hash, ranks, io_class, deadline);
}

void DiskTier::cancel_reads(std::span<const std::uint64_t> tokens) {
  std::vector<transfer::Completion> cancelled;
  state_->reader.cancel(tokens, cancelled);
  for (transfer::Completion& completion : cancelled) state_->finish(completion);
}

void DiskTier::poll(std::vector<DiskDone>& done) {
  state_->pump();
  state_->slots->tell();
  std::move(state_->ready.begin(), state_->ready.end(), std::back_inserter(done));
  state_->ready.clear();
}

void DiskTier::wait(Nanoseconds limit) {
  state_->pump();  // What was begun since the last poll starts now, not after the wait.
  if (state_->ready.empty()) state_->backend->wait(limit);
}

void DiskTier::wake() { state_->backend->wake(); }

bool DiskTier::is_idle() const {
  return state_->ready.empty() && state_->reader.is_idle() && state_->writer.is_idle() &&
         !state_->learned.is_saving() && !state_->writer.budget().is_saving();
}

const std::string& DiskTier::learned() const { return state_->learned.found(); }

void DiskTier::keep_learned(std::string bytes) { state_->learned.keep(std::move(bytes)); }

void DiskTier::stop_writes() {
  state_->writer.stop(state_->ready);
  for (const auto& checker : state_->checkers) checker->stop();
  state_->scrubber.stop();
  std::vector<transfer::Completion> cancelled;
  state_->queue.cancel(transfer::IoClass::kOffloadWrite,
                       {Code::kClosed, "the disk tier is closing"}, cancelled);
  for (transfer::Completion& completion : cancelled) state_->finish(completion);
}

std::uint64_t DiskTier::start_scrub(std::uint64_t bytes_per_second) {
  const std::uint64_t pass = state_->scrubber.ask(bytes_per_second);
  state_->backend->wake();
  return pass;
}

void DiskTier::hold_scrub(bool is_held) { state_->scrubber.hold(is_held); }

ScrubReport DiskTier::scrub_report() const { return state_->scrubber.report(); }

std::vector<std::string> DiskTier::problems() const {
  std::vector<std::string> all = state_->health.problems();
  const std::uint64_t locked = state_->slots->locked();
  if (const auto& keys = state_->context.missing_keys; locked > 0 && !keys.empty()) {
    all.push_back(
        fmt::format("disk: blocks need the key {}, which is not here: name its file in "
                    "encryption.key_file or encryption.old_key_files to have them again; until "
                    "then they are missed, and go when their space is needed",
                    fmt::join(keys, " or ")));
  }
  std::ranges::move(undropped(), std::back_inserter(all));
  std::string problem = state_->writer.budget().problem();
  if (!problem.empty()) all.push_back(std::move(problem));
  return all;
}

std::string_view DiskTier::backend_name() const { return state_->backend->name(); }

std::string DiskTier::key_ids() const { return state_->crypt->key_ids(); }

std::uint32_t DiskTier::slots() const { return state_->slots->size(); }

std::uint32_t DiskTier::count(catalog::SlotState state) const {
  return state_->slots->count(state);
}

std::vector<catalog::Eviction> DiskTier::take_evicted() { return state_->slots->take_evicted(); }

void DiskTier::visit_metrics(MetricVisitor& visitor) const {
  disk::visit(state_->meters, state_->backend->counters(), *state_->slots, *state_->crypt, visitor);
  disk::visit_flow(state_->meters, state_->backend->counters(), state_->writer.budget(),
                   state_->queue, visitor);
  state_->watch.visit_metrics(visitor);
}

DiskTier::Flow DiskTier::flow() const {
  const auto facts = state_->writer.budget().facts();
  const auto write = static_cast<std::size_t>(transfer::IoOp::kWrite);
  return {state_->backend->counters().bytes[write].value(), state_->meters.read_bytes.value(),
          facts.bytes_per_day, facts.left};
}

Bytes DiskTier::memory() const { return state_->slots->memory(); }

bool DiskTier::is_allocated() const {
  for (std::uint32_t v = 0; v < state_->volumes.size(); ++v) {
    if (!state_->writer.allocator().is_done(v)) return false;
  }
  return true;
}

}  // namespace terrace::tier
