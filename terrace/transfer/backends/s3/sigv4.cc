#include <fmt/format.h>

#include <algorithm>
#include <ctime>
#include <map>

#include "terrace/transfer/backends/s3/digest_internal.h"
#include "terrace/transfer/backends/s3/sigv4_internal.h"

namespace terrace::transfer::s3 {

namespace {

bool is_unreserved(char byte) {
  return (byte >= 'A' && byte <= 'Z') || (byte >= 'a' && byte <= 'z') ||
         (byte >= '0' && byte <= '9') || byte == '-' || byte == '.' || byte == '_' || byte == '~';
}

std::string lower(std::string_view text) {
  std::string made(text);
  for (char& byte : made) {
    if (byte >= 'A' && byte <= 'Z') byte = static_cast<char>(byte - 'A' + 'a');
  }
  return made;
}

// Without spaces at the ends; several in a row are one.
std::string trimmed(std::string_view value) {
  std::string made;
  for (const char byte : value) {
    if (byte == ' ' && (made.empty() || made.back() == ' ')) continue;
    made += byte;
  }
  if (made.ends_with(' ')) made.pop_back();
  return made;
}

// By name; several values of one name in their order.
std::map<std::string, std::string> canonical_headers(const std::vector<TextPair>& headers) {
  std::map<std::string, std::string> made;
  for (const auto& [name, value] : headers) {
    const auto [place, is_new] = made.emplace(lower(name), trimmed(value));
    if (!is_new) place->second.append(",").append(trimmed(value));
  }
  return made;
}

std::string signed_names(const std::map<std::string, std::string>& headers) {
  std::string names;
  for (const auto& [name, value] : headers) {
    if (!names.empty()) names += ';';
    names += name;
  }
  return names;
}

std::span<const unsigned char> bytes_of(std::string_view text) {
  return {reinterpret_cast<const unsigned char*>(text.data()), text.size()};
}

}  // namespace

std::string uri_encode(std::string_view text, bool keeps_slashes) {
  std::string made;
  for (const char byte : text) {
    if (is_unreserved(byte) || (byte == '/' && keeps_slashes)) {
      made += byte;
    } else {
      made += fmt::format("%{:02X}", static_cast<unsigned char>(byte));
    }
  }
  return made;
}

std::string canonical_query(const std::vector<TextPair>& query) {
  std::vector<TextPair> encoded;
  encoded.reserve(query.size());
  for (const auto& [name, value] : query) {
    encoded.emplace_back(uri_encode(name, false), uri_encode(value, false));
  }
  std::ranges::sort(encoded);
  std::string text;
  for (const auto& [name, value] : encoded) {
    if (!text.empty()) text += '&';
    text.append(name).append("=").append(value);
  }
  return text;
}

std::string canonical_request(const SigningInput& input) {
  const auto headers = canonical_headers(input.headers);
  std::string text = fmt::format("{}\n{}\n{}\n", input.method, uri_encode(input.path, true),
                                 canonical_query(input.query));
  for (const auto& [name, value] : headers) text += fmt::format("{}:{}\n", name, value);
  return fmt::format("{}\n{}\n{}", text, signed_names(headers), input.payload_hash);
}

std::string authorization(const SigningInput& input, const SigningScope& scope,
                          const S3Credentials& credentials) {
  const std::string day = scope.date.substr(0, 8);
  const std::string place = fmt::format("{}/{}/{}/aws4_request", day, scope.region, scope.service);
  const std::string to_sign = fmt::format("AWS4-HMAC-SHA256\n{}\n{}\n{}", scope.date, place,
                                          sha256_hex(canonical_request(input)));
  const std::string secret = fmt::format("AWS4{}", credentials.secret_key);
  Sha256Digest key = hmac_sha256(bytes_of(secret), day);
  key = hmac_sha256(key, scope.region);
  key = hmac_sha256(key, scope.service);
  key = hmac_sha256(key, "aws4_request");
  return fmt::format("AWS4-HMAC-SHA256 Credential={}/{}, SignedHeaders={}, Signature={}",
                     credentials.key_id, place, signed_names(canonical_headers(input.headers)),
                     hex(hmac_sha256(key, to_sign)));
}

std::string amz_date(std::int64_t unix_seconds) {
  const std::time_t seconds = unix_seconds;
  std::tm parts{};
  if (::gmtime_r(&seconds, &parts) == nullptr) return "19700101T000000Z";
  return fmt::format("{:04}{:02}{:02}T{:02}{:02}{:02}Z", parts.tm_year + 1900, parts.tm_mon + 1,
                     parts.tm_mday, parts.tm_hour, parts.tm_min, parts.tm_sec);
}

}  // namespace terrace::transfer::s3
