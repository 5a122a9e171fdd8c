// Which volumes may be read and written now, and what the operator should know.
// A volume that fails several times in a row is left alone for a while and then tried again; one
// that is full takes no writes for a while; one whose files were deleted is given up. Threading:
// problems() and any_readable() are thread-safe, the rest belongs to the I/O thread. Waits: never.
#pragma once

#include <atomic>
#include <string>
#include <vector>

#include "terrace/base/clock.h"
#include "terrace/base/log.h"
#include "terrace/base/mutex.h"
#include "terrace/base/status.h"

namespace terrace::tier::disk {

class Health {
 public:
  Health(std::vector<std::string> directories, std::vector<std::string> start_problems,
         const Clock& clock, LogSink& log);

  [[nodiscard]] bool may_read(std::uint32_t volume) const;
  [[nodiscard]] bool may_write(std::uint32_t volume) const;
  void succeeded(std::uint32_t volume, bool is_write);
  void failed(std::uint32_t volume, const Status& status);
  // A write, a sync or an allocation. A path that is full or read-only takes no writes for a while,
  // and is read as before; kClosed is nobody's fault.
  void write_failed(std::uint32_t volume, const Status& status);
  // True the first time.
  bool lost(std::uint32_t volume);

  [[nodiscard]] bool any_readable() const { return readable_.load(std::memory_order_relaxed) > 0; }
  [[nodiscard]] std::vector<std::string> problems() const;

 private:
  struct State {
    unsigned failures = 0;  // In a row.
    Nanoseconds closed_until{INT64_MIN};
    Nanoseconds refused_until{INT64_MIN};
    bool is_refused = false;  // Full or read-only.
    bool is_lost = false;
  };
  void say(std::uint32_t volume, const std::string& problem);

  const std::vector<std::string> directories_;
  const std::vector<std::string> start_problems_;
  const Clock& clock_;
  LogSink& log_;
  std::vector<State> states_;
  std::atomic<int> readable_;
  mutable Mutex mutex_;
  std::vector<std::string> current_ TERRACE_GUARDED_BY(mutex_);  // [volume]
};

}  // namespace terrace::tier::disk
