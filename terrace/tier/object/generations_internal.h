// Which generation of the namespace counts in this store: found out before anything else, and
// raised by a reset, as often as it takes.
// Threading: owned by the I/O thread.  Waits: never.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "terrace/tier/object/context_internal.h"

namespace terrace::tier::object {

class Generations {
 public:
  explicit Generations(Context& context) : context_(context) {}

  // Asks, and asks again while the store does not answer.
  void advance();
  void take_listing(const transfer::ObjectAnswer& answer);

  void take_reset(const Status& status);
  [[nodiscard]] bool is_idle() const { return !is_asking_ && !is_telling_; }

 private:
  void ask(const std::string& after);
  // Of a reset.
  void tell();

  Context& context_;
  bool is_asking_ = false;
  bool has_told_ = false;
  Nanoseconds ask_at_{0};
  std::uint64_t highest_ = 0;
  bool is_telling_ = false;
  Nanoseconds tell_at_{0};
  std::string content_ = "reset\n";
};

}  // namespace terrace::tier::object
