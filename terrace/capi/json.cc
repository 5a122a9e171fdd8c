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
