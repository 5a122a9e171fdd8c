// The least that gets a range of an object: a signed request by the same libcurl over one kept
// connection, without checks. What a bench compares a store with.
// Threading: one thread.  Waits: until the bytes are there.
#pragma once

#include <fmt/format.h>

#include <cstring>
#include <span>
#include <string>

#include "terrace/base/check.h"
#include "terrace/transfer/backends/s3/curl_library_internal.h"
#include "terrace/transfer/backends/s3/request_internal.h"
#include "terrace/transfer/backends/s3/s3_store.h"
#include "terrace/transfer/backends/s3/sigv4_internal.h"

namespace terrace::transfer::s3 {

class PlainGet {
 public:
  explicit PlainGet(const S3Options& options)
      : curl_(*load_curl().value()), options_(options), target_(make_target(options).value()) {
    multi_ = curl_.multi_init();
    easy_ = curl_.easy_init();
  }
  PlainGet(const PlainGet&) = delete;
  PlainGet& operator=(const PlainGet&) = delete;
  ~PlainGet() {
    curl_.easy_cleanup(easy_);
    curl_.slist_free_all(headers_);
    (void)curl_.multi_cleanup(multi_);
  }

  void get(const std::string& name, std::uint64_t offset, std::span<std::byte> into) {
    into_ = into;
    at_ = 0;
    begin(name, offset);
    (void)curl_.multi_add_handle(multi_, easy_);
    for (int running = 1; running > 0;) {
      (void)curl_.multi_perform(multi_, &running);
      if (running > 0) (void)curl_.multi_poll(multi_, nullptr, 0, 1000, nullptr);
    }
    (void)curl_.multi_remove_handle(multi_, easy_);
    TERRACE_CHECK(at_ == into_.size());
  }

 private:
  static std::size_t take(char* data, std::size_t size, std::size_t count, void* given) {
    auto& self = *static_cast<PlainGet*>(given);
    if (self.at_ + size * count > self.into_.size()) return 0;
    std::memcpy(self.into_.data() + self.at_, data, size * count);
    self.at_ += size * count;
    return size * count;
  }
  void begin(const std::string& name, std::uint64_t offset) {
    SigningInput input;
    input.method = "GET";
    input.path = fmt::format("{}/{}{}", target_.path_start, target_.prefix, name);
    input.payload_hash = kUnsignedPayload;
    const SigningScope scope{amz_date(SystemClock().wall_seconds()), target_.region};
    input.headers = {{"host", target_.host},
                     {"x-amz-date", scope.date},
                     {"x-amz-content-sha256", input.payload_hash},
                     {"range", fmt::format("bytes={}-{}", offset, offset + into_.size() - 1)}};
    curl_.slist_free_all(headers_);
    headers_ = nullptr;
    for (const auto& [key, value] : input.headers) {
      headers_ = curl_.slist_append(headers_, fmt::format("{}: {}", key, value).c_str());
    }
    const std::string sum = "authorization: " + authorization(input, scope, options_.credentials);
    headers_ = curl_.slist_append(headers_, sum.c_str());
    curl_.easy_reset(easy_);
    const auto set = [&](CURLoption option, auto value) {
      (void)curl_.easy_setopt(easy_, option, value);
    };
    url_ = target_.origin + input.path;
    set(CURLOPT_URL, url_.c_str());
    set(CURLOPT_HTTP_VERSION, static_cast<long>(CURL_HTTP_VERSION_1_1));
    set(CURLOPT_NOSIGNAL, 1L);
    set(CURLOPT_HTTPHEADER, headers_);
    set(CURLOPT_WRITEFUNCTION, &PlainGet::take);
    set(CURLOPT_WRITEDATA, static_cast<void*>(this));
    set(CURLOPT_BUFFERSIZE, 256L << 10U);
  }

  const CurlLibrary& curl_;
  const S3Options options_;
  const Target target_;
  CURLM* multi_ = nullptr;
  CURL* easy_ = nullptr;
  curl_slist* headers_ = nullptr;
  std::string url_;
  std::span<std::byte> into_;
  std::size_t at_ = 0;
};

}  // namespace terrace::transfer::s3
