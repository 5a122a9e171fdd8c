// AWS Signature Version 4 in the header Authorization, over the whole payload or none of it.
// Threading: pure functions.  Waits: never.
// Source: AWS, "Signature Calculations for the Authorization Header" (S3 API reference).
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "terrace/transfer/backends/s3/s3_store.h"

namespace terrace::transfer::s3 {

using TextPair = std::pair<std::string, std::string>;

struct SigningInput {
  std::string method;
  std::string path;               // Not encoded, from the first slash on.
  std::vector<TextPair> query;    // Not encoded, in any order.
  std::vector<TextPair> headers;  // All are signed; `host` and `x-amz-date` are among them.
  std::string payload_hash;       // 64 hex digits, or kUnsignedPayload.
};
inline constexpr std::string_view kUnsignedPayload = "UNSIGNED-PAYLOAD";

struct SigningScope {
  std::string date;  // "20130524T000000Z", the same as x-amz-date.
  std::string region;
  std::string service = "s3";
};

// All but letters, digits and "-._~" become %XX; '/' stays where `keeps_slashes`.
[[nodiscard]] std::string uri_encode(std::string_view text, bool keeps_slashes);
// Encoded and sorted, as in the signature and in the address.
[[nodiscard]] std::string canonical_query(const std::vector<TextPair>& query);
[[nodiscard]] std::string canonical_request(const SigningInput& input);
// The value of the header Authorization.
[[nodiscard]] std::string authorization(const SigningInput& input, const SigningScope& scope,
                                        const S3Credentials& credentials);
// "20130524T000000Z" of seconds since 1970.
[[nodiscard]] std::string amz_date(std::int64_t unix_seconds);

}  // namespace terrace::transfer::s3
