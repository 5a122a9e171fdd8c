#include <algorithm>

#include "terrace/base/check.h"
#include "terrace/tier/object/touches_internal.h"

namespace terrace::tier::object {

namespace {
constexpr Nanoseconds kTouchTime = seconds(60);
constexpr Nanoseconds kLongestPause = seconds(3600);
}  // namespace

bool Touches::is_paused() const {
  return refusals_ >= kMostRefusals && context_.clock.now() < paused_until_;
}

void Touches::note(std::span<const SequenceHash> chain, std::uint64_t packs) {
  const Nanoseconds every = context_.touch_every();
  if (every == Nanoseconds(0) || is_paused() || !context_.is_upkeep_allowed) return;
  const std::uint64_t blocks = context_.geometry.blocks();
  const MutexLock lock(context_.mutex);
  const Nanoseconds now = context_.clock.now();
  // What waits counts as touched: after refusals it is no more than what may be asked.
  const std::size_t most = refusals_ < kMostRefusals ? kMostWaiting : 1;
  for (std::uint64_t pack = 0; pack < packs && waiting_.size() < most; ++pack) {
    const SequenceHash& last = chain[(pack + 1) * blocks - 1];
    if (!context_.known.take_touch(last, now, every)) continue;
    const auto place = context_.known.find(last, now);
    waiting_.push_back({.pack = last, .variant = place ? place->variant : std::uint8_t{0}});
  }
}

void Touches::advance() {
  const bool is_over = context_.is_stopped || context_.is_reset.load();
  if (is_over || is_paused()) waiting_.clear();
  const std::size_t most = refusals_ < kMostRefusals ? kMostAsked : 1;
  while (!waiting_.empty() && asked_.size() < most && context_.is_upkeep_allowed) {
    if (!ask(waiting_.front())) return;
    waiting_.pop_front();
  }
}

bool Touches::ask(const Asked& what) {
  transfer::ObjectRequest request;
  request.op = what.is_touch ? transfer::ObjectOp::kTouch : transfer::ObjectOp::kHead;
  request.name = context_.name_of(what.pack, what.variant);
  request.deadline = context_.clock.now() + kTouchTime;
  const std::uint64_t number = last_number_ + 1;
  request.token = context_.token(Part::kTouch, number);
  if (!context_.queue.push(transfer::IoClass::kScrub, std::move(request)).is_ok()) return false;
  last_number_ = number;
  asked_.emplace(number, what);
  return true;
}

void Touches::take(const transfer::ObjectAnswer& answer, std::uint64_t number) {
  const auto node = asked_.extract(number);
  TERRACE_CHECK(!node.empty());
  Asked what = node.mapped();
  if (!what.is_touch && answer.status.is_ok()) {
    const std::int64_t age = context_.clock.wall_seconds() - answer.info.modified_seconds;
    if (age < context_.touch_every() / seconds(1)) return;  // Somebody else did it.
    what.is_touch = true;
    if (ask(what)) return;
    context_.counters.failed_touches.add();
    return;
  }
  end(what, answer.status);
}

void Touches::end(const Asked& what, const Status& status) {
  if (status.is_ok()) {
    refusals_ = 0;
    context_.counters.touches.add();
  } else if (status.code() == Code::kNotFound) {
    // Under which name it lies may have been a guess.
    if (context_.variants.size() == 1) context_.forget(what.pack);
  } else {
    context_.counters.failed_touches.add();
    if (status.code() == Code::kRefused) refused(status);
  }
}

void Touches::refused(const Status& status) {
  if (++refusals_ < kMostRefusals) return;
  // A pack that stays in use is to be touched within touch_every() of the refusals' end.
  paused_until_ = context_.clock.now() + std::min(kLongestPause, context_.touch_every());
  if (refusals_ > kMostRefusals) return;  // Told.
  context_.log.write(LogLevel::kWarn,
                     "event=object_untouched reason=\"" + status.text() +
                         "\" effect=\"packs count as old as they were when they were put; one is "
                         "tried every hour\"");
}

}  // namespace terrace::tier::object
