#include <fmt/format.h>
#include <sys/socket.h>

#include <algorithm>
#include <cstring>

#include "terrace/transfer/backends/s3/exchange_internal.h"

namespace terrace::transfer::s3 {

namespace {

constexpr long kBufferBytes = 256L << 10U;
constexpr unsigned kCurlWithNames = 0x075500;  // 7.85.0: protocols by name.
constexpr unsigned kCurlWithQuickExit = 0x075700;
// By number, as older headers and compilers that mind deprecations know only one of the two.
constexpr auto kOldProtocols = static_cast<CURLoption>(CURLOPTTYPE_LONG + 181);
constexpr auto kProtocolNames = static_cast<CURLoption>(CURLOPTTYPE_STRINGPOINT + 318);
constexpr auto kQuickExit = static_cast<CURLoption>(CURLOPTTYPE_LONG + 322);

Code code_of(CURLcode code) {
  switch (static_cast<int>(code)) {
    case CURLE_COULDNT_RESOLVE_PROXY:
    case CURLE_COULDNT_RESOLVE_HOST:
    case CURLE_COULDNT_CONNECT:
    case CURLE_OPERATION_TIMEDOUT:
    case CURLE_PARTIAL_FILE:  // The connection ended inside an answer that had begun well.
    case CURLE_GOT_NOTHING:
    case CURLE_SEND_ERROR:
    case CURLE_RECV_ERROR:
    case CURLE_SSL_CONNECT_ERROR:
    case CURLE_SEND_FAIL_REWIND:
      return Code::kUnavailable;
    case CURLE_PEER_FAILED_VERIFICATION:
    case CURLE_SSL_CACERT_BADFILE:
    case CURLE_SSL_CERTPROBLEM:
      return Code::kRefused;
    default:  // No HTTP/1, no memory, …: none of it says anything of the object.
      return Code::kIo;
  }
}

}  // namespace

Exchange::Exchange(const CurlLibrary& curl, const S3Options& options, const Target& target)
    : curl_(curl), options_(options), target_(target) {}

Exchange::~Exchange() {
  if (easy_ != nullptr) curl_.easy_cleanup(easy_);
  curl_.slist_free_all(headers_);
}

Status Exchange::open() {
  easy_ = curl_.easy_init();
  if (easy_ == nullptr) return {Code::kExhausted, "curl_easy_init: no memory", Scope::kBackend};
  return {};
}

void Exchange::begin(ObjectRequest request) {
  request_ = std::move(request);
  is_busy = true;
  url_ = target_.origin + target_.path_start + "/" + target_.prefix + request_.name;
  is_summing = request_.op == ObjectOp::kPut;
  was_renewed = false;
  needs_connection = false;
  cursor_ = {};
  sha256_ = Sha256();
  crc32c_ = 0;
  sums_ = {};
}

template <typename Move>
std::size_t Exchange::walk(Cursor& cursor, std::size_t most, Move&& move) const {
  std::size_t done = 0;
  while (done < most && cursor.piece < request_.pieces.size()) {
    const MemoryPiece& piece = request_.pieces[cursor.piece];
    const std::size_t bytes = std::min(most - done, piece.bytes - cursor.offset);
    if (bytes > 0) move(piece.data + cursor.offset, done, bytes);
    done += bytes;
    cursor.offset += bytes;
    if (cursor.offset == piece.bytes) cursor = {cursor.piece + 1, 0};
  }
  return done;
}

bool Exchange::sum_up(std::size_t most_bytes) {
  walk(cursor_, most_bytes, [this](std::byte* data, std::size_t, std::size_t bytes) {
    const std::span<const std::byte> seen(data, bytes);
    if (options_.signs_payload) sha256_.update(seen);
    crc32c_ = crc32c(crc32c_, seen);
  });
  if (cursor_.piece < request_.pieces.size()) return false;
  if (options_.signs_payload) sums_.sha256_hex = hex(sha256_.finish());
  sums_.crc32c_base64 = crc32c_base64(crc32c_);
  is_summing = false;
  return true;
}

Status Exchange::prepare(RequestPlan wanted, const S3Credentials& keys, std::int64_t now_seconds) {
  plan = wanted;
  credentials = keys;
  const HttpRequest http = make_request(target_, request_, plan, sums_, keys, now_seconds);
  url_ = http.url_for_people;
  cursor_ = {};
  moved_ = 0;
  reply_ = Reply{};
  reply_.body_limit = plan.op == ObjectOp::kList ? kMostListBytes : kMostErrorBytes;
  header_bytes_ = 0;
  has_headers_ = false;
  is_kept_ = true;
  is_cut_ = false;
  lacks_memory_ = false;
  verdict_ = {};
  reason_.fill(0);
  curl_.slist_free_all(headers_);
  headers_ = nullptr;
  for (const std::string& line : http.headers) {
    curl_slist* longer = curl_.slist_append(headers_, line.c_str());
    if (longer == nullptr) return {Code::kExhausted, "curl_slist_append: no memory"};
    headers_ = longer;
  }
  set_handle(http);
  set_limits();
  return {};
}

void Exchange::set_handle(const HttpRequest& http) {
  // Connections outlive this: they belong to the multi handle.
  curl_.easy_reset(easy_);
  const auto set = [this](CURLoption option, auto value) {
    (void)curl_.easy_setopt(easy_, option, value);
  };
  set(CURLOPT_URL, http.url.c_str());
  set(CURLOPT_HTTPHEADER, headers_);
  set(CURLOPT_PRIVATE, static_cast<void*>(this));
  set(CURLOPT_ERRORBUFFER, reason_.data());
  set(CURLOPT_HEADERFUNCTION, &Exchange::on_header);
  set(CURLOPT_HEADERDATA, static_cast<void*>(this));
  set(CURLOPT_WRITEFUNCTION, &Exchange::on_body);
  set(CURLOPT_WRITEDATA, static_cast<void*>(this));
  switch (plan.op) {
    case ObjectOp::kPut:
      set(CURLOPT_UPLOAD, 1L);
      set(CURLOPT_INFILESIZE_LARGE, static_cast<curl_off_t>(request_.bytes()));
      set(CURLOPT_UPLOAD_BUFFERSIZE, kBufferBytes);
      set(CURLOPT_READFUNCTION, &Exchange::on_read);
      set(CURLOPT_READDATA, static_cast<void*>(this));
      set(CURLOPT_SEEKFUNCTION, &Exchange::on_seek);
      set(CURLOPT_SEEKDATA, static_cast<void*>(this));
      break;
    case ObjectOp::kGet:
    case ObjectOp::kList:
      set(CURLOPT_HTTPGET, 1L);
      set(CURLOPT_BUFFERSIZE, kBufferBytes);
      break;
    case ObjectOp::kHead:
      set(CURLOPT_NOBODY, 1L);
      break;
    case ObjectOp::kRemove:
      set(CURLOPT_CUSTOMREQUEST, "DELETE");
      break;
    case ObjectOp::kTouch:
      set(CURLOPT_UPLOAD, 1L);  // Of nothing, with its length said.
      set(CURLOPT_INFILESIZE_LARGE, curl_off_t{0});
      set(CURLOPT_READFUNCTION, &Exchange::on_read);
      set(CURLOPT_READDATA, static_cast<void*>(this));
      break;
  }
}

void Exchange::set_limits() {
  const auto set = [this](CURLoption option, auto value) {
    (void)curl_.easy_setopt(easy_, option, value);
  };
  set(CURLOPT_HTTP_VERSION, static_cast<long>(CURL_HTTP_VERSION_1_1));
  set(CURLOPT_PATH_AS_IS, 1L);
  set(CURLOPT_FOLLOWLOCATION, 0L);
  set(CURLOPT_NOSIGNAL, 1L);
  set(CURLOPT_SUPPRESS_CONNECT_HEADERS, 1L);
  set(CURLOPT_USERAGENT, "terrace");
  set(CURLOPT_PROXY, options_.proxy.c_str());  // Empty: none, not even the environment's.
  set(CURLOPT_OPENSOCKETFUNCTION, &Exchange::on_open);
  set(CURLOPT_OPENSOCKETDATA, static_cast<void*>(this));
  set(CURLOPT_TCP_KEEPALIVE, 1L);
  if (needs_connection) set(CURLOPT_FRESH_CONNECT, 1L);
  if (curl_.version >= kCurlWithNames) {
    set(kProtocolNames, target_.is_tls ? "https" : "http");
  } else {
    set(kOldProtocols, static_cast<long>(target_.is_tls ? CURLPROTO_HTTPS : CURLPROTO_HTTP));
  }
  // A resolver that hangs is left to end by itself, not waited for.
  if (curl_.version >= kCurlWithQuickExit) set(kQuickExit, 1L);
  set(CURLOPT_SSL_VERIFYPEER, 1L);
  set(CURLOPT_SSL_VERIFYHOST, 2L);
  set(CURLOPT_SSLVERSION, static_cast<long>(CURL_SSLVERSION_TLSv1_2));
  if (!options_.ca_file.empty()) set(CURLOPT_CAINFO, options_.ca_file.c_str());
  set(CURLOPT_CONNECTTIMEOUT_MS,
      static_cast<long>(std::max<std::int64_t>(options_.connect_limit.value() / 1'000'000, 1)));
  set(CURLOPT_LOW_SPEED_LIMIT, 1L);
  set(CURLOPT_LOW_SPEED_TIME,
      static_cast<long>(std::max<std::int64_t>(options_.stall_limit.value() / 1'000'000'000, 1)));
}

bool Exchange::take_header(std::string_view line) {
  header_bytes_ += line.size();
  if (header_bytes_ > kMostHeaderBytes) {
    verdict_ = {Code::kIo, text() + ": headers that do not end"};
    return false;
  }
  if (has_headers_) return true;  // Trailers.
  while (line.ends_with('\n') || line.ends_with('\r')) line.remove_suffix(1);
  if (!line.empty()) {
    reply_.take_header(line);
    return true;
  }
  if (reply_.http < 200) return true;  // 100 Continue: the answer comes after it.
  has_headers_ = true;
  if (plan.op == ObjectOp::kGet && reply_.http / 100 == 2) {
    verdict_ = check_range(reply_, asked(0));
  }
  return verdict_.is_ok();
}

std::size_t Exchange::take_body(const char* data, std::size_t bytes) {
  if (plan.op == ObjectOp::kGet && reply_.http == 206) {
    if (bytes > request_.bytes() - moved_) {
      verdict_ = {Code::kIo, text() + ": more bytes than asked for"};
      return 0;
    }
    const std::uint64_t before = moved_;
    moved_ += walk(cursor_, bytes, [data](std::byte* target, std::size_t done, std::size_t part) {
      std::memcpy(target, data + done, part);
    });
    if (request_.arrivals != nullptr) request_.arrivals->on_bytes(before, moved_);
    return bytes;
  }
  const std::size_t room = reply_.body_limit - reply_.body.size();
  reply_.body.append(data, std::min(room, bytes));
  is_cut_ = bytes >= room;
  return is_cut_ ? 0 : bytes;
}

std::size_t Exchange::give_body(char* data, std::size_t bytes) {
  return walk(cursor_, bytes, [data](std::byte* source, std::size_t done, std::size_t part) {
    std::memcpy(data + done, source, part);
  });
}

// Not inherited by what the engine starts.
curl_socket_t Exchange::on_open(void* self, curlsocktype /*purpose*/, curl_sockaddr* address) {
  static_cast<Exchange*>(self)->is_kept_ = false;
  return ::socket(address->family, address->socktype | SOCK_CLOEXEC, address->protocol);
}

std::size_t Exchange::on_header(char* data, std::size_t size, std::size_t count, void* self) {
  try {
    return static_cast<Exchange*>(self)->take_header({data, size * count}) ? size * count : 0;
  } catch (...) {  // Out of memory; nothing may fly through libcurl.
    static_cast<Exchange*>(self)->lacks_memory_ = true;
    return 0;
  }
}

std::size_t Exchange::on_body(char* data, std::size_t size, std::size_t count, void* self) {
  try {
    return static_cast<Exchange*>(self)->take_body(data, size * count);
  } catch (...) {
    static_cast<Exchange*>(self)->lacks_memory_ = true;
    return 0;
  }
}

std::size_t Exchange::on_read(char* data, std::size_t size, std::size_t count, void* self) {
  return static_cast<Exchange*>(self)->give_body(data, size * count);
}

// Back to the start, where libcurl sends it again: a kept connection had been closed meanwhile.
int Exchange::on_seek(void* self, curl_off_t offset, int origin) {
  if (offset != 0 || origin != SEEK_SET) return CURL_SEEKFUNC_CANTSEEK;
  static_cast<Exchange*>(self)->cursor_ = {};
  return CURL_SEEKFUNC_OK;
}

Asked Exchange::asked(std::int64_t now_seconds) const {
  return {request_, plan.op, target_.prefix, url_, now_seconds};
}

std::string Exchange::text() const { return fmt::format("{} {}", to_string(plan.op), url_); }

// The whole answer came, or as much of its body as we wanted.
bool Exchange::is_through(CURLcode code) const {
  return verdict_.is_ok() && has_headers_ && (code == CURLE_OK || is_cut_);
}

ObjectAnswer Exchange::conclude(CURLcode code, std::int64_t now_seconds) const {
  ObjectAnswer answer;
  if (lacks_memory_) {
    answer.status = {Code::kUnavailable, text() + ": no memory to take the answer",
                     Scope::kBackend};
  } else if (!verdict_.is_ok()) {
    answer.status = verdict_;
  } else if (is_through(code)) {
    answer = judge(reply_, asked(now_seconds));
    if (answer.status.is_ok() && plan.op == ObjectOp::kGet && moved_ != request_.bytes()) {
      // Ended before its time, as a connection is that ends.
      answer.status = {Code::kUnavailable,
                       fmt::format("{}: {} bytes instead of {}", text(), moved_, request_.bytes())};
    }
  } else {
    const Code meaning = code == CURLE_OK ? Code::kIo : code_of(code);
    const char* reason = reason_[0] != 0 ? reason_.data() : curl_.easy_strerror(code);
    answer.status = {meaning,
                     fmt::format("{}: {} (curl {})", text(), reason, static_cast<int>(code)),
                     Scope::kBackend};
  }
  return answer;
}

bool Exchange::may_lack_conditions(CURLcode code) const {
  return plan.op == ObjectOp::kPut && plan.is_conditional && is_through(code) &&
         s3::may_lack_conditions(reply_);
}

bool Exchange::refuses_credentials(CURLcode code) const {
  return is_through(code) && s3::refuses_credentials(reply_, plan.op);
}

bool Exchange::met_closed_connection(CURLcode code) const {
  const bool has_ended =
      code == CURLE_RECV_ERROR || code == CURLE_SEND_ERROR || code == CURLE_GOT_NOTHING;
  return has_ended && is_kept_ && header_bytes_ == 0;
}

ObjectRequest Exchange::take() {
  is_busy = false;
  is_summing = false;
  return std::exchange(request_, {});
}

}  // namespace terrace::transfer::s3
