#include "terrace/worker/worker.h"

#include <fmt/format.h>

#include <algorithm>
#include <memory>
#include <utility>
#include <vector>

#include "terrace/base/clock.h"
#include "terrace/base/left_behind.h"
#include "terrace/base/log.h"
#include "terrace/base/open_calls.h"
#include "terrace/base/sync_point.h"
#include "terrace/capi/convert_internal.h"
#include "terrace/capi/guard_internal.h"
#include "terrace/capi/json_internal.h"
#include "terrace/capi/structs_internal.h"

using namespace terrace;  // NOLINT(google-build-using-namespace): C functions have no namespace.
using namespace terrace::capi;  // NOLINT(google-build-using-namespace)

namespace {
constexpr std::size_t kLogLines = 1024;
constexpr Nanoseconds kExitLimit = seconds(2);
constexpr Nanoseconds kLongestClose = seconds(3600);
}  // namespace

struct terrace_worker final : ExitClosed {
  explicit terrace_worker(LogLevel lowest) : log(clock, lowest, kLogLines) {}
  void close_at_exit() noexcept override {
    if (!is_ours() || !worker) return;
    (void)guarded([&] {
      if (close(kExitLimit)) worker.reset();
      return TERRACE_OK;
    });
  }
  // Lets calls finish and no more in, then stops the threads. False: one of them hangs, and goes on
  // one day with all that is in here.
  [[nodiscard]] bool close(Nanoseconds limit) {
    const Nanoseconds deadline = clock.now() + std::clamp(limit, Nanoseconds(0), kLongestClose);
    if (!calls.end(deadline, clock)) return false;
    return !worker || worker->close(deadline - clock.now());
  }
  using ExitClosed::is_ours;

  SystemClock clock;
  RingLog log;
  // C calls, from their first line to their last: the worker lets its own part of one finish, but a
  // call goes on with what is in here.
  OpenCalls calls;
  std::unique_ptr<worker::Worker> worker;
  // Failed blocks that the last run_loads had no room for, and whose orders these are: kept for a
  // second call with more room. Other orders are another step, and the list is over.
  std::vector<std::uint32_t> failed;
  std::vector<std::byte> failed_orders;
  bool has_unread_failures = false;
  std::string breach;  // Not empty = poisoned: nothing is copied any more.
};

namespace {

template <typename Body>
terrace_code with_worker(terrace_worker* handle, Body&& body) noexcept {
  if (handle == nullptr) return TERRACE_INVALID;
  if (!handle->is_ours()) return TERRACE_CLOSED;
  const OpenCalls::Call call(handle->calls);
  if (!call.is_admitted()) return TERRACE_CLOSED;
  TERRACE_SYNC_POINT("capi.worker.call");
  return guarded([&] { return body(*handle->worker); },
                 [&](const char* text) {
                   handle->breach = text;
                   handle->log.write(LogLevel::kError,
                                     fmt::format("event=poisoned cause=\"{}\"", text));
                 });
}

// As with_worker, for calls that take orders: `body(worker, orders)`.
template <typename Body>
terrace_code with_orders(terrace_worker* handle, const std::uint8_t* orders, std::uint64_t length,
                         Body&& body) noexcept {
  return with_worker(handle, [&](worker::Worker& impl) {
    if (const Status status = check_array("orders: length", orders, length); !status.is_ok()) {
      return set_error(status);
    }
    return body(impl, std::span(reinterpret_cast<const std::byte*>(orders), length));
  });
}

// Runs the loads unless `handle.failed` is already their outcome.
Status run_loads_once(terrace_worker& handle, worker::Worker& impl,
                      std::span<const std::byte> orders) {
  if (std::exchange(handle.has_unread_failures, false) &&
      std::ranges::equal(handle.failed_orders, orders)) {
    return {};
  }
  handle.failed.clear();
  auto result = handle.breach.empty() ? impl.run_loads(orders) : impl.refuse_loads(orders);
  TERRACE_SYNC_POINT("capi.worker.loaded");
  if (!result) return std::move(result).error();
  handle.failed = std::move(*result);
  return {};
}

}  // namespace

extern "C" {

terrace_code terrace_open_worker(const terrace_worker_options* options, terrace_worker** worker) {
  return guarded([&] {
    if (options == nullptr || worker == nullptr) {
      return set_error(TERRACE_INVALID, "terrace_open_worker: a pointer is NULL");
    }
    *worker = nullptr;
    const auto given = adopt("terrace_worker_options", options);
    if (!given) return set_error(given.error());
    auto settings = load_settings(given->settings_json);
    if (!settings) return set_error(settings.error());
    auto made = convert_worker(*given, settings->settings);
    if (!made) return set_error(made.error());
    auto handle = std::make_unique<terrace_worker>(settings->settings.log.level);
    auto opened = worker::Worker::open(std::move(*made), handle->clock, handle->log);
    if (!opened) return set_error(opened.error());
    handle->worker = std::move(*opened);
    handle->watch_exit();
    *worker = handle.release();
    return TERRACE_OK;
  });
}

void terrace_close_worker(terrace_worker* worker, int64_t deadline_ns) {
  if (worker == nullptr || !worker->is_ours()) return;
  (void)guarded([&] {
    const Closing closing(*worker);
    if (!closing.is_admitted()) return TERRACE_OK;
    // What hangs goes on one day, with clock, log and state of this handle: then all of it is left
    // to the process's end, on purpose.
    const bool is_closed = worker->close(Nanoseconds(deadline_ns));
    std::unique_ptr<terrace_worker> handle(worker);
    if (!is_closed) leave_behind(std::move(handle));
    return TERRACE_OK;
  });
}

terrace_code terrace_run_canary(terrace_worker* worker, const uint8_t* orders, uint64_t length) {
  return with_orders(worker, orders, length, [&](worker::Worker& impl, auto bytes) {
    if (!worker->breach.empty()) return set_error(TERRACE_INTERNAL, worker->breach);
    const Status status = impl.run_canary(bytes);
    return status.is_ok() ? TERRACE_OK : set_error(status);
  });
}

terrace_code terrace_run_loads(terrace_worker* worker, const uint8_t* orders, uint64_t length,
                               uint32_t* failed_blocks, uint64_t failed_capacity,
                               uint64_t* failed_count) {
  if (failed_count == nullptr) return set_error(TERRACE_INVALID, "terrace_run_loads: NULL");
  *failed_count = 0;
  return with_orders(worker, orders, length, [&](worker::Worker& impl, auto bytes) {
    const Status room = check_array("failed_capacity", failed_blocks, failed_capacity);
    if (!room.is_ok()) return set_error(room);
    if (const Status status = run_loads_once(*worker, impl, bytes); !status.is_ok()) {
      return set_error(status);
    }
    if (worker->failed.size() > failed_capacity) {
      worker->failed_orders.assign(bytes.begin(), bytes.end());
      worker->has_unread_failures = true;
    } else {
      std::ranges::copy(worker->failed, failed_blocks);
    }
    *failed_count = worker->failed.size();
    return worker->breach.empty() ? TERRACE_OK : set_error(TERRACE_INTERNAL, worker->breach);
  });
}

terrace_code terrace_run_saves(terrace_worker* worker, const uint8_t* orders, uint64_t length) {
  return with_orders(worker, orders, length, [&](worker::Worker& impl, auto bytes) {
    if (!worker->breach.empty()) return set_error(TERRACE_INTERNAL, worker->breach);
    const Status status = impl.run_saves(bytes);
    return status.is_ok() ? TERRACE_OK : set_error(status);
  });
}

terrace_code terrace_build_report(terrace_worker* worker, terrace_bytes* report) {
  return with_worker(worker, [&](worker::Worker& impl) {
    if (report == nullptr) return set_error(TERRACE_INVALID, "terrace_build_report: NULL");
    return put_bytes(BufferKind::kReport, impl.build_report(), report);
  });
}

terrace_code terrace_read_worker_status(terrace_worker* worker, terrace_bytes* status_json) {
  return with_worker(worker, [&](worker::Worker& impl) {
    if (status_json == nullptr)
      return set_error(TERRACE_INVALID, "terrace_read_worker_status: NULL");
    const std::string problem = worker->breach.empty() ? impl.problem() : worker->breach;
    return put_bytes(BufferKind::kStatus,
                     fmt::format("{{\"attached\":{},\"poisoned\":{},\"problem\":{}}}",
                                 impl.is_attached(), !worker->breach.empty(), json_text(problem)),
                     status_json);
  });
}

terrace_code terrace_read_worker_log(terrace_worker* worker, terrace_bytes* lines) {
  return with_worker(worker, [&](worker::Worker&) {
    if (lines == nullptr) return set_error(TERRACE_INVALID, "terrace_read_worker_log: NULL");
    return put_bytes(BufferKind::kLog, log_to_text(worker->log.drain()), lines);
  });
}
}
