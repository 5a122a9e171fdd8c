// What a store that answers will not do: be asked and read, or take packs. A store that is away is
// the queue's to tell; this one is there, so nothing else would say why everything is a miss.
// Threading: owned by the I/O thread.  Waits: never.
#pragma once

#include <string>

#include "terrace/base/log_limit.h"
#include "terrace/tier/object/context_internal.h"

namespace terrace::tier::object {

class Refusals {
 public:
  explicit Refusals(Context& context)
      : context_(context), log_(context.clock, context.log, "event=object_refused") {}

  // Of a look-up or a read.
  void note_asked(const Status& status);
  void note_read(const Status& status);
  void note_put(const Status& status);
  void advance() { log_.tick(); }

 private:
  // `state` is one of those that the context's mutex guards.
  void tell(std::string Context::* state, std::string text);

  Context& context_;
  unsigned failed_reads_ = 0;  // In a row, each for itself.
  unsigned failed_puts_ = 0;
  LogLimit log_;
};

}  // namespace terrace::tier::object
