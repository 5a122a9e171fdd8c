#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>

#include "terrace/base/sync_point.h"
#include "terrace/manager/event_signal_internal.h"

namespace terrace::manager {

void EventSignal::open() { fd_ = UniqueFd(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)); }

void EventSignal::raise(Nanoseconds now) {
  if (!fd_.is_open()) return;
  if (!is_raised_.load()) raised_at_ns_.store(now.value());
  is_raised_.store(true);
  TERRACE_SYNC_POINT("event_signal.raise");
  const std::uint64_t one = 1;
  (void)!::write(fd_.get(), &one, sizeof one);  // Full means readable: that is all we want.
}

void EventSignal::lower(const Clock& clock, TimeHistogram& lag) {
  if (is_raised_.exchange(false)) {
    lag.add(Nanoseconds(std::max<std::int64_t>(clock.now().value() - raised_at_ns_.load(), 0)));
  }
  // Whatever the flag says: who raises sets it first, and writes after this perhaps.
  std::uint64_t count = 0;
  (void)!::read(fd_.get(), &count, sizeof count);
}

}  // namespace terrace::manager
