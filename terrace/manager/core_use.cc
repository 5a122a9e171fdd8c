// What the tiers are told of a request's use of its blocks, and the model of returns of the
// request.
#include <algorithm>

#include "terrace/manager/core_internal.h"

namespace terrace::manager {

namespace {
constexpr std::size_t kPrefillSaves = 4;
}  // namespace

// Leaves are to go before roots, also when they were stored later: touched once more as a whole.
void Core::note_end(Request& request, Nanoseconds now) {
  if (!request.is_keyed || context_.host == nullptr || request.cursor == 0) return;
  const auto hashes = request.chain.hashes();
  policy::Use use{.at = now};
  if (context_.returns != nullptr) {
    if (request.visit.turn == 0) request.visit = context_.returns->arrive(hashes, now);
    const std::uint64_t tokens = request.chain.token_count().value();
    const std::uint64_t answer = tokens - std::min(tokens, request.ledger.prompt.value());
    use.of = context_.returns->leave(request.visit, hashes, request.prompt_blocks, answer,
                                     policy::Ending::kUnknown, now);
  }
  context_.touch(hashes, use);
  if (steps_.has_saves_under_way(request.id)) {
    ended_.emplace(request.id, Ended{{hashes.begin(), hashes.end()}, use});
  }
}

// A long prompt is stored front to back: without this its roots would be its oldest blocks, and go
// first. One block at a time comes from decoding; there the end of the request does it.
void Core::keep_roots(RequestId id, std::size_t stored, Nanoseconds now) {
  if (stored < kPrefillSaves) return;
  const Request* request = find(id);
  if (request == nullptr) return;
  const auto chain = request->chain.hashes();
  context_.touch(chain.first(std::min<std::uint64_t>(request->cursor, chain.size())),
                 {.at = now, .of = request->visit.of});
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
