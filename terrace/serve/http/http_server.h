// An owner's HTTP port: metrics for whoever scrapes them, and a page for people. It only tells; no
// request changes anything. One request a connection; peers that are slow, silent or hostile are
// dropped at a deadline or when newer ones come, and hold up nobody. A port that cannot be had is a
// problem of the status and is asked for again. Threading: thread-safe; one thread of its own,
// `terrace-http`, which also samples the history. A forked child's destructor closes only what the
// child would keep listening. Waits: close(), up to its deadline. Bounds: kMaxConnections of at
// most some 20 KiB each and what is answered (at most half a MiB); 2 MiB for history and requests.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "terrace/base/clock.h"
#include "terrace/base/log.h"
#include "terrace/base/status.h"
#include "terrace/manager/ledger.h"
#include "terrace/serve/http/site.h"

namespace terrace::serve {

class HttpServer {
 public:
  static constexpr std::size_t kMaxConnections = 32;  // Beyond, the oldest one goes.
  static constexpr std::size_t kMaxHeaderBytes = 8192;

  struct Options {
    std::string address = "127.0.0.1";  // metrics.address: IPv4 or IPv6, in figures.
    std::uint16_t port = 0;             // metrics.port; 0 = one that is free.
    SiteHooks hooks;                    // Called by the thread.
    // A hook broke an invariant; called by the thread.
    std::function<void(const std::string& reason)> on_breach;
    Nanoseconds io_limit = seconds(5);  // For a whole request to come, and an answer to be taken.
    Nanoseconds retry = seconds(10);    // After a port that could not be had.
    Nanoseconds sample_every = History::kFineStep;
  };
  // Nothing runs yet. Errors: kInvalid = no such address; kExhausted = no descriptors.
  static Result<std::unique_ptr<HttpServer>> create(Options options, const Clock& clock,
                                                    LogSink& log);
  // Starts the thread, which takes the port: hooks are called from now on. Where it listens, or why
  // it does not, is a line in the log. Errors: kExhausted = no thread.
  [[nodiscard]] Status start();
  // As close() with a deadline of its own; a thread that hangs is left behind, with what it uses.
  ~HttpServer();
  // Ends the thread and frees the port. False: the thread hangs in the system, and goes on one day
  // with all that was given to create().
  [[nodiscard]] bool close(Nanoseconds deadline);

  // Why nobody is answered, and the way out; "" = somebody can be.
  [[nodiscard]] std::string problem() const;
  // "http://127.0.0.1:6880/"; "" while it does not listen.
  [[nodiscard]] std::string url() const;

 private:
  struct State;
  explicit HttpServer(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

}  // namespace terrace::serve
