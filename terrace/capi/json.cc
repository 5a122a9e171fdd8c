#include <fmt/format.h>
#include <fmt/ranges.h>

#include <iterator>

#include "terrace/capi/json_internal.h"

namespace terrace::capi {

std::string json_text(std::string_view text) {
  std::string quoted = "\"";
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    if (c == '"' || c == '\\') {
      quoted += '\\';
      quoted += c;
    } else if (byte < 0x20 || byte == 0x7F) {
      fmt::format_to(std::back_inserter(quoted), "\\u{:04x}", byte);
    } else {
      quoted += c;
    }
  }
  return quoted + '"';
}

namespace {

std::string decision_to_json(const std::optional<manager::Decision>& decision) {
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

}  // namespace

std::string ledger_to_json(const manager::Ledger& ledger) {
  std::string hits;
  for (int t = 0; t < kTierCount; ++t) {
    const Tokens tokens = ledger.hit[static_cast<std::size_t>(t)];
    if (tokens.value() == 0) continue;
    fmt::format_to(std::back_inserter(hits), "{}\"{}\":{}", hits.empty() ? "" : ",",
                   to_string(static_cast<Tier>(t)), tokens.value());
  }
  return fmt::format(
      "{{\"prompt_tokens\":{},\"local_tokens\":{},\"hit_tokens\":{{{}}},\"failed_tokens\":{},"
      "\"pending_tokens\":{},\"first_miss\":{},\"lookup_wait_ns\":{},"
      "\"plan\":{}}}",
      ledger.prompt.value(), ledger.local.value(), hits, ledger.failed.value(),
      ledger.pending.value(), ledger.first_miss ? json_text(to_string(*ledger.first_miss)) : "null",
      ledger.lookup_wait.value(), decision_to_json(ledger.decision));
}

namespace {
std::string alias_text(std::uint64_t alias) { return alias == 0 ? "null" : std::to_string(alias); }

std::string hex_text(std::string_view bytes) {
  std::string text = "\"";
  for (const char c : bytes) {
    fmt::format_to(std::back_inserter(text), "{:02x}", static_cast<unsigned char>(c));
  }
  return text + '"';
}

void append_extra_keys(std::string& json, const std::vector<manager::EventKey>& keys) {
  if (keys.empty()) return;
  json += ",\"extra_keys\":[";
  for (std::size_t i = 0; i < keys.size(); ++i) {
    fmt::format_to(std::back_inserter(json), "{}{{\"kind\":{},\"identity\":{}", i == 0 ? "" : ",",
                   static_cast<int>(keys[i].kind), hex_text(keys[i].identity));
    if (keys[i].kind == ExtraKey::Kind::kMultimodal) {
      fmt::format_to(std::back_inserter(json), ",\"offset\":{}", keys[i].offset);
    }
    json += '}';
  }
  json += ']';
}

void append_event(std::string& json, const manager::Event& event) {
  if (event.kind == manager::Event::Kind::kCleared) {
    json += R"({"op":"cleared"})";
    return;
  }
  const bool is_stored = event.kind == manager::Event::Kind::kStored;
  const bool is_local = event.tier != Tier::kPeer;
  fmt::format_to(std::back_inserter(json),
                 R"({{"op":"{}","tier":"{}","group":{},"hash":"{}","alias":{},"locality":"{}")",
                 is_stored ? "stored" : "removed", to_string(event.tier), event.group.value(),
                 event.hash.hex(), alias_text(event.alias), is_local ? "local" : "remote");
  if (is_stored) {
    const bool has_parent = event.parent != SequenceHash{};
    fmt::format_to(std::back_inserter(json),
                   R"(,"parent":{},"parent_alias":{},"block_tokens":{},"tokens":[{}])",
                   has_parent ? fmt::format("\"{}\"", event.parent.hex()) : "null",
                   has_parent ? alias_text(event.parent_alias) : "null", event.tokens.size(),
                   fmt::join(event.tokens, ","));
    append_extra_keys(json, event.extra_keys);
  }
  json += '}';
}
}  // namespace

std::string events_to_json(const std::vector<manager::Event>& events) {
  if (events.empty()) return "";
  std::string json = "[";
  for (const manager::Event& event : events) {
    if (json.size() > 1) json += ',';
    append_event(json, event);
  }
  return json + "]";
}

std::string log_to_text(const std::vector<LogLine>& lines) {
  std::string text;
  for (const LogLine& line : lines) {
    fmt::format_to(std::back_inserter(text), "{} {}\n", to_string(line.level), line.text);
  }
  return text;
}

}  // namespace terrace::capi
