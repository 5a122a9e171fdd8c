// libcurl, found at run time: the shipped library does not link it, and who uses no S3 needs none.
// Threading: load_curl() is thread-safe.  Waits: never.  Owns: nothing; a loaded libcurl stays.
#pragma once

#include <curl/curl.h>

#include "terrace/base/status.h"

namespace terrace::transfer::s3 {

struct CurlLibrary {
  decltype(&::curl_global_init) global_init = nullptr;
  decltype(&::curl_version_info) version_info = nullptr;
  decltype(&::curl_easy_init) easy_init = nullptr;
  decltype(&::curl_easy_reset) easy_reset = nullptr;
  decltype(&::curl_easy_cleanup) easy_cleanup = nullptr;
  CURLcode (*easy_setopt)(CURL*, CURLoption, ...) = nullptr;
  decltype(&::curl_easy_strerror) easy_strerror = nullptr;
  decltype(&::curl_slist_append) slist_append = nullptr;
  decltype(&::curl_slist_free_all) slist_free_all = nullptr;
  decltype(&::curl_multi_init) multi_init = nullptr;
  decltype(&::curl_multi_cleanup) multi_cleanup = nullptr;
  CURLMcode (*multi_setopt)(CURLM*, CURLMoption, ...) = nullptr;
  decltype(&::curl_multi_add_handle) multi_add_handle = nullptr;
  decltype(&::curl_multi_remove_handle) multi_remove_handle = nullptr;
  decltype(&::curl_multi_perform) multi_perform = nullptr;
  decltype(&::curl_multi_poll) multi_poll = nullptr;
  decltype(&::curl_multi_wakeup) multi_wakeup = nullptr;
  decltype(&::curl_multi_info_read) multi_info_read = nullptr;
  unsigned version = 0;  // 0x075801 = 7.88.1
};

inline constexpr unsigned kOldestCurl = 0x074400;  // 7.68.0: curl_multi_wakeup.
inline constexpr const char* kCurlName = "libcurl.so.4";

// Loads and initializes it once in the process. Errors: kUnavailable, with the package to install.
[[nodiscard]] Result<const CurlLibrary*> load_curl();
// The parts of it, for tests. `needs_tls`: the endpoint is https.
[[nodiscard]] Result<CurlLibrary> open_curl(const char* name);
[[nodiscard]] Status check_curl(const curl_version_info_data& facts, bool needs_tls);

}  // namespace terrace::transfer::s3
