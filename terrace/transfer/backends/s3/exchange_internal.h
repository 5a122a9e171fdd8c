// One request on its way: its handle of libcurl, where its bytes come from or go to, its answer.
// Threading: the store's thread alone.  Owns: the handle.  Waits: never.
// Memory: the pieces of the request are touched between begin() and take(), never after.
#pragma once

#include <array>
#include <memory>
#include <string>

#include "terrace/transfer/backends/s3/answer_internal.h"
#include "terrace/transfer/backends/s3/curl_library_internal.h"
#include "terrace/transfer/backends/s3/digest_internal.h"
#include "terrace/transfer/backends/s3/request_internal.h"

namespace terrace::transfer::s3 {

class Exchange {
 public:
  Exchange(const CurlLibrary& curl, const S3Options& options, const Target& target);
  Exchange(const Exchange&) = delete;
  Exchange& operator=(const Exchange&) = delete;
  ~Exchange();

  // Errors: kExhausted when libcurl gets no memory.
  [[nodiscard]] Status open();
  [[nodiscard]] CURL* handle() const { return easy_; }

  void begin(ObjectRequest request);
  [[nodiscard]] const ObjectRequest& request() const { return request_; }
  // The sums of a put's content, so many bytes at a time. True = all of it was seen.
  bool sum_up(std::size_t most_bytes);
  // Makes the handle ready for multi_add_handle. Errors: kExhausted.
  [[nodiscard]] Status prepare(RequestPlan wanted, const S3Credentials& keys,
                               std::int64_t now_seconds);
  // What became of it, once libcurl says that it is over.
  [[nodiscard]] ObjectAnswer conclude(CURLcode code, std::int64_t now_seconds) const;
  [[nodiscard]] bool may_lack_conditions(CURLcode code) const;
  [[nodiscard]] bool refuses_credentials(CURLcode code) const;
  // A kept connection had ended before the request came: it is worth another, new one.
  [[nodiscard]] bool met_closed_connection(CURLcode code) const;
  // `put http://…/name`, for a message about an end that no answer brought.
  [[nodiscard]] std::string text() const;
  // Ends it: the request goes back, with its pieces.
  [[nodiscard]] ObjectRequest take();

  bool is_busy = false;
  bool is_added = false;    // To the multi handle.
  bool is_summing = false;  // Not yet through with sum_up().
  bool was_renewed = false;
  bool needs_connection = false;  // A new one.
  RequestPlan plan{};
  S3Credentials credentials;  // That it was signed with.

 private:
  struct Cursor {  // In the pieces.
    std::size_t piece = 0;
    std::size_t offset = 0;
  };
  template <typename Move>
  std::size_t walk(Cursor& cursor, std::size_t most, Move&& move) const;
  void set_handle(const HttpRequest& http);
  void set_limits();
  bool take_header(std::string_view line);
  std::size_t take_body(const char* data, std::size_t bytes);
  std::size_t give_body(char* data, std::size_t bytes);
  [[nodiscard]] bool is_through(CURLcode code) const;
  [[nodiscard]] Asked asked(std::int64_t now_seconds) const;

  static curl_socket_t on_open(void* self, curlsocktype purpose, curl_sockaddr* address);
  static std::size_t on_header(char* data, std::size_t size, std::size_t count, void* self);
  static std::size_t on_body(char* data, std::size_t size, std::size_t count, void* self);
  static std::size_t on_read(char* data, std::size_t size, std::size_t count, void* self);
  static int on_seek(void* self, curl_off_t offset, int origin);

  const CurlLibrary& curl_;
  const S3Options& options_;
  const Target& target_;
  CURL* easy_ = nullptr;
  curl_slist* headers_ = nullptr;
  ObjectRequest request_;
  std::string url_;  // For people.
  Cursor cursor_;
  std::uint64_t moved_ = 0;
  Sha256 sha256_;
  std::uint32_t crc32c_ = 0;
  ContentSums sums_;
  Reply reply_;
  std::size_t header_bytes_ = 0;
  bool has_headers_ = false;   // Of the final answer.
  bool is_kept_ = true;        // The connection: it was there before.
  bool is_cut_ = false;        // We had enough of the body.
  bool lacks_memory_ = false;  // We broke it off for that,
  Status verdict_;             // or for this.
  std::array<char, CURL_ERROR_SIZE> reason_{};
};

}  // namespace terrace::transfer::s3
