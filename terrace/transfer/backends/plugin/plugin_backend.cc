#include "terrace/transfer/backends/plugin/plugin_backend.h"

#include <fmt/format.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <string>
#include <thread>
#include <utility>

#include "terrace/base/file.h"
#include "terrace/base/left_behind.h"
#include "terrace/base/thread.h"
#include "terrace/transfer/backends/plugin/plugin_library_internal.h"

namespace terrace::transfer {

namespace {
static_assert(kMaxPieces >= TERRACE_BACKEND_MAX_PIECES);
static_assert(static_cast<int>(IoOp::kAllocate) == TERRACE_BACKEND_ALLOCATE);
static_assert(static_cast<int>(IoClass::kScrub) == TERRACE_BACKEND_SCRUB);

constexpr std::uint32_t kRoom = 64;  // Completions taken by one call.
constexpr std::uint32_t kReasonBytes = 256;
constexpr int kLargestErrno = 4095;  // The kernel's own bound.
constexpr Nanoseconds kCloseLimit = seconds(10);
// While the plug-in is being closed nobody else tells that it is.
constexpr Nanoseconds kClosingStep = milliseconds(20);

void signal_event(int event) {
  const std::uint64_t one = 1;
  // Full = somebody will wake up anyway.
  if (::write(event, &one, sizeof one) < 0) return;
}

// Calls into foreign code: what it throws is a broken promise, not ours to pass on.
template <typename Call>
bool guarded(const Call& call) {
  try {
    call();
    return true;
  } catch (...) {
    return false;
  }
}

// What close() needs, apart from the backend, which may be gone before it returns.
struct Closing {
  ThreadEnd end;
  std::jthread thread;
};

class PluginBackend final : public Backend {
 public:
  PluginBackend(plugin::Library library, const Options& options, UniqueFd event)
      : Backend(options.depth),
        library_(std::move(library)),
        patience_(options.patience),
        event_(std::move(event)),
        flights_(options.depth) {
    for (std::uint32_t i = options.depth; i > 0; --i) free_.push_back(i - 1);
  }

  ~PluginBackend() override {
    begin_close();
    if (to_close_ != nullptr) {  // No thread for it.
      (void)event_.release();
    } else if (closing_ != nullptr &&
               !closing_->end.wait(clock_.now() + std::min(patience_, kCloseLimit), clock_)) {
      (void)event_.release();
      leave_behind(std::move(closing_));
    }
  }

  Status open(const Options& options, const std::string& path) {
    const terrace_backend_options given{sizeof given, options.depth, options.threads, event_.get()};
    char reason[kReasonBytes] = {};
    std::int32_t error = 0;
    bool is_calm = false;
    {
      // In a thread whose signals are all blocked: those of the plug-in inherit it.
      TERRACE_ASSIGN_OR_RETURN(const std::jthread opener, start_thread(
                                                              "terrace-plugin",
                                                              [&](const std::stop_token&) {
                                                                is_calm = guarded([&] {
                                                                  error = library_.table.open(
                                                                      &given, &instance_, reason,
                                                                      sizeof reason);
                                                                });
                                                              },
                                                              [](const char*) {}));
    }
    reason[sizeof reason - 1] = 0;
    const bool is_open = is_calm && error == 0 && instance_ != nullptr;
    if (is_open) return {};
    instance_ = nullptr;
    if (!is_calm) return {Code::kInvalid, fmt::format("backend library {}: open() threw", path)};
    if (error == 0) {
      return {Code::kInvalid, fmt::format("backend library {}: open() gave no instance", path)};
    }
    const std::string why =
        *reason != 0 ? reason : Status::from_errno(error, "open", library_.name).message();
    return {Code::kUnavailable,
            fmt::format("backend library {}: it cannot work here: {}", path, why), Scope::kBackend};
  }

  std::string_view name() const override { return library_.name; }

  [[nodiscard]] std::size_t most_pieces() const override { return TERRACE_BACKEND_MAX_PIECES; }

  void name_file(int file, const std::string& path) override {
    Backend::name_file(file, path);
    if (instance_ == nullptr || library_.table.name_file == nullptr) return;
    const char* name = path.empty() ? nullptr : path.c_str();
    if (!guarded([&] { library_.table.name_file(instance_, file, name); })) {
      break_off("name_file() threw");
    }
  }

  void wake() override { signal_event(event_.get()); }

 protected:
  Status start(const Transfer& transfer) override {
    if (instance_ == nullptr) return {Code::kIo, broken_, Scope::kBackend};
    const std::uint32_t place = free_.back();
    Flight& flight = flights_[place];
    const std::uint64_t token = (std::uint64_t{++flight.generation} << 32U) | place;
    const terrace_backend_transfer given = foreign(transfer, token);
    std::int32_t error = 0;
    if (!guarded([&] { error = library_.table.submit(instance_, &given); })) {
      break_off("submit() threw");
      return {Code::kIo, broken_, Scope::kBackend};
    }
    // Never kExhausted: a queue would offer it again for ever.
    if (error != 0) return {Code::kIo, status_of(error, transfer).message(), Scope::kBackend};
    free_.pop_back();
    flight.transfer = transfer;
    flight.until = clock_.now() + patience_;
    flight.is_flying = true;
    return {};
  }

  void collect(std::vector<Finished>& finished) override {
    if (instance_ != nullptr) {
      while (take(finished)) {
      }
      if (instance_ != nullptr && clock_.now() >= oldest()) {
        break_off(fmt::format("a transfer has had no completion for {} ms",
                              patience_.value() / 1'000'000));
      }
    }
    if (instance_ != nullptr) return;
    begin_close();  // Again, where no thread was to be had.
    const Nanoseconds deadline = clock_.now();
    if (closing_ != nullptr && closing_->end.wait(deadline, clock_)) fail_all(finished);
  }

  void pause(Nanoseconds limit) override {
    if (limit.value() <= 0) return;
    if (instance_ == nullptr) {
      limit = std::min(limit, kClosingStep);
    } else if (const Nanoseconds end = oldest(); end != kNoDeadline) {
      limit = std::min(limit, std::max(end - clock_.now(), milliseconds(1)));
    }
    pollfd event{event_.get(), POLLIN, 0};
    const auto milliseconds_left = std::min<std::int64_t>(limit.value() / 1'000'000 + 1, 3'600'000);
    if (::poll(&event, 1, static_cast<int>(milliseconds_left)) > 0) {
      std::uint64_t signals = 0;
      if (::read(event_.get(), &signals, sizeof signals) < 0) return;
    }
  }

 private:
  struct Flight {
    Transfer transfer;
    Nanoseconds until = kNoDeadline;
    std::uint32_t generation = 0;
    bool is_flying = false;
  };

  static terrace_backend_transfer foreign(const Transfer& transfer, std::uint64_t token) {
    terrace_backend_transfer given{};
    given.token = token;
    given.op = static_cast<std::uint32_t>(transfer.op);
    given.io_class = static_cast<std::uint32_t>(transfer.io_class);
    given.file = transfer.file;
    given.piece_count = static_cast<std::uint32_t>(transfer.piece_count);
    given.offset = transfer.offset;
    given.length = transfer.length;
    for (std::size_t i = 0; i < transfer.piece_count; ++i) {
      given.pieces[i] = {transfer.pieces[i].data, transfer.pieces[i].bytes};
    }
    return given;
  }

  Status status_of(std::int32_t error, const Transfer& transfer) const {
    if (error == 0) return {};
    if (error == TERRACE_BACKEND_END_OF_FILE) return end_of_file(transfer);
    if (error > 0 && error <= kLargestErrno) return io_error(error, transfer);
    return {Code::kIo,
            fmt::format("{}: {} of {}: error {}, which is none", library_.name,
                        to_string(transfer.op), path_of(transfer.file), error),
            Scope::kBackend};
  }

  // False = that was all, or the plug-in is not asked any more.
  bool take(std::vector<Finished>& finished) {
    std::array<terrace_backend_completion, kRoom> completions{};
    std::int32_t count = 0;
    if (!guarded([&] { count = library_.table.poll(instance_, completions.data(), kRoom); })) {
      break_off("poll() threw");
      return false;
    }
    if (count < 0 || count > static_cast<std::int32_t>(kRoom)) {
      break_off(fmt::format("poll() returned {} of {}", count, kRoom));
      return false;
    }
    for (std::int32_t i = 0; i < count; ++i) {
      if (!accept(completions[static_cast<std::size_t>(i)], finished)) return false;
    }
    return count == static_cast<std::int32_t>(kRoom);
  }

  bool accept(const terrace_backend_completion& completion, std::vector<Finished>& finished) {
    const auto place = static_cast<std::uint32_t>(completion.token);
    const auto generation = static_cast<std::uint32_t>(completion.token >> 32U);
    if (place >= flights_.size() || !flights_[place].is_flying ||
        flights_[place].generation != generation) {
      break_off("it completed a transfer that was not in flight");
      return false;
    }
    Flight& flight = flights_[place];
    Status status = status_of(completion.error, flight.transfer);
    const bool moves = flight.transfer.op == IoOp::kRead || flight.transfer.op == IoOp::kWrite;
    if (status.is_ok() && moves && completion.bytes != flight.transfer.bytes()) {
      status = {Code::kIo,
                fmt::format("{}: {} of {}: {} of {} bytes moved, and no error", library_.name,
                            to_string(flight.transfer.op), path_of(flight.transfer.file),
                            completion.bytes, flight.transfer.bytes()),
                Scope::kBackend};
    }
    finished.push_back({flight.transfer, std::move(status)});
    flight.is_flying = false;
    free_.push_back(place);
    return true;
  }

  Nanoseconds oldest() const {
    Nanoseconds until = kNoDeadline;
    for (const Flight& flight : flights_) {
      if (flight.is_flying) until = std::min(until, flight.until);
    }
    return until;
  }

  // Nothing more is asked of the plug-in but to end.
  void break_off(const std::string& what) {
    if (instance_ == nullptr || !broken_.empty()) return;
    broken_ = fmt::format("the backend {} broke its contract: {}; it is not used any more",
                          library_.name, what);
    to_close_ = std::exchange(instance_, nullptr);
    begin_close();
  }

  void begin_close() {
    if (broken_.empty()) to_close_ = std::exchange(instance_, nullptr);
    if (to_close_ == nullptr) return;
    auto closing = std::make_unique<Closing>();
    auto* const close = library_.table.close;
    auto thread = start_thread(
        "terrace-plugin",
        [close, instance = to_close_, end = &closing->end,
         event = event_.get()](const std::stop_token&) {
          (void)guarded([&] { close(instance); });
          signal_event(event);
          end->set();
        },
        [](const char*) {});
    if (!thread) return;
    closing->thread = *std::move(thread);
    closing_ = std::move(closing);
    to_close_ = nullptr;
  }

  void fail_all(std::vector<Finished>& finished) {
    for (std::uint32_t place = 0; place < flights_.size(); ++place) {
      Flight& flight = flights_[place];
      if (!flight.is_flying) continue;
      finished.push_back({flight.transfer, {Code::kIo, broken_, Scope::kBackend}});
      flight.is_flying = false;
      free_.push_back(place);
    }
  }

  const SystemClock clock_;
  const plugin::Library library_;
  const Nanoseconds patience_;
  UniqueFd event_;
  std::vector<Flight> flights_;      // A place per depth.
  std::vector<std::uint32_t> free_;  // Places of flights_.
  terrace_backend* instance_ = nullptr;
  terrace_backend* to_close_ = nullptr;  // No thread for it yet.
  std::string broken_;                   // What it did; empty = all is well.
  std::unique_ptr<Closing> closing_;
};
}  // namespace

Result<std::unique_ptr<Backend>> make_plugin_backend(const Backend::Options& options) {
  if (options.depth == 0 || options.threads == 0) {
    return fail(Code::kInvalid, fmt::format("io depth {} and {} threads: both must be at least 1",
                                            options.depth, options.threads));
  }
  TERRACE_ASSIGN_OR_RETURN(plugin::Library library, plugin::load_library(options.library));
  UniqueFd event(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  if (!event.is_open()) return fail(Status::from_errno(errno, "eventfd", options.library));
  auto backend = std::make_unique<PluginBackend>(std::move(library), options, std::move(event));
  TERRACE_RETURN_IF_ERROR(backend->open(options, options.library));
  return backend;
}

}  // namespace terrace::transfer
