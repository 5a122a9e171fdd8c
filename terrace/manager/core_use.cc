// What the tiers are told of a request's use of its blocks, and the model of returns of the
// request; and what its client says of it.
#include <fmt/format.h>

#include <algorithm>

#include "terrace/manager/core_internal.h"

namespace terrace::manager {

namespace {
constexpr std::size_t kPrefillSaves = 4;
constexpr Nanoseconds kWarnEvery = seconds(60);

std::uint64_t answer_tokens(const Request& request, const AnswerEnd& end) {
  if (end.answer != Tokens(0)) return end.answer.value();
  const std::uint64_t tokens = request.chain.token_count().value();
  return tokens - std::min(tokens, request.ledger.prompt.value());
}
}  // namespace

void Core::hint(Request& request, const GivenHints& given, Nanoseconds now) {
  policy::Hints hints = given.hints;
  std::uint64_t wrong = given.wrong;
  if (hints.is_over && (hints.is_tool_call || hints.returns_in > Nanoseconds(0))) {
    hints.is_over = hints.is_tool_call = false;  // Which of them holds nobody knows.
    hints.returns_in = Nanoseconds(0);
    ++wrong;
  }
  request.ledger.hints = hints;
  request.ledger.ignored_hints += wrong + given.told;
  const auto kinds = said(hints);
  for (std::size_t kind = 0; kind < kinds.size(); ++kind) {
    if (kinds[kind]) context_.counters.hints[kind].add();
  }
  context_.counters.ignored_hints.add(wrong + given.told);
  wrong_hints_ += wrong;
  if (wrong == 0 || (warned_ && now - *warned_ < kWarnEvery)) return;
  context_.note(
      LogLevel::kWarn,
      fmt::format("event=hints_ignored hints={} detail=\"out of range, unknown, or at odds "
                  "with each other; docs/hints.md says what there is\"",
                  wrong_hints_));
  wrong_hints_ = 0;
  warned_ = now;
}

// Leaves are to go before roots, also when they were stored later: touched once more as a whole.
void Core::note_end(Request& request, const AnswerEnd& end, Nanoseconds now) {
  request.ledger.ending = end.ending;
  request.ledger.turn = request.visit.turn;
  context_.counters.endings[static_cast<std::size_t>(end.ending)].add();
  if (!request.is_keyed || context_.host == nullptr || request.cursor == 0) return;
  const auto hashes = request.chain.hashes();
  const policy::Hints& hints = request.ledger.hints;
  policy::Use use{.at = now, .priority = hints.priority};
  if (context_.returns != nullptr) {
    if (request.visit.turn == 0) request.visit = context_.returns->arrive(hashes, now, hints);
    request.ledger.turn = request.visit.turn;
    use.of = context_.returns->leave(request.visit, hashes, request.prompt_blocks,
                                     answer_tokens(request, end), end.ending, now, hints);
  }
  context_.note_use(hashes, use);
  if (steps_.has_saves_under_way(request.id)) {
    ended_.emplace(request.id, Ended{{hashes.begin(), hashes.end()}, use});
  }
}

std::optional<EndedChain> Core::ended_chain(RequestId id, const AnswerEnd& end,
                                            Nanoseconds now) const {
  const auto found = requests_.find(id);
  if (found == requests_.end() || !found->second->is_keyed) return std::nullopt;
  const Request& request = *found->second;
  return EndedChain{.id = id,
                    .at = now,
                    .chain = request.chain.hashes().first(storable(request)),
                    .is_stored = request.can_store,
                    .prompt_blocks = request.prompt_blocks,
                    .answer_tokens = answer_tokens(request, end),
                    .ending = end.ending,
                    .hints = request.ledger.hints};
}

// A long prompt is stored front to back: without this its roots would be its oldest blocks, and go
// first. One block at a time comes from decoding; there the end of the request does it.
void Core::keep_roots(RequestId id, std::size_t stored, Nanoseconds now) {
  if (stored < kPrefillSaves) return;
  const Request* request = find(id);
  if (request == nullptr) return;
  const auto chain = request->chain.hashes();
  policy::Use use{.at = now, .priority = request->ledger.hints.priority};
  if (context_.returns != nullptr) use.of = context_.returns->present(request->visit.of);
  context_.touch(chain.first(std::min<std::uint64_t>(request->cursor, chain.size())), use);
}

void Core::settle_ended(std::span<const RequestId> stored) {
  for (const RequestId request : stored) {
    const auto ended = ended_.find(request);
    if (ended == ended_.end() || steps_.has_saves_under_way(request)) continue;
    context_.touch(ended->second.chain, ended->second.use);
    ended_.erase(ended);
  }
}

}  // namespace terrace::manager
