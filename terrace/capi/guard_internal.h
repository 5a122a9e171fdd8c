// What every C function stands on: nothing is thrown out, errors leave a text, forked children are
// turned away, and the process's exit finds no thread of ours running.
// Threading: thread-safe.
#pragma once

#include <terrace/terrace.h>
#include <unistd.h>

#include <exception>
#include <new>
#include <string>
#include <utility>

#include "terrace/base/status.h"
#include "terrace/base/sync_point.h"

namespace terrace::capi {

// Stores the text for terrace_last_error() and gives the code.
terrace_code set_error(const Status& status);
terrace_code set_error(terrace_code code, std::string text);
// TERRACE_EXHAUSTED with a text, for which no memory is needed.
terrace_code set_out_of_memory() noexcept;

// Runs `body` (returning terrace_code). Where it finds no memory only this call fails, with
// TERRACE_EXHAUSTED: whoever was in the middle of a change throws a MemoryBreach instead. Any other
// exception that escapes is TERRACE_INTERNAL, and `on_breach` (a call with the text) poisons the
// handle.
template <typename Body, typename OnBreach>
terrace_code guarded(Body&& body, OnBreach&& on_breach) noexcept {
  const auto breach = [&on_breach](const char* text) {
    try {
      on_breach(text);
      return set_error(TERRACE_INTERNAL, text);
    } catch (...) {
      return TERRACE_INTERNAL;
    }
  };
  try {
    TERRACE_FAULT_POINT();
    return body();
  } catch (const std::bad_alloc&) {
    return set_out_of_memory();
  } catch (const std::exception& error) {
    return breach(error.what());
  } catch (...) {
    return breach("something was thrown that is no exception of ours");
  }
}

// As above for functions without a handle.
template <typename Body>
terrace_code guarded(Body&& body) noexcept {
  return guarded(std::forward<Body>(body), [](const char*) {});
}

// Copies `text` into the calling thread's buffer of `kind` and points `bytes` at it.
enum class BufferKind { kOrders, kLedger, kEvents, kStatus, kMetrics, kLog, kReport, kCount };
terrace_code put_bytes(BufferKind kind, std::string text, terrace_bytes* bytes);

// Handles that are still open when the process exits are closed then, with a short deadline, unless
// the process is a forked child.
class ExitClosed {
 public:
  virtual ~ExitClosed();
  // Frees nothing that another thread's call may still use.
  virtual void close_at_exit() noexcept = 0;
  // From now on; the handle is whole.
  void watch_exit();

 protected:
  ExitClosed() : pid_(::getpid()) {}
  // False in a forked child of the process that made the handle.
  [[nodiscard]] bool is_ours() const { return ::getpid() == pid_; }

 private:
  pid_t pid_;
};

// A handle's close by whoever has it, between which and the exit's there is one winner. The handle
// may be freed meanwhile; one that is not is the exit's again afterwards.
class Closing {
 public:
  explicit Closing(ExitClosed& handle);
  Closing(const Closing&) = delete;
  Closing& operator=(const Closing&) = delete;
  ~Closing();
  // False: the exit closes it, and nobody frees it.
  [[nodiscard]] bool is_admitted() const { return is_admitted_; }

 private:
  ExitClosed* const handle_;
  bool is_admitted_ = false;
};

// What the process's exit runs: closes what is open, then waits a while for closes under way.
void close_all_at_exit();

}  // namespace terrace::capi
