// What the attach server's thread does: accepts, shakes hands, watches.
// Threading: ServerLoop belongs to its thread; ServerBoard is thread-safe.
// Owns: connections.  Waits: poll, until something happens or the next deadline.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "terrace/attach/attach_server.h"
#include "terrace/attach/channel_internal.h"
#include "terrace/base/log_limit.h"
#include "terrace/base/mutex.h"

namespace terrace::attach {

// What the rest of the process sees of the server.
class ServerBoard {
 public:
  static Result<std::unique_ptr<ServerBoard>> create(std::uint16_t ranks);
  void push(AttachEvent event);
  [[nodiscard]] std::vector<AttachEvent> take();
  [[nodiscard]] Epoch epoch_of(RankId rank) const;
  [[nodiscard]] bool all_attached() const;
  // Nobody takes events: attach no more, so that they stay bounded.
  [[nodiscard]] bool is_full() const;
  [[nodiscard]] int event_fd() const { return event_fd_.get(); }
  // The thread is no more: every attachment has died with its connection.
  void fail_thread(const char* reason) noexcept;
  [[nodiscard]] std::string problem() const;

 private:
  ServerBoard() = default;
  UniqueFd event_fd_;
  mutable Mutex mutex_;
  std::vector<AttachEvent> events_ TERRACE_GUARDED_BY(mutex_);
  std::size_t refusals_ TERRACE_GUARDED_BY(mutex_) = 0;
  std::vector<Epoch> epochs_ TERRACE_GUARDED_BY(mutex_);  // [rank]
  bool has_failed_ TERRACE_GUARDED_BY(mutex_) = false;
  std::string problem_ TERRACE_GUARDED_BY(mutex_);
};

class ServerLoop {
 public:
  ServerLoop(const AttachServer::Options& options, int listener, int stop_fd, ServerBoard& board,
             const Clock& clock, LogSink& log);
  // Returns when stop_fd becomes readable.
  void run();
  // What is due now, without waiting: run() takes one turn after the other.
  void turn();

 private:
  enum class Phase : std::uint8_t { kHello, kSending, kMapping, kAttached, kClosed };
  struct Connection {
    Channel channel;
    Phase phase = Phase::kHello;
    Nanoseconds deadline{0};
    Peer peer;
    UniqueFd process;        // pidfd
    bool is_worker = false;  // It said a hello of ours: it has a rank. Else it is a stranger.
    RankId rank;
    Epoch epoch;
    bool is_welcomed = false;
    bool has_populated = false;
    std::uint32_t next_file = 0;
  };

  void wait();
  void accept_all();
  void accept_one(UniqueFd socket);
  void step(Connection& connection);
  void receive(Connection& connection);
  void take_hello(Connection& connection, const wire::AttachHello& hello);
  void take_progress(Connection& connection, wire::AttachStage stage);
  void send_rest(Connection& connection);
  void refuse(Connection& connection, Code code, const std::string& detail);
  void tell_refused(const Connection& connection, const std::string& why);
  void end(Connection& connection, const std::string& how);
  // Empty, or why `rank` cannot attach now.
  [[nodiscard]] std::string occupant(RankId rank);

  const AttachServer::Options& options_;
  const int listener_;
  const int stop_fd_;
  ServerBoard& board_;
  const Clock& clock_;
  LogSink& log_;
  // Apart, so that strangers cannot hide why a worker is refused.
  LogLimit refused_workers_;
  LogLimit refused_strangers_;
  LogLimit failed_accepts_;
  std::vector<Connection> connections_;
  std::uint64_t last_epoch_ = 0;
  Nanoseconds accept_after_{0};
};

// "", or the first field in which the worker's layout differs, with both values.
[[nodiscard]] std::string layout_difference(const Layout& owner, const Layout& worker);

}  // namespace terrace::attach
