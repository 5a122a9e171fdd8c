// A status report as one JSON object; cli/live_text.h makes a page for people of it.
// Threading: pure functions.  Waits: never.
#pragma once

#include <string>

#include "terrace/manager/status_report.h"

namespace terrace::serve {

// One line of JSON. Keys are stable: health, problems, poisoned, ready, canary, uptime_seconds,
// fingerprint, tiers, queues, attachments, namespaces, requests, hit_tokens, miss_blocks, …
[[nodiscard]] std::string status_json(const manager::StatusReport& report);

}  // namespace terrace::serve
