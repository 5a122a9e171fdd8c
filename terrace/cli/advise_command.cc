#include <fmt/format.h>

#include "terrace/cli/advice.h"
#include "terrace/cli/commands_internal.h"
#include "terrace/cli/live_search.h"
#include "terrace/config/value.h"

namespace terrace::cli {
namespace {

// Nothing if `text` is no size of something.
std::optional<std::uint64_t> size_in(const std::string& text) {
  if (text.empty()) return 0;
  const auto parsed = config::parse_size(text);
  if (!parsed || *parsed < 0) return std::nullopt;
  return static_cast<std::uint64_t>(*parsed);
}

}  // namespace

Answer run_advise(const AdviseOptions& options) {
  const auto host = size_in(options.host);
  const auto disk = size_in(options.disk);
  if (!host || !disk) {
    return {kUsage, "",
            fmt::format("terrace advise: {}: give a size, such as 8GiB\n",
                        host ? "--disk " + options.disk : "--host " + options.host)};
  }
  std::optional<TierSizes> wanted;
  if (!options.host.empty() || !options.disk.empty()) wanted = TierSizes{*host, *disk};
  const SystemClock clock;
  LiveChoice choice = find_engines(options.live, clock);
  if (choice.refusal) return *std::move(choice.refusal);
  const LiveSearch& found = choice.found;
  Answer answer{found.has_failed ? kFailed : kDone, "", found.error};
  std::string all;
  for (const LiveEngine& one : found.engines) {
    const Advice advice = advice_of(one.status, wanted);
    if (!options.live.is_json) answer.out += advice_text(advice, one.name);
    all += (all.empty() ? "" : ",\n ") + advice_json(advice, one.engine);
  }
  if (options.live.is_json) answer.out = "[" + all + "]\n";
  return answer;
}

}  // namespace terrace::cli
