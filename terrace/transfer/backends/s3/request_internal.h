// One object request as HTTP: where it goes, its headers, its signature.
// Threading: pure functions.  Waits: never.  Source: S3 API reference.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "terrace/transfer/backends/s3/s3_store.h"

namespace terrace::transfer::s3 {

struct Target {
  std::string origin;      // "https://bucket.host:9000", without a slash at its end.
  std::string host;        // "bucket.host:9000", as the header Host has it.
  std::string path_start;  // "/bucket" or empty.
  std::string bucket;
  std::string prefix;  // "team/kv/" or empty.
  std::string region;
  std::string place;  // For people: "s3://bucket/team/kv at https://host:9000".
  bool is_tls = false;
};
// Errors: kInvalid, with the option's name and value.
[[nodiscard]] Result<Target> make_target(const S3Options& options);

// What a put says of its content.
struct ContentSums {
  std::string sha256_hex;  // Empty: not signed.
  std::string crc32c_base64;
};

struct HttpRequest {
  std::string method;
  std::string url;
  std::string url_for_people;        // Without a query.
  std::vector<std::string> headers;  // "name: value"; the signature and the token are among them.
};

struct RequestPlan {
  ObjectOp op;          // kHead for the look before a put without a condition.
  bool is_conditional;  // kPut: only if it is absent.
};
[[nodiscard]] HttpRequest make_request(const Target& target, const ObjectRequest& request,
                                       const RequestPlan& plan, const ContentSums& sums,
                                       const S3Credentials& credentials, std::int64_t now_seconds);

}  // namespace terrace::transfer::s3
