// What went wrong, for the caller and for the operator.
// Threading: immutable values.  Owns: its message.  Waits: never.
// Codes say what the caller does next; the message says which setting, file or operation, why, and
// the way out. I/O errors read `pread /kv/0.slots: EIO (5)`. A miss is a value, never a Status.
#pragma once

#include <expected>
#include <string>
#include <string_view>
#include <utility>

namespace terrace {

enum class Code : int {
  kOk = 0,
  kInvalid = 1,      // The input is wrong: tell whoever gave it. Do not retry.
  kNotFound = 2,     // It is not there.
  kExhausted = 3,    // No slot, queue place or byte left: drop the work and count it.
  kUnavailable = 4,  // Not yet, or not now: ask again later.
  kDeadline = 5,     // Too late: recompute.
  kCorrupt = 6,      // Bytes do not match key, layout or checksum: treat as a miss.
  kIo = 7,           // The medium failed: the scope says how much of it.
  kRefused = 8,      // Permission, credentials, layout or version of the other side.
  kClosed = 9,       // Shut down.
  kInternal = 10,    // A broken invariant of ours: the instance is poisoned.
};

// How much is hurt.
enum class Scope : int { kBlock = 0, kRegion = 1, kBackend = 2, kNode = 3 };

[[nodiscard]] std::string_view to_string(Code code);
[[nodiscard]] std::string_view to_string(Scope scope);

class [[nodiscard]] Status {
 public:
  Status() = default;
  Status(Code code, std::string message, Scope scope = Scope::kBlock)
      : code_(code), scope_(scope), message_(std::move(message)) {}

  // `operation path: ERRNAME (number)`, from errno.
  static Status from_errno(int error, std::string_view operation, std::string_view path,
                           Scope scope = Scope::kRegion);

  [[nodiscard]] bool is_ok() const { return code_ == Code::kOk; }
  [[nodiscard]] Code code() const { return code_; }
  [[nodiscard]] Scope scope() const { return scope_; }
  [[nodiscard]] bool is_retryable() const {
    return code_ == Code::kUnavailable || code_ == Code::kExhausted;
  }
  [[nodiscard]] const std::string& message() const { return message_; }
  // `corrupt: message`.
  [[nodiscard]] std::string text() const;

 private:
  Code code_ = Code::kOk;
  Scope scope_ = Scope::kBlock;
  std::string message_;
};

template <typename T>
using Result = std::expected<T, Status>;

// Shorthand for `return fail(Code::kInvalid, "…")` from a function returning Result.
[[nodiscard]] inline std::unexpected<Status> fail(Code code, std::string message,
                                                  Scope scope = Scope::kBlock) {
  return std::unexpected(Status(code, std::move(message), scope));
}
[[nodiscard]] inline std::unexpected<Status> fail(Status status) {
  return std::unexpected(std::move(status));
}

}  // namespace terrace

#define TERRACE_CONCAT_INNER(a, b) a##b
#define TERRACE_CONCAT(a, b) TERRACE_CONCAT_INNER(a, b)

// Returns the Status (from a function returning Status or Result) unless it is ok.
#define TERRACE_RETURN_IF_ERROR(expression)                                         \
  do {                                                                              \
    if (::terrace::Status terrace_status = (expression); !terrace_status.is_ok()) { \
      return ::terrace::detail::Propagate{std::move(terrace_status)};               \
    }                                                                               \
  } while (false)

// `TERRACE_ASSIGN_OR_RETURN(auto value, make_value());`
#define TERRACE_ASSIGN_OR_RETURN(declaration, expression) \
  TERRACE_ASSIGN_OR_RETURN_INNER(TERRACE_CONCAT(terrace_result_, __LINE__), declaration, expression)
#define TERRACE_ASSIGN_OR_RETURN_INNER(result, declaration, expression) \
  auto result = (expression);                                           \
  if (!result.has_value()) {                                            \
    return ::terrace::detail::Propagate{std::move(result).error()};     \
  }                                                                     \
  declaration = std::move(result).value()

namespace terrace::detail {
// Converts to Status or to any Result, so that one macro serves both kinds of function.
struct Propagate {
  Status status;
  operator Status() && { return std::move(status); }  // NOLINT(google-explicit-constructor)
  template <typename T>
  operator std::expected<T, Status>() && {  // NOLINT(google-explicit-constructor)
    return std::unexpected(std::move(status));
  }
};
}  // namespace terrace::detail
