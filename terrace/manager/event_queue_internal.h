// Events waiting for the engine to take them. When nobody does, the oldest go and one `cleared`
// takes their place: a reader never believes in a block that is gone. Threading: thread-compatible;
// the manager's lock guards it.  Waits: never. Memory: at most `limit` events.
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <utility>
#include <vector>

#include "terrace/manager/events.h"

namespace terrace::manager {

class EventQueue {
 public:
  explicit EventQueue(std::size_t limit = 65'536) : limit_(limit) {}

  void push(Event event) {
    if (event.kind == Event::Kind::kCleared) {  // Whatever came before is void now.
      events_.clear();
      has_overflown_ = false;
    } else if (events_.size() >= limit_) {
      events_.pop_front();
      has_overflown_ = true;
      ++dropped_;
    }
    events_.push_back(std::move(event));
  }
  [[nodiscard]] std::vector<Event> take() {
    std::vector<Event> taken;
    taken.reserve(events_.size() + 1);
    if (std::exchange(has_overflown_, false)) taken.push_back({.kind = Event::Kind::kCleared});
    for (Event& event : events_) taken.push_back(std::move(event));
    events_.clear();
    return taken;
  }
  // What was taken did not reach the reader.
  void lose() { has_overflown_ = true; }
  [[nodiscard]] bool is_empty() const { return events_.empty(); }
  [[nodiscard]] std::uint64_t dropped() const { return dropped_; }

 private:
  std::size_t limit_;
  std::deque<Event> events_;
  bool has_overflown_ = false;
  std::uint64_t dropped_ = 0;
};

}  // namespace terrace::manager
