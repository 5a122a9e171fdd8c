#include <fmt/format.h>

#include <atomic>
#include <memory>
#include <utility>
#include <vector>

#include "terrace/base/clock.h"
#include "terrace/base/left_behind.h"
#include "terrace/base/log.h"
#include "terrace/base/rng.h"
#include "terrace/capi/convert_internal.h"
#include "terrace/capi/guard_internal.h"
#include "terrace/capi/json_internal.h"
#include "terrace/capi/structs_internal.h"
#include "terrace/config/explain.h"
#include "terrace/manager/block_manager.h"
#include "terrace/serve/admin_server.h"
#include "terrace/serve/http/http_server.h"
#include "terrace/serve/ledger_file.h"
#include "terrace/serve/ledger_text.h"
#include "terrace/serve/metrics_text.h"
#include "terrace/serve/status_json.h"

using namespace terrace;  // NOLINT(google-build-using-namespace): C functions have no namespace.
using namespace terrace::capi;  // NOLINT(google-build-using-namespace)

namespace {
constexpr std::size_t kLogLines = 4096;
constexpr Nanoseconds kExitLimit = seconds(2);
}  // namespace

struct terrace_owner final : ExitClosed {
  terrace_owner(LogLevel lowest, std::size_t group_count)
      : log(clock, lowest, kLogLines), groups(group_count) {}

  void close_at_exit() noexcept override {
    if (!is_ours() || !manager) return;
    (void)guarded([&] {
      if (!close_admin(clock.now() + kExitLimit)) leave_behind(std::move(admin));
      if (!close_http(clock.now() + kExitLimit)) leave_behind(std::move(http));
      if (!close_ledgers(clock.now() + kExitLimit)) leave_behind(std::move(ledgers));
      manager->close(kExitLimit);
      return TERRACE_OK;
    });
  }
  // False when its thread hangs in the system.
  [[nodiscard]] bool close_admin(Nanoseconds deadline) {
    return admin == nullptr || admin->close(deadline);
  }
  [[nodiscard]] bool close_http(Nanoseconds deadline) {
    return http == nullptr || http->close(deadline);
  }
  [[nodiscard]] bool close_ledgers(Nanoseconds deadline) {
    return ledgers == nullptr || ledgers->close(deadline);
  }
  using ExitClosed::is_ours;

  SystemClock clock;
  RingLog log;
  std::size_t groups;
  config::KvbmNames kvbm_names = config::KvbmNames::kOff;
  std::unique_ptr<manager::BlockManager> manager;
  // These ask the manager: they go before it.
  std::unique_ptr<serve::LedgerFile> ledgers;
  std::unique_ptr<serve::HttpServer> http;  // There before anybody asks, or never.
  std::unique_ptr<serve::AdminServer> admin;
};

namespace {

// Turns away NULL handles and forked children, then runs `body(manager)`.
template <typename Body>
terrace_code with_manager(terrace_owner* owner, Body&& body) noexcept {
  if (owner == nullptr) return TERRACE_INVALID;
  if (!owner->is_ours()) return TERRACE_CLOSED;
  return guarded([&] { return body(*owner->manager); },
                 [&](const char* text) { owner->manager->poison(text); });
}

std::string metrics_of(const terrace_owner& owner) {
  serve::MetricsText writer(owner.kvbm_names);
  owner.manager->visit_metrics(writer);
  return writer.text();
}

manager::StatusReport status_of(const terrace_owner& owner) {
  manager::StatusReport report = owner.manager->status();
  if (owner.http == nullptr) return report;
  report.page = owner.http->url();
  if (std::string problem = owner.http->problem(); !problem.empty()) {
    report.problems.push_back(std::move(problem));
    report.is_healthy = false;
  }
  return report;
}

// An owner that has no port works as well.
void start_http(terrace_owner& owner, const config::Loaded& loaded) {
  const config::MetricsSettings& metrics = loaded.settings.metrics;
  if (!metrics.enabled) return;
  auto created = serve::HttpServer::create(
      {.address = metrics.address,
       .port = static_cast<std::uint16_t>(metrics.port),
       .hooks = {
           .status = [&owner] { return serve::status_json(status_of(owner)); },
           .metrics = [&owner] { return metrics_of(owner); },
           .visit = [&owner](MetricVisitor& visitor) { owner.manager->visit_metrics(visitor); },
           .settings = fmt::format("{{\"effective\":{},\"explained\":{}}}\n",
                                   config::effective_json(loaded), config::explain_json()),
           .ledgers = &owner.manager->ledgers()},
       .on_breach = [&owner](const std::string& reason) { owner.manager->poison(reason); }},
      owner.clock, owner.log);
  Status status = created.has_value() ? Status() : created.error();
  if (created.has_value()) {
    owner.http = std::move(*created);
    status = owner.http->start();
    if (!status.is_ok()) owner.http.reset();
  }
  if (status.is_ok()) return;
  owner.log.write(LogLevel::kWarn,
                  fmt::format("event=http_off reason=\"{}\" detail=\"raise the limits on threads "
                              "and open files, or set metrics.enabled = false\"",
                              status.message()));
}

// An owner that cannot be asked from outside works as well.
void start_admin(terrace_owner& owner, const config::Settings& settings,
                 const std::string& engine_id, Tokens block_tokens) {
  if (!settings.admin.enabled) return;
  auto started = serve::AdminServer::start(
      {.directory = settings.attach.directory,
       .engine_id = engine_id,
       .hooks = {
           .status = [&owner] { return serve::status_json(status_of(owner)); },
           .metrics = [&owner] { return metrics_of(owner); },
           .ledgers =
               [&owner, engine_id, block_tokens](const serve::LedgerQuery& query) {
                 return serve::ledgers_json(
                     {.manager = *owner.manager, .engine = engine_id, .block_tokens = block_tokens},
                     query);
               },
           .set_mode = [&owner](manager::Mode mode,
                                std::string_view by) { return owner.manager->set_mode(mode, by); },
           .scrub = [&owner](std::uint64_t rate,
                             std::string_view by) { return owner.manager->start_scrub(rate, by); }},
       .on_breach = [&owner](const std::string& reason) { owner.manager->poison(reason); }},
      owner.clock, owner.log);
  if (started.has_value()) {
    owner.admin = std::move(*started);
    return;
  }
  owner.log.write(LogLevel::kWarn,
                  fmt::format("event=admin_off path=\"{}\" reason=\"{}\" detail=\"raise the limits "
                              "on threads and open files, or set admin.enabled = false\"",
                              settings.attach.directory, started.error().message()));
}

// One whose ledgers cannot be written works as well.
void start_ledgers(terrace_owner& owner, const config::Settings& settings, const char* engine_id) {
  if (settings.ledger.file.empty()) return;
  auto started = serve::LedgerFile::start({.path = settings.ledger.file,
                                           .share = settings.ledger.share,
                                           .size = settings.ledger.file_size,
                                           .engine_id = engine_id,
                                           .seed = random_u64()},
                                          owner.manager->ledgers(), owner.clock, owner.log);
  if (started.has_value()) {
    owner.ledgers = std::move(*started);
    return;
  }
  owner.log.write(
      LogLevel::kWarn,
      fmt::format("event=ledger_file state=off path=\"{}\" reason=\"{}\" detail=\"raise "
                  "the limit on threads, or unset ledger.file\"",
                  settings.ledger.file, started.error().message()));
}

terrace_code finish(const Status& status) {
  return status.is_ok() ? TERRACE_OK : set_error(status);
}

}  // namespace

extern "C" {

terrace_code terrace_open_owner(const terrace_owner_options* options, terrace_owner** owner) {
  return guarded([&] {
    if (options == nullptr || owner == nullptr) {
      return set_error(TERRACE_INVALID, "terrace_open_owner: a pointer is NULL");
    }
    *owner = nullptr;
    const auto given = adopt("terrace_owner_options", options);
    if (!given) return set_error(given.error());
    auto settings = load_settings(given->settings_json);
    if (!settings) return set_error(settings.error());
    auto made = convert_owner(*given, settings->settings);
    if (!made) return set_error(made.error());
    auto handle =
        std::make_unique<terrace_owner>(settings->settings.log.level, made->layout.groups.size());
    for (const std::string& warning : settings->warnings) {
      handle->log.write(LogLevel::kWarn, warning);
    }
    for (const std::string& note : settings->notes) handle->log.write(LogLevel::kInfo, note);
    auto manager = manager::BlockManager::open(std::move(*made), handle->clock, handle->log);
    if (!manager) return set_error(manager.error());
    handle->kvbm_names = settings->settings.metrics.kvbm_names;
    handle->manager = std::move(*manager);
    start_http(*handle, *settings);
    start_admin(*handle, settings->settings, given->engine_id, Tokens(given->block_tokens));
    start_ledgers(*handle, settings->settings, given->engine_id);
    handle->watch_exit();
    *owner = handle.release();
    return TERRACE_OK;
  });
}

void terrace_close_owner(terrace_owner* owner, int64_t deadline_ns) {
  if (owner == nullptr || !owner->is_ours()) return;
  (void)guarded([&] {
    const Closing closing(*owner);
    if (!closing.is_admitted()) return TERRACE_OK;
    const Nanoseconds exit_deadline = owner->clock.now() + kExitLimit;
    const bool is_admin_over = owner->close_admin(exit_deadline);
    const bool is_http_over = owner->close_http(exit_deadline);
    const bool are_ledgers_over = owner->close_ledgers(exit_deadline);
    owner->manager->close(Nanoseconds(deadline_ns));
    // What hangs goes on one day, with clock, log and state of this handle: then all of it
    // is left to the process's end, on purpose.
    std::unique_ptr<terrace_owner> handle(owner);
    const bool is_over = is_admin_over && is_http_over && are_ledgers_over;
    if (!is_over || handle->manager->has_left_behind()) leave_behind(std::move(handle));
    return TERRACE_OK;
  });
}

terrace_code terrace_begin_request(terrace_owner* owner, const terrace_request_options* options,
                                   terrace_request* request) {
  return with_manager(owner, [&](manager::BlockManager& manager) {
    if (options == nullptr || request == nullptr) {
      return set_error(TERRACE_INVALID, "terrace_begin_request: a pointer is NULL");
    }
    *request = 0;
    const auto made = convert_request(*options);
    if (!made) return set_error(made.error());
    const auto begun = manager.begin_request(*made);
    if (!begun) return set_error(begun.error());
    *request = begun->value();
    return TERRACE_OK;
  });
}

terrace_code terrace_hint_request(terrace_owner* owner, terrace_request request,
                                  const terrace_hints* hints) {
  return with_manager(owner, [&](manager::BlockManager& manager) {
    if (hints == nullptr) return set_error(TERRACE_INVALID, "terrace_hint_request: NULL");
    const auto made = convert_hints(*hints);
    return made ? finish(manager.hint_request(RequestId(request), *made)) : set_error(made.error());
  });
}

terrace_code terrace_poll_request(terrace_owner* owner, terrace_request request,
                                  uint64_t local_tokens, uint64_t limit_tokens,
                                  uint64_t* external_tokens) {
  return with_manager(owner, [&](manager::BlockManager& manager) {
    if (external_tokens == nullptr) {
      return set_error(TERRACE_INVALID, "terrace_poll_request: external_tokens is NULL");
    }
    *external_tokens = 0;
    const auto answer =
        manager.poll_request(RequestId(request), Tokens(local_tokens), Tokens(limit_tokens));
    if (!answer) return set_error(answer.error());
    if (!answer->is_ready) return TERRACE_UNAVAILABLE;
    *external_tokens = answer->external.value();
    return TERRACE_OK;
  });
}

terrace_code terrace_accept_load(terrace_owner* owner, terrace_request request,
                                 uint64_t local_tokens, uint64_t external_tokens,
                                 const uint32_t* const* blocks, const uint64_t* block_counts) {
  return with_manager(owner, [&](manager::BlockManager& manager) {
    for (const auto& [what, tokens] :
         {std::pair("local_tokens", local_tokens), std::pair("external_tokens", external_tokens)}) {
      const Status limit = check_limit(what, tokens, kMaxTokens);
      if (!limit.is_ok()) return set_error(limit);
    }
    const auto tables = convert_tables(owner->groups, blocks, block_counts);
    if (!tables) return set_error(tables.error());
    return finish(manager.accept_load(RequestId(request), Tokens(local_tokens),
                                      Tokens(external_tokens), *tables));
  });
}

terrace_code terrace_advance_request(terrace_owner* owner, const terrace_progress* progress) {
  return with_manager(owner, [&](manager::BlockManager& manager) {
    if (progress == nullptr) return set_error(TERRACE_INVALID, "terrace_advance_request: NULL");
    const auto made = convert_progress(*progress, owner->groups);
    return made ? finish(manager.advance_request(*made)) : set_error(made.error());
  });
}

terrace_code terrace_build_orders(terrace_owner* owner, terrace_bytes* orders) {
  return with_manager(owner, [&](manager::BlockManager& manager) {
    if (orders == nullptr) return set_error(TERRACE_INVALID, "terrace_build_orders: NULL");
    auto built = manager.build_orders();
    if (!built) return set_error(built.error());
    return put_bytes(BufferKind::kOrders, std::move(*built), orders);
  });
}

terrace_code terrace_take_report(terrace_owner* owner, const uint8_t* report, uint64_t length) {
  return with_manager(owner, [&](manager::BlockManager& manager) {
    if (report == nullptr && length > 0)
      return set_error(TERRACE_INVALID, "terrace_take_report: NULL");
    return finish(manager.take_report({reinterpret_cast<const std::byte*>(report), length}));
  });
}

terrace_code terrace_taint_steps(terrace_owner* owner) {
  return with_manager(owner, [](manager::BlockManager& manager) {
    manager.taint_steps();
    return TERRACE_OK;
  });
}

terrace_code terrace_finish_request(terrace_owner* owner, terrace_request request,
                                    const terrace_ending* ending, terrace_bytes* ledger_json) {
  return with_manager(owner, [&](manager::BlockManager& manager) {
    const auto end = convert_ending(ending);
    if (!end) return set_error(end.error());
    const auto ledger = manager.end_request(RequestId(request), *end);
    if (!ledger) return set_error(ledger.error());
    if (ledger_json == nullptr) return TERRACE_OK;
    return put_bytes(BufferKind::kLedger, serve::ledger_json(*ledger), ledger_json);
  });
}

terrace_code terrace_end_request(terrace_owner* owner, terrace_request request,
                                 terrace_bytes* ledger_json) {
  return terrace_finish_request(owner, request, nullptr, ledger_json);
}

terrace_code terrace_take_events(terrace_owner* owner, terrace_bytes* events_json) {
  return with_manager(owner, [&](manager::BlockManager& manager) {
    if (events_json == nullptr) return set_error(TERRACE_INVALID, "terrace_take_events: NULL");
    const auto events = manager.take_events();
    try {
      return put_bytes(BufferKind::kEvents, events_to_json(events), events_json);
    } catch (const std::bad_alloc&) {
      manager.lose_events();
      throw;
    }
  });
}

terrace_code terrace_read_status(terrace_owner* owner, terrace_bytes* status_json) {
  return with_manager(owner, [&](manager::BlockManager&) {
    if (status_json == nullptr) return set_error(TERRACE_INVALID, "terrace_read_status: NULL");
    return put_bytes(BufferKind::kStatus, serve::status_json(status_of(*owner)), status_json);
  });
}

terrace_code terrace_read_metrics(terrace_owner* owner, terrace_bytes* text) {
  return with_manager(owner, [&](manager::BlockManager&) {
    if (text == nullptr) return set_error(TERRACE_INVALID, "terrace_read_metrics: NULL");
    return put_bytes(BufferKind::kMetrics, metrics_of(*owner), text);
  });
}

terrace_code terrace_read_log(terrace_owner* owner, terrace_bytes* lines) {
  return with_manager(owner, [&](manager::BlockManager&) {
    if (lines == nullptr) return set_error(TERRACE_INVALID, "terrace_read_log: NULL");
    return put_bytes(BufferKind::kLog, log_to_text(owner->log.drain()), lines);
  });
}

int terrace_owner_event_fd(const terrace_owner* owner) {
  int fd = -1;
  if (owner == nullptr || !owner->is_ours()) return fd;
  (void)guarded([&] {
    fd = owner->manager->event_fd();
    return TERRACE_OK;
  });
  return fd;
}

terrace_code terrace_reset_owner(terrace_owner* owner) {
  constexpr Nanoseconds kLimit = seconds(5);
  return with_manager(
      owner, [&](manager::BlockManager& manager) { return finish(manager.reset(kLimit)); });
}
}
