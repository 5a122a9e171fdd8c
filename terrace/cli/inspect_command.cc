#include <fmt/format.h>

#include "terrace/base/file.h"
#include "terrace/cli/commands_internal.h"
#include "terrace/cli/inspect_text.h"
#include "terrace/cli/progress_line.h"
#include "terrace/config/load.h"

namespace terrace::cli {
namespace {

Answer failed(std::string_view what, const Status& status) {
  return {kFailed, "", fmt::format("terrace inspect: {}: {}\n", what, status.message())};
}

}  // namespace

Answer run_inspect(const InspectOptions& options) {
  std::vector<std::string> paths = options.paths;
  if (paths.empty()) {
    const auto loaded = config::load(sources_of(options.settings));
    if (!loaded.has_value()) {
      return failed("no path given, and the settings are refused", loaded.error());
    }
    paths = loaded->settings.disk.paths;
    if (paths.empty()) {
      return {kUsage, "", "terrace inspect: give a path, or settings with a disk tier\n"};
    }
  }
  std::optional<Fingerprint> wanted;
  if (!options.against.empty()) {
    const auto text = read_file(options.against, 1_MiB);
    if (!text.has_value()) return failed(options.against, text.error());
    auto print = Fingerprint::parse(*text);
    if (!print.has_value()) return failed(options.against, print.error());
    wanted = std::move(*print);
  }
  // Without them there is still much to see.
  const auto keys = keys_at_hand(options.settings);
  Answer answer;
  std::vector<PathReport> reports;
  for (const std::string& path : paths) {
    ProgressLine line("inspect");
    auto owners = tier::inspect_directory(
        path, keys ? *keys : nullptr, [&](const tier::InspectProgress& progress) {
          line.tell(progress.folder, progress.extents, progress.of);
        });
    if (!owners.has_value()) {  // The others are shown all the same.
      answer.exit_code = kFailed;
      answer.error += failed(path, owners.error()).error;
      continue;
    }
    reports.push_back({path, std::move(*owners)});
    if (auto left = tier::inspect_leftovers(path)) reports.back().leftovers = *std::move(left);
  }
  const InspectView view{wanted, keys && *keys != nullptr};
  answer.out = options.is_json ? inspect_json(reports, view) : inspect_text(reports, view);
  if (has_problem(reports)) answer.exit_code = kFailed;
  if (!keys) {
    answer.exit_code = kFailed;
    answer.error += fmt::format("terrace inspect: no keys: {}\n", keys.error().message());
  }
  if (wanted && is_match_missing(reports, *wanted)) {
    answer.exit_code = kFailed;
    answer.error += "terrace inspect: no namespace matches the given fingerprint\n";
  }
  return answer;
}

}  // namespace terrace::cli
