// Which generation of the namespace counts in this store: found out before anything else, and
// raised by a reset, as often as it takes.
// Threading: owned by the I/O thread.  Waits: never.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "terrace/tier/object/context_internal.h"
#include "terrace/transfer/object_listing.h"

namespace terrace::tier::object {

class Generations {
 public:
  explicit Generations(Context& context)
      : context_(context), listing_(context.names.resets()), look_(context.names.resets()) {}

  // Asks, and asks again while the store does not answer.
  void advance();
  void take_listing(const transfer::ObjectAnswer& answer);

  void take_reset(const transfer::ObjectAnswer& answer, std::uint64_t number);
  [[nodiscard]] bool is_idle() const { return !is_asking_ && !is_telling_; }

 private:
  void ask();
  [[nodiscard]] Status list(const std::string& after, Part part, std::uint64_t number);
  [[nodiscard]] std::uint64_t highest_of(const transfer::ObjectAnswer& answer) const;
  // Of a reset: its name is put, and then looked for, as another node may have put a higher one.
  void tell();
  void end_telling(const Status& status);

  Context& context_;
  bool is_asking_ = false;
  bool has_told_ = false;
  Nanoseconds ask_at_{0};
  transfer::ObjectListing listing_;  // Before anything is served.
  std::uint64_t highest_ = 0;
  bool is_telling_ = false;
  Nanoseconds tell_at_{0};
  transfer::ObjectListing look_;    // After a reset was put.
  std::uint64_t told_ = 0;          // What the last reset that was put is called.
  std::uint64_t highest_seen_ = 0;  // Since then.
  std::string content_ = "reset\n";
};

}  // namespace terrace::tier::object
