#include <fmt/format.h>

#include <algorithm>
#include <cstdio>
#include <iterator>
#include <nlohmann/json.hpp>

#include "terrace/base/mutex.h"
#include "terrace/cli/commands_internal.h"
#include "terrace/cli/json_in.h"
#include "terrace/cli/live_search.h"
#include "terrace/config/value.h"

namespace terrace::cli {
namespace {

using Json = nlohmann::ordered_json;

constexpr Nanoseconds kBetweenLooks = milliseconds(200);

struct Pass {
  LiveEngine engine;
  std::uint64_t number = 0;
  Json scrub = Json::object();  // As the engine's status has it.
  bool is_over = false;
  bool is_lost = false;  // The engine ended, or says nothing of it.
};

// Nobody can tell this process when an engine is done.
void rest() {
  Mutex mutex;
  CondVar never;
  const MutexLock lock(mutex);
  (void)never.wait_for(mutex, kBetweenLooks);
}

// Several asks may come in one pass, and the engine may have begun another one since.
void look(Pass& pass, const Clock& clock) {
  const auto status = ask_engine(pass.engine.socket, "GET", "/status", "", clock);
  const Json json = status.has_value() ? Json::parse(*status, nullptr, false) : Json();
  const Json scrub = part_of(json, "scrub", Json::value_t::object);
  if (scrub.empty()) {
    pass.is_lost = true;
    return;
  }
  const std::uint64_t number = count_in(scrub, "pass");
  if (number == pass.number || pass.scrub.empty()) pass.scrub = scrub;
  pass.is_over = number > pass.number || !is_true_in(scrub, "running");
}

// What keeps it from going on; empty = nothing does.
std::string state_of(const Pass& pass) {
  if (is_true_in(pass.scrub, "held")) return ", held: the engine is paused";
  const std::string directory = text_in(pass.scrub, "waits_for", "");
  return directory.empty() ? "" : ", waits for " + directory + " to answer";
}

void tell_progress(const std::vector<Pass>& passes) {
  std::string line;
  for (const Pass& pass : passes) {
    fmt::format_to(std::back_inserter(line), "{}: {:.0f} %, {} blocks, {} bad{}  ",
                   pass.engine.engine, number_in(pass.scrub, "progress") * 100,
                   count_in(pass.scrub, "good_blocks") + count_in(pass.scrub, "bad_blocks"),
                   count_in(pass.scrub, "bad_blocks"), state_of(pass));
  }
  std::fputs((line + '\n').c_str(), stderr);
}

// One line a percent and a hold, so that a log of it stays readable.
std::string mark_of(const std::vector<Pass>& passes) {
  std::string mark;
  for (const Pass& pass : passes) {
    mark += fmt::format("{:.0f}{}{} ", number_in(pass.scrub, "progress") * 100,
                        count_in(pass.scrub, "bad_blocks"), state_of(pass));
  }
  return mark;
}

void await_all(std::vector<Pass>& passes, const Clock& clock) {
  std::string told;
  while (true) {
    for (Pass& pass : passes) {
      if (!pass.is_over && !pass.is_lost) look(pass, clock);
    }
    if (const std::string mark = mark_of(passes); mark != told) {
      told = mark;
      tell_progress(passes);
    }
    const bool is_done =
        std::ranges::all_of(passes, [](const Pass& pass) { return pass.is_over || pass.is_lost; });
    if (is_done) return;
    rest();
  }
}

void write_result(const Pass& pass, Answer& answer) {
  auto out = std::back_inserter(answer.out);
  if (pass.is_lost) {
    answer.exit_code = kFailed;
    answer.error +=
        fmt::format("terrace scrub: {}: it ended, or its disk tier did\n", pass.engine.name);
    return;
  }
  const std::uint64_t bad = count_in(pass.scrub, "bad_blocks");
  const std::uint64_t skipped = count_in(pass.scrub, "skipped_blocks");
  if (bad + skipped > 0) answer.exit_code = kFailed;
  fmt::format_to(out, "{}: pass {}: {} blocks good, {} bad and dropped, {} skipped; {:.0f} s\n",
                 pass.engine.name, pass.number, count_in(pass.scrub, "good_blocks"), bad, skipped,
                 number_in(pass.scrub, "seconds"));
  const Json passed_over = part_of(pass.scrub, "passed_over", Json::value_t::array);
  for (const Json& directory : passed_over) {
    if (!directory.is_string()) continue;
    fmt::format_to(out, "  passed over: {}: it is left alone for now, terrace status says why\n",
                   directory.get<std::string>());
  }
  if (skipped > 0 && passed_over.empty()) {
    answer.out += "  skipped: their directory is left alone for now; terrace status says why\n";
  }
  const Json found = part_of(pass.scrub, "found", Json::value_t::array);
  const std::size_t shown = std::min<std::size_t>(bad, found.size());
  for (std::size_t i = found.size() - shown; i < found.size(); ++i) {
    const Json& one = found[i];
    fmt::format_to(out, "  bad: {} at {}: key {}, group {}, rank {}: {}\n", text_in(one, "file"),
                   count_in(one, "offset"), text_in(one, "key"), count_in(one, "group"),
                   count_in(one, "rank"), text_in(one, "reason"));
  }
}

}  // namespace

Answer run_scrub(const ScrubOptions& options) {
  std::int64_t rate = 0;
  if (!options.rate.empty()) {
    const auto parsed = config::parse_size(options.rate);
    if (!parsed.has_value() || *parsed <= 0) {
      return {kUsage, "",
              fmt::format("terrace scrub: --rate \"{}\": give bytes a second, such as 64MiB\n",
                          options.rate)};
    }
    rate = *parsed;
  }
  const SystemClock clock;
  LiveChoice choice = find_engines(options.live, clock);
  if (choice.refusal) return *std::move(choice.refusal);
  Answer answer{choice.found.has_failed ? kFailed : kDone, "", choice.found.error};
  std::vector<Pass> passes;
  const std::string body = rate == 0 ? "{}" : fmt::format("{{\"bytes_per_second\":{}}}", rate);
  for (LiveEngine& engine : choice.found.engines) {
    const auto reply = ask_engine(engine.socket, "PUT", "/scrub", body, clock);
    if (!reply.has_value()) {
      answer.exit_code = kFailed;
      answer.error += fmt::format("terrace scrub: {}: {}\n", engine.name, reply.error().message());
      continue;
    }
    Pass pass;
    pass.engine = std::move(engine);
    pass.number = count_in(Json::parse(*reply, nullptr, false), "pass");
    passes.push_back(std::move(pass));
  }
  if (options.is_waiting) await_all(passes, clock);
  Json all = Json::array();
  for (const Pass& pass : passes) {
    if (options.is_waiting) {
      write_result(pass, answer);
    } else {
      answer.out += fmt::format("{}: pass {} runs; terrace status shows how far it is\n",
                                pass.engine.name, pass.number);
    }
    all.push_back({{"engine", pass.engine.engine}, {"pass", pass.number}});
    if (options.is_waiting && !pass.is_lost) all.back()["scrub"] = pass.scrub;
  }
  if (options.live.is_json) {
    answer.out = all.dump(2, ' ', false, Json::error_handler_t::replace) + '\n';
  }
  return answer;
}

}  // namespace terrace::cli
