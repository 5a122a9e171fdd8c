// An owner's admin socket: HTTP/1.1 on a Unix socket beside the rendezvous, for `terrace status`
// and whoever scrapes metrics. One request a connection; peers that are slow, silent or hostile are
// dropped at a deadline or when newer ones come, and hold up nobody. Threading: thread-safe; one
// thread of its own, `terrace-admin`, which also takes the socket. A forked child's destructor
// removes nothing. Waits: close(), up to its deadline. Bounds: kMaxConnections of at most some
// 100 KiB each, beside what is answered. Source: docs/formats/admin.md.
#pragma once

#include <cstddef>
#include <functional>
#include <memory>
#include <string>

#include "terrace/base/clock.h"
#include "terrace/base/log.h"
#include "terrace/base/status.h"
#include "terrace/serve/admin_answers.h"

namespace terrace::serve {

class AdminServer {
 public:
  static constexpr std::size_t kMaxConnections = 16;  // Beyond, the oldest one goes.
  static constexpr std::size_t kMaxHeaderBytes = 8192;
  static constexpr std::size_t kMaxBodyBytes = 65536;

  struct Options {
    std::string directory;  // attach.directory.
    std::string engine_id;
    AdminHooks hooks;  // Called by the thread.
    // A hook broke an invariant; called by the thread.
    std::function<void(const std::string& reason)> on_breach;
    Nanoseconds io_limit = seconds(5);  // For a whole request to come, and an answer to be taken.
  };
  // Where it listens, or why it does not, is a line in the log: the owner goes on without it.
  // Errors: kExhausted = no thread.
  static Result<std::unique_ptr<AdminServer>> start(Options options, const Clock& clock,
                                                    LogSink& log);
  // As close() with a deadline of its own; a thread that hangs is left behind, with what it uses.
  ~AdminServer();
  // Ends the thread and removes the socket. False: the thread hangs in the system, and goes on one
  // day with all that was given to start().
  [[nodiscard]] bool close(Nanoseconds deadline);
  // Listening, as far as this process knows.
  [[nodiscard]] bool is_open() const;

 private:
  struct State;
  explicit AdminServer(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

}  // namespace terrace::serve
