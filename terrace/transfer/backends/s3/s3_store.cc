#include "terrace/transfer/backends/s3/s3_store.h"

#include <fmt/format.h>

#include <algorithm>
#include <new>
#include <thread>

#include "terrace/base/finally.h"
#include "terrace/base/mutex.h"
#include "terrace/base/thread.h"
#include "terrace/transfer/backends/s3/credentials_internal.h"
#include "terrace/transfer/backends/s3/exchange_internal.h"

namespace terrace::transfer {

namespace {

using s3::CurlLibrary;
using s3::Exchange;

constexpr unsigned kMostDepth = 1024;
// The store's thread looks for its stop request this often even if a wake-up was lost.
constexpr Nanoseconds kIdleLimit = milliseconds(500);
// Half a millisecond of SHA-256: the other transfers go on in between.
constexpr std::size_t kSumBytes = 1U << 20U;

ObjectAnswer failed(Status status) {
  ObjectAnswer answer;
  answer.status = std::move(status);
  return answer;
}

class S3Store final : public ObjectStore {
 public:
  S3Store(S3Options options, s3::Target target, s3::CredentialSource credentials,
          const CurlLibrary& curl, const Clock& clock, LogSink& log)
      : ObjectStore(options.depth),
        options_(std::move(options)),
        target_(std::move(target)),
        credentials_(std::move(credentials)),
        curl_(curl),
        clock_(clock),
        log_(log) {}

  ~S3Store() override {
    stop();
    if (worker_.joinable()) worker_.join();
    exchanges_.clear();
    if (multi_ != nullptr) (void)curl_.multi_cleanup(multi_);
  }

  Status open() {
    multi_ = curl_.multi_init();
    if (multi_ == nullptr) return {Code::kExhausted, "curl_multi_init: no memory"};
    const long connections = depth();
    (void)curl_.multi_setopt(multi_, CURLMOPT_MAX_TOTAL_CONNECTIONS, connections);
    (void)curl_.multi_setopt(multi_, CURLMOPT_MAXCONNECTS, connections);
    (void)curl_.multi_setopt(multi_, CURLMOPT_PIPELINING, CURLPIPE_NOTHING);
    for (unsigned i = 0; i < depth(); ++i) {
      exchanges_.push_back(std::make_unique<Exchange>(curl_, options_, target_));
      TERRACE_RETURN_IF_ERROR(exchanges_.back()->open());
    }
    {
      const MutexLock lock(mutex_);
      incoming_.reserve(depth());
      outcomes_.reserve(depth());
    }
    arrived_.reserve(depth());
    taken_.reserve(depth());
    TERRACE_ASSIGN_OR_RETURN(worker_, start_thread(
                                          "terrace-s3",
                                          [this](const std::stop_token& stop) {
                                            run(stop);
                                            leave();
                                          },
                                          [this](const char* reason) {
                                            const base::Finally left([this] { leave(); });
                                            break_down(reason);
                                          }));
    return {};
  }

  std::string_view name() const override { return "s3"; }
  const std::string& place() const override { return target_.place; }
  bool shows_arrivals() const override { return true; }

  void wake() override {
    {
      const MutexLock lock(mutex_);
      is_woken_ = true;
    }
    result_came_.notify_all();
  }

  bool close(Nanoseconds limit) override {
    stop();
    const SystemClock clock;
    return ended_.wait(clock.now() + limit, clock);
  }

 protected:
  Status start(ObjectRequest request) override {
    {
      const MutexLock lock(mutex_);
      if (is_broken_) return {Code::kClosed, "the s3 store's thread ended", Scope::kBackend};
      incoming_.push_back(std::move(request));
    }
    (void)curl_.multi_wakeup(multi_);
    return {};
  }

  void collect(std::vector<Finished>& finished) override {
    {
      const MutexLock lock(mutex_);
      outcomes_.swap(taken_);
    }
    for (Finished& outcome : taken_) finished.push_back(std::move(outcome));
    taken_.clear();
  }

  void pause(Nanoseconds limit) override {
    if (limit.value() <= 0) return;
    const SystemClock clock;
    const Nanoseconds now = clock.now();
    const Nanoseconds end = limit > kNoDeadline - now ? kNoDeadline : now + limit;
    const MutexLock lock(mutex_);
    while (outcomes_.empty() && !is_woken_) {
      const Nanoseconds left = end - clock.now();
      if (left.value() <= 0) break;
      (void)result_came_.wait_for(mutex_, std::min(left, seconds(3600)));
    }
    is_woken_ = false;
  }

 private:
  void stop() {
    worker_.request_stop();
    if (multi_ != nullptr) (void)curl_.multi_wakeup(multi_);
  }

  // All from here on is the worker's.
  void run(const std::stop_token& stop) {
    while (!stop.stop_requested()) {
      accept();
      const bool is_summing = sum_up_one();
      int running = 0;
      (void)curl_.multi_perform(multi_, &running);
      reap();
      expire();
      const int limit_ms = is_summing ? 0 : patience_ms();
      (void)curl_.multi_poll(multi_, nullptr, 0, limit_ms, nullptr);
    }
  }

  // Here and not in close(): libcurl may wait for a name to be found before it lets go of it.
  void leave() {
    for (const auto& exchange : exchanges_) detach(*exchange);
    ended_.set();
  }

  // What escaped ended the thread: everything under way fails, and nothing more is taken.
  void break_down(const char* reason) {
    std::vector<ObjectRequest> late;
    {
      const MutexLock lock(mutex_);
      is_broken_ = true;
      incoming_.swap(late);
    }
    for (auto* requests : {&arrived_, &late}) {
      for (ObjectRequest& request : *requests) report(std::move(request), broken(reason));
    }
    for (const auto& exchange : exchanges_) {
      if (exchange->is_busy) finish(*exchange, broken(reason));
    }
  }

  static ObjectAnswer broken(const char* reason) {
    try {
      return failed(
          {Code::kInternal, fmt::format("the s3 store's thread: {}", reason), Scope::kBackend});
    } catch (const std::bad_alloc&) {  // So short a text needs no memory.
      return failed({Code::kInternal, "out of memory", Scope::kBackend});
    }
  }

  void accept() {
    {
      const MutexLock lock(mutex_);
      incoming_.swap(arrived_);
    }
    std::ranges::reverse(arrived_);
    while (!arrived_.empty()) {
      // As many as `depth` are under way at most, so one is free.
      const auto place =
          std::ranges::find(exchanges_, false, [](const auto& one) { return one->is_busy; });
      Exchange& exchange = **place;
      exchange.begin(std::move(arrived_.back()));
      arrived_.pop_back();
      const ObjectRequest& begun = exchange.request();
      if (begun.deadline <= clock_.now()) {
        finish(exchange, deadline_passed(exchange));
      } else if (begun.op == ObjectOp::kGet && begun.offset > UINT64_MAX - begun.bytes()) {
        finish(exchange, failed({Code::kCorrupt, exchange.text() + ": no object is so long"}));
      } else if (!exchange.is_summing) {
        send(exchange, {begun.op, false});
      }
    }
  }

  // True while there is more of it.
  bool sum_up_one() {
    for (const auto& exchange : exchanges_) {
      if (!exchange->is_busy || !exchange->is_summing) continue;
      if (exchange->sum_up(kSumBytes)) send(*exchange, first_plan());
      return true;
    }
    return false;
  }

  [[nodiscard]] s3::RequestPlan first_plan() const {
    if (has_conditions_) return {ObjectOp::kPut, true};
    return {ObjectOp::kHead, false};
  }

  void send(Exchange& exchange, s3::RequestPlan plan) {
    const Status status = exchange.prepare(plan, credentials_.current(), clock_.wall_seconds());
    const CURLMcode code =
        status.is_ok() ? curl_.multi_add_handle(multi_, exchange.handle()) : CURLM_OUT_OF_MEMORY;
    exchange.is_added = code == CURLM_OK;
    if (exchange.is_added) return;
    finish(exchange, failed({Code::kExhausted, exchange.text() + ": libcurl has no memory"}));
  }

  void reap() {
    int left = 0;
    while (const CURLMsg* message = curl_.multi_info_read(multi_, &left)) {
      if (message->msg != CURLMSG_DONE) continue;
      const CURLcode code = message->data.result;
      for (const auto& exchange : exchanges_) {
        if (exchange->handle() != message->easy_handle) continue;
        detach(*exchange);
        conclude(*exchange, code);
        break;
      }
    }
  }

  void conclude(Exchange& exchange, CURLcode code) {
    if (exchange.refuses_credentials(code) && !exchange.was_renewed &&
        credentials_.renew(exchange.credentials)) {
      exchange.was_renewed = true;
      send(exchange, exchange.plan);
      return;
    }
    if (exchange.met_closed_connection(code) && !exchange.needs_connection) {
      exchange.needs_connection = true;
      send(exchange, exchange.plan);
      return;
    }
    if (exchange.may_lack_conditions(code)) {
      send(exchange, {ObjectOp::kHead, false});
      return;
    }
    ObjectAnswer answer = exchange.conclude(code, clock_.wall_seconds());
    if (exchange.request().op == ObjectOp::kPut && !exchange.plan.is_conditional) {
      if (exchange.plan.op == ObjectOp::kHead) {
        if (answer.status.code() == Code::kNotFound) {
          send(exchange, {ObjectOp::kPut, false});
          return;
        }
        answer.was_there = answer.status.is_ok();
        answer.info = {};
      } else if (answer.status.is_ok()) {
        note_no_conditions();
      }
    }
    finish(exchange, std::move(answer));
  }

  void note_no_conditions() {
    if (!has_conditions_) return;
    has_conditions_ = false;
    log_.write(LogLevel::kWarn,
               fmt::format("s3=no_conditional_put place=\"{}\" effect=\"looks before each put; of "
                           "two nodes that put one name at once, the later one may replace it\"",
                           target_.place));
  }

  void expire() {
    const Nanoseconds now = clock_.now();
    for (const auto& exchange : exchanges_) {
      if (!exchange->is_busy || exchange->request().deadline > now) continue;
      finish(*exchange, deadline_passed(*exchange));
    }
  }

  [[nodiscard]] static ObjectAnswer deadline_passed(const Exchange& exchange) {
    return failed({Code::kDeadline, exchange.text() + ": the deadline passed"});
  }

  [[nodiscard]] int patience_ms() const {
    Nanoseconds next = kNoDeadline;
    for (const auto& exchange : exchanges_) {
      if (exchange->is_busy) next = std::min(next, exchange->request().deadline);
    }
    const Nanoseconds now = clock_.now();
    const Nanoseconds left = next == kNoDeadline ? kIdleLimit : next - now;
    const Nanoseconds limit = std::clamp(left, Nanoseconds(0), kIdleLimit);
    return static_cast<int>((limit.value() + 999'999) / 1'000'000);
  }

  // From here on libcurl touches no memory of it.
  void detach(Exchange& exchange) {
    if (exchange.is_added) (void)curl_.multi_remove_handle(multi_, exchange.handle());
    exchange.is_added = false;
  }

  void finish(Exchange& exchange, ObjectAnswer answer) {
    detach(exchange);
    report(exchange.take(), std::move(answer));
  }

  void report(ObjectRequest request, ObjectAnswer answer) {
    {
      const MutexLock lock(mutex_);
      outcomes_.push_back({std::move(request), std::move(answer)});
    }
    result_came_.notify_all();
    tell_listener();
  }

  const S3Options options_;
  const s3::Target target_;
  s3::CredentialSource credentials_;
  const CurlLibrary& curl_;
  const Clock& clock_;
  LogSink& log_;
  CURLM* multi_ = nullptr;
  std::vector<std::unique_ptr<Exchange>> exchanges_;
  bool has_conditions_ = true;  // Puts with If-None-Match, as far as we know.
  std::vector<ObjectRequest> arrived_;
  std::vector<Finished> taken_;  // The owner's.

  Mutex mutex_;
  CondVar result_came_;
  std::vector<ObjectRequest> incoming_ TERRACE_GUARDED_BY(mutex_);
  std::vector<Finished> outcomes_ TERRACE_GUARDED_BY(mutex_);
  bool is_woken_ TERRACE_GUARDED_BY(mutex_) = false;
  bool is_broken_ TERRACE_GUARDED_BY(mutex_) = false;
  ThreadEnd ended_;
  std::jthread worker_;
};

}  // namespace

Result<std::unique_ptr<ObjectStore>> make_s3_store(const S3Options& options, const Clock& clock,
                                                   LogSink& log) {
  if (options.depth == 0 || options.depth > kMostDepth) {
    return fail(Code::kInvalid,
                fmt::format("s3 depth {}: expected 1 to {}", options.depth, kMostDepth));
  }
  TERRACE_ASSIGN_OR_RETURN(s3::Target target, s3::make_target(options));
  TERRACE_ASSIGN_OR_RETURN(s3::CredentialSource credentials, s3::CredentialSource::create(options));
  TERRACE_ASSIGN_OR_RETURN(const CurlLibrary* curl, s3::load_curl());
  TERRACE_RETURN_IF_ERROR(s3::check_curl(*curl->version_info(CURLVERSION_NOW), target.is_tls));
  auto store = std::make_unique<S3Store>(options, std::move(target), std::move(credentials), *curl,
                                         clock, log);
  TERRACE_RETURN_IF_ERROR(store->open());
  return store;
}

}  // namespace terrace::transfer
