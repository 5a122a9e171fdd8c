// expect: private
#include <utility>

#include "terrace/manager/survey_internal.h"

namespace terrace::manager {

// What a look-up holds comes from Survey, which leaves out what is in doubt.
void use(Survey& survey, Strand& strand, catalog::Pin pin) {
#if defined(TERRACE_FAULT)
  strand.tail_.push_back(std::move(pin));
#else
  pin.reset();
  (void)survey.hold(strand, 0, SequenceHash{});
#endif
}

}  // namespace terrace::manager
