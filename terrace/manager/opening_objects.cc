// Opening the shared store, and opening it later when it is not there yet.
#include <fmt/format.h>

#include <algorithm>

#include "terrace/base/sync_point.h"
#include "terrace/manager/opening_internal.h"

namespace terrace::manager {

namespace {

Status try_to_open(const Options& options, const Clock& clock, LogSink& log, Shared& shared,
                   IoDriver& driver, Opened& opened) {
  TERRACE_ASSIGN_OR_RETURN(auto store, options.object.open_store(clock, log));
  store->set_listener([&driver] { driver.wake(); });
  TERRACE_ASSIGN_OR_RETURN(
      opened.objects, tier::ObjectTier::create({.layout = options.layout,
                                                .fingerprint = opened.fingerprint,
                                                .pack_blocks = options.object.pack_blocks,
                                                .known_blocks = options.object.known_blocks,
                                                .write_time = options.object.write_time,
                                                .collect = options.object.collect,
                                                .queue = {},
                                                .crypt = open_crypt(options, log, shared, opened),
                                                .wake = [&driver] { driver.wake(); }},
                                               std::move(store), clock, log));
  opened.has_objects.store(true);
  {
    const MutexLock lock(shared.mutex);
    shared.core.open_objects(*opened.objects);
  }
  driver.set_objects(*opened.objects);
  driver.wake();
  return {};
}

// False when it was stopped.
bool wait_for(Nanoseconds pause, const Clock& clock, const std::stop_token& stop) {
  Mutex mutex;
  CondVar stopped;
  const std::stop_callback wake(stop, [&] {
    const MutexLock lock(mutex);
    stopped.notify_all();
  });
  const Nanoseconds end = clock.now() + pause;
  const MutexLock lock(mutex);
  for (Nanoseconds now = clock.now(); now < end && !stop.stop_requested(); now = clock.now()) {
    (void)stopped.wait_for(mutex, end - now);
  }
  return !stop.stop_requested();
}

void tell(const Options& options, Shared& shared, LogSink& log, const Status& status) {
  const std::string until =
      may_open_later(status)
          ? fmt::format(" until it opens, which is tried again and again, every {} s at the latest",
                        options.object.longest_retry / seconds(1))
          : " until the engine restarts";
  go_without_objects(shared, log,
                     fmt::format("{}; the shared store is not used{}", status.message(), until));
}

}  // namespace

void go_without_objects(Shared& shared, LogSink& log, const std::string& reason) {
  {
    const MutexLock lock(shared.mutex);
    shared.core.close_objects(reason);
  }
  if (!reason.empty()) {
    log.write(LogLevel::kError, fmt::format("event=object_off reason=\"{}\"", reason));
  }
}

bool may_open_later(const Status& status) {
  return !status.is_ok() && status.code() != Code::kInvalid && status.code() != Code::kInternal;
}

Status open_objects(const Options& options, const Clock& clock, LogSink& log, Shared& shared,
                    IoDriver& driver, Opened& opened) {
  if (!options.object.open_store) {
    go_without_objects(shared, log, "");
    return {};
  }
  Status status = try_to_open(options, clock, log, shared, driver, opened);
  if (!status.is_ok()) tell(options, shared, log, status);
  return status;
}

void open_objects_later(const Options& options, const std::string& why, const Clock& clock,
                        LogSink& log, Shared& shared, IoDriver& driver, Opened& opened,
                        const std::stop_token& stop) {
  Nanoseconds pause = options.object.first_retry;
  std::string told = why;
  while (wait_for(pause, clock, stop)) {
    TERRACE_SYNC_POINT("manager.open.objects_later");
    const Status status = try_to_open(options, clock, log, shared, driver, opened);
    if (status.is_ok()) return;
    if (status.message() != told) tell(options, shared, log, status);
    if (!may_open_later(status)) return;
    told = status.message();
    pause = std::min(pause + pause, options.object.longest_retry);
  }
}

}  // namespace terrace::manager
