#include "campaign/hostile_server.h"

#include <fmt/format.h>

#include <algorithm>

namespace terrace::campaign {

namespace {
constexpr std::string_view kStart = "/bucket/";
constexpr std::string_view kDate = "Last-Modified: Sun, 06 Nov 1994 08:49:37 GMT\r\n";

std::string message(int code, const std::string& headers, const std::string& body) {
  return fmt::format("HTTP/1.1 {} X\r\nContent-Length: {}\r\n{}\r\n{}", code, body.size(), headers,
                     body);
}

std::string decoded(std::string_view text) {
  std::string made;
  for (std::size_t i = 0; i < text.size(); ++i) {
    if (text[i] == '%' && i + 2 < text.size()) {
      made += static_cast<char>(std::stoi(std::string(text.substr(i + 1, 2)), nullptr, 16));
      i += 2;
    } else {
      made += text[i];
    }
  }
  return made;
}

struct Range {
  std::size_t first = 0;
  std::size_t last = 0;
};
Range range_of(const std::string& header) {  // "bytes=5-14"
  const std::size_t dash = header.find('-');
  if (!header.starts_with("bytes=") || dash == std::string::npos) return {};
  return {std::stoull(header.substr(6)), std::stoull(header.substr(dash + 1))};
}
}  // namespace

HostileServer::HostileServer(std::uint64_t seed, unsigned percent) : percent_(percent), rng_(seed) {
  script_ = std::make_unique<testing::HttpScript>(
      [this](const Peer& peer, const Seen& seen) { return answer(peer, seen); }, false);
}

void HostileServer::be_kind() {
  const MutexLock lock(mutex_);
  is_kind_ = true;
}

std::map<std::string, std::uint64_t> HostileServer::injected() const {
  const MutexLock lock(mutex_);
  return injected_;
}

const char* HostileServer::name_of(Kind kind) {
  static constexpr const char* kNames[kKinds] = {
      "none",         "http_503",    "http_500",       "no_http", "reset",       "silence",
      "twice",        "flip",        "short",          "long",    "other_range", "other_length",
      "false_absent", "false_there", "land_and_reset", "bad_xml", "slow"};
  return kNames[static_cast<std::size_t>(kind)];
}

HostileServer::Kind HostileServer::draw() {
  const MutexLock lock(mutex_);
  if (is_kind_ || !rng_.chance(percent_)) return Kind::kNone;
  const auto kind = static_cast<Kind>(1 + rng_.below(kKinds - 1));
  // Silence costs time, and is drawn less often.
  return kind == Kind::kSilence && rng_.chance(80) ? Kind::kReset : kind;
}

std::uint64_t HostileServer::random(std::uint64_t bound) {
  const MutexLock lock(mutex_);
  return rng_.below(std::max<std::uint64_t>(bound, 1));
}

std::string HostileServer::get(const std::string& name, const std::string& range) {
  const MutexLock lock(mutex_);
  const auto found = objects_.find(name);
  if (found == objects_.end()) return message(404, "", "");
  const auto [first, last] = range_of(range);
  if (last >= found->second.size() || first > last) return message(416, "", "");
  return message(
      206, fmt::format("Content-Range: bytes {}-{}/{}\r\n", first, last, found->second.size()),
      found->second.substr(first, last - first + 1));
}

std::string HostileServer::list(const std::string& query) {
  const std::size_t at = query.find("&prefix=");
  const std::size_t start = at == std::string::npos ? query.size() : at + 8;
  const std::string prefix = decoded(query.substr(start, query.find('&', start) - start));
  std::string body = "<ListBucketResult><IsTruncated>false</IsTruncated>";
  const MutexLock lock(mutex_);
  for (const auto& [name, content] : objects_) {
    if (!name.starts_with(prefix)) continue;
    body += fmt::format(
        "<Contents><Key>{}</Key><Size>{}</Size><LastModified>2026-01-01T00:00:00.000Z"
        "</LastModified></Contents>",
        name, content.size());
  }
  return message(200, "", body + "</ListBucketResult>");
}

std::string HostileServer::put(const std::string& name, const std::string& body) {
  const MutexLock lock(mutex_);
  return objects_.emplace(name, body).second ? message(200, "", "") : message(412, "", "");
}

// A copy onto itself.
std::string HostileServer::touch(const std::string& name) {
  const MutexLock lock(mutex_);
  return objects_.contains(name) ? message(200, "", "<CopyObjectResult></CopyObjectResult>")
                                 : message(404, "", "<Error><Code>NoSuchKey</Code></Error>");
}

std::string HostileServer::right_answer(const Seen& seen) {
  const std::size_t mark = seen.target.find('?');
  if (mark != std::string::npos) return list(seen.target.substr(mark));
  if (!seen.target.starts_with(kStart)) return message(400, "", "");
  const std::string name = decoded(std::string_view(seen.target).substr(kStart.size()));
  if (seen.method == "PUT" && !seen.header("x-amz-copy-source").empty()) return touch(name);
  if (seen.method == "PUT") return put(name, seen.body);
  if (seen.method == "GET") return get(name, seen.header("range"));
  const MutexLock lock(mutex_);
  const auto found = objects_.find(name);
  if (seen.method == "DELETE") {
    if (found != objects_.end()) objects_.erase(found);
    return message(204, "", "");
  }
  if (found == objects_.end()) return "HTTP/1.1 404 X\r\nContent-Length: 0\r\n\r\n";
  return fmt::format("HTTP/1.1 200 X\r\nContent-Length: {}\r\n{}\r\n", found->second.size(), kDate);
}

bool HostileServer::answer(const Peer& peer, const Seen& seen) {
  const Kind kind = draw();
  bool goes_on = true;
  if (kind != Kind::kNone && answer_wrong(kind, peer, seen, goes_on)) {
    const MutexLock lock(mutex_);
    ++injected_[name_of(kind)];
    return goes_on;
  }
  return peer.send(right_answer(seen));
}

bool HostileServer::answer_wrong(Kind kind, const Peer& peer, const Seen& seen, bool& goes_on) {
  const bool is_list = seen.target.find('?') != std::string::npos;
  switch (kind) {
    case Kind::kNone:
      return false;
    case Kind::kBusy:
      goes_on =
          peer.send(message(503, "Retry-After: 0\r\n",
                            seen.method == "HEAD" ? "" : "<Error><Code>SlowDown</Code></Error>"));
      return true;
    case Kind::kBroken:
      goes_on = peer.send(message(500, "", ""));
      return true;
    case Kind::kGarbage:
      goes_on = peer.send("\x16\x03\x01 garbage\r\n\r\n") && false;
      return true;
    case Kind::kReset:
      peer.reset();
      goes_on = false;
      return true;
    case Kind::kSilence:
      (void)peer.is_gone(kSilenceMs);
      goes_on = false;
      return true;
    case Kind::kTwice: {
      const std::string right = right_answer(seen);
      goes_on = peer.send(right + right);
      return true;
    }
    case Kind::kAbsent:
      if (seen.method == "PUT" || is_list) return false;
      goes_on = peer.send(message(404, "", ""));
      return true;
    case Kind::kFalseThere:
      if (seen.method != "PUT") return false;
      goes_on = peer.send(message(412, "", ""));
      return true;
    case Kind::kLandAndReset:
      if (seen.method != "PUT") return false;
      (void)right_answer(seen);
      peer.reset();
      goes_on = false;
      return true;
    case Kind::kBadXml:
      if (!is_list) return false;
      goes_on = peer.send(message(200, "", "<ListBucketResult><Contents><Key>x"));
      return true;
    case Kind::kFlip:
    case Kind::kShort:
    case Kind::kLong:
    case Kind::kOtherRange:
    case Kind::kOtherLength:
    case Kind::kDribble:
      return seen.method == "GET" && !is_list && answer_range_wrong(kind, peer, seen, goes_on);
  }
  return false;
}

bool HostileServer::answer_range_wrong(Kind kind, const Peer& peer, const Seen& seen,
                                       bool& goes_on) {
  std::string right = right_answer(seen);
  const std::size_t head = right.find("\r\n\r\n");
  if (!right.starts_with("HTTP/1.1 206") || head == std::string::npos) return false;
  const std::size_t body = head + 4;
  const std::size_t bytes = right.size() - body;
  const std::size_t at = body + random(bytes);
  switch (kind) {
    case Kind::kFlip:
      right[at] = static_cast<char>(right[at] ^ (1 << random(8)));
      break;
    case Kind::kShort:
      goes_on = peer.send(std::string_view(right).substr(0, at)) && false;
      return true;
    case Kind::kLong:
      goes_on = peer.send(right + std::string(1 + random(4096), 'x'));
      return true;
    case Kind::kOtherRange:
      right[right.find("bytes ") + 6] = '9';
      break;
    case Kind::kOtherLength:
      right[right.find("Length: ") + 8] = static_cast<char>('1' + random(9));
      break;
    default:  // Slowly, in a few parts.
      for (std::size_t part = 0; part < right.size(); part += right.size() / 4 + 1) {
        if (peer.is_gone(2)) break;
        goes_on = peer.send(std::string_view(right).substr(part, right.size() / 4 + 1));
      }
      return true;
  }
  goes_on = peer.send(right);
  return true;
}

}  // namespace terrace::campaign
