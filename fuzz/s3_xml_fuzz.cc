#include <cstdlib>

#include "terrace/transfer/backends/s3/xml_internal.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size);
int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  namespace s3 = terrace::transfer::s3;
  const std::string_view xml(reinterpret_cast<const char*>(data), size);
  const auto page = s3::parse_list(xml);
  // A page is bounded and goes on only where it says so; anything else is corrupt.
  if (page && page->found.size() > terrace::transfer::kMostListed) std::abort();
  if (!page && page.error().code() != terrace::Code::kCorrupt) std::abort();
  const s3::ErrorText error = s3::parse_error(xml);
  if (error.code.size() > 64 || error.message.size() > 200) std::abort();
  (void)s3::parse_iso_date(xml);
  (void)s3::parse_http_date(xml);
  return 0;
}
