// The owner: composes the tiers into look-ups, loads, offloads and events. One per engine (or,
// later, per daemon attachment). Threading: thread-safe behind one lock that is never held during
// I/O, hashing or allocation of size; two threads of its own: `terrace-open` (opens the tiers,
// populates host memory, then ends) and `terrace-io` (disk reads and writes, verification,
// attachments, deadlines). Memory: a call that finds none before the state changes throws
// std::bad_alloc and has done nothing; in the middle of a change it is a breach. Owns: host and
// disk tier, attach server, all request state. Waits: only close() and reset(), up to their
// deadlines. Every look-up and load has a deadline and ends. Source: docs/architecture.md.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "terrace/base/clock.h"
#include "terrace/base/log.h"
#include "terrace/base/metric.h"
#include "terrace/base/status.h"
#include "terrace/block/fingerprint.h"
#include "terrace/block/layout.h"
#include "terrace/block/sequence_hash.h"
#include "terrace/manager/events.h"
#include "terrace/manager/ledger.h"
#include "terrace/manager/ledger_ring.h"
#include "terrace/manager/mode.h"
#include "terrace/manager/options.h"
#include "terrace/manager/status_report.h"

namespace terrace::manager {

// What a poll of a look-up says.
struct MatchAnswer {
  bool is_ready = false;  // false: ask again next step.
  Tokens external{0};     // Ready: verified and pinned in host, beyond the local tokens.
};

struct RequestOptions {
  std::span<const std::uint32_t> tokens;
  std::vector<ExtraKey> extra_keys;
  Tokens prompt_tokens{0};
  bool is_unkeyable = false;
  bool can_load = true;
  bool can_store = true;
  std::string_view name = {};       // What the engine calls it, for people.
  std::string_view unkeyable = {};  // What of it cannot be keyed, for people.
};

struct Progress {
  RequestId request;
  Tokens computed{0};
  std::span<const std::uint32_t> new_tokens;
  std::vector<std::span<const std::uint32_t>> block_tables;  // [group]
  std::span<const std::uint64_t> aliases;
  std::uint64_t alias_first = 0;
};

// What a client says of a request: weights, which change no answer.
struct GivenHints {
  policy::Hints hints;
  std::uint64_t wrong = 0;  // Others that were no hints: counted, and now and then told in the log.
  std::uint64_t told = 0;   // The same, that whoever read them has told of: only counted.
};

// How its answer ended, as far as the engine says.
struct AnswerEnd {
  policy::Ending ending = policy::Ending::kUnknown;
  Tokens answer{0};  // 0 = as many as the engine told of beyond the prompt.
};

class BlockManager {
 public:
  // Starts opening; returns at once. `clock` and `log` outlive the manager.
  static Result<std::unique_ptr<BlockManager>> open(Options options, const Clock& clock,
                                                    LogSink& log);
  ~BlockManager();  // close() with a short deadline if that was not done.
  // Flushes queued disk writes for at most `limit` and Options::flush_limit, stops the threads and
  // ends the tiers: some seconds more where one of them hangs.
  void close(Nanoseconds limit);
  // After close(): a thread, a device or a shared store hung and was left behind. It may still use
  // `clock` and `log`, which then have to live until the process ends, as host memory does.
  [[nodiscard]] bool has_left_behind() const;

  // Engine side; one engine thread at a time. Never blocks.
  [[nodiscard]] Result<RequestId> begin_request(const RequestOptions& options);
  [[nodiscard]] Result<MatchAnswer> poll_request(RequestId request, Tokens local, Tokens limit);
  [[nodiscard]] Status accept_load(RequestId request, Tokens local, Tokens external,
                                   std::span<const std::span<const std::uint32_t>> block_tables);
  [[nodiscard]] Status advance_request(const Progress& progress);
  // Encoded wire::Orders of this step; empty when nothing is due.
  [[nodiscard]] Result<std::string> build_orders();
  // One or several concatenated encoded wire::Reports.
  [[nodiscard]] Status take_report(std::span<const std::byte> bytes);
  // The engine computed on bytes that another connector should have filled: what is ordered and not
  // reported by all ranks, or not ordered yet, is not stored. Before the reports of that step.
  void taint_steps();
  // In place of what was said before. Errors: kNotFound.
  [[nodiscard]] Status hint_request(RequestId request, const GivenHints& given);
  [[nodiscard]] Result<Ledger> end_request(RequestId request, const AnswerEnd& end = {});
  [[nodiscard]] std::vector<Event> take_events();
  // What was taken did not reach the engine: the next events begin with `cleared`.
  void lose_events();
  // Nothing stored before can match afterwards, in any tier: at once in this process; ok = nor in
  // any later one. WAITS for the disk, up to `limit`. Errors: kUnavailable = not on every path of
  // the disk in time; says which, and the I/O thread goes on trying.
  [[nodiscard]] Status reset(Nanoseconds limit);

  // Any thread.
  [[nodiscard]] StatusReport status() const;
  void visit_metrics(MetricVisitor& visitor) const;
  // Of requests that ended, the newest Options::ledgers_kept. Reading it takes no lock of ours.
  [[nodiscard]] const LedgerRing& ledgers() const;
  // Of requests under way whose name begins with `name`; at most `most`, in no order.
  [[nodiscard]] std::vector<KeptLedger> running(std::string_view name, std::size_t most) const;
  // Effective before the engine's next call. `by`: who asked, for the log. Errors: kRefused = it
  // observes, and has no tiers to switch.
  [[nodiscard]] Status set_mode(Mode mode, std::string_view by);
  [[nodiscard]] Mode mode() const;
  // Reads and verifies what lies on disk, in the background: see StatusReport::scrub. Returns the
  // pass's number there. 0 bytes a second = as the options say. Errors: kUnavailable = no disk tier
  // is open.
  [[nodiscard]] Result<std::uint64_t> start_scrub(std::uint64_t bytes_per_second,
                                                  std::string_view by);
  // After a broken invariant: look-ups miss, nothing is stored, health is red.
  void poison(const std::string& reason);
  [[nodiscard]] int event_fd() const;

 private:
  struct State;
  explicit BlockManager(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

}  // namespace terrace::manager
