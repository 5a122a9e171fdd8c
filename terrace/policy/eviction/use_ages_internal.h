// How long ago each slot was used, in 21 bits a slot: seconds of a clock of its own, modulo 24
// days. So that nothing becomes young again each slot is looked at once in three days, a few at
// each call. A pause that is too long for that is left out of the clock and remembered beside it,
// until all slots have been looked at and have become as much older: the ages are right at any
// time. Threading: thread-compatible.  Waits: never.  Memory: 1.6 KiB.  Bounds: pass().
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>

namespace terrace::policy {

class UseAges {
 public:
  static constexpr unsigned kBits = 21;
  // Twelve days: what was used before that is taken for as old.
  static constexpr std::uint32_t kOldest = 1U << 20U;
  // In this time every slot is looked at, three days: so none is older than kOldest and two rounds.
  static constexpr std::uint32_t kRound = 1U << 18U;
  static constexpr std::size_t kMostPauses = 64;
  static constexpr std::uint64_t kFew = 1U << 16U;  // Slots: some 100 us.

  explicit UseAges(std::uint32_t slots, std::uint64_t few = kFew)
      : slots_(slots), most_at_once_(std::max<std::uint64_t>(few, slots / kMostPauses + 1)) {}

  // Of a use now: what the slot is to keep, kBits of it.
  [[nodiscard]] std::uint32_t now() const { return now_; }
  // Of a use so many seconds ago.
  [[nodiscard]] std::uint32_t mark_of(std::uint32_t slot, std::uint32_t age) const {
    age = std::min(age, kOldest);
    for (std::size_t i = pause_count_; i-- > 0 && is_ahead(slot, pauses_[i]);) {
      const std::uint32_t since = distance(pauses_[i].mark, now_);
      if (age < since) break;
      age = std::max(since, age - std::min(age, pauses_[i].seconds));
    }
    return (now_ - age) & kMask;
  }
  // At most kOldest. 0 of a use ahead of now(): they are not always told in order.
  [[nodiscard]] std::uint32_t age_of(std::uint32_t slot, std::uint32_t mark) const {
    const std::uint32_t age = distance(mark, now_);
    if (age > kPast) return 0;
    if (pause_count_ > 0) [[unlikely]]
      return with_pauses(slot, age);
    return std::min(age, kOldest);
  }

  // Before anybody tells of time: a second, in which nobody looks at anything.
  void tick() { go_on(1); }
  void step_back(std::uint32_t seconds) {
    constexpr std::uint32_t kMostAhead = kRound - 1;  // Beyond that they would be taken for old.
    seconds = std::min(seconds, kMostAhead - std::min(kMostAhead, distance(now_, newest_)));
    // Not into a pause.
    if (pause_count_ > 0) {
      seconds = std::min(seconds, distance(pauses_[pause_count_ - 1].mark, now_) - 1);
    }
    now_ = (now_ - seconds) & kMask;
  }
  // Time passes, perhaps none. Calls renew(slot), which sets the slot's mark to renewed(), for
  // those whose turn it is; how many: at most most_at_once().
  template <typename Renew>
  std::uint64_t pass(std::uint32_t seconds, const Renew& renew) {
    const std::uint64_t due = due_ + std::uint64_t{seconds} * slots_;
    std::uint64_t looks = due / kRound;
    if (looks > most_at_once_ || seconds > kRound) {
      pause(seconds);
      looks = 0;
    } else {
      due_ = due % kRound;
      go_on(seconds);
    }
    if (pause_count_ > 0) {
      const std::uint64_t left = pauses_[pause_count_ - 1].end - looked_;
      looks = std::max(looks, std::min(most_at_once_, left));
    }
    for (std::uint64_t i = 0; i < looks; ++i) {
      renew(next_);
      next_ = next_ + 1 < slots_ ? next_ + 1 : 0;
      ++looked_;
    }
    end_pauses();
    return looks;
  }
  // The mark of a slot whose turn it is.
  [[nodiscard]] std::uint32_t renewed(std::uint32_t slot, std::uint32_t mark) const {
    if (distance(mark, now_) > kPast) return mark;
    const std::uint32_t age = age_of(slot, mark);
    return age < kOldest && pause_count_ == 0 ? mark : (now_ - age) & kMask;
  }
  [[nodiscard]] std::uint64_t most_at_once() const { return most_at_once_; }

 private:
  static constexpr std::uint32_t kMask = (1U << kBits) - 1;
  static constexpr std::uint32_t kPast = kOldest + 3 * kRound;
  struct Pause {
    std::uint32_t mark;     // Of the last use before it.
    std::uint32_t seconds;  // Left out of the clock.
    std::uint64_t end;      // Of looked_, when all slots have been looked at.
  };

  [[nodiscard]] static std::uint32_t distance(std::uint32_t from, std::uint32_t to) {
    return (to - from) & kMask;
  }
  // The slot has not been looked at since.
  [[nodiscard]] bool is_ahead(std::uint32_t slot, const Pause& pause) const {
    const std::uint64_t turns = slot >= next_ ? slot - next_ : slot + (slots_ - next_);
    return pause.end > looked_ + turns;
  }
  [[nodiscard]] std::uint32_t with_pauses(std::uint32_t slot, std::uint32_t age) const {
    std::uint64_t all = age;
    for (std::size_t i = pause_count_; i-- > 0 && is_ahead(slot, pauses_[i]);) {
      if (age >= distance(pauses_[i].mark, now_)) all += pauses_[i].seconds;
    }
    return static_cast<std::uint32_t>(std::min<std::uint64_t>(all, kOldest));
  }
  void go_on(std::uint32_t seconds) {
    if (seconds > distance(now_, newest_)) newest_ = (now_ + seconds) & kMask;
    now_ = (now_ + seconds) & kMask;
  }
  void pause(std::uint32_t seconds) {
    const std::uint32_t mark = newest_;
    // Past what is ahead of now: that lies before the pause, too.
    const std::uint32_t passed = std::min(seconds, distance(now_, newest_) + 1);
    go_on(passed);
    pauses_[pause_count_++] = {.mark = mark, .seconds = seconds - passed, .end = looked_ + slots_};
  }
  void end_pauses() {
    std::size_t over = 0;
    while (over < pause_count_ && pauses_[over].end <= looked_) ++over;
    if (over == 0) return;
    for (std::size_t i = over; i < pause_count_; ++i) pauses_[i - over] = pauses_[i];
    pause_count_ -= over;
  }

  std::uint32_t slots_;
  std::uint64_t most_at_once_;
  std::uint32_t now_ = 0;
  std::uint32_t newest_ = 0;  // As far ahead as now_ has ever been.
  std::uint32_t next_ = 0;    // The slot whose turn it is.
  std::uint64_t looked_ = 0;  // Slots looked at.
  std::uint64_t due_ = 0;     // Seconds, times slots.
  std::size_t pause_count_ = 0;
  // The oldest first. Each call that begins one looks at most_at_once() slots, so the first one has
  // ended when there would be one too many.
  std::array<Pause, kMostPauses> pauses_{};
};

}  // namespace terrace::policy
