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

Json request_json(const manager::KeptLedger& kept, Nanoseconds age) {
  const manager::Ledger& ledger = kept.ledger;
  Json hits = Json::object();
  for (int t = 0; t < kTierCount; ++t) {
    const Tokens tokens = ledger.hit.at(static_cast<std::size_t>(t));
    if (tokens.value() > 0) hits[std::string(to_string(static_cast<Tier>(t)))] = tokens.value();
  }
  const std::string_view unkeyable = kept.unkeyable.view();
  return {{"request", kept.name.view()},
          {"number", kept.number},
          {"age_seconds", seconds_of(age)},
          {"seconds", seconds_of(prompt_time(ledger))},
          {"prompt_tokens", ledger.prompt.value()},
          {"local_tokens", ledger.local.value()},
          {"hit_tokens", std::move(hits)},
          {"failed_tokens", ledger.failed.value()},
          {"pending_tokens", ledger.pending.value()},
          {"unkeyable", unkeyable.empty() ? Json() : Json(unkeyable)},
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

void SlowRequests::take_in() {
  while (ring_ != nullptr) {
    const auto found = ring_->read(next_, kBatch);
    if (found.empty()) return;
    for (const manager::KeptLedger& kept : found) {
      left_out_ += kept.number - next_;
      next_ = kept.number + 1;
      keep(kept);
    }
  }
}

void SlowRequests::keep(const manager::KeptLedger& kept) {
  const std::int64_t number = kept.ended / kWindow;
  Window& window = windows_.at(static_cast<std::size_t>(number) % kWindows);
  if (window.number != number) {
    window.number = number;
    window.slowest.clear();
    window.slowest.reserve(kKept);
  }
  if (window.slowest.size() < kKept) {
    window.slowest.push_back(kept);
    return;
  }
  const auto quickest = std::ranges::min_element(
      window.slowest, {}, [](const auto& one) { return prompt_time(one.ledger); });
  if (prompt_time(kept.ledger) > prompt_time(quickest->ledger)) *quickest = kept;
}

std::string SlowRequests::json(Nanoseconds now) const {
  const std::int64_t oldest = now / kWindow - static_cast<std::int64_t>(kWindows) + 1;
  std::vector<const manager::KeptLedger*> found;
  for (const Window& window : windows_) {
    if (window.number < oldest) continue;
    for (const manager::KeptLedger& kept : window.slowest) found.push_back(&kept);
  }
  std::ranges::sort(found, [](const auto* a, const auto* b) {
    return prompt_time(a->ledger) > prompt_time(b->ledger);
  });
  if (found.size() > kKept) found.resize(kKept);
  Json requests = Json::array();
  for (const auto* kept : found) requests.push_back(request_json(*kept, now - kept->ended));
  const Json out = {{"window_seconds", seconds_of(kWindow * static_cast<std::int64_t>(kWindows))},
                    {"left_out", left_out_},
                    {"requests", std::move(requests)}};
  // An engine may call a request what it likes.
  return out.dump(-1, ' ', /*ensure_ascii=*/true, Json::error_handler_t::replace) + '\n';
}

}  // namespace terrace::serve
