#include <fmt/format.h>

#include <algorithm>

#include "terrace/transfer/backends/s3/request_internal.h"
#include "terrace/transfer/backends/s3/sigv4_internal.h"

namespace terrace::transfer::s3 {

namespace {

constexpr std::uint64_t kExpectBytes = 1U << 20U;
constexpr std::string_view kEmptyHash =
    "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

Status invalid(std::string_view option, std::string_view value, std::string_view what) {
  std::string shown;
  for (const char byte : value.substr(0, 100)) shown += byte >= ' ' && byte <= '~' ? byte : '?';
  return {Code::kInvalid, fmt::format("s3 {} '{}': {}", option, shown, what), Scope::kBackend};
}

bool is_word(std::string_view text, std::string_view more) {
  return !text.empty() && std::ranges::all_of(text, [&](char byte) {
    return (byte >= 'a' && byte <= 'z') || (byte >= '0' && byte <= '9') ||
           more.find(byte) != std::string_view::npos;
  });
}

// host or host:port of "http://host:port"; the port of the scheme is left out, as in Host.
Result<std::string> host_of(std::string_view endpoint, bool is_tls) {
  std::string_view host = endpoint.substr(is_tls ? 8 : 7);
  if (host.ends_with('/')) host.remove_suffix(1);
  const std::size_t bracket = host.starts_with('[') ? host.find(']') : 0;
  const std::size_t colon =
      bracket == std::string_view::npos ? std::string_view::npos : host.find(':', bracket);
  const std::string_view name = host.substr(0, colon);
  const std::string_view port =
      colon == std::string_view::npos ? std::string_view() : host.substr(colon + 1);
  const bool is_six = name.starts_with('[') && name.ends_with(']') && name.size() > 2;
  const bool is_name = is_six ? is_word(name.substr(1, name.size() - 2), ":.ABCDEF")
                              : is_word(name, ".-ABCDEFGHIJKLMNOPQRSTUVWXYZ");
  const bool is_port = colon == std::string_view::npos ||
                       (!port.empty() && port.size() <= 5 &&
                        port.find_first_not_of("0123456789") == std::string_view::npos);
  if (!is_name || !is_port) {
    // A password in it would be printed: of this value nothing is.
    return fail(invalid("endpoint", endpoint.substr(0, is_tls ? 8 : 7),
                        "expected http(s)://host or http(s)://host:port after it"));
  }
  if (port == (is_tls ? "443" : "80")) return std::string(name);
  return std::string(host);
}

void add(std::vector<TextPair>& pairs, std::string_view name, std::string value) {
  pairs.emplace_back(std::string(name), std::move(value));
}

std::vector<TextPair> query_of(const Target& target, const ObjectRequest& request) {
  std::vector<TextPair> query;
  if (request.op != ObjectOp::kList) return query;
  add(query, "list-type", "2");
  add(query, "max-keys", std::to_string(kMostListed));
  add(query, "encoding-type", "url");
  add(query, "prefix", target.prefix + request.name);
  if (!request.after.empty()) add(query, "continuation-token", request.after);
  return query;
}

std::string_view method_of(ObjectOp op) {
  switch (op) {
    case ObjectOp::kPut:
      return "PUT";
    case ObjectOp::kGet:
    case ObjectOp::kList:
      return "GET";
    case ObjectOp::kHead:
      return "HEAD";
    case ObjectOp::kRemove:
      return "DELETE";
    case ObjectOp::kTouch:
      return "PUT";  // A copy onto itself.
  }
  return "GET";
}

}  // namespace

Result<Target> make_target(const S3Options& options) {
  Target target;
  target.is_tls = options.endpoint.starts_with("https://");
  if (!target.is_tls && !options.endpoint.starts_with("http://")) {
    return fail(invalid("endpoint", "", "expected http(s)://host[:port]"));
  }
  // Longer ones were allowed in old days; capitals and underscores never work in a host's name.
  if (options.bucket.size() < 3 || options.bucket.size() > 63 || !is_word(options.bucket, ".-")) {
    return fail(invalid("bucket", options.bucket, "expected 3 to 63 of a-z, 0-9, '.' and '-'"));
  }
  // Amazon's are small letters; OpenStack's first one is "RegionOne".
  if (!is_word(options.region, "-_ABCDEFGHIJKLMNOPQRSTUVWXYZ")) {
    return fail(invalid("region", options.region, "expected letters, digits, '-' and '_'"));
  }
  if (!options.prefix.empty()) {
    const Status status = check_object_name(options.prefix);
    if (!status.is_ok()) return fail(invalid("prefix", options.prefix, status.message()));
    target.prefix = options.prefix + "/";
  }
  TERRACE_ASSIGN_OR_RETURN(target.host, host_of(options.endpoint, target.is_tls));
  const std::string scheme = target.is_tls ? "https://" : "http://";
  target.place = fmt::format("s3://{}{}{} at {}{}", options.bucket,
                             target.prefix.empty() ? "" : "/", options.prefix, scheme, target.host);
  if (options.uses_path_style) {
    target.path_start = fmt::format("/{}", options.bucket);
  } else {
    target.host = fmt::format("{}.{}", options.bucket, target.host);
  }
  target.origin = scheme + target.host;
  target.bucket = options.bucket;
  target.region = options.region;
  return target;
}

HttpRequest make_request(const Target& target, const ObjectRequest& request,
                         const RequestPlan& plan, const ContentSums& sums,
                         const S3Credentials& credentials, std::int64_t now_seconds) {
  SigningInput input;
  input.method = method_of(plan.op);
  input.path = target.path_start + "/";
  if (plan.op != ObjectOp::kList) input.path += target.prefix + request.name;
  input.query = query_of(target, request);
  input.payload_hash = kEmptyHash;
  std::vector<TextPair>& headers = input.headers;
  if (plan.op == ObjectOp::kPut) {
    input.payload_hash = sums.sha256_hex.empty() ? std::string(kUnsignedPayload) : sums.sha256_hex;
    add(headers, "x-amz-checksum-crc32c", sums.crc32c_base64);
    if (plan.is_conditional) add(headers, "if-none-match", "*");
  }
  if (plan.op == ObjectOp::kGet) {
    add(headers, "range",
        fmt::format("bytes={}-{}", request.offset, request.offset + request.bytes() - 1));
  }
  const SigningScope scope{amz_date(now_seconds), target.region};
  if (plan.op == ObjectOp::kTouch) {
    // A copy onto itself is refused where nothing changes: the metadata is given anew, as it was.
    add(headers, "x-amz-copy-source",
        uri_encode(fmt::format("/{}/{}{}", target.bucket, target.prefix, request.name), true));
    add(headers, "x-amz-metadata-directive", "REPLACE");
  }
  add(headers, "host", target.host);
  add(headers, "x-amz-date", scope.date);
  add(headers, "x-amz-content-sha256", input.payload_hash);
  if (!credentials.session_token.empty()) {
    add(headers, "x-amz-security-token", credentials.session_token);
  }
  HttpRequest made;
  made.method = input.method;
  made.url_for_people = target.origin + uri_encode(input.path, true);
  made.url = made.url_for_people;
  if (!input.query.empty()) made.url.append("?").append(canonical_query(input.query));
  for (const auto& [name, value] : headers)
    made.headers.push_back(fmt::format("{}: {}", name, value));
  made.headers.push_back("authorization: " + authorization(input, scope, credentials));
  // What libcurl would add by itself; an empty one takes it away.
  made.headers.emplace_back("accept:");
  if (plan.op == ObjectOp::kPut || plan.op == ObjectOp::kTouch) {
    made.headers.emplace_back("content-type: application/octet-stream");
    // A large content is sent when the store says that it will take it: it often says that the
    // object is there. A small one is sooner sent than asked for.
    if (request.bytes() < kExpectBytes) made.headers.emplace_back("expect:");
  }
  return made;
}

}  // namespace terrace::transfer::s3
