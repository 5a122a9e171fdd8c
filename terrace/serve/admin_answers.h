// What the admin socket answers to which request, without the socket: who may ask, where it lies,
// which resource does what. Threading: pure functions; the hooks are called by the caller's thread.
// Waits: never.  Source: docs/formats/admin.md.
#pragma once

#include <sys/types.h>

#include <functional>
#include <string>
#include <string_view>

#include "terrace/base/status.h"
#include "terrace/manager/mode.h"
#include "terrace/serve/ledger_text.h"

namespace terrace::serve {

// The owner, as far as it can be asked and switched from outside.
struct AdminHooks {
  std::function<std::string()> status;   // JSON.
  std::function<std::string()> metrics;  // Prometheus text.
  // JSON: ledgers_json(). Empty = none are kept.
  std::function<std::string(const LedgerQuery&)> ledgers = {};
  std::function<Status(manager::Mode, std::string_view by)> set_mode;
  // Begins a pass and returns its number; 0 bytes a second = as the settings say. Errors:
  // kUnavailable. Empty = there is nothing to scrub.
  std::function<Result<std::uint64_t>(std::uint64_t bytes_per_second, std::string_view by)> scrub =
      {};
};

struct AdminAnswer {
  unsigned code = 200;  // As in HTTP.
  std::string_view type = "application/json";
  std::string_view allow;  // The method that would have been right; only of a 405.
  std::string body;
};

// `<directory>/<24 hex digits>-admin.sock`. Errors: as attach::place_of().
[[nodiscard]] Result<std::string> admin_path(const std::string& directory,
                                             const std::string& engine_id);

// The user of the owner, and root.
[[nodiscard]] bool may_ask(uid_t peer, uid_t owner);

// An error as one line of JSON.
[[nodiscard]] AdminAnswer admin_error(unsigned code, std::string_view text);

// `target` as in the request line; `by` names who asks. What a hook throws passes through.
[[nodiscard]] AdminAnswer answer_admin(const AdminHooks& hooks, std::string_view method,
                                       std::string_view target, std::string_view body,
                                       std::string_view by);

}  // namespace terrace::serve
