#include <fmt/format.h>

#include <algorithm>
#include <cstdio>
#include <nlohmann/json.hpp>
#include <optional>

#include "terrace/cli/commands_internal.h"
#include "terrace/config/load.h"
#include "terrace/config/table.h"
#include "terrace/config/value.h"
#include "terrace/serve/object_stores.h"
#include "terrace/transfer/object_queue.h"

namespace terrace::cli {
namespace {

using Json = nlohmann::ordered_json;
using tier::CollectReport;

constexpr Nanoseconds kTellEvery = seconds(2);
constexpr Nanoseconds kNap = milliseconds(100);
constexpr unsigned kMostRemovals = 16;

std::string size_text(std::uint64_t bytes) {
  constexpr std::uint64_t kUnit = 1ULL << 30U;
  if (bytes % (1U << 20U) == 0 && bytes > 0) {
    return config::format_value(*config::find_row("object.size"), static_cast<std::int64_t>(bytes));
  }
  return fmt::format("{:.2f} GiB", static_cast<double>(bytes) / kUnit);
}

std::string totals_text(const tier::PackTotals& totals) {
  return fmt::format("{} packs, {} blocks, {}", totals.packs, totals.blocks,
                     size_text(totals.bytes));
}

Json totals_json(const tier::PackTotals& totals) {
  return {{"packs", totals.packs}, {"blocks", totals.blocks}, {"bytes", totals.bytes}};
}

void tell(const CollectReport& report) {
  const std::uint64_t planned = report.too_old.packs + report.too_many.packs;
  const std::string text =
      fmt::format("{}: {} found, {} to go so far, {} removed\n", to_string(report.phase),
                  totals_text(report.found), planned, report.gone);
  (void)std::fputs(text.c_str(), stderr);
}

CollectReport collect(transfer::ObjectStore& store, const tier::Collector::Options& options,
                      const Clock& clock) {
  transfer::ObjectQueue queue(store, clock, {});
  tier::Collector collector(options, clock);
  std::vector<transfer::ObjectAnswer> answers;
  Nanoseconds tell_at = clock.now() + kTellEvery;
  while (!collector.is_over() || !collector.is_idle()) {
    while (auto request = collector.next()) {
      transfer::ObjectAnswer refused;
      refused.token = request->token;
      refused.status = queue.push(transfer::IoClass::kOffloadWrite, *std::move(request));
      if (!refused.status.is_ok()) collector.take(refused);
    }
    answers.clear();
    queue.poll(answers);
    for (const auto& answer : answers) collector.take(answer);
    if (clock.now() >= tell_at) {
      tell(collector.report());
      tell_at = clock.now() + kTellEvery;
    }
    if (!answers.empty() || collector.is_over()) continue;
    const Nanoseconds pace = collector.due() - clock.now();
    queue.wait(pace > Nanoseconds(0) ? std::min(pace, kNap) : kNap);
  }
  return collector.report();
}

// Null: none at hand.
using Keys = std::shared_ptr<const KeyRing>;

bool is_at_hand(const Keys& keys, const std::string& id) {
  return keys != nullptr && std::ranges::any_of(keys->keys(), [&](const KeyRing::Key& key) {
           return key.id.hex() == id;
         });
}

std::string keys_text(const CollectReport& report, const Keys& keys) {
  std::string out;
  for (const auto& [id, totals] : report.by_key) {
    out += id.empty()
               ? fmt::format("not encrypted: {}\n", totals_text(totals))
               : fmt::format("encrypted with key {}, {}: {}\n", id,
                             is_at_hand(keys, id) ? "at hand" : "not at hand", totals_text(totals));
  }
  return out;
}

Json keys_json(const CollectReport& report, const Keys& keys) {
  Json out = Json::array();
  for (const auto& [id, totals] : report.by_key) {
    Json one = totals_json(totals);
    one["id"] = id.empty() ? Json() : Json(id);
    one["at_hand"] = is_at_hand(keys, id);
    out.push_back(std::move(one));
  }
  return out;
}

std::string report_text(const std::string& place, const tier::ObjectBounds& bounds,
                        const CollectReport& report, const Keys& keys, bool is_dry_run) {
  // What was not counted to its end says nothing of the store.
  if (!report.is_counted) {
    return fmt::format("{}: not counted to the end: {} until it failed, {} of them gone\n", place,
                       totals_text(report.found), report.gone);
  }
  std::string out = fmt::format("{}: {}\n", place, totals_text(report.found));
  out += keys_text(report, keys);
  if (!bounds.has_any()) {
    out += "no bound is set, so nothing is removed: object.max_age, object.size, object.blocks\n";
  }
  if (bounds.max_age > Nanoseconds(0)) {
    out += fmt::format(
        "not used for {}: {}\n",
        config::format_value(*config::find_row("object.max_age"), bounds.max_age.value()),
        totals_text(report.too_old));
  }
  if (bounds.bytes > 0 || bounds.blocks > 0) {
    out += fmt::format("the rest is over its bound by: {}\n", totals_text(report.too_many));
  }
  const std::uint64_t planned = report.too_old.packs + report.too_many.packs;
  out += is_dry_run ? fmt::format("would be removed: {} packs\n", planned)
                    : fmt::format("removed: {} packs\n", report.gone);
  if (report.foreign > 0) {
    out += fmt::format("other objects, left alone: {}\n", report.foreign);
  }
  return out;
}

std::string report_json(const std::string& place, const CollectReport& report, const Keys& keys,
                        bool is_dry_run) {
  const Json json{{"place", place},
                  {"dry_run", is_dry_run},
                  {"counted", report.is_counted},
                  {"found", totals_json(report.found)},
                  {"keys", keys_json(report, keys)},
                  {"too_old", totals_json(report.too_old)},
                  {"too_many", totals_json(report.too_many)},
                  {"removed", report.gone},
                  {"failed", report.failed},
                  {"foreign", report.foreign},
                  {"oldest_seconds", report.oldest_seconds},
                  {"error", report.status.is_ok() ? Json() : Json(report.status.message())}};
  return json.dump() + "\n";
}

Answer failed(int code, std::string_view what) {
  return {code, "", fmt::format("terrace object gc: {}\n", what)};
}

}  // namespace

Answer run_object_gc(const ObjectGcOptions& options) {
  const auto loaded = config::load(tierless_sources_of(options.settings));
  if (!loaded) return failed(kFailed, loaded.error().message());
  const config::ObjectSettings& object = loaded->settings.object;
  const serve::OpenObjectStore open = serve::object_store(object, /*may_begin=*/false);
  if (!open) {
    return failed(kUsage,
                  "the settings name no shared store: give object.path, or object.enabled with "
                  "object.bucket and object.endpoint");
  }
  const SystemClock clock;
  NullLog log;
  auto store = open(clock, log);
  if (!store) return failed(kFailed, store.error().message());
  tier::Collector::Options wanted;
  wanted.bounds = serve::collect_options(object).bounds;
  wanted.every = object.gc_every;
  // Without a bound it only counts.
  wanted.is_dry_run = options.is_dry_run || !wanted.bounds.has_any();
  wanted.gives_way = false;
  wanted.most_removals = kMostRemovals;
  wanted.requests_per_second = options.requests_per_second;
  const CollectReport report = collect(**store, wanted, clock);
  const std::string& place = (*store)->place();
  // Only told: packs go by their age, whatever opens them.
  const auto keys = keys_at_hand(options.settings);
  const Keys ring = keys ? *keys : nullptr;
  Answer answer;
  answer.out = options.is_json
                   ? report_json(place, report, ring, options.is_dry_run)
                   : report_text(place, wanted.bounds, report, ring, options.is_dry_run);
  if (!report.status.is_ok()) {
    answer.error = fmt::format("terrace object gc: {}: {}\n", place, report.status.message());
  } else if (report.failed > 0) {
    answer.error = fmt::format("terrace object gc: {} packs could not be removed\n", report.failed);
  }
  if (!keys)
    answer.error += fmt::format("terrace object gc: no keys: {}\n", keys.error().message());
  if (!answer.error.empty()) answer.exit_code = kFailed;
  return answer;
}

}  // namespace terrace::cli
