#include <fmt/format.h>

#include <algorithm>

#include "terrace/transfer/backends/s3/answer_internal.h"

namespace terrace::transfer::s3 {

namespace {

constexpr std::int64_t kMostRetrySeconds = 3600;
constexpr std::size_t kMostValueBytes = 256;  // Of a header that we keep.

bool is_among(std::string_view word, std::initializer_list<std::string_view> words) {
  return std::ranges::find(words, word) != words.end();
}

std::string lower(std::string_view text) {
  std::string made(text.substr(0, 64));
  for (char& byte : made) {
    if (byte >= 'A' && byte <= 'Z') byte = static_cast<char>(byte - 'A' + 'a');
  }
  return made;
}

// What the way to the store has made of an answer, or the store itself; of the object it says
// nothing.
Status senseless(const Asked& asked, std::string_view what) {
  return {Code::kIo, fmt::format("{} {}: {}", to_string(asked.op), asked.url, what)};
}

// What a code of the store's means, whatever the HTTP status beside it; kOk = it says nothing.
Code code_of_error(std::string_view error) {
  if (is_among(error, {"SlowDown", "ServiceUnavailable", "InternalError", "RequestTimeout",
                       "ThrottlingException", "Throttling", "OperationAborted",
                       "ConditionalRequestConflict", "TooManyRequests"})) {
    return Code::kUnavailable;
  }
  if (is_among(error, {"QuotaExceeded", "QuotaExceededException", "XMinioAdminBucketQuotaExceeded",
                       "XMinioStorageFull", "InsufficientStorage"})) {
    return Code::kExhausted;
  }
  if (is_among(error, {"ExpiredToken", "InvalidToken", "TokenRefreshRequired", "AccessDenied",
                       "InvalidAccessKeyId", "SignatureDoesNotMatch", "RequestTimeTooSkewed",
                       "AuthorizationHeaderMalformed", "AccountProblem", "InvalidSecurity"})) {
    return Code::kRefused;
  }
  if (is_among(error, {"BadDigest", "XAmzContentSHA256Mismatch", "InvalidDigest", "IncompleteBody",
                       "InvalidRange"})) {
    return Code::kCorrupt;
  }
  if (error == "NoSuchBucket") return Code::kIo;
  return Code::kOk;
}

Code code_of_http(long http, ObjectOp op) {
  switch (http) {
    case 401:
    case 403:
      return Code::kRefused;
    case 404:
      // A bucket that is not there is no absent object.
      return op == ObjectOp::kGet || op == ObjectOp::kHead || op == ObjectOp::kTouch
                 ? Code::kNotFound
                 : Code::kIo;
    case 416:
      return Code::kCorrupt;
    case 507:
      return Code::kExhausted;
    case 408:
    case 409:
    case 425:
    case 429:
    case 500:
    case 502:
    case 503:
    case 504:
      return Code::kUnavailable;
    default:
      return Code::kIo;
  }
}

// Its answer has no body, so that an expired token, told with 400, looks like any bad request.
bool is_silent_head(const Reply& reply, ObjectOp op, std::string_view error) {
  return op == ObjectOp::kHead && reply.http == 400 && error.empty();
}

std::string advice(const Reply& reply, ObjectOp op, std::string_view error) {
  if (is_silent_head(reply, op, error)) {
    const std::string region =
        reply.bucket_region.empty()
            ? ""
            : fmt::format("; the bucket lies in region {}", reply.bucket_region);
    return "; perhaps expired credentials: the answer to a HEAD does not say why" + region;
  }
  if (error == "RequestTimeTooSkewed") {
    return "; this machine's clock differs from the store's: set it";
  }
  if (!reply.bucket_region.empty() &&
      (reply.http / 100 == 3 || error == "AuthorizationHeaderMalformed")) {
    return fmt::format("; the bucket lies in region {}", reply.bucket_region);
  }
  if (reply.http / 100 == 3) return "; redirects are not followed: the endpoint or region is wrong";
  if (error == "NoSuchBucket") return "; make the bucket, or name another";
  return {};
}

Nanoseconds retry_after(const Reply& reply, std::int64_t now_seconds) {
  std::int64_t patience = 0;
  if (const auto number = parse_number(reply.retry_after)) {
    patience = static_cast<std::int64_t>(*number);
  } else if (const auto date = parse_http_date(reply.retry_after)) {
    patience = *date - now_seconds;
  }
  return seconds(std::clamp<std::int64_t>(patience, 0, kMostRetrySeconds));
}

ObjectAnswer failed(const Reply& reply, const Asked& asked) {
  ObjectAnswer answer;
  const ErrorText error = parse_error(reply.body);
  Code code = code_of_error(error.code);
  if (is_silent_head(reply, asked.op, error.code)) code = Code::kRefused;
  if (code == Code::kOk) code = code_of_http(reply.http, asked.op);
  const bool is_wide = code == Code::kUnavailable || code == Code::kRefused ||
                       code == Code::kExhausted || error.code == "NoSuchBucket";
  std::string text = fmt::format("{} {}: {}", to_string(asked.op), asked.url, reply.http);
  if (!error.code.empty()) text += " " + error.code;
  if (!error.message.empty()) text += " (" + error.message + ")";
  text += advice(reply, asked.op, error.code);
  answer.status = {code, std::move(text), is_wide ? Scope::kBackend : Scope::kBlock};
  if (code == Code::kUnavailable) answer.retry_after = retry_after(reply, asked.now_seconds);
  return answer;
}

// The last byte of an object that ends within the range from `offset` on, as an answer to that
// tells: "bytes 5-13/14". Nothing = it tells no such thing.
std::optional<std::uint64_t> end_of_object(std::string_view range, std::uint64_t offset) {
  const std::string start = fmt::format("bytes {}-", offset);
  if (!range.starts_with(start)) return std::nullopt;
  range.remove_prefix(start.size());
  const std::size_t slash = range.find('/');
  if (slash == std::string_view::npos) return std::nullopt;
  const auto last = parse_number(range.substr(0, slash));
  const auto total = parse_number(range.substr(slash + 1));
  if (!last || !total || *last < offset || *total == 0 || *last != *total - 1) return std::nullopt;
  return *last;
}

ObjectAnswer judge_head(const Reply& reply, const Asked& asked) {
  ObjectAnswer answer;
  const auto length = parse_number(reply.content_length.value_or(""));
  const auto date = parse_http_date(reply.last_modified);
  if (!length || !date) {
    answer.status = senseless(asked, "no Content-Length or Last-Modified that makes sense");
    return answer;
  }
  answer.info = {asked.request.name, *length, *date};
  return answer;
}

ObjectAnswer judge_list(const Reply& reply, const Asked& asked) {
  ObjectAnswer answer;
  if (reply.body.size() >= reply.body_limit) {
    answer.status = senseless(asked, "a listing that does not end");
    return answer;
  }
  auto page = parse_list(reply.body);
  if (!page) {
    answer.status = senseless(asked, page.error().message());
    return answer;
  }
  if (!page->next.empty() && page->next == asked.request.after) {
    answer.status = senseless(asked, "a page whose next one is itself");
    return answer;
  }
  const std::string start = std::string(asked.prefix) + asked.request.name;
  for (ObjectInfo& info : page->found) {
    if (!info.name.starts_with(start)) {
      answer.status = senseless(asked, "a name that does not begin as asked");
      return answer;
    }
    info.name.erase(0, asked.prefix.size());
    // What others put into the bucket has names that are none of ours.
    if (check_object_name(info.name).is_ok()) answer.found.push_back(std::move(info));
  }
  answer.next = std::move(page->next);
  return answer;
}

}  // namespace

void Reply::take_header(std::string_view line) {
  if (line.starts_with("HTTP/")) {
    const std::size_t limit = body_limit;
    *this = Reply{};
    body_limit = limit;
    const std::size_t space = line.find(' ');
    const auto code =
        parse_number(space == std::string_view::npos ? "" : line.substr(space + 1, 3));
    http = code ? static_cast<long>(*code) : 0;
    return;
  }
  const std::size_t colon = line.find(':');
  if (colon == std::string_view::npos) return;
  const std::string name = lower(line.substr(0, colon));
  std::string_view rest = line.substr(colon + 1);
  while (rest.starts_with(' ') || rest.starts_with('\t')) rest.remove_prefix(1);
  while (rest.ends_with(' ') || rest.ends_with('\t')) rest.remove_suffix(1);
  const std::string value(rest.substr(0, kMostValueBytes));
  if (name == "content-length") {
    // Two that differ: one of them lies.
    content_length = content_length && *content_length != value ? "two of them" : value;
  }
  if (name == "content-range") content_range = value;
  if (name == "last-modified") last_modified = value;
  if (name == "retry-after") retry_after = value;
  if (name == "x-amz-bucket-region" &&
      value.find_first_not_of("abcdefghijklmnopqrstuvwxyz0123456789-") == std::string::npos) {
    bucket_region = value;
  }
}

Status check_range(const Reply& reply, const Asked& asked) {
  if (reply.http != 206) {
    return senseless(asked, fmt::format("answered {} to a range", reply.http));
  }
  const std::uint64_t length = asked.request.bytes();
  const std::uint64_t last = asked.request.offset + length - 1;
  const std::string wanted = fmt::format("bytes {}-{}/", asked.request.offset, last);
  if (!reply.content_range.starts_with(wanted)) {
    if (const auto end = end_of_object(reply.content_range, asked.request.offset);
        end && *end < last) {
      return {Code::kCorrupt,
              fmt::format("{} {}: the object ends at byte {}, within the range '{}…'",
                          to_string(asked.op), asked.url, *end, wanted)};
    }
    std::string shown;
    for (const char byte : reply.content_range.substr(0, 60)) {
      shown += byte >= ' ' && byte <= '~' ? byte : '?';
    }
    return senseless(asked, fmt::format("answered '{}' to the range '{}…'", shown, wanted));
  }
  // Without a length the body is in parts, and counted.
  if (!reply.content_length) return {};
  const auto told = parse_number(*reply.content_length);
  if (told && *told == length) return {};
  return senseless(asked, fmt::format("Content-Length is not the {} bytes of the range", length));
}

ObjectAnswer judge(const Reply& reply, const Asked& asked) {
  ObjectAnswer answer;
  if (asked.request.op == ObjectOp::kPut && asked.op == ObjectOp::kPut && reply.http == 412) {
    answer.was_there = true;
    return answer;
  }
  if (asked.op == ObjectOp::kRemove && reply.http == 404 &&
      parse_error(reply.body).code != "NoSuchBucket") {
    return answer;
  }
  if (reply.http < 200 || reply.http > 299) return failed(reply, asked);
  switch (asked.op) {
    case ObjectOp::kPut:
    case ObjectOp::kRemove:
      return answer;
    case ObjectOp::kTouch:
      // A copy begins with 200, and may fail after that.
      return parse_error(reply.body).code.empty() ? answer : failed(reply, asked);
    case ObjectOp::kGet:
      answer.status = check_range(reply, asked);
      return answer;
    case ObjectOp::kHead:
      return judge_head(reply, asked);
    case ObjectOp::kList:
      return judge_list(reply, asked);
  }
  return answer;
}

bool may_lack_conditions(const Reply& reply) {
  if (reply.http == 501) return true;
  return reply.http == 400 &&
         is_among(parse_error(reply.body).code,
                  {"NotImplemented", "InvalidArgument", "InvalidRequest", "MalformedHeader", ""});
}

bool refuses_credentials(const Reply& reply, ObjectOp op) {
  if (reply.http == 401 || reply.http == 403) return true;
  if (reply.http != 400) return false;
  const std::string error = parse_error(reply.body).code;
  return is_silent_head(reply, op, error) ||
         is_among(error, {"ExpiredToken", "InvalidToken", "TokenRefreshRequired"});
}

}  // namespace terrace::transfer::s3
