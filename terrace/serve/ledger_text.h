// Ledgers of requests as JSON: for the engine's answer, for `terrace why`, for the file.
// Threading: pure functions; what reads an owner is thread-safe.  Waits: never.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

#include "terrace/base/status.h"
#include "terrace/manager/block_manager.h"

namespace terrace::serve {

// One JSON object. Keys are stable: prompt_tokens, local_tokens, hit_tokens, failed_tokens,
// pending_tokens, first_miss, not_asked, lookup_wait_ns, stages, plan.
[[nodiscard]] std::string ledger_json(const manager::Ledger& ledger);

// The same with what the engine calls the request, when it ended (seconds since 1970) and in which
// engine; ASCII alone.
[[nodiscard]] std::string kept_json(const manager::KeptLedger& kept, std::string_view engine);

// Which of the ledgers that an owner has.
struct LedgerQuery {
  static constexpr std::size_t kMost = 1024;
  std::string request = {};  // The begin of the engine's id; empty = all that ended.
  std::size_t most = 20;
};
// What stands behind `?` of a request for ledgers: request=…&most=…, percent-encoded. Errors:
// kInvalid = what is wrong, and what there is.
[[nodiscard]] Result<LedgerQuery> ledger_query(std::string_view text);

struct LedgerSource {
  const manager::BlockManager& manager;
  std::string_view engine;
  Tokens block_tokens;
};
// {"engine":…,"process":…,"block_tokens":…,"kept":…,"ended":…,"ledgers":[…]}: of a query with a
// request those that run first, then those that ended, the newest first; one that bears exactly
// that id comes before all others. `kept` is how many are remembered at most, `ended` how many
// ended.
[[nodiscard]] std::string ledgers_json(const LedgerSource& source, const LedgerQuery& query);

}  // namespace terrace::serve
