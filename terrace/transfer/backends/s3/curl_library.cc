#include <dlfcn.h>
#include <fmt/format.h>

#include "terrace/base/mutex.h"
#include "terrace/transfer/backends/s3/curl_library_internal.h"

namespace terrace::transfer::s3 {

namespace {

constexpr std::string_view kWayOut =
    "install libcurl 7.68 or newer with TLS (Debian and Ubuntu: libcurl4, Fedora and RHEL: "
    "libcurl)";

template <typename Function>
bool find(void* library, const char* name, Function& function) {
  function = reinterpret_cast<Function>(::dlsym(library, name));
  return function != nullptr;
}

// The name of what is not there; null = everything is.
const char* find_all(void* library, CurlLibrary& curl) {
  const char* missing = nullptr;
  const auto need = [&](const char* name, auto& function) {
    if (!find(library, name, function) && missing == nullptr) missing = name;
  };
  need("curl_global_init", curl.global_init);
  need("curl_version_info", curl.version_info);
  need("curl_easy_init", curl.easy_init);
  need("curl_easy_reset", curl.easy_reset);
  need("curl_easy_cleanup", curl.easy_cleanup);
  need("curl_easy_setopt", curl.easy_setopt);
  need("curl_easy_strerror", curl.easy_strerror);
  need("curl_slist_append", curl.slist_append);
  need("curl_slist_free_all", curl.slist_free_all);
  need("curl_multi_init", curl.multi_init);
  need("curl_multi_cleanup", curl.multi_cleanup);
  need("curl_multi_setopt", curl.multi_setopt);
  need("curl_multi_add_handle", curl.multi_add_handle);
  need("curl_multi_remove_handle", curl.multi_remove_handle);
  need("curl_multi_perform", curl.multi_perform);
  need("curl_multi_poll", curl.multi_poll);
  need("curl_multi_wakeup", curl.multi_wakeup);
  need("curl_multi_info_read", curl.multi_info_read);
  return missing;
}

}  // namespace

Result<CurlLibrary> open_curl(const char* name) {
  // Local: what the host has under these names stays the host's. Never closed: TLS libraries below
  // it leave handlers behind that must find their code.
  void* library = ::dlopen(name, RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE);
  if (library == nullptr) {
    const char* reason = ::dlerror();
    return fail(Code::kUnavailable,
                fmt::format("s3 needs {}: {}; {}", name, reason == nullptr ? "?" : reason, kWayOut),
                Scope::kNode);
  }
  CurlLibrary curl;
  if (const char* missing = find_all(library, curl); missing != nullptr) {
    return fail(Code::kUnavailable, fmt::format("{} has no {}; {}", name, missing, kWayOut),
                Scope::kNode);
  }
  return curl;
}

Status check_curl(const curl_version_info_data& facts, bool needs_tls) {
  if (facts.version_num < kOldestCurl) {
    return {Code::kUnavailable,
            fmt::format("{} is version {}, too old for s3; {}", kCurlName, facts.version, kWayOut),
            Scope::kNode};
  }
  if (needs_tls && (facts.features & CURL_VERSION_SSL) == 0) {
    return {Code::kUnavailable,
            fmt::format("{} was built without TLS, which https needs; {}", kCurlName, kWayOut),
            Scope::kNode};
  }
  return {};
}

Result<const CurlLibrary*> load_curl() {
  // Once in a process, as libcurl's own state is; before 7.84 its initialization is not safe
  // against others', which is why it happens here and not at the first request.
  static Mutex mutex;
  static CurlLibrary loaded;
  const MutexLock lock(mutex);
  if (loaded.version != 0) return &loaded;
  TERRACE_ASSIGN_OR_RETURN(CurlLibrary curl, open_curl(kCurlName));
  const curl_version_info_data* facts = curl.version_info(CURLVERSION_NOW);
  TERRACE_RETURN_IF_ERROR(check_curl(*facts, false));
  if (const CURLcode code = curl.global_init(CURL_GLOBAL_DEFAULT); code != CURLE_OK) {
    return fail(Code::kUnavailable,
                fmt::format("curl_global_init: {}; {}", curl.easy_strerror(code), kWayOut),
                Scope::kNode);
  }
  curl.version = facts->version_num;
  loaded = curl;
  return &loaded;
}

}  // namespace terrace::transfer::s3
