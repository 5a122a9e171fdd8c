#include "terrace/serve/http/slow_requests.h"

#include <algorithm>
#include <nlohmann/json.hpp>

namespace terrace::serve {
namespace {

using Json = nlohmann::ordered_json;

double seconds_of(Nanoseconds time) { return static_cast<double>(time.value()) * 1e-9; }

Json plan_json(const manager::Decision& plan) {
  return {{"found_tokens", plan.found.value()},
          {"planned_tokens", plan.planned.value()},
          {"slowest", to_string(plan.slowest)},
          {"predicted_load_seconds", seconds_of(plan.predicted_load)},
          {"load_seconds", seconds_of(plan.load)},
          {"predicted_recompute_seconds", seconds_of(plan.predicted_recompute)},
          {"recompute_seconds", seconds_of(plan.recompute)},
          {"recomputed_tokens", plan.recomputed.value()},
          {"abandoned", plan.is_abandoned}};
}

Json request_json(const manager::Ledger& ledger, Nanoseconds age) {
  Json hits = Json::object();
  for (int t = 0; t < kTierCount; ++t) {
    const Tokens tokens = ledger.hit.at(static_cast<std::size_t>(t));
    if (tokens.value() > 0) hits[std::string(to_string(static_cast<Tier>(t)))] = tokens.value();
  }
  return {{"request", ledger.request.value()},
          {"age_seconds", seconds_of(age)},
          {"seconds", seconds_of(prompt_time(ledger))},
          {"prompt_tokens", ledger.prompt.value()},
          {"local_tokens", ledger.local.value()},
          {"hit_tokens", std::move(hits)},
          {"failed_tokens", ledger.failed.value()},
          {"pending_tokens", ledger.pending.value()},
          {"first_miss", ledger.first_miss ? Json(to_string(*ledger.first_miss)) : Json()},
          {"lookup_seconds", seconds_of(ledger.lookup_wait)},
          {"plan", ledger.decision ? plan_json(*ledger.decision) : Json()}};
}

}  // namespace

Nanoseconds prompt_time(const manager::Ledger& ledger) {
  Nanoseconds time = ledger.lookup_wait;
  if (ledger.decision) time += ledger.decision->load + ledger.decision->recompute;
  return time;
}

void SlowRequests::note(const manager::Ledger& ledger, Nanoseconds now) {
  const std::uint64_t at = noted_.load(std::memory_order_relaxed);
  if (at - taken_.load(std::memory_order_acquire) >= kWaiting) {
    left_out_.fetch_add(1, std::memory_order_relaxed);
    return;
  }
  waiting_[at % kWaiting] = {ledger, now};
  noted_.store(at + 1, std::memory_order_release);
}

void SlowRequests::take_in() {
  std::uint64_t at = taken_.load(std::memory_order_relaxed);
  const std::uint64_t end = noted_.load(std::memory_order_acquire);
  for (; at < end; ++at) keep(waiting_[at % kWaiting]);
  taken_.store(end, std::memory_order_release);
}

void SlowRequests::keep(const Entry& entry) {
  const std::int64_t number = entry.at / kWindow;
  Window& window = windows_.at(static_cast<std::size_t>(number) % kWindows);
  if (window.number != number) {
    window.number = number;
    window.slowest.clear();
    window.slowest.reserve(kKept);
  }
  if (window.slowest.size() < kKept) {
    window.slowest.push_back(entry);
    return;
  }
  const auto quickest = std::ranges::min_element(
      window.slowest, {}, [](const Entry& one) { return prompt_time(one.ledger); });
  if (prompt_time(entry.ledger) > prompt_time(quickest->ledger)) *quickest = entry;
}

std::string SlowRequests::json(Nanoseconds now) const {
  const std::int64_t oldest = now / kWindow - static_cast<std::int64_t>(kWindows) + 1;
  std::vector<const Entry*> found;
  for (const Window& window : windows_) {
    if (window.number < oldest) continue;
    for (const Entry& entry : window.slowest) found.push_back(&entry);
  }
  std::ranges::sort(found, [](const Entry* a, const Entry* b) {
    return prompt_time(a->ledger) > prompt_time(b->ledger);
  });
  if (found.size() > kKept) found.resize(kKept);
  Json requests = Json::array();
  for (const Entry* entry : found) requests.push_back(request_json(entry->ledger, now - entry->at));
  const Json out = {{"window_seconds", seconds_of(kWindow * static_cast<std::int64_t>(kWindows))},
                    {"left_out", left_out_.load(std::memory_order_relaxed)},
                    {"requests", std::move(requests)}};
  return out.dump() + '\n';
}

}  // namespace terrace::serve
