// What the HTTP port answers to which request, without the port: the page, metrics, and what the
// page asks for. Nothing here changes anything. Threading: thread-compatible; the port's
// thread has it and calls the hooks.  Waits: never.  Memory: History's and SlowRequests'.
#pragma once

#include <functional>
#include <string>
#include <string_view>

#include "terrace/base/clock.h"
#include "terrace/base/metric.h"
#include "terrace/serve/http/history.h"
#include "terrace/serve/http/slow_requests.h"

namespace terrace::serve {

// The owner, as far as its page shows it.
struct SiteHooks {
  std::function<std::string()> status;             // JSON.
  std::function<std::string()> metrics;            // Prometheus text.
  std::function<void(MetricVisitor&)> visit = {};  // The same cells, for the history.
  std::string settings;                            // JSON: effective values and explanations.
  const manager::LedgerRing* ledgers = nullptr;    // Outlives the site; null = none are kept.
};

struct SiteRequest {
  std::string_view method;
  std::string_view target;  // As in the request line.
  std::string_view host;    // The header; empty = none.
};

struct SiteAnswer {
  unsigned code = 200;  // As in HTTP.
  std::string_view type = "application/json";
  std::string_view allow;  // Methods that would have been right; only of a 405.
  std::string body;
};

// An error as one line of JSON.
[[nodiscard]] SiteAnswer site_error(unsigned code, std::string_view text);
// Whether a browser that was led here by another name of this address may read the answer: where
// only this machine can ask, only by this machine's own names.
[[nodiscard]] bool is_own_name(std::string_view host);

class Site {
 public:
  // Status takes the core's lock for a moment: at most once in this time, whoever asks.
  static constexpr Nanoseconds kStatusAge = seconds(1);

  // `is_local`: only this machine can ask.
  Site(SiteHooks hooks, bool is_local, const Clock& clock);
  // Each History::kFineStep, and once at the start.
  void sample();
  // What a hook throws passes through.
  [[nodiscard]] SiteAnswer answer(const SiteRequest& request);
  [[nodiscard]] Bytes history_bytes() const { return history_.bytes(); }

 private:
  [[nodiscard]] SiteAnswer get(std::string_view path, std::string_view query);
  [[nodiscard]] SiteAnswer history(std::string_view query) const;
  [[nodiscard]] std::string status();

  const SiteHooks hooks_;
  const bool is_local_;
  const Clock& clock_;
  History history_;
  SlowRequests slow_;
  std::string status_;
  Nanoseconds status_at_{0};
};

}  // namespace terrace::serve
