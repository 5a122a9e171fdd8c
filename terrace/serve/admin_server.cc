#include "terrace/serve/admin_server.h"

#include <fmt/format.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <atomic>
#include <boost/asio/io_context.hpp>
#include <boost/asio/local/stream_protocol.hpp>
#include <boost/asio/posix/stream_descriptor.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/beast/core/basic_stream.hpp>
#include <boost/beast/core/flat_buffer.hpp>
#include <boost/beast/http.hpp>
#include <cerrno>
#include <chrono>
#include <deque>
#include <optional>
#include <thread>
#include <utility>

#include "terrace/attach/claim.h"
#include "terrace/base/check.h"
#include "terrace/base/left_behind.h"
#include "terrace/base/thread.h"

namespace terrace::serve {
namespace {

namespace asio = boost::asio;
namespace beast = boost::beast;
namespace http = boost::beast::http;
using Local = asio::local::stream_protocol;
using Descriptor = asio::posix::stream_descriptor;
using Stream = beast::basic_stream<Local, asio::io_context::executor_type>;
using boost::system::error_code;

constexpr Nanoseconds kPause = milliseconds(100);  // After running out of descriptors or memory.
constexpr Nanoseconds kJoinGrace = seconds(2);
constexpr std::size_t kAcceptsInTurn = 16;  // Then those that came before get their turn.

std::chrono::nanoseconds chrono_of(Nanoseconds time) {
  return std::chrono::nanoseconds(time.value());
}

// What a peer did wrong that closed the conversation, or nothing where there is nobody to tell.
std::optional<AdminAnswer> complaint(const error_code& error) {
  if (error == http::error::body_limit) {
    return admin_error(413, fmt::format("the body is longer than {} bytes: send one JSON object",
                                        AdminServer::kMaxBodyBytes));
  }
  if (error == http::error::header_limit || error == http::error::buffer_overflow) {
    return admin_error(431, fmt::format("the header is longer than {} bytes: send fewer fields",
                                        AdminServer::kMaxHeaderBytes));
  }
  const bool is_cut = error == http::error::end_of_stream || error == http::error::partial_message;
  if (is_cut || error.category() != make_error_code(http::error::bad_method).category()) {
    return std::nullopt;
  }
  return admin_error(400,
                     fmt::format("this is no HTTP/1.1 request ({}): try curl --unix-socket, or "
                                 "terrace status",
                                 error.message()));
}

// One connection: a request, an answer, the end.
class Session : public std::enable_shared_from_this<Session> {
 public:
  Session(asio::io_context& io, const AdminServer::Options& options, attach::Peer peer)
      : options_(options), peer_(peer), stream_(io) {
    parser_.header_limit(AdminServer::kMaxHeaderBytes);
    parser_.body_limit(AdminServer::kMaxBodyBytes);
  }

  void start(UniqueFd socket) {
    stream_.socket().assign(Local(), socket.get());
    (void)socket.release();
    stream_.expires_after(chrono_of(options_.io_limit));
    http::async_read(stream_, buffer_, parser_,
                     [self = shared_from_this()](const error_code& error, std::size_t) {
                       self->on_request(error);
                     });
  }
  void close() { stream_.close(); }

 private:
  void on_request(const error_code& error) {
    if (error) {
      if (auto answer = complaint(error)) send(std::move(*answer));
      return;
    }
    const auto& request = parser_.get();
    const auto text = [](beast::string_view view) {
      return std::string_view(view.data(), view.size());
    };
    send(ask(text(request.method_string()), text(request.target()), request.body()));
  }

  AdminAnswer ask(std::string_view method, std::string_view target, const std::string& body) {
    try {
      return answer_admin(options_.hooks, method, target, body,
                          fmt::format("\"process {} user {}\"", peer_.process, peer_.user));
    } catch (const std::bad_alloc&) {
      return admin_error(503, "out of memory: try again");
    } catch (const std::exception& breach) {
      if (options_.on_breach) options_.on_breach(breach.what());
      return admin_error(500, fmt::format("internal error ({}): the engine goes on without the "
                                          "cache; restart it and report this",
                                          breach.what()));
    }
  }

  void send(AdminAnswer answer) {
    response_.version(11);
    response_.result(answer.code);
    response_.set(http::field::content_type,
                  beast::string_view(answer.type.data(), answer.type.size()));
    response_.set(http::field::cache_control, "no-store");
    if (!answer.allow.empty()) {
      response_.set(http::field::allow,
                    beast::string_view(answer.allow.data(), answer.allow.size()));
    }
    response_.keep_alive(false);
    response_.body() = std::move(answer.body);
    response_.prepare_payload();
    stream_.expires_after(chrono_of(options_.io_limit));
    http::async_write(stream_, response_,
                      [self = shared_from_this()](const error_code&, std::size_t) {
                        self->close();  // With it goes what was not read.
                      });
  }

  const AdminServer::Options& options_;
  const attach::Peer peer_;
  Stream stream_;
  // The header, and of a body what came with it.
  beast::flat_buffer buffer_{2 * AdminServer::kMaxHeaderBytes};
  http::request_parser<http::string_body> parser_;
  http::response<http::string_body> response_;
};

// The thread's work. Made, run and destroyed there.
class Loop {
 public:
  Loop(asio::io_context& io, const AdminServer::Options& options, int listener)
      : io_(io), options_(options), listener_(io, listener), pause_(io) {}
  Loop(const Loop&) = delete;
  Loop& operator=(const Loop&) = delete;
  ~Loop() { (void)listener_.release(); }  // The claim closes it.

  void run() {
    while (!io_.stopped()) {
      try {
        if (!is_waiting_) listen();
        io_.run();
      } catch (const std::exception&) {
        // No memory: for one connection, which is gone, or to go on listening, which is tried
        // again.
        (void)::poll(nullptr, 0, static_cast<int>(kPause / milliseconds(1)));
      }
    }
  }

 private:
  void listen() {
    listener_.async_wait(Descriptor::wait_read, [this](const error_code& error) {
      is_waiting_ = false;
      if (error) return;
      if (accept_some()) return listen();
      // What is not accepted keeps the socket readable: without a pause this would spin.
      pause_.expires_after(chrono_of(kPause));
      pause_.async_wait([this](const error_code& cut) {
        is_waiting_ = false;
        if (!cut) listen();
      });
      is_waiting_ = true;
    });
    is_waiting_ = true;
  }

  // False when this process can take no more for now.
  bool accept_some() {
    for (std::size_t i = 0; i < kAcceptsInTurn; ++i) {
      UniqueFd socket(
          ::accept4(listener_.native_handle(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
      if (!socket.is_open()) {
        const bool is_passing = errno == EAGAIN || errno == EINTR || errno == ECONNABORTED;
        return is_passing;
      }
      const auto peer = attach::peer_of(socket.get());
      if (!peer.has_value() || !may_ask(peer->user, ::geteuid())) continue;
      admit(std::move(socket), *peer);
    }
    return true;
  }

  void admit(UniqueFd socket, const attach::Peer& peer) {
    std::erase_if(sessions_, [](const auto& session) { return session.expired(); });
    if (sessions_.size() >= AdminServer::kMaxConnections) {
      if (const auto oldest = sessions_.front().lock()) oldest->close();
      sessions_.pop_front();
    }
    const auto session = std::make_shared<Session>(io_, options_, peer);
    sessions_.push_back(session);
    session->start(std::move(socket));
  }

  asio::io_context& io_;
  const AdminServer::Options& options_;
  Descriptor listener_;
  asio::steady_timer pause_;
  bool is_waiting_ = false;                      // For a connection, or for the pause to end.
  std::deque<std::weak_ptr<Session>> sessions_;  // Oldest first.
};

}  // namespace

struct AdminServer::State {
  State(Options given, const Clock& its_clock, LogSink& its_log)
      : options(std::move(given)), clock(its_clock), log(its_log) {}

  const Options options;
  const Clock& clock;
  LogSink& log;
  const pid_t process = ::getpid();
  asio::io_context io{1};
  std::optional<attach::Claim> claim;  // The thread's, until it has ended.
  std::atomic<bool> is_open{false};
  ThreadEnd end;
  std::jthread thread;  // Last: joined before what it uses goes.

  void run();
  void serve();
  void say_off(const std::string& path, std::string_view reason);
};

void AdminServer::State::say_off(const std::string& path, std::string_view reason) {
  log.write(
      LogLevel::kWarn,
      fmt::format("event=admin_off path=\"{}\" reason=\"{}\" detail=\"the cache works; terrace "
                  "status, pause and resume cannot reach this engine until it restarts, and "
                  "admin.enabled = false ends this line\"",
                  path, reason));
}

void AdminServer::State::serve() {
  auto path = admin_path(options.directory, options.engine_id);
  if (!path.has_value()) return say_off(options.directory, path.error().message());
  auto taken = attach::Claim::take(options.directory, *path, clock, attach::SocketKind::kBytes);
  if (!taken.has_value()) return say_off(*path, taken.error().message());
  claim.emplace(std::move(*taken));
  Loop loop(io, options, claim->listener());
  is_open.store(true);
  log.write(LogLevel::kInfo, fmt::format("event=admin socket={}", *path));
  loop.run();
}

void AdminServer::State::run() {
  try {
    serve();
  } catch (const std::exception& error) {
    say_off(options.directory, error.what());
  }
  is_open.store(false);
  claim.reset();
  end.set();
}

AdminServer::AdminServer(std::unique_ptr<State> state) : state_(std::move(state)) {}

Result<std::unique_ptr<AdminServer>> AdminServer::start(Options options, const Clock& clock,
                                                        LogSink& log) {
  try {
    std::unique_ptr<AdminServer> server(
        new AdminServer(std::make_unique<State>(std::move(options), clock, log)));
    State* const raw = server->state_.get();
    TERRACE_ASSIGN_OR_RETURN(raw->thread,
                             start_thread(
                                 "terrace-admin", [raw](const std::stop_token&) { raw->run(); },
                                 [raw](const char*) { raw->end.set(); }));
    return server;
  } catch (const boost::system::system_error& error) {  // No descriptors for its reactor.
    return fail(Code::kExhausted, fmt::format("admin: {}", error.what()));
  }
}

AdminServer::~AdminServer() {
  if (state_ == nullptr) return;
  if (state_->process != ::getpid()) {
    // In a forked child: the thread is not here, the socket and the reactor are the parent's. Only
    // what the child would keep listening is closed.
    if (state_->claim) state_->claim->abandon();
    (void)state_.release();
    return;
  }
  if (!close(state_->clock.now() + kJoinGrace)) leave_behind(std::move(state_));
}

bool AdminServer::close(Nanoseconds deadline) {
  State& state = *state_;
  if (!state.thread.joinable()) return true;
  state.io.stop();
  if (!state.end.wait(deadline, state.clock)) return false;
  state.thread.join();
  return true;
}

bool AdminServer::is_open() const { return state_->is_open.load(); }

}  // namespace terrace::serve
