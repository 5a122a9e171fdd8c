// What an owner does for the store as a whole, when nobody waits: it removes packs that are too old
// or too many, a round at a time, and finds out once whether the store keeps what it has.
// Threading: owned by the I/O thread.  Waits: never.  Bounds: see collector.h.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "terrace/tier/object/collector.h"
#include "terrace/tier/object/context_internal.h"

namespace terrace::tier::object {

class Upkeep {
 public:
  explicit Upkeep(Context& context) : context_(context) {}

  void advance();
  void take_round(const transfer::ObjectAnswer& answer, std::uint64_t number);
  void take_check(const transfer::ObjectAnswer& answer);
  [[nodiscard]] bool is_idle() const {
    return !is_checking_ && (!collector_ || collector_->is_idle());
  }

 private:
  enum class Check : std::uint8_t { kNone, kFirst, kSecond, kDone };
  // Does a put leave alone what is there? An object of a fixed name, put by everybody, tells.
  void check();
  void advance_round();
  void ask();
  void finish();
  void count(const CollectReport& report);

  Context& context_;
  std::optional<Collector> collector_;  // A round under way.
  Nanoseconds next_at_{0};
  Check check_ = Check::kNone;
  bool is_checking_ = false;
  std::string content_ = "stays\n";
  std::uint64_t counted_gone_ = 0;  // Of this round, in the counters already.
};

}  // namespace terrace::tier::object
