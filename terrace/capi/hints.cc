#include <span>
#include <string_view>

#include "terrace/block/digest.h"
#include "terrace/capi/convert_internal.h"
#include "terrace/capi/structs_internal.h"

namespace terrace::capi {

namespace {

// Of a name that a client chose: nothing follows from two that meet but a wrong weight.
SequenceHash session_of(std::string_view name) {
  Digest digest;
  digest.add_field("session");
  digest.add_field(name);
  const auto bytes = digest.finish();
  return SequenceHash::from_bytes(std::span(bytes).first<16>());
}

policy::Ending ending_of(std::uint32_t reason) {
  switch (reason) {
    case TERRACE_ENDING_STOP:
      return policy::Ending::kDone;
    case TERRACE_ENDING_LENGTH:
      return policy::Ending::kLength;
    case TERRACE_ENDING_ABORT:
      return policy::Ending::kAborted;
    case TERRACE_ENDING_TOOL_CALL:
      return policy::Ending::kToolCall;
    default:
      return policy::Ending::kUnknown;
  }
}

}  // namespace

Result<manager::GivenHints> convert_hints(const terrace_hints& given) {
  TERRACE_ASSIGN_OR_RETURN(const auto hints, adopt("terrace_hints", &given));
  TERRACE_RETURN_IF_ERROR(check_array("session_length", hints.session, hints.session_length));
  manager::GivenHints made;
  made.told = hints.ignored;
  constexpr std::uint32_t kKnown = TERRACE_HINT_SESSION_OVER | TERRACE_HINT_TOOL_CALL;
  if ((hints.flags & ~kKnown) != 0) ++made.wrong;
  made.hints.is_over = (hints.flags & TERRACE_HINT_SESSION_OVER) != 0;
  made.hints.is_tool_call = (hints.flags & TERRACE_HINT_TOOL_CALL) != 0;
  if (hints.session_length > kMaxSessionBytes) {
    ++made.wrong;
  } else if (hints.session_length > 0) {
    made.hints.session =
        session_of({reinterpret_cast<const char*>(hints.session), hints.session_length});
  }
  if (hints.return_ns < 0 || hints.return_ns > kMaxReturn.value()) {
    ++made.wrong;
  } else {
    made.hints.returns_in = Nanoseconds(hints.return_ns);
  }
  if (hints.priority > TERRACE_PRIORITY_LOW) {
    ++made.wrong;
  } else {
    made.hints.priority = static_cast<policy::Priority>(hints.priority);
  }
  return made;
}

Result<manager::AnswerEnd> convert_ending(const terrace_ending* given) {
  if (given == nullptr) return manager::AnswerEnd{};
  TERRACE_ASSIGN_OR_RETURN(const auto ending, adopt("terrace_ending", given));
  return manager::AnswerEnd{.ending = ending_of(ending.reason),
                            .answer = Tokens(ending.answer_tokens)};
}

}  // namespace terrace::capi
