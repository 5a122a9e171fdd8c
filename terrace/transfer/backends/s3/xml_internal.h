// What S3 answers in XML: a page of a listing, an error. Written for answers that lie: no
// declarations, no entities beyond the five and numbers, no recursion, bounds on everything.
// Threading: pure functions.  Waits: never.  Source: S3 API reference, ListObjectsV2 and Error.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "terrace/transfer/object_store.h"

namespace terrace::transfer::s3 {

struct ListPage {
  std::vector<ObjectInfo> found;  // Names as the bucket has them, decoded.
  std::string next;               // The continuation token; empty = this was the last page.
};
// Errors: kCorrupt, with what is wrong and where.
[[nodiscard]] Result<ListPage> parse_list(std::string_view xml);

struct ErrorText {
  std::string code;     // "SlowDown"; letters and digits alone. Empty: there was none.
  std::string message;  // Printable, short.
};
[[nodiscard]] ErrorText parse_error(std::string_view xml);

// Seconds since 1970. Errors: kCorrupt.
[[nodiscard]] Result<std::int64_t> parse_iso_date(std::string_view text);   // 2009-10-12T17:50:30Z
[[nodiscard]] Result<std::int64_t> parse_http_date(std::string_view text);  // RFC 9110, 5.6.7
// Decimal digits alone, at most 18. Errors: kCorrupt.
[[nodiscard]] Result<std::uint64_t> parse_number(std::string_view text);
[[nodiscard]] Result<std::string> uri_decode(std::string_view text);

}  // namespace terrace::transfer::s3
