// What an HTTP answer means for the request. Believes nothing that contradicts itself.
// Threading: pure functions.  Waits: never.  Source: S3 API reference, Error responses; RFC 9110.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "terrace/transfer/backends/s3/xml_internal.h"
#include "terrace/transfer/object_store.h"

namespace terrace::transfer::s3 {

inline constexpr std::size_t kMostListBytes = 4U << 20U;  // 1000 names of 1 KiB, each byte as %XX.
inline constexpr std::size_t kMostErrorBytes = 64U << 10U;
inline constexpr std::size_t kMostHeaderBytes = 64U << 10U;

struct Reply {
  long http = 0;  // 0: no status line yet.
  std::optional<std::string> content_length;
  std::string content_range;
  std::string last_modified;
  std::string retry_after;
  std::string bucket_region;
  std::string body;  // Of listings and errors, cut at the bounds above.
  std::size_t body_limit = kMostErrorBytes;

  // One header line, without its end; a status line begins anew.
  void take_header(std::string_view line);
};

struct Asked {
  const ObjectRequest& request;
  ObjectOp op;              // kHead for the look before a put without a condition.
  std::string_view prefix;  // Of the store, in front of all names: "team/kv/".
  std::string_view url;
  std::int64_t now_seconds = 0;
};

// Whether the answer to a get has the bytes that were asked for, and these alone.
// Errors: kCorrupt = the object is shorter; kIo = it is no answer to that.
[[nodiscard]] Status check_range(const Reply& reply, const Asked& asked);
// Of an answer that came to its end.
[[nodiscard]] ObjectAnswer judge(const Reply& reply, const Asked& asked);

// The store does not know If-None-Match at a put, or, perhaps, these credentials any more. `op` as
// in Asked.
[[nodiscard]] bool may_lack_conditions(const Reply& reply);
[[nodiscard]] bool refuses_credentials(const Reply& reply, ObjectOp op);

}  // namespace terrace::transfer::s3
