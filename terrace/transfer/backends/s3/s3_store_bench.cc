// object.s3.get and object.s3.put: objects of 8 MiB over 8 connections, beside the least that does
// the same on the same server: signed requests by the same libcurl, without checks, conditions and
// sums. Gets also beside requests for whole objects: what ranges cost the server is in that ratio.
//   s3_store_bench ENDPOINT BUCKET KEY SECRET (bench/s3/object.py starts the server)
#include <fmt/format.h>
#include <sys/socket.h>

#include <cstdio>
#include <cstring>
#include <string>
#include <vector>

#include "terrace/base/rng.h"
#include "terrace/testing/bench_json.h"
#include "terrace/transfer/backends/s3/curl_library_internal.h"
#include "terrace/transfer/backends/s3/request_internal.h"
#include "terrace/transfer/backends/s3/s3_store.h"
#include "terrace/transfer/backends/s3/sigv4_internal.h"

namespace {

using namespace terrace;
using namespace terrace::transfer;

constexpr std::size_t kObjectBytes = 8U << 20U;
constexpr unsigned kConnections = 8;
constexpr unsigned kObjects = 24;  // 192 MiB a sample.
constexpr int kRuns = 7;

[[noreturn]] void stop(const std::string& text) {
  (void)std::fputs((text + "\n").c_str(), stderr);
  std::exit(1);
}

using Memory = std::vector<std::vector<std::byte>>;

// One handle per connection, kept; the memory is one buffer per object.
class LeastClient {
 public:
  enum class Kind : std::uint8_t { kPut, kGetRange, kGetWhole };

  LeastClient(const s3::CurlLibrary& curl, const S3Options& options)
      : curl_(curl), options_(options), target_(s3::make_target(options).value()) {
    multi_ = curl_.multi_init();
    for (Slot& slot : slots_) slot.easy = curl_.easy_init();
  }
  LeastClient(const LeastClient&) = delete;
  LeastClient& operator=(const LeastClient&) = delete;
  ~LeastClient() {
    for (Slot& slot : slots_) {
      curl_.easy_cleanup(slot.easy);
      curl_.slist_free_all(slot.headers);
    }
    (void)curl_.multi_cleanup(multi_);
  }

  // Objects `start`/0 … from or into `memory`.
  void move(Kind kind, const std::string& start, Memory& memory) {
    unsigned next = 0;
    unsigned done = 0;
    for (Slot& slot : slots_) send(slot, kind, start, next++, memory);
    while (done < kObjects) {
      int running = 0;
      int left = 0;
      (void)curl_.multi_perform(multi_, &running);
      while (const CURLMsg* message = curl_.multi_info_read(multi_, &left)) {
        if (message->data.result != CURLE_OK) stop("the least client failed");
        Slot& slot = slot_of(message->easy_handle);
        if (slot.at != kObjectBytes) stop("the least client moved too little");
        (void)curl_.multi_remove_handle(multi_, slot.easy);
        ++done;
        if (next < kObjects) send(slot, kind, start, next++, memory);
      }
      (void)curl_.multi_poll(multi_, nullptr, 0, done < kObjects ? 100 : 0, nullptr);
    }
  }

 private:
  struct Slot {
    CURL* easy = nullptr;
    curl_slist* headers = nullptr;
    std::byte* data = nullptr;
    std::size_t at = 0;
  };

  Slot& slot_of(CURL* easy) {
    for (Slot& slot : slots_) {
      if (slot.easy == easy) return slot;
    }
    stop("a handle that is none of ours");
  }

  static std::size_t take(char* data, std::size_t size, std::size_t count, void* self) {
    auto& slot = *static_cast<Slot*>(self);
    if (slot.at + size * count > kObjectBytes) return 0;
    std::memcpy(slot.data + slot.at, data, size * count);
    slot.at += size * count;
    return size * count;
  }
  static std::size_t give(char* data, std::size_t size, std::size_t count, void* self) {
    auto& slot = *static_cast<Slot*>(self);
    const std::size_t bytes = std::min(size * count, kObjectBytes - slot.at);
    std::memcpy(data, slot.data + slot.at, bytes);
    slot.at += bytes;
    return bytes;
  }

  void send(Slot& slot, Kind kind, const std::string& start, unsigned number, Memory& memory) {
    const bool puts = kind == Kind::kPut;
    slot.data = memory[number].data();
    slot.at = 0;
    s3::SigningInput input;
    input.method = puts ? "PUT" : "GET";
    input.path = fmt::format("{}/{}{}/{}", target_.path_start, target_.prefix, start, number);
    input.payload_hash = s3::kUnsignedPayload;
    const s3::SigningScope scope{s3::amz_date(SystemClock().wall_seconds()), target_.region};
    input.headers = {{"host", target_.host},
                     {"x-amz-date", scope.date},
                     {"x-amz-content-sha256", input.payload_hash}};
    if (kind == Kind::kGetRange) {
      input.headers.emplace_back("range", fmt::format("bytes=0-{}", kObjectBytes - 1));
    }
    curl_.slist_free_all(slot.headers);
    slot.headers = nullptr;
    for (const auto& [name, value] : input.headers) add(slot, fmt::format("{}: {}", name, value));
    add(slot, "authorization: " + s3::authorization(input, scope, options_.credentials));
    curl_.easy_reset(slot.easy);
    const auto set = [&](CURLoption option, auto value) {
      (void)curl_.easy_setopt(slot.easy, option, value);
    };
    const std::string url = target_.origin + input.path;
    set(CURLOPT_URL, url.c_str());
    set(CURLOPT_HTTP_VERSION, static_cast<long>(CURL_HTTP_VERSION_1_1));
    set(CURLOPT_NOSIGNAL, 1L);
    set(CURLOPT_FAILONERROR, 1L);
    set(CURLOPT_HTTPHEADER, slot.headers);
    set(CURLOPT_WRITEFUNCTION, puts ? nullptr : &LeastClient::take);
    set(CURLOPT_WRITEDATA, puts ? static_cast<void*>(stderr) : static_cast<void*>(&slot));
    set(CURLOPT_BUFFERSIZE, 256L << 10U);
    if (puts) {
      set(CURLOPT_UPLOAD, 1L);
      set(CURLOPT_INFILESIZE_LARGE, static_cast<curl_off_t>(kObjectBytes));
      set(CURLOPT_UPLOAD_BUFFERSIZE, 256L << 10U);
      set(CURLOPT_READFUNCTION, &LeastClient::give);
      set(CURLOPT_READDATA, static_cast<void*>(&slot));
    }
    (void)curl_.multi_add_handle(multi_, slot.easy);
  }
  void add(Slot& slot, const std::string& line) {
    slot.headers = curl_.slist_append(slot.headers, line.c_str());
  }

  const s3::CurlLibrary& curl_;
  const S3Options& options_;
  const s3::Target target_;
  CURLM* multi_ = nullptr;
  std::array<Slot, kConnections> slots_;
};

// The same through the store.
void move(ObjectStore& store, ObjectOp op, const std::string& start, Memory& memory) {
  unsigned next = 0;
  std::vector<ObjectAnswer> answers;
  for (unsigned done = 0; done < kObjects; done += static_cast<unsigned>(answers.size())) {
    for (; next < kObjects && store.in_flight() < kConnections; ++next) {
      ObjectRequest request;
      request.op = op;
      request.name = fmt::format("{}/{}", start, next);
      if (op != ObjectOp::kRemove) request.pieces = {{memory[next].data(), kObjectBytes}};
      if (Status status = store.submit(request); !status.is_ok()) stop(status.text());
    }
    answers.clear();
    store.wait(seconds(1));
    store.poll(answers);
    for (const ObjectAnswer& answer : answers) {
      if (!answer.status.is_ok() || answer.was_there) stop(answer.status.text());
    }
  }
}

class Bench {
 public:
  using Kind = LeastClient::Kind;

  explicit Bench(const S3Options& options)
      : options_(options), least_(*s3::load_curl().value(), options_) {
    auto signs = options_;
    auto plain = options_;
    plain.signs_payload = false;
    store_ = make_s3_store(signs, clock_, log_).value();
    unsigned_store_ = make_s3_store(plain, clock_, log_).value();
    Rng rng(1);
    for (auto& object : content_) {
      for (std::size_t at = 0; at < kObjectBytes; at += 8) {
        const std::uint64_t word = rng.next();
        std::memcpy(object.data() + at, &word, 8);
      }
    }
  }

  // One sample of puts: new names each time, checked by the gets; the names go afterwards.
  double put(const std::function<void(const std::string&)>& body) {
    const std::string start = fmt::format("put/{}", number_++);
    const double value = rate([&] { body(start); });
    move(*store_, ObjectOp::kRemove, start, content_);
    return value;
  }
  double get(const std::function<void()>& body) {
    for (auto& object : read_) std::memset(object.data(), 0, 4096);
    const double value = rate(body);
    if (read_ != content_) stop("other bytes came back");
    return value;
  }

  void run() {
    const auto machine = testing::machine_facts();
    const auto puts = testing::alternate(
        kRuns,
        {[&] { return put([&](const auto& at) { move(*store_, ObjectOp::kPut, at, content_); }); },
         [&] {
           return put(
               [&](const auto& at) { move(*unsigned_store_, ObjectOp::kPut, at, content_); });
         },
         [&] { return put([&](const auto& at) { least_.move(Kind::kPut, at, content_); }); }});
    print("object.s3.put", "sha256", puts[0], puts[2], machine);
    print("object.s3.put", "crc32c", puts[1], puts[2], machine);
    move(*store_, ObjectOp::kPut, "get", content_);
    const auto gets = testing::alternate(
        kRuns, {[&] { return get([&] { move(*store_, ObjectOp::kGet, "get", read_); }); },
                [&] { return get([&] { least_.move(Kind::kGetRange, "get", read_); }); },
                [&] { return get([&] { least_.move(Kind::kGetWhole, "get", read_); }); }});
    print("object.s3.get", "", gets[0], gets[1], machine);
    print("object.s3.get", "", gets[0], gets[2], machine, "least client, whole objects");
    move(*store_, ObjectOp::kRemove, "get", content_);
  }

 private:
  double rate(const std::function<void()>& body) const {
    return static_cast<double>(kObjects * kObjectBytes) / testing::seconds_of(clock_, body);
  }
  static void print(const std::string& name, std::string_view sum, const std::vector<double>& ours,
                    const std::vector<double>& limit, const testing::Machine& machine,
                    const std::string& limit_name = "least client") {
    testing::BenchResult result;
    result.name = name;
    result.samples = ours;
    result.limit_name = limit_name;
    result.limit_samples = limit;
    result.param("object_bytes", static_cast<std::int64_t>(kObjectBytes));
    result.param("connections", static_cast<std::int64_t>(kConnections));
    if (!sum.empty()) result.param("sum", sum);
    testing::print(result, machine);
  }

  const S3Options options_;
  SystemClock clock_;
  NullLog log_;
  LeastClient least_;
  std::unique_ptr<ObjectStore> store_;
  std::unique_ptr<ObjectStore> unsigned_store_;
  Memory content_{kObjects, std::vector<std::byte>(kObjectBytes)};
  Memory read_{kObjects, std::vector<std::byte>(kObjectBytes)};
  int number_ = 0;
};

}  // namespace

int main(int argc, char** argv) {
  if (argc < 5) stop("s3_store_bench ENDPOINT BUCKET KEY SECRET");
  S3Options options;
  options.endpoint = argv[1];
  options.bucket = argv[2];
  options.credentials = {argv[3], argv[4], ""};
  options.prefix = "bench";
  options.depth = kConnections;
  if (const auto curl = s3::load_curl(); !curl) stop(curl.error().text());
  Bench(options).run();
  return 0;
}
