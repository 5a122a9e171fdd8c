#include <fmt/format.h>

#include <functional>
#include <utility>

#include "terrace/transfer/backends/s3/xml_internal.h"

namespace terrace::transfer::s3 {

namespace {

constexpr std::size_t kMostDepth = 8;         // ListBucketResult/Contents/Owner/ID are four.
constexpr std::size_t kMostTextBytes = 4096;  // A name of 1024 bytes, each as %XX.
constexpr std::size_t kMostElementBytes = 128;

std::unexpected<Status> broken(std::string_view what, std::size_t at) {
  return fail(Code::kCorrupt, fmt::format("XML: {} at byte {}", what, at));
}

// The character that &name; stands for, if it is one byte long: names of ours are ASCII.
int entity(std::string_view name) {
  static constexpr std::pair<std::string_view, char> kFive[] = {
      {"lt", '<'}, {"gt", '>'}, {"amp", '&'}, {"quot", '"'}, {"apos", '\''}};
  for (const auto& [word, byte] : kFive) {
    if (name == word) return byte;
  }
  if (!name.starts_with('#') || name.size() < 2 || name.size() > 6) return -1;
  const bool is_hex = name[1] == 'x';
  int value = 0;
  const std::string_view digits = name.substr(is_hex ? 2 : 1);
  for (const char byte : digits) {
    int digit = byte >= '0' && byte <= '9' ? byte - '0' : -1;
    if (is_hex && byte >= 'a' && byte <= 'f') digit = byte - 'a' + 10;
    if (is_hex && byte >= 'A' && byte <= 'F') digit = byte - 'A' + 10;
    if (digit < 0) return -1;
    value = value * (is_hex ? 16 : 10) + digit;
  }
  return !digits.empty() && value > 0 && value < 0x80 ? value : -1;
}

// Walks elements; tells each one's path ("ListBucketResult/Contents/Key") and text at its end.
class Walker {
 public:
  using Visit = std::function<Status(std::string_view path, const std::string& text)>;
  explicit Walker(std::string_view xml) : xml_(xml) {}

  Status walk(const Visit& visit) {
    if (xml_.starts_with("\xef\xbb\xbf")) at_ = 3;
    bool has_root = false;
    while (at_ < xml_.size()) {
      if (xml_[at_] != '<') {
        TERRACE_RETURN_IF_ERROR(take_text());
        continue;
      }
      if (xml_.substr(at_).starts_with("<?")) {
        if (has_root) return broken("an instruction inside", at_).error();
        TERRACE_RETURN_IF_ERROR(skip_past("?>"));
      } else if (xml_.substr(at_).starts_with("</")) {
        TERRACE_RETURN_IF_ERROR(close(visit));
      } else {
        if (has_root && starts_.empty()) return broken("a second root", at_).error();
        has_root = true;
        TERRACE_RETURN_IF_ERROR(open(visit));
      }
    }
    if (!has_root || !starts_.empty()) return broken("it ends too early", at_).error();
    return {};
  }

 private:
  Status skip_past(std::string_view end) {
    const std::size_t found = xml_.find(end, at_);
    if (found == std::string_view::npos) return broken("it ends too early", at_).error();
    at_ = found + end.size();
    return {};
  }

  Status take_text() {
    const std::size_t end = std::min(xml_.find('<', at_), xml_.size());
    for (; at_ < end; ++at_) {
      int byte = static_cast<unsigned char>(xml_[at_]);
      if (byte == '&') {
        const std::size_t stop = xml_.substr(0, end).find(';', at_);
        byte = stop == std::string_view::npos || stop - at_ > 8
                   ? -1
                   : entity(xml_.substr(at_ + 1, stop - at_ - 1));
        if (byte < 0) return broken("an entity that is none of the five", at_).error();
        at_ = stop;
      }
      const bool is_space = byte == ' ' || byte == '\n' || byte == '\r' || byte == '\t';
      if (starts_.empty() && !is_space) return broken("text outside", at_).error();
      if (starts_.empty()) continue;
      if (text_.size() >= kMostTextBytes) return broken("a text that is too long", at_).error();
      text_ += static_cast<char>(byte);
    }
    return {};
  }

  // `<name attribute="value" …>`; attributes are passed over.
  Status open(const Visit& visit) {
    const std::size_t start = at_ + 1;
    std::size_t end = start;
    char quote = 0;
    for (; end < xml_.size() && (quote != 0 || xml_[end] != '>'); ++end) {
      const char byte = xml_[end];
      if (quote == 0 && byte == '<') return broken("a tag inside a tag", end).error();
      if (byte == '"' || byte == '\'') quote = quote == 0 ? byte : quote == byte ? '\0' : quote;
      if (end - start > 512) return broken("a tag that is too long", start).error();
    }
    if (end == xml_.size()) return broken("it ends too early", end).error();
    std::string_view tag = xml_.substr(start, end - start);
    const bool is_closed = tag.ends_with('/');
    if (is_closed) tag.remove_suffix(1);
    const std::string_view name = tag.substr(0, tag.find_first_of(" \t\r\n"));
    TERRACE_RETURN_IF_ERROR(check_name(name, start));
    if (starts_.size() >= kMostDepth) return broken("elements too deep", start).error();
    starts_.push_back(path_.size());
    if (!path_.empty()) path_ += '/';
    path_ += name;
    text_.clear();
    at_ = end + 1;
    return is_closed ? leave(visit) : Status();
  }

  Status check_name(std::string_view name, std::size_t at) const {
    // `<!DOCTYPE`, `<!--` and `<![CDATA[` end here, too: no store needs them to answer.
    if (name.empty() || name.size() > kMostElementBytes) {
      return broken("an element without a name, or with a long one", at).error();
    }
    for (const char byte : name) {
      const bool is_good = (byte >= 'a' && byte <= 'z') || (byte >= 'A' && byte <= 'Z') ||
                           (byte >= '0' && byte <= '9') || byte == '_' || byte == '-' ||
                           byte == '.' || byte == ':';
      if (!is_good) return broken("a declaration, a comment, or no name", at).error();
    }
    return {};
  }

  Status close(const Visit& visit) {
    const std::size_t end = xml_.find('>', at_);
    if (end == std::string_view::npos) return broken("it ends too early", at_).error();
    std::string_view name = xml_.substr(at_ + 2, end - at_ - 2);
    while (name.ends_with(' ') || name.ends_with('\n')) name.remove_suffix(1);
    const std::size_t last = starts_.empty() ? 0 : starts_.back();
    const std::string_view own = std::string_view(path_).substr(last + (last > 0 ? 1 : 0));
    if (starts_.empty() || own != name) return broken("an end of another element", at_).error();
    at_ = end + 1;
    return leave(visit);
  }

  Status leave(const Visit& visit) {
    TERRACE_RETURN_IF_ERROR(visit(path_, text_));
    text_.clear();
    path_.resize(starts_.back());
    starts_.pop_back();
    return {};
  }

  const std::string_view xml_;
  std::size_t at_ = 0;
  std::string path_;
  std::vector<std::size_t> starts_;  // Of path_, where each open element's part begins.
  std::string text_;                 // Since the last tag.
};

struct RawPage {
  ListPage page;
  ObjectInfo current;
  unsigned fields = 0;  // Of `current`: bit 0 name, 1 length, 2 date.
  bool is_encoded = false;
  bool is_truncated = false;
  bool has_root = false;
};

Status visit_list(RawPage& raw, std::string_view path, const std::string& text) {
  static constexpr std::string_view kRoot = "ListBucketResult";
  if (!path.starts_with(kRoot)) return {Code::kCorrupt, "XML: no ListBucketResult"};
  raw.has_root = true;
  path.remove_prefix(kRoot.size());
  if (path == "/IsTruncated") {
    if (text != "true" && text != "false") return {Code::kCorrupt, "XML: IsTruncated is neither"};
    raw.is_truncated = text == "true";
  } else if (path == "/NextContinuationToken") {
    raw.page.next = text;
  } else if (path == "/EncodingType") {
    raw.is_encoded = text == "url";
  } else if (path == "/Contents/Key") {
    raw.current.name = text;
    raw.fields |= 1U;
  } else if (path == "/Contents/Size") {
    TERRACE_ASSIGN_OR_RETURN(raw.current.bytes, parse_number(text));
    raw.fields |= 2U;
  } else if (path == "/Contents/LastModified") {
    TERRACE_ASSIGN_OR_RETURN(raw.current.modified_seconds, parse_iso_date(text));
    raw.fields |= 4U;
  } else if (path == "/Contents") {
    if (raw.fields != 7) return {Code::kCorrupt, "XML: an object without name, length or date"};
    if (raw.page.found.size() >= kMostListed) return {Code::kCorrupt, "XML: over 1000 objects"};
    raw.page.found.push_back(std::exchange(raw.current, {}));
    raw.fields = 0;
  }
  return {};
}

}  // namespace

Result<ListPage> parse_list(std::string_view xml) {
  RawPage raw;
  Walker walker(xml);
  TERRACE_RETURN_IF_ERROR(walker.walk(
      [&](std::string_view path, const std::string& text) { return visit_list(raw, path, text); }));
  if (raw.is_truncated && raw.page.next.empty()) {
    return fail(Code::kCorrupt, "XML: a listing that goes on without saying where");
  }
  if (!raw.is_truncated) raw.page.next.clear();
  if (raw.is_encoded) {
    for (ObjectInfo& info : raw.page.found) {
      TERRACE_ASSIGN_OR_RETURN(info.name, uri_decode(info.name));
    }
  }
  return std::move(raw.page);
}

ErrorText parse_error(std::string_view xml) {
  ErrorText found;
  Walker walker(xml);
  // What was found before the fault is as good as any.
  (void)walker.walk([&](std::string_view path, const std::string& text) -> Status {
    if (path == "Error/Code") found.code = text.substr(0, 64);
    if (path == "Error/Message") found.message = text.substr(0, 200);
    return {};
  });
  for (const char byte : found.code) {
    const bool is_word = (byte >= 'a' && byte <= 'z') || (byte >= 'A' && byte <= 'Z') ||
                         (byte >= '0' && byte <= '9');
    if (!is_word) return {};
  }
  for (char& byte : found.message) {
    if (byte < 0x20 || byte > 0x7e) byte = '?';
  }
  return found;
}

}  // namespace terrace::transfer::s3
