#include "terrace/manager/block_manager.h"

#include <fmt/format.h>

#include <algorithm>
#include <functional>
#include <new>
#include <thread>
#include <utility>

#include "terrace/attach/attach_server.h"
#include "terrace/base/check.h"
#include "terrace/base/finally.h"
#include "terrace/base/left_behind.h"
#include "terrace/base/rng.h"
#include "terrace/base/sync_point.h"
#include "terrace/base/thread.h"
#include "terrace/manager/event_signal_internal.h"
#include "terrace/manager/io_driver_internal.h"
#include "terrace/manager/opening_internal.h"
#include "terrace/manager/size_forecast_internal.h"
#include "terrace/manager/status_internal.h"
#include "terrace/wire/orders.h"

namespace terrace::manager {

namespace {

// How long the I/O thread sleeps when nothing is due: attachments are noticed this late.
constexpr Nanoseconds kOpeningNap = milliseconds(2);
constexpr Nanoseconds kIdleNap = milliseconds(20);

// A pack is put at its second sighting within an hour; 54 B for each that is remembered.
constexpr policy::FrequencyOptions kPackSightings{
    .threshold = 2, .decay_interval = seconds(3600), .entries = 65'536};

// Threads get this long beyond close()'s deadline to end before they are left behind, and then each
// tier for what it has under way.
constexpr Nanoseconds kJoinGrace = seconds(2);

}  // namespace

struct BlockManager::State {
  State(Options given, const Clock& its_clock, LogSink& its_log)
      : options(std::move(given)),
        clock(its_clock),
        log(its_log),
        owner(random_u64()),
        shared(options, owner, counters, clock),
        driver(shared, clock, log),
        forecast(options, clock.now()),
        opened(clock.now()) {}

  const Options options;
  const Clock& clock;
  LogSink& log;
  const std::uint64_t owner;
  Counters counters;
  Shared shared;
  IoDriver driver;
  SizeForecast forecast;
  const Nanoseconds opened;
  EventSignal event_signal;
  std::atomic<std::uint64_t> last_request{0};
  std::atomic<bool> is_closed{false};
  std::atomic<bool> is_opening_done{false};
  std::atomic<bool> is_io_done{false};
  bool is_abandoned = false;  // A thread or a tier did not end in time: nothing is freed.
  Opened parts;               // Written by the opening thread before it publishes them to `driver`.
  Mutex flush_mutex;
  CondVar flush_condition;  // After each round of the I/O thread.
  std::jthread opening;     // Joined before `parts` are used by close().
  std::jthread io;

  [[nodiscard]] Status append_tokens(Request& request, std::span<const std::uint32_t> tokens);
  // Runs `change(core)` under the lock. What finds no memory in there leaves a core of which nobody
  // knows what holds: poisoned before anybody else sees it.
  template <typename Change>
  auto change_core(Change&& change);
  void run_io(const std::stop_token& stop);
  // Its chain is the engine thread's own.
  void forecast_end(RequestId request, const AnswerEnd& end);
  void poison(const std::string& reason);
  void signal_if_due();
  void flush(Nanoseconds deadline);
  // Until the disk has forgotten for good what a reset dropped, or the time is over.
  [[nodiscard]] Status await_drop(Nanoseconds deadline);
  // False when the thread was left behind because it did not end in time.
  bool join(std::jthread& thread, const std::atomic<bool>& is_done, Nanoseconds deadline);
};

template <typename Change>
auto BlockManager::State::change_core(Change&& change) {
  const MutexLock lock(shared.mutex);
  Core& core = shared.core;
  const base::Finally told([&]() TERRACE_REQUIRES(shared.mutex) { shared.figures.tell(core); });
  try {
    return change(core);
  } catch (const std::bad_alloc&) {
    shared.core.poison_at_once();
    throw base::MemoryBreach();
  }
}

void BlockManager::State::poison(const std::string& reason) {
  {
    const MutexLock lock(shared.mutex);
    shared.core.poison(reason);
  }
  log.write(LogLevel::kError, fmt::format("event=poisoned reason=\"{}\"", reason));
}

void BlockManager::State::signal_if_due() {
  bool is_due = false;
  {
    const MutexLock lock(shared.mutex);
    is_due = shared.core.take_signal();
  }
  if (is_due) event_signal.raise(clock.now());
}

void BlockManager::State::run_io(const std::stop_token& stop) {
  const base::Finally done([this] {
    is_io_done.store(true);
    flush_condition.notify_all();
  });
  while (!stop.stop_requested()) {
    const bool is_busy = driver.tick();
    const bool has_learned =
        forecast.work(clock.now(), {counters.write_blocks.value(), counters.drop_demote.value()});
    flush_condition.notify_all();
    TERRACE_SYNC_POINT("manager.io.tick");
    signal_if_due();
    if (is_busy || has_learned) continue;
    bool is_opening = false;
    {
      const MutexLock lock(shared.mutex);
      is_opening = !shared.core.gate().is_serving();
    }
    driver.wait(is_opening ? kOpeningNap : kIdleNap);
  }
}

BlockManager::BlockManager(std::unique_ptr<State> state) : state_(std::move(state)) {}

Result<std::unique_ptr<BlockManager>> BlockManager::open(Options options, const Clock& clock,
                                                         LogSink& log) {
  TERRACE_RETURN_IF_ERROR(options.layout.validate());
  TERRACE_ASSIGN_OR_RETURN(auto admission, make_disk_admission(options, log));
  TERRACE_ASSIGN_OR_RETURN(const std::string socket,
                           attach::socket_path(options.attach_directory, options.engine_id));
  auto pack_admission =
      policy::make_admission(options.object.admission, {.frequency = kPackSightings, .reuse = {}});
  if (!pack_admission) return fail(std::move(pack_admission).error());
  auto state = std::make_unique<State>(std::move(options), clock, log);
  {
    const MutexLock lock(state->shared.mutex);
    state->shared.core.context().admission = std::move(admission);
    state->shared.core.context().pack_admission = std::move(*pack_admission);
  }
  state->event_signal.open();
  State& parts = *state;
  const auto on_breach = [&parts](const char* text) { parts.poison(text); };
  TERRACE_ASSIGN_OR_RETURN(state->opening, start_thread(
                                               "terrace-open",
                                               [&parts](const std::stop_token& stop) {
                                                 const base::Finally done([&parts] {
                                                   parts.is_opening_done.store(true);
                                                   parts.flush_condition.notify_all();
                                                 });
                                                 run_opening(parts.options, parts.owner,
                                                             parts.clock, parts.log, parts.shared,
                                                             parts.driver, parts.parts, stop);
                                               },
                                               on_breach));
  TERRACE_ASSIGN_OR_RETURN(
      state->io,
      start_thread(
          "terrace-io", [&parts](const std::stop_token& stop) { parts.run_io(stop); }, on_breach));
  log.write(LogLevel::kInfo, fmt::format("event=opening socket={}", socket));
  return std::unique_ptr<BlockManager>(new BlockManager(std::move(state)));
}

BlockManager::~BlockManager() {
  close(milliseconds(100));
  if (state_->is_abandoned) leave_behind(std::move(state_));  // Somebody still uses it.
}

bool BlockManager::State::join(std::jthread& thread, const std::atomic<bool>& is_done,
                               Nanoseconds deadline) {
  if (!thread.joinable()) return true;
  while (!is_done.load() && clock.now() < deadline) {
    const MutexLock lock(flush_mutex);
    flush_condition.wait_for(flush_mutex, kOpeningNap);
  }
  if (!is_done.load()) {
    thread.detach();
    return false;
  }
  thread.join();
  return true;
}

Status BlockManager::State::await_drop(Nanoseconds deadline) {
  driver.wake();
  for (;;) {
    const Nanoseconds now = clock.now();
    {
      const MutexLock lock(shared.mutex);
      if (auto outcome = shared.core.drop_outcome()) return *std::move(outcome);
      if (now >= deadline || is_io_done.load()) return shared.core.undropped();
    }
    const MutexLock lock(flush_mutex);
    flush_condition.wait_for(flush_mutex, std::min(deadline - now, kIdleNap));
  }
}

// Until everything queued for disk is there, or the time is over.
void BlockManager::State::flush(Nanoseconds deadline) {
  for (;;) {
    const Nanoseconds now = clock.now();
    if (now >= deadline) return;
    {
      const MutexLock lock(shared.mutex);
      const bool is_dropped = shared.core.drop_outcome().has_value();
      if (is_dropped && (!shared.core.has_queued_writes() || shared.core.is_poisoned())) return;
    }
    driver.wake();
    const MutexLock lock(flush_mutex);
    flush_condition.wait_for(flush_mutex, std::min(deadline - now, kIdleNap));
  }
}

void BlockManager::close(Nanoseconds limit) {
  State& state = *state_;
  if (state.is_closed.exchange(true)) return;
  const Nanoseconds deadline = state.clock.now() + std::min(limit, state.options.flush_limit);
  {
    const MutexLock lock(state.shared.mutex);
    state.shared.core.begin_close();
  }
  state.opening.request_stop();
  if (state.io.joinable()) state.flush(deadline);
  {
    const MutexLock lock(state.shared.mutex);
    state.shared.core.stop_writes();
  }
  state.io.request_stop();
  state.driver.wake();
  const bool has_joined = state.join(state.opening, state.is_opening_done, deadline + kJoinGrace) &&
                          state.join(state.io, state.is_io_done, deadline + kJoinGrace);
  if (!has_joined) {
    state.is_abandoned = true;
    state.log.write(LogLevel::kError,
                    "event=close_overdue detail=\"a thread hangs and is left behind\"");
    return;
  }
  state.driver.set_attach(nullptr);
  state.parts.attach.reset();
  state.driver.clear_lower();
  state.driver.clear_objects();
  {
    const MutexLock lock(state.shared.mutex);
    state.shared.core.close_lower("closed", true);
    state.shared.core.close_objects("closed");
  }
  if (state.parts.close_tiers(kJoinGrace)) return;
  state.is_abandoned = true;  // Host memory too, which their transfers use.
  state.log.write(LogLevel::kError,
                  "event=close_overdue detail=\"a disk or the store hangs and is left behind\"");
}

bool BlockManager::has_left_behind() const { return state_->is_abandoned; }
Result<RequestId> BlockManager::begin_request(const RequestOptions& options) {
  State& state = *state_;
  if (state.is_closed.load()) return fail(Code::kClosed, "begin_request: closed");
  if (Tokens(options.tokens.size()) > state.options.max_request_tokens) {
    return fail(Code::kInvalid,
                fmt::format("begin_request: token_count is {}, allowed are at most {}",
                            options.tokens.size(), state.options.max_request_tokens.value()));
  }
  const RequestId id(++state.last_request);
  auto request = make_request(id, options, state.options);
  const Nanoseconds now = state.clock.now();
  if (request->is_keyed) state.forecast.ask(asked_chain(*request, now));
  const bool has_jobs = state.change_core([&](Core& core) {
    core.add_request(std::move(request), now);
    return core.has_jobs();
  });
  if (has_jobs) state.driver.wake();
  return id;
}

Result<MatchAnswer> BlockManager::poll_request(RequestId request, Tokens local, Tokens limit) {
  State& state = *state_;
  if (local % state.options.layout.block_tokens != 0) {
    return fail(Code::kInvalid, "poll_request: local tokens are no whole blocks");
  }
  const Nanoseconds now = state.clock.now();
  if (auto told = state.shared.answers.read(request, local, limit,
                                            state.options.layout.block_tokens, now)) {
    return *told;
  }
  bool has_jobs = false;
  const auto answer = state.change_core([&](Core& core) {
    std::optional<MatchAnswer> given;
    if (Request* found = core.find(request); found != nullptr) {
      given = core.poll(*found, local, limit, now);
      has_jobs = !given->is_ready && core.has_jobs();
    }
    return given;
  });
  if (!answer) return fail(Code::kNotFound, "poll_request: no such request");
  if (has_jobs) state.driver.wake();
  return *answer;
}

Status BlockManager::accept_load(RequestId request, Tokens local, Tokens external,
                                 std::span<const std::span<const std::uint32_t>> block_tables) {
  return state_->change_core([&](Core& core) -> Status {
    Request* found = core.find(request);
    if (found == nullptr) return {Code::kNotFound, "accept_load: no such request"};
    return core.accept(*found, local, external, block_tables, state_->clock.now());
  });
}

// Hashing, by the engine thread, which owns the chain. What fails here, or is refused, leaves a
// gap: the tokens after it would get keys of another sequence, so the chain ends where it is.
Status BlockManager::State::append_tokens(Request& request, std::span<const std::uint32_t> tokens) {
  const Tokens room = options.max_request_tokens - request.chain.token_count();
  if (request.has_lost_tokens || tokens.size() > room.value()) {
    request.has_lost_tokens = true;
    return {Code::kInvalid,
            fmt::format("advance_request: new_token_count is {} and the request has {} tokens, "
                        "allowed are at most {} in all; no more of it is stored",
                        tokens.size(), request.chain.token_count().value(),
                        options.max_request_tokens.value())};
  }
  request.has_lost_tokens = true;
  request.chain.append(tokens);
  if (options.has_events) {
    request.tokens.insert(request.tokens.end(), tokens.begin(), tokens.end());
  }
  request.has_lost_tokens = false;
  return {};
}

Status BlockManager::advance_request(const Progress& progress) {
  State& state = *state_;
  Request* found = nullptr;
  {
    const MutexLock lock(state.shared.mutex);
    found = state.shared.core.find_to_grow(progress.request);
  }
  if (found == nullptr) return {Code::kNotFound, "advance_request: no such request"};
  Status grown;
  if (found->is_keyed) grown = state.append_tokens(*found, progress.new_tokens);
  state.change_core([&](Core& core) {
    found->is_growing = false;
    if (grown.is_ok()) core.advance(*found, progress);
  });
  return grown;
}

Result<std::string> BlockManager::build_orders() {
  const auto orders =
      state_->change_core([&](Core& core) { return core.build_orders(state_->clock.now()); });
  // Orders that are lost from here on are as those that never arrive: no rank reports the step.
  return orders ? wire::encode(*orders) : std::string();
}

void BlockManager::taint_steps() {
  state_->change_core([](Core& core) { core.taint_steps(); });
}

Status BlockManager::take_report(std::span<const std::byte> bytes) {
  State& state = *state_;
  auto reports = wire::decode_reports(bytes);
  if (!reports) {
    state.counters.reports_refused.add();
    return std::move(reports).error();
  }
  Status first;
  const bool has_jobs = state.change_core([&](Core& core) {
    for (const wire::Report& report : *reports) {
      Status status = core.take_report(report, state.clock.now());
      if (first.is_ok()) first = std::move(status);
    }
    return core.has_jobs();
  });
  if (has_jobs) state.driver.wake();
  return first;
}

Status BlockManager::hint_request(RequestId request, const GivenHints& given) {
  return state_->change_core([&](Core& core) -> Status {
    Request* found = core.find(request);
    if (found == nullptr) return {Code::kNotFound, "hint_request: no such request"};
    core.hint(*found, given, state_->clock.now());
    return {};
  });
}

Result<Ledger> BlockManager::end_request(RequestId request, const AnswerEnd& end) {
  state_->forecast_end(request, end);
  auto ledger = state_->change_core([&](Core& core) -> Result<Ledger> {
    Request* found = core.find(request);
    if (found == nullptr) return fail(Code::kNotFound, "end_request: no such request");
    return core.end_request(*found, state_->clock.now(), end);
  });
  if (ledger) state_->forecast.note_tokens(ledger->prompt, ledger->local);
  return ledger;
}

void BlockManager::State::forecast_end(RequestId request, const AnswerEnd& end) {
  std::optional<EndedChain> ended;
  {
    const MutexLock lock(shared.mutex);
    ended = shared.core.ended_chain(request, end, clock.now());
  }
  if (ended) forecast.end(*ended);
}

std::vector<Event> BlockManager::take_events() {
  state_->event_signal.lower(state_->clock, state_->counters.event_lag);
  return state_->change_core([](Core& core) { return core.take_events(); });
}

void BlockManager::lose_events() {
  const MutexLock lock(state_->shared.mutex);
  state_->shared.core.context().events.lose();
}

Status BlockManager::reset(Nanoseconds limit) {
  State& state = *state_;
  const Nanoseconds deadline = state.clock.now() + limit;
  state.change_core([](Core& core) { core.reset(); });
  state.signal_if_due();
  const Status status = state.await_drop(deadline);
  if (!status.is_ok()) {
    state.log.write(LogLevel::kError,
                    fmt::format("event=reset_incomplete reason=\"{}\"", status.message()));
  }
  return status;
}

StatusReport BlockManager::status() const {
  const State& state = *state_;
  return make_status(state.options, state.shared, state.parts, state.counters, state.forecast,
                     state.clock.now(), state.opened);
}

void BlockManager::visit_metrics(MetricVisitor& visitor) const {
  visit_all(state_->shared, state_->parts, state_->counters, state_->forecast, visitor);
}

const LedgerRing& BlockManager::ledgers() const { return state_->shared.ledgers; }

std::vector<KeptLedger> BlockManager::running(std::string_view name, std::size_t most) const {
  std::vector<KeptLedger> found;
  found.reserve(most);  // Not under the lock.
  {
    const MutexLock lock(state_->shared.mutex);
    state_->shared.core.find_running(name, state_->clock.now(), found);
  }
  const std::int64_t looked_at = state_->clock.wall_seconds();
  for (KeptLedger& kept : found) kept.ended_wall_seconds = looked_at;
  return found;
}

Status BlockManager::set_mode(Mode mode, std::string_view by) {
  State& state = *state_;
  if (state.options.observed) return observes_to_its_end();
  const bool is_new = state.change_core([&](Core& core) { return core.set_mode(mode); });
  if (!is_new) return {};
  state.log.write(LogLevel::kInfo, fmt::format("event=mode mode={} by={}", to_string(mode), by));
  state.signal_if_due();
  state.driver.wake();  // Writes that waited go on.
  return {};
}

Mode BlockManager::mode() const {
  const MutexLock lock(state_->shared.mutex);
  return state_->shared.core.context().mode;
}

Result<std::uint64_t> BlockManager::start_scrub(std::uint64_t bytes_per_second,
                                                std::string_view by) {
  const bool has_paths = !state_->options.disk.paths.empty();
  TERRACE_ASSIGN_OR_RETURN(const std::uint64_t pass,
                           state_->parts.start_scrub(bytes_per_second, has_paths));
  state_->log.write(LogLevel::kInfo, fmt::format("event=scrub pass={} by={}", pass, by));
  return pass;
}

void BlockManager::poison(const std::string& reason) { state_->poison(reason); }
int BlockManager::event_fd() const { return state_->event_signal.fd(); }

}  // namespace terrace::manager
