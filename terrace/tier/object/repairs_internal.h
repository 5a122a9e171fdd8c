// Looks now and then at the packs that were seen damaged: one that is gone, or another one, is told
// no more, and may be looked up and written again.
// Threading: owned by the I/O thread.  Waits: never.  Bounds: one question under way, one a second.
#pragma once

#include "terrace/tier/object/context_internal.h"

namespace terrace::tier::object {

class Repairs {
 public:
  explicit Repairs(Context& context) : context_(context) {}

  void advance();
  void take(const transfer::ObjectAnswer& answer);

 private:
  Context& context_;
  bool is_asking_ = false;
  PackName asked_{};
  Nanoseconds next_at_{0};
};

}  // namespace terrace::tier::object
