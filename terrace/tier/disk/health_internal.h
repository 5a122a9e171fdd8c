// Which volumes may be read and written now, and what the operator should know: a circuit breaker
// for each. One that fails several times in a row, hangs, or is not where it was, is shut: nothing
// is asked of it, its blocks are misses. It opens again only when somebody has looked at what came
// back (is_check_due(), Checker), never by itself. One that is full or read-only takes no writes
// for a while; a slow one takes none while another is quick; one whose files were deleted is given
// up. Threading: problems() and any_readable() are thread-safe, the rest belongs to the I/O thread.
// Waits: never.
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
  // A write or a sync, or an allocation that failed otherwise than for want of space. A path that
  // is full or read-only takes no writes for a while, and is read as before; kClosed is nobody's
  // fault.
  void write_failed(std::uint32_t volume, const Status& status);
  // An allocation failed: until grew() the volume is used as far as it has space.
  void stuck(std::uint32_t volume, const Status& status);
  void grew(std::uint32_t volume);
  // True the first time.
  bool lost(std::uint32_t volume);
  // Its directory is not where it was; until found(), no check is due.
  void gone(std::uint32_t volume, const std::string& why);
  void found(std::uint32_t volume);
  // Something does not come back, as `why` says; until let_go(), no check is due. True the first
  // time.
  bool hangs(std::uint32_t volume, const std::string& why);
  void let_go(std::uint32_t volume);
  // Against its own norm, in bytes a second.
  void slow(std::uint32_t volume, double rate, double norm);
  void quick(std::uint32_t volume);

  // It was shut long enough: whoever looks at it tells what was found.
  [[nodiscard]] bool is_check_due(std::uint32_t volume) const;
  void check_failed(std::uint32_t volume, const Status& status);
  void returned(std::uint32_t volume, const std::string& found);
  // What came back is not what was there: it stays shut.
  void distrusted(std::uint32_t volume, const std::string& why);

  [[nodiscard]] bool any_readable() const { return readable_.load(std::memory_order_relaxed) > 0; }
  [[nodiscard]] std::vector<std::string> problems() const;

 private:
  struct State {
    unsigned failures = 0;  // In a row.
    Nanoseconds check_at{INT64_MIN};
    Nanoseconds rest{0};  // The last one between two checks.
    Nanoseconds refused_until{INT64_MIN};
    bool is_refused = false;  // Full or read-only.
    bool is_shut = false;
    bool is_gone = false;
    bool is_hanging = false;
    bool is_slow = false;
    bool is_stuck = false;
    bool is_lost = false;  // For good.
    // What was said of those: it still holds when another one ends.
    std::string refused_text;
    std::string stuck_text;
    std::string slow_text;
  };
  void shut(std::uint32_t volume, const std::string& problem);
  void say(std::uint32_t volume, const std::string& problem);
  // The worst of what is wrong with one that is in use.
  void say_rest(std::uint32_t volume);

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
