#include "terrace/block/fingerprint.h"

#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <map>
#include <set>
#include <string_view>
#include <tuple>

#include "terrace/block/sha256_internal.h"

namespace terrace {
namespace {

constexpr std::string_view kContentDomain{"TERRACE\0content\1", 16};
constexpr std::string_view kLayoutDomain{"TERRACE\0layout\0\1", 16};
constexpr std::size_t kMaxTextBytes = std::size_t{1} << 20U;

using Fields = std::vector<FingerprintField>;

void put_u64(std::vector<std::uint8_t>& message, std::uint64_t value) {
  const auto bytes = std::bit_cast<std::array<std::uint8_t, 8>>(value);
  message.insert(message.end(), bytes.begin(), bytes.end());
}

void put_string(std::vector<std::uint8_t>& message, std::string_view text) {
  put_u64(message, text.size());
  message.insert(message.end(), text.begin(), text.end());
}

Sha256Digest digest_of(std::string_view domain, const Fields& fields) {
  std::vector<const FingerprintField*> sorted;
  for (const FingerprintField& field : fields) sorted.push_back(&field);
  std::sort(sorted.begin(), sorted.end(), [](const auto* a, const auto* b) {
    return std::tie(a->name, a->value) < std::tie(b->name, b->value);
  });
  std::vector<std::uint8_t> message(domain.begin(), domain.end());
  put_u64(message, sorted.size());
  for (const FingerprintField* field : sorted) {
    put_string(message, field->name);
    put_string(message, field->value);
  }
  return sha256(message);
}

std::string hex_of(const Sha256Digest& digest) {
  return fmt::format("{:02x}", fmt::join(digest, ""));
}

// Printable ASCII stands for itself, except the backslash and, in names, the equals sign.
std::string escaped(std::string_view bytes, bool is_name) {
  std::string out;
  for (const char c : bytes) {
    const auto byte = static_cast<unsigned char>(c);
    if (c == '\\') {
      out += "\\\\";
    } else if (byte < 0x20 || byte > 0x7E || (is_name && c == '=')) {
      out += fmt::format("\\x{:02x}", byte);
    } else {
      out += c;
    }
  }
  return out;
}

std::optional<unsigned> hex_digit(char c) {
  if (c >= '0' && c <= '9') return static_cast<unsigned>(c - '0');
  if (c >= 'a' && c <= 'f') return static_cast<unsigned>(c - 'a' + 10);
  return std::nullopt;
}

std::optional<std::string> unescaped(std::string_view text) {
  std::string out;
  for (std::size_t i = 0; i < text.size(); ++i) {
    if (text[i] != '\\') {
      out += text[i];
    } else if (text.substr(i).starts_with("\\\\")) {
      out += '\\';
      ++i;
    } else {
      if (i + 3 >= text.size() || text[i + 1] != 'x') return std::nullopt;
      const auto high = hex_digit(text[i + 2]);
      const auto low = hex_digit(text[i + 3]);
      if (!high || !low) return std::nullopt;
      out += static_cast<char>(*high << 4U | *low);
      i += 3;
    }
  }
  return out;
}

void add_text(std::string& out, std::string_view part, const Fields& fields) {
  for (const FingerprintField& field : fields) {
    out += fmt::format("{}.{}={}\n", part, escaped(field.name, true), escaped(field.value, false));
  }
}

constexpr std::string_view kContentPrefix = "content.";
constexpr std::string_view kLayoutPrefix = "layout.";

// What is wrong with the line; empty = it was taken into `fingerprint`.
std::string take_line(std::string_view line, Fingerprint& fingerprint,
                      std::set<std::string>& seen) {
  const bool is_content = line.starts_with(kContentPrefix);
  if (!is_content && !line.starts_with(kLayoutPrefix)) return "neither content. nor layout.";
  const auto equals = line.find('=');
  if (equals == std::string_view::npos) return "no =";
  const std::size_t prefix = is_content ? kContentPrefix.size() : kLayoutPrefix.size();
  auto name = unescaped(line.substr(prefix, equals - prefix));
  auto value = unescaped(line.substr(equals + 1));
  if (!name || !value) return "a bad escape";
  if (name->empty()) return "an empty name";
  // By meaning, not by spelling: "a" and "\\x61" are one name.
  if (!seen.insert((is_content ? "c" : "l") + *name).second) return "a name given twice";
  auto& fields = is_content ? fingerprint.content : fingerprint.layout;
  fields.push_back({std::move(*name), std::move(*value)});
  return "";
}

void add_differences(std::vector<FieldDifference>& out, std::string_view part, const Fields& ours,
                     const Fields& theirs) {
  std::map<std::string, FieldDifference> by_name;
  for (const auto& field : ours) by_name[field.name].ours = field.value;
  for (const auto& field : theirs) by_name[field.name].theirs = field.value;
  for (auto& [name, difference] : by_name) {
    if (difference.ours == difference.theirs) continue;
    difference.part = part;
    difference.name = name;
    out.push_back(std::move(difference));
  }
}

}  // namespace

std::string Fingerprint::content_digest() const { return hex_of(content_digest_bytes()); }
std::string Fingerprint::layout_digest() const { return hex_of(layout_digest_bytes()); }
std::array<std::uint8_t, 32> Fingerprint::content_digest_bytes() const {
  return digest_of(kContentDomain, content);
}
std::array<std::uint8_t, 32> Fingerprint::layout_digest_bytes() const {
  return digest_of(kLayoutDomain, layout);
}

std::string Fingerprint::text() const {
  std::string out;
  add_text(out, "content", content);
  add_text(out, "layout", layout);
  return out;
}

Status Fingerprint::validate() const {
  for (const auto& [part, fields] :
       {std::pair{"content", &content}, std::pair{"layout", &layout}}) {
    std::set<std::string_view> seen;
    for (const FingerprintField& field : *fields) {
      if (field.name.empty()) {
        return {Code::kInvalid, fmt::format("fingerprint: a field of {} has no name", part)};
      }
      if (!seen.insert(field.name).second) {
        return {Code::kInvalid, fmt::format("fingerprint: {}.{} is given twice; give it once", part,
                                            escaped(field.name, true))};
      }
    }
  }
  if (text().size() > kMaxTextBytes) return {Code::kInvalid, "fingerprint: more than 1 MiB"};
  return {};
}

Status Fingerprint::add_content(std::string name, std::string value, std::string_view giver) {
  if (std::ranges::find(content, name, &FingerprintField::name) != content.end()) {
    return {Code::kInvalid,
            fmt::format("fingerprint: content.{} is given twice, by the fingerprint and by {}; "
                        "leave one of them out",
                        escaped(name, true), giver)};
  }
  content.push_back({std::move(name), std::move(value)});
  return {};
}

Result<Fingerprint> Fingerprint::parse(std::string_view text) {
  if (text.size() > kMaxTextBytes) return fail(Code::kInvalid, "fingerprint: more than 1 MiB");
  Fingerprint fingerprint;
  std::set<std::string> seen;
  for (std::size_t line = 1; !text.empty(); ++line) {
    const auto end = std::min(text.find('\n'), text.size());
    const std::string problem = take_line(text.substr(0, end), fingerprint, seen);
    if (!problem.empty()) {
      return fail(Code::kInvalid, fmt::format("fingerprint line {}: {}", line, problem));
    }
    text.remove_prefix(std::min(end + 1, text.size()));
  }
  return fingerprint;
}

std::vector<FieldDifference> differences(const Fingerprint& ours, const Fingerprint& theirs) {
  std::vector<FieldDifference> out;
  add_differences(out, "content", ours.content, theirs.content);
  add_differences(out, "layout", ours.layout, theirs.layout);
  return out;
}

}  // namespace terrace
