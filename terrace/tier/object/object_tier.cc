#include "terrace/tier/object/object_tier.h"

#include <fmt/format.h>

#include <algorithm>

#include "terrace/base/left_behind.h"
#include "terrace/tier/object/context_internal.h"
#include "terrace/tier/object/generations_internal.h"
#include "terrace/tier/object/probes_internal.h"
#include "terrace/tier/object/reads_internal.h"
#include "terrace/tier/object/refusals_internal.h"
#include "terrace/tier/object/repairs_internal.h"
#include "terrace/tier/object/touches_internal.h"
#include "terrace/tier/object/upkeep_internal.h"
#include "terrace/tier/object/writes_internal.h"

namespace terrace::tier {

using object::Part;

struct ObjectTier::State {
  State(Options options, std::unique_ptr<transfer::ObjectStore> store,
        std::unique_ptr<FrameCrypt> crypt, const Clock& clock, LogSink& log)
      : context(std::move(options), std::move(store), std::move(crypt), clock, log) {}

  void take(const transfer::ObjectAnswer& answer, std::vector<ObjectDone>& done) {
    const std::uint64_t number = answer.token & ~(std::uint64_t{0xff} << 56U);
    switch (static_cast<Part>(answer.token >> 56U)) {
      case Part::kOpening:
        return generations.take_listing(answer);
      case Part::kProbe:
        refusals.note_asked(answer.status);
        return probes.take(answer, number);
      case Part::kRead:
        refusals.note_asked(answer.status);
        refusals.note_read(answer.status);
        return reads.take(answer, number, done);
      case Part::kWrite:
        if (writes.is_put(number)) {
          refusals.note_put(answer.status);
        } else {
          refusals.note_asked(answer.status);
        }
        return writes.take(answer, number, done);
      case Part::kReset:
        return generations.take_reset(answer, number);
      case Part::kCollect:
        return upkeep.take_round(answer, number);
      case Part::kTouch:
        return touches.take(answer, number);
      case Part::kCheck:
        return upkeep.take_check(answer);
      case Part::kRepair:
        return repairs.take(answer);
      case Part::kSealed:
      case Part::kOpened:
        return;
    }
  }
  // What others' hands have done.
  void take_crypt(std::vector<ObjectDone>& done) {
    crypt_done.clear();
    context.crypt->take_done(crypt_done);
    for (const std::uint64_t token : crypt_done) {
      const std::uint64_t number = token & ~(std::uint64_t{0xff} << 56U);
      if (static_cast<Part>(token >> 56U) == Part::kOpened) {
        reads.take_opened(number, done);
      } else {
        writes.take_sealed(number, done);
      }
    }
  }
  // Why nothing can be asked for; ok = it can.
  [[nodiscard]] Status availability() const {
    if (context.is_reset.load()) return {Code::kUnavailable, "the cache was reset"};
    if (!context.generation) return {Code::kUnavailable, "the store has not answered yet"};
    return {};
  }

  object::Context context;
  object::Generations generations{context};
  object::Refusals refusals{context};
  object::Touches touches{context};
  object::Probes probes{context, touches};
  object::Reads reads{context};
  object::Writes writes{context, touches};
  object::Upkeep upkeep{context};
  object::Repairs repairs{context};
  std::vector<transfer::ObjectAnswer> answers;
  std::vector<std::uint64_t> crypt_done;
  std::vector<transfer::ObjectAnswer> cancelled;  // To be handed out by the next poll.
};

namespace {
constexpr Nanoseconds kDrainLimit = seconds(2);
// Packs that are encrypted side by side; one always is.
constexpr std::uint64_t kCryptBytes = 64ULL << 20U;

Result<std::unique_ptr<FrameCrypt>> make_crypt(const ObjectTier::Options& options,
                                               transfer::ObjectStore& store) {
  const wire::PackGeometry pack(options.layout, options.pack_blocks);
  FrameCrypt::Options wanted;
  wanted.crypt = options.crypt;
  wanted.content_digest = options.fingerprint.content_digest_bytes();
  wanted.layout_digest = options.fingerprint.layout_digest_bytes();
  for (std::uint16_t group = 0; group < pack.groups(); ++group) {
    const std::uint64_t padded = pack.frame_bytes(GroupId(group)) - wire::kFrameHeaderBytes;
    wanted.buffer_bytes += padded * pack.ranks() * pack.blocks();
  }
  wanted.buffers = std::clamp<std::size_t>(kCryptBytes / wanted.buffer_bytes, 1,
                                           std::max<std::size_t>(options.most_writes, 1));
  wanted.wake = options.wake ? options.wake : [&store] { store.wake(); };
  return FrameCrypt::create(std::move(wanted));
}
}  // namespace

Result<std::unique_ptr<ObjectTier>> ObjectTier::create(Options options,
                                                       std::unique_ptr<transfer::ObjectStore> store,
                                                       const Clock& clock, LogSink& log) {
  TERRACE_RETURN_IF_ERROR(options.layout.validate());
  const bool is_sane = options.pack_blocks >= 1 && options.pack_blocks <= wire::kMostPackBlocks &&
                       options.known_blocks >= options.pack_blocks;
  if (!is_sane) {
    return fail(Code::kInvalid,
                fmt::format("packs of {} blocks: use 1 to {}, and room to remember one",
                            options.pack_blocks, wire::kMostPackBlocks));
  }
  TERRACE_ASSIGN_OR_RETURN(auto crypt, make_crypt(options, *store));
  auto state =
      std::make_unique<State>(std::move(options), std::move(store), std::move(crypt), clock, log);
  return std::unique_ptr<ObjectTier>(new ObjectTier(std::move(state)));
}

ObjectTier::ObjectTier(std::unique_ptr<State> state) : state_(std::move(state)) {}

ObjectTier::~ObjectTier() {
  if (state_ != nullptr) (void)close(kDrainLimit);
}

bool ObjectTier::close(Nanoseconds limit) {
  object::Context& context = state_->context;
  context.damage_log.flush();
  const Nanoseconds deadline = context.clock.now() + limit;
  // The store's threads put headers and footers of our parts, and read into their pages: they end
  // before these do.
  const bool has_store_ended = context.store->close(limit);
  // Others' hands may still read blocks, or write to them.
  std::vector<std::uint64_t> ended;
  context.crypt->take_done(ended);
  while (context.crypt->under_way() > 0 && context.clock.now() < deadline) {
    context.queue.wait(milliseconds(10));
    context.crypt->take_done(ended);
  }
  const bool has_ended = has_store_ended && context.crypt->under_way() == 0;
  if (!has_ended) leave_behind(std::move(state_));
  state_.reset();
  return has_ended;
}

std::size_t ObjectTier::match(GroupId group, std::span<const SequenceHash> hashes) const {
  const object::Context& context = state_->context;
  if (group.value() >= context.geometry.groups() || context.is_reset.load()) return 0;
  const MutexLock lock(context.mutex);
  return context.known.match(hashes, context.clock.now());
}

bool ObjectTier::contains(GroupId group, const SequenceHash& hash) const {
  return match(group, {&hash, 1}) == 1;
}

bool ObjectTier::may_hold_more(std::span<const SequenceHash> chain, std::uint64_t known) const {
  const object::Context& context = state_->context;
  const std::uint64_t blocks = context.geometry.blocks();
  const std::uint64_t next = known / blocks * blocks + blocks;  // Where the next pack ends.
  if (next > chain.size() || !context.is_open.load() || context.is_reset.load()) return false;
  const MutexLock lock(context.mutex);
  const Nanoseconds now = context.clock.now();
  const SequenceHash& last = chain[next - 1];
  return !context.known.is_absent(last, now) && !context.known.find(last, now);
}

bool ObjectTier::wants(const SequenceHash& pack) const {
  const object::Context& context = state_->context;
  if (!context.is_open.load() || context.is_reset.load()) return false;
  const Nanoseconds every = context.touch_every();
  const MutexLock lock(context.mutex);
  const Nanoseconds now = context.clock.now();
  // A store replaces nothing.
  if (context.known.is_damaged({pack}, now)) return false;
  if (!context.known.remembers(pack, now)) return true;
  return every > Nanoseconds(0) && !context.known.find(pack, now) &&
         context.known.is_touch_due(pack, now);
}

std::uint32_t ObjectTier::pack_blocks() const { return state_->context.geometry.blocks(); }

void ObjectTier::forget_all() {
  object::Context& context = state_->context;
  context.is_reset.store(true);
  const MutexLock lock(context.mutex);
  context.known.clear();
  context.damaged.clear();
}

bool ObjectTier::is_drop_pending() const {
  const object::Context& context = state_->context;
  if (!context.is_reset.load() || context.is_reset_told.load()) return false;
  const MutexLock lock(context.mutex);
  return context.reset_failure.empty();
}

std::vector<std::string> ObjectTier::undropped() const {
  const object::Context& context = state_->context;
  if (!context.is_reset.load() || context.is_reset_told.load()) return {};
  const MutexLock lock(context.mutex);
  const std::string& why = context.reset_failure;
  return {
      fmt::format("{}: the store could not be told{}{}: what lies there would match after a "
                  "restart; delete {}, or keep this engine until the store answers",
                  context.store->place(), why.empty() ? "" : ": ", why, context.names.folder())};
}

Status ObjectTier::begin_probe(std::uint64_t token, std::span<const SequenceHash> chain,
                               Nanoseconds deadline) {
  TERRACE_RETURN_IF_ERROR(state_->availability());
  return state_->probes.begin(token, chain, deadline);
}

Status ObjectTier::begin_read(std::uint64_t token, GroupId group, const SequenceHash& hash,
                              std::span<const ShardMemory> ranks, transfer::IoClass io_class,
                              Nanoseconds deadline) {
  TERRACE_RETURN_IF_ERROR(state_->availability());
  return state_->reads.begin(token, group, hash, ranks, io_class, deadline);
}

Status ObjectTier::begin_write(std::uint64_t token, std::span<const SequenceHash> hashes,
                               std::vector<PackShards> shards) {
  TERRACE_RETURN_IF_ERROR(state_->availability());
  return state_->writes.begin(token, hashes, std::move(shards));
}

void ObjectTier::allow_upkeep(bool is_allowed) { state_->context.is_upkeep_allowed = is_allowed; }

void ObjectTier::poll(std::vector<ObjectDone>& done) {
  object::Context& context = state_->context;
  context.damage_log.tick();
  state_->generations.advance();
  state_->answers = std::exchange(state_->cancelled, {});
  context.queue.poll(state_->answers);
  for (const transfer::ObjectAnswer& answer : state_->answers) state_->take(answer, done);
  state_->take_crypt(done);
  state_->probes.advance(done);
  state_->reads.advance(done);
  state_->touches.advance();
  state_->upkeep.advance();
  state_->repairs.advance();
  state_->refusals.advance();
  state_->writes.advance(done);
  // What was handed over just now goes out without another round.
  state_->answers.clear();
  context.queue.poll(state_->answers);
  for (const transfer::ObjectAnswer& answer : state_->answers) state_->take(answer, done);
  state_->take_crypt(done);
  const std::string problem = context.queue.problem();
  // One that hangs while it is to be opened says so nowhere else.
  if (!problem.empty()) context.is_settled.store(true);
  const MutexLock lock(context.mutex);
  if (context.is_open.load() || !problem.empty()) context.problem = problem;
}

void ObjectTier::wait(Nanoseconds limit) { state_->context.queue.wait(limit); }
void ObjectTier::wake() { state_->context.queue.wake(); }

bool ObjectTier::is_idle() const {
  return state_->probes.is_idle() && state_->reads.is_idle() && state_->writes.is_idle() &&
         state_->generations.is_idle() && state_->touches.is_idle() && state_->upkeep.is_idle();
}

void ObjectTier::stop_writes() {
  object::Context& context = state_->context;
  context.is_stopped = true;
  context.queue.cancel(transfer::IoClass::kOffloadWrite, {Code::kClosed, "shutting down"},
                       state_->cancelled);
}

bool ObjectTier::is_open() const { return state_->context.is_open.load(); }
bool ObjectTier::is_settled() const { return state_->context.is_settled.load(); }

std::vector<std::string> ObjectTier::problems() const {
  const object::Context& context = state_->context;
  std::vector<std::string> found;
  const MutexLock lock(context.mutex);
  if (!context.problem.empty()) found.push_back(context.problem);
  if (!context.refused.empty()) found.push_back(context.refused);
  if (!context.unreadable.empty()) found.push_back(context.unreadable);
  if (!context.full.empty()) found.push_back(context.full);
  if (const std::size_t count = context.damaged.size(); count > 0) {
    found.push_back(context.damaged.newest().text);
    if (count > 1) found.back() += fmt::format(" (and {} more)", count - 1);
  }
  if (!context.upkeep_problem.empty()) found.push_back(context.upkeep_problem);
  return found;
}

std::string ObjectTier::summary() const {
  const object::Context& context = state_->context;
  std::string text;
  if (context.is_replacing.load()) text = "no conditional puts";
  const MutexLock lock(context.mutex);
  if (!context.refused_puts.empty()) {
    text += fmt::format("{}{}", text.empty() ? "" : ", ", context.refused_puts);
  }
  if (!context.last_round) return text;
  const object::LastRound& last = *context.last_round;
  return fmt::format("{}{}{} packs of {:.1f} GiB {} s ago, {} of them removed then", text,
                     text.empty() ? "" : ", ", last.found.packs,
                     static_cast<double>(last.found.bytes) / (1ULL << 30U),
                     (context.clock.now() - last.at) / seconds(1), last.gone);
}

const std::string& ObjectTier::place() const { return state_->context.store->place(); }

std::string ObjectTier::key_ids() const { return state_->context.crypt->key_ids(); }

void ObjectTier::visit_metrics(MetricVisitor& visitor) const {
  const object::Counters& counters = state_->context.counters;
  visitor.counter("terrace_object_probes_total", "", counters.probes.value());
  visitor.counter("terrace_object_packs_total", "op=\"asked\"", counters.heads.value());
  visitor.counter("terrace_object_packs_total", "op=\"put\"", counters.written_packs.value());
  visitor.counter("terrace_object_packs_total", "op=\"was_there\"",
                  counters.needless_packs.value());
  visitor.counter("terrace_object_packs_total", "op=\"put_failed\"",
                  counters.failed_writes.value());
  visitor.counter("terrace_object_packs_total", "op=\"lost\"", counters.lost_packs.value());
  visitor.counter("terrace_object_blocks_total", "op=\"read\"", counters.read_blocks.value());
  visitor.counter("terrace_object_corrupt_blocks_total", "", counters.corrupt.value());
  visitor.counter("terrace_object_forged_frames_total", "", state_->context.crypt->forged());
  visitor.counter("terrace_object_bytes_total", "op=\"read\"", counters.read_bytes.value());
  visitor.counter("terrace_object_bytes_total", "op=\"put\"", counters.written_bytes.value());
  visitor.counter("terrace_object_touches_total", "result=\"touched\"", counters.touches.value());
  visitor.counter("terrace_object_touches_total", "result=\"failed\"",
                  counters.failed_touches.value());
  visitor.counter("terrace_object_gc_packs_total", "", counters.collected_packs.value());
  visitor.counter("terrace_object_gc_rounds_total", "result=\"done\"", counters.rounds.value());
  visitor.counter("terrace_object_gc_rounds_total", "result=\"failed\"",
                  counters.failed_rounds.value());
  visitor.gauge("terrace_object_store_packs", "",
                static_cast<double>(counters.store_packs.value()));
  visitor.gauge("terrace_object_store_bytes", "",
                static_cast<double>(counters.store_bytes.value()));
  const transfer::ObjectQueue::Counters& queue = state_->context.queue.counters();
  visitor.counter("terrace_object_retries_total", "", queue.retries.value());
  visitor.counter("terrace_object_rests_total", "", queue.rests.value());
  const transfer::ObjectStore::Counters& store = state_->context.store->counters();
  for (int op = 0; op < transfer::kObjectOpCount; ++op) {
    const auto at = static_cast<std::size_t>(op);
    const std::string label =
        fmt::format("op=\"{}\"", to_string(static_cast<transfer::ObjectOp>(op)));
    visitor.counter("terrace_object_requests_total", label, store.done[at].value());
    visitor.counter("terrace_object_request_errors_total", label, store.errors[at].value());
  }
  visitor.counter("terrace_object_stray_answers_total", "", store.stray.value());
}

}  // namespace terrace::tier
