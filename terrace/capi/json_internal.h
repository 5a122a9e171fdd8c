// The few texts that cross the C ABI: events as JSON, log lines; ledgers are made by serve/.
// Threading: thread-safe.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "terrace/base/log.h"
#include "terrace/manager/events.h"

namespace terrace::capi {

// A quoted JSON string; control characters, quotes and bytes outside ASCII are escaped.
[[nodiscard]] std::string json_text(std::string_view text);
// docs/formats/events.md; "" when there are none.
[[nodiscard]] std::string events_to_json(const std::vector<manager::Event>& events);
// `level text` lines.
[[nodiscard]] std::string log_to_text(const std::vector<LogLine>& lines);

}  // namespace terrace::capi
