#include "terrace/serve/ledger_text.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <iterator>
#include <nlohmann/json.hpp>
#include <optional>
#include <vector>

namespace terrace::serve {
namespace {

using manager::KeptLedger;
using manager::Ledger;

// ASCII: a name is what a client chose, and goes to terminals and logs.
std::string quoted(std::string_view text) {
  using Json = nlohmann::json;
  return Json(std::string(text))
      .dump(-1, ' ', /*ensure_ascii=*/true, Json::error_handler_t::replace);
}

template <typename Enum>
std::string name_or_null(const std::optional<Enum>& value) {
  return value ? fmt::format("\"{}\"", to_string(*value)) : "null";
}

std::string plan_json(const std::optional<manager::Decision>& decision) {
  if (!decision) return "null";
  return fmt::format(
      "{{\"found_tokens\":{},\"planned_tokens\":{},\"slowest\":\"{}\",\"predicted_load_ns\":{},"
      "\"load_ns\":{},\"predicted_recompute_ns\":{},\"recompute_ns\":{},"
      "\"recomputed_tokens\":{},\"abandoned\":{}}}",
      decision->found.value(), decision->planned.value(), to_string(decision->slowest),
      decision->predicted_load.value(), decision->load.value(),
      decision->predicted_recompute.value(), decision->recompute.value(),
      decision->recomputed.value(), decision->is_abandoned);
}

std::string hints_json(const policy::Hints& hints) {
  const auto kinds = manager::said(hints);
  std::string names;
  for (std::size_t kind = 0; kind < kinds.size(); ++kind) {
    if (!kinds[kind]) continue;
    fmt::format_to(std::back_inserter(names), "{}\"{}\"", names.empty() ? "" : ",",
                   manager::hint_name(kind));
  }
  return names;
}

// Without the braces.
std::string fields(const Ledger& ledger) {
  std::string hits;
  for (int t = 0; t < kTierCount; ++t) {
    const Tokens tokens = ledger.hit[static_cast<std::size_t>(t)];
    if (tokens.value() == 0) continue;
    fmt::format_to(std::back_inserter(hits), "{}\"{}\":{}", hits.empty() ? "" : ",",
                   to_string(static_cast<Tier>(t)), tokens.value());
  }
  const manager::Stages& stages = ledger.stages;
  return fmt::format(
      "\"prompt_tokens\":{},\"local_tokens\":{},\"hit_tokens\":{{{}}},\"failed_tokens\":{},"
      "\"pending_tokens\":{},\"first_miss\":{},\"not_asked\":{},\"lookup_wait_ns\":{},"
      "\"stages\":{{\"queued_ns\":{},\"placed_ns\":{},\"copied_ns\":{},\"computed_ns\":{},"
      "\"computed_tokens\":{},\"total_ns\":{}}},\"plan\":{},\"turn\":{},\"ending\":\"{}\","
      "\"hints\":[{}],\"ignored_hints\":{}",
      ledger.prompt.value(), ledger.local.value(), hits, ledger.failed.value(),
      ledger.pending.value(), name_or_null(ledger.first_miss), name_or_null(ledger.not_asked),
      ledger.lookup_wait.value(), stages.queued.value(), stages.placed.value(),
      stages.copied.value(), stages.computed.value(), stages.computed_tokens.value(),
      stages.total.value(), plan_json(ledger.decision), ledger.turn,
      manager::to_string(ledger.ending), hints_json(ledger.hints), ledger.ignored_hints);
}

// Nothing for a `%` without two hexadecimal digits behind it.
std::optional<std::string> decoded(std::string_view text) {
  std::string out;
  for (std::size_t i = 0; i < text.size(); ++i) {
    if (text[i] != '%') {
      out += text[i] == '+' ? ' ' : text[i];
      continue;
    }
    unsigned byte = 0;
    const std::string_view digits = text.substr(i + 1, 2);
    const auto read = std::from_chars(digits.data(), digits.data() + digits.size(), byte, 16);
    if (digits.size() < 2 || read.ec != std::errc() || read.ptr != digits.data() + 2) {
      return std::nullopt;
    }
    out += static_cast<char>(byte);
    i += 2;
  }
  return out;
}

constexpr std::string_view kQueryWayOut =
    "ask /ledgers?request=ID&most=20, both optional, with other bytes than letters and digits as "
    "%XX";

}  // namespace

std::string ledger_json(const Ledger& ledger) { return fmt::format("{{{}}}", fields(ledger)); }

std::string kept_json(const KeptLedger& kept, std::string_view engine) {
  return fmt::format(
      "{{\"request\":{},\"number\":{},\"state\":\"{}\",\"time\":{},\"engine\":{},\"unkeyable\":{},"
      "{}}}",
      quoted(kept.name.view()), kept.number, to_string(kept.state), kept.ended_wall_seconds,
      quoted(engine), kept.unkeyable.view().empty() ? "null" : quoted(kept.unkeyable.view()),
      fields(kept.ledger));
}

Result<LedgerQuery> ledger_query(std::string_view text) {
  LedgerQuery query;
  const auto refuse = [](std::string_view what) {
    return fail(Code::kInvalid, fmt::format("{}: {}", what, kQueryWayOut));
  };
  while (!text.empty()) {
    const std::string_view part = text.substr(0, text.find('&'));
    text.remove_prefix(std::min(text.size(), part.size() + 1));
    const std::string_view name = part.substr(0, part.find('='));
    const auto value = decoded(part.substr(std::min(part.size(), name.size() + 1)));
    if (!value) return refuse("a % without two hexadecimal digits");
    if (name == "request") {
      query.request = *value;
    } else if (name == "most") {
      const char* const end = value->data() + value->size();
      const auto read = std::from_chars(value->data(), end, query.most);
      const bool is_number = read.ec == std::errc() && read.ptr == end;
      if (!is_number || query.most > LedgerQuery::kMost) {
        return refuse(fmt::format("most is no number up to {}", LedgerQuery::kMost));
      }
    } else {
      return refuse("unknown part of the query");
    }
  }
  return query;
}

std::string ledgers_json(const LedgerSource& source, const LedgerQuery& query) {
  const manager::LedgerRing& ring = source.manager.ledgers();
  std::vector<KeptLedger> found;
  if (query.request.empty()) {
    found = ring.newest(query.most);
  } else {
    const std::string_view begin = std::string_view(query.request).substr(0, manager::Label::kMost);
    found = source.manager.running(begin, query.most);
    for (const KeptLedger& kept : ring.newest(ring.capacity())) {
      if (kept.name.view().starts_with(begin)) found.push_back(kept);
    }
    std::vector<KeptLedger> ordered;
    ordered.reserve(found.size());
    for (const bool is_exact : {true, false}) {
      for (const KeptLedger& kept : found) {
        if ((kept.name.view() == begin) == is_exact) ordered.push_back(kept);
      }
    }
    found = std::move(ordered);
    if (found.size() > query.most) found.resize(query.most);
  }
  std::string out = fmt::format(
      "{{\"engine\":{},\"process\":{},\"block_tokens\":{},\"kept\":{},\"ended\":{},"
      "\"ledgers\":[",
      quoted(source.engine), ::getpid(), source.block_tokens.value(), ring.capacity(), ring.last());
  for (std::size_t i = 0; i < found.size(); ++i) {
    if (i > 0) out += ',';
    out += kept_json(found[i], source.engine);
  }
  return out + "]}";
}

}  // namespace terrace::serve
