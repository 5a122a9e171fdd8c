#include "terrace/serve/http/http_server.h"

#include <arpa/inet.h>
#include <fmt/format.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/posix/stream_descriptor.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/beast/core/basic_stream.hpp>
#include <boost/beast/core/flat_buffer.hpp>
#include <boost/beast/http.hpp>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <deque>
#include <optional>
#include <thread>
#include <utility>

#include "terrace/base/check.h"
#include "terrace/base/file.h"
#include "terrace/base/left_behind.h"
#include "terrace/base/mutex.h"
#include "terrace/base/thread.h"

namespace terrace::serve {
namespace {

namespace asio = boost::asio;
namespace beast = boost::beast;
namespace http = boost::beast::http;
using asio::ip::tcp;
using Descriptor = asio::posix::stream_descriptor;
using Stream = beast::basic_stream<tcp, asio::io_context::executor_type>;
using boost::system::error_code;

constexpr Nanoseconds kPause = milliseconds(100);  // After running out of descriptors or memory.
constexpr Nanoseconds kJoinGrace = seconds(2);
constexpr std::size_t kAcceptsInTurn = 16;  // Then those that came before get their turn.
constexpr int kBacklog = 64;
// The page's own files and nothing else: no inline code, no frame, no other host.
constexpr beast::string_view kPolicy =
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

std::chrono::nanoseconds chrono_of(Nanoseconds time) {
  return std::chrono::nanoseconds(time.value());
}

beast::string_view beast_of(std::string_view text) { return {text.data(), text.size()}; }
std::string_view text_of(beast::string_view text) { return {text.data(), text.size()}; }

// An address in figures with a port, as the system takes it.
struct Place {
  sockaddr_storage address{};
  socklen_t length = 0;
  bool is_local = false;  // Only this machine can ask.

  static std::optional<Place> of(const std::string& text, std::uint16_t port) {
    Place place;
    sockaddr_in four{};
    sockaddr_in6 six{};
    if (::inet_pton(AF_INET, text.c_str(), &four.sin_addr) == 1) {
      four.sin_family = AF_INET;
      four.sin_port = htons(port);
      place.is_local = (ntohl(four.sin_addr.s_addr) >> 24U) == IN_LOOPBACKNET;
      place.length = sizeof four;
      std::memcpy(&place.address, &four, sizeof four);
      return place;
    }
    if (::inet_pton(AF_INET6, text.c_str(), &six.sin6_addr) != 1) return std::nullopt;
    six.sin6_family = AF_INET6;
    six.sin6_port = htons(port);
    place.is_local = IN6_IS_ADDR_LOOPBACK(&six.sin6_addr);
    place.length = sizeof six;
    std::memcpy(&place.address, &six, sizeof six);
    return place;
  }
};

Result<UniqueFd> listen_at(const Place& place, const std::string& name) {
  const auto failed = [&](const char* call) { return fail(Status::from_errno(errno, call, name)); };
  const sockaddr* const address = reinterpret_cast<const sockaddr*>(&place.address);
  UniqueFd socket(::socket(place.address.ss_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!socket.is_open()) return failed("socket");
  // Connections of an engine that ended just now do not keep the port from the next one.
  const int yes = 1;
  (void)::setsockopt(socket.get(), SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
  if (::bind(socket.get(), address, place.length) != 0) return failed("bind");
  if (::listen(socket.get(), kBacklog) != 0) return failed("listen");
  return socket;
}

std::uint16_t port_of(int socket) {
  sockaddr_storage address{};
  socklen_t length = sizeof address;
  if (::getsockname(socket, reinterpret_cast<sockaddr*>(&address), &length) != 0) return 0;
  sockaddr_in four{};
  sockaddr_in6 six{};
  std::memcpy(&four, &address, sizeof four);
  std::memcpy(&six, &address, sizeof six);
  return ntohs(address.ss_family == AF_INET ? four.sin_port : six.sin6_port);
}

// What a peer did wrong that closed the conversation, or nothing where there is nobody to tell.
std::optional<SiteAnswer> complaint(const error_code& error) {
  if (error == http::error::body_limit)
    return site_error(413, "this port takes no body: GET alone");
  if (error == http::error::header_limit || error == http::error::buffer_overflow) {
    return site_error(431, fmt::format("the header is longer than {} bytes: send fewer fields",
                                       HttpServer::kMaxHeaderBytes));
  }
  const bool is_cut = error == http::error::end_of_stream || error == http::error::partial_message;
  if (is_cut || error.category() != make_error_code(http::error::bad_method).category()) {
    return std::nullopt;
  }
  return site_error(400, fmt::format("this is no HTTP/1.1 request ({}): try curl, or a browser",
                                     error.message()));
}

// One connection: a request, an answer, the end.
class Session : public std::enable_shared_from_this<Session> {
 public:
  Session(asio::io_context& io, const HttpServer::Options& options, Site& site)
      : options_(options), site_(site), stream_(io) {
    parser_.header_limit(HttpServer::kMaxHeaderBytes);
    parser_.body_limit(0);
  }

  void start(UniqueFd socket, int family) {
    stream_.socket().assign(family == AF_INET ? tcp::v4() : tcp::v6(), socket.get());
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
      if (auto answer = complaint(error)) send(std::move(*answer), false);
      return;
    }
    const auto& request = parser_.get();
    const std::string_view method = text_of(request.method_string());
    send(ask({.method = method,
              .target = text_of(request.target()),
              .host = text_of(request[http::field::host])}),
         method == "HEAD");
  }

  SiteAnswer ask(const SiteRequest& request) {
    try {
      return site_.answer(request);
    } catch (const std::bad_alloc&) {
      return site_error(503, "out of memory: try again");
    } catch (const std::exception& breach) {
      if (options_.on_breach) options_.on_breach(breach.what());
      return site_error(500, fmt::format("internal error ({}): the engine goes on without the "
                                         "cache; restart it and report this",
                                         breach.what()));
    }
  }

  void send(SiteAnswer answer, bool is_head_only) {
    response_.version(11);
    response_.result(answer.code);
    response_.set(http::field::content_type, beast_of(answer.type));
    response_.set(http::field::cache_control, "no-store");
    response_.set("Content-Security-Policy", kPolicy);
    response_.set(http::field::x_frame_options, "DENY");
    response_.set("X-Content-Type-Options", "nosniff");
    response_.set("Referrer-Policy", "no-referrer");
    response_.set("Cross-Origin-Resource-Policy", "same-origin");
    if (!answer.allow.empty()) response_.set(http::field::allow, beast_of(answer.allow));
    response_.keep_alive(false);
    response_.content_length(answer.body.size());
    if (!is_head_only) response_.body() = std::move(answer.body);
    stream_.expires_after(chrono_of(options_.io_limit));
    http::async_write(stream_, response_,
                      [self = shared_from_this()](const error_code&, std::size_t) { self->end(); });
  }

  // What was not read would reset the connection, and with it what the peer has not read yet.
  void end() {
    error_code ignored;
    (void)stream_.socket().shutdown(tcp::socket::shutdown_send, ignored);
    drain();
  }
  void drain() {
    stream_.async_read_some(asio::buffer(rest_),
                            [self = shared_from_this()](const error_code& error, std::size_t) {
                              if (error) return self->close();
                              self->drain();  // Until the peer has gone, or the deadline.
                            });
  }

  const HttpServer::Options& options_;
  Site& site_;
  Stream stream_;
  beast::flat_buffer buffer_{2 * HttpServer::kMaxHeaderBytes};
  http::request_parser<http::string_body> parser_;
  http::response<http::string_body> response_;
  std::array<char, 512> rest_{};
};

}  // namespace

struct HttpServer::State {
  State(Options given, const Place& its_place, const Clock& its_clock, LogSink& its_log)
      : options(std::move(given)),
        place(its_place),
        clock(its_clock),
        log(its_log),
        site(options.hooks, place.is_local, clock) {}

  const Options options;
  const Place place;
  const Clock& clock;
  LogSink& log;
  const pid_t process = ::getpid();
  asio::io_context io{1};
  Site site;          // The thread's.
  UniqueFd listener;  // The thread's, until it has ended.
  mutable Mutex mutex;
  std::string problem TERRACE_GUARDED_BY(mutex);
  std::string url TERRACE_GUARDED_BY(mutex);
  ThreadEnd end;
  std::jthread thread;  // Last: joined before what it uses goes.

  void run();
  void set_off(std::string_view reason);
  void set_on();
};

namespace {

// The thread's work. Made, run and destroyed there.
template <typename State>
class Loop {
 public:
  explicit Loop(State& state)
      : state_(state), listener_(state.io), pause_(state.io), sampling_(state.io) {}
  Loop(const Loop&) = delete;
  Loop& operator=(const Loop&) = delete;
  ~Loop() {
    if (listener_.is_open()) (void)listener_.release();  // The state closes it.
  }

  void run() {
    while (!state_.io.stopped()) {
      try {
        if (!is_sampling_) sample();
        if (!is_waiting_) listen();
        state_.io.run();
      } catch (const std::exception&) {
        // No memory: for one connection, which is gone, or to go on listening, which is tried
        // again.
        (void)::poll(nullptr, 0, static_cast<int>(kPause / milliseconds(1)));
      }
    }
  }

 private:
  void sample() {
    is_sampling_ = false;
    try {
      state_.site.sample();
    } catch (const std::bad_alloc&) {  // NOLINT(bugprone-empty-catch): a gap in the history.
    } catch (const std::exception& breach) {
      if (state_.options.on_breach) state_.options.on_breach(breach.what());
    }
    sampling_.expires_after(chrono_of(state_.options.sample_every));
    sampling_.async_wait([this](const error_code& cut) {
      if (!cut) sample();
    });
    is_sampling_ = true;
  }

  void wait(Nanoseconds time) {
    pause_.expires_after(chrono_of(time));
    pause_.async_wait([this](const error_code& cut) {
      is_waiting_ = false;
      if (!cut) listen();
    });
    is_waiting_ = true;
  }

  void listen() {
    if (!listener_.is_open() && !take_port()) return wait(state_.options.retry);
    listener_.async_wait(Descriptor::wait_read, [this](const error_code& error) {
      is_waiting_ = false;
      if (error) return;
      if (accept_some()) return listen();
      wait(kPause);  // What is not accepted keeps the socket readable: this would spin.
    });
    is_waiting_ = true;
  }

  bool take_port() {
    const HttpServer::Options& options = state_.options;
    auto taken = listen_at(state_.place, fmt::format("{}:{}", options.address, options.port));
    if (!taken.has_value()) {
      state_.set_off(taken.error().message());
      return false;
    }
    state_.listener = std::move(*taken);
    listener_.assign(state_.listener.get());
    state_.set_on();
    return true;
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
      admit(std::move(socket));
    }
    return true;
  }

  void admit(UniqueFd socket) {
    std::erase_if(sessions_, [](const auto& session) { return session.expired(); });
    if (sessions_.size() >= HttpServer::kMaxConnections) {
      if (const auto oldest = sessions_.front().lock()) oldest->close();
      sessions_.pop_front();
    }
    const auto session = std::make_shared<Session>(state_.io, state_.options, state_.site);
    sessions_.push_back(session);
    session->start(std::move(socket), state_.place.address.ss_family);
  }

  State& state_;
  Descriptor listener_;
  asio::steady_timer pause_;
  asio::steady_timer sampling_;
  bool is_waiting_ = false;                      // For a connection, or for a pause to end.
  bool is_sampling_ = false;                     // The next sample is due.
  std::deque<std::weak_ptr<Session>> sessions_;  // Oldest first.
};

}  // namespace

void HttpServer::State::set_off(std::string_view reason) {
  std::string text = fmt::format(
      "metrics.port: {}: nobody can read the page or scrape this port; another engine or program "
      "may have it: give this engine another metrics.port (or metrics.address), or set "
      "metrics.enabled = false; it is tried again every {} s",
      reason, options.retry / seconds(1));
  bool is_news = false;
  {
    const MutexLock lock(mutex);
    is_news = problem != text;
    problem = text;
    url.clear();
  }
  if (is_news) log.write(LogLevel::kError, fmt::format("event=http_off reason=\"{}\"", text));
}

void HttpServer::State::set_on() {
  const bool is_six = place.address.ss_family == AF_INET6;
  std::string text = fmt::format("http://{}{}{}:{}/", is_six ? "[" : "", options.address,
                                 is_six ? "]" : "", port_of(listener.get()));
  log.write(LogLevel::kInfo, fmt::format("event=http url={}", text));
  const MutexLock lock(mutex);
  problem.clear();
  url = std::move(text);
}

void HttpServer::State::run() {
  try {
    Loop<State> loop(*this);
    loop.run();
  } catch (const std::exception& error) {
    set_off(error.what());
  }
  listener.reset(-1);
  {
    const MutexLock lock(mutex);
    url.clear();
  }
  end.set();
}

HttpServer::HttpServer(std::unique_ptr<State> state) : state_(std::move(state)) {}

Result<std::unique_ptr<HttpServer>> HttpServer::create(Options options, const Clock& clock,
                                                       LogSink& log) {
  const auto place = Place::of(options.address, options.port);
  if (!place) {
    return fail(Code::kInvalid,
                fmt::format("metrics.address: \"{}\" is no IPv4 or IPv6 address in figures; such "
                            "as 127.0.0.1, 0.0.0.0, ::1 or ::",
                            options.address));
  }
  try {
    return std::unique_ptr<HttpServer>(
        new HttpServer(std::make_unique<State>(std::move(options), *place, clock, log)));
  } catch (const boost::system::system_error& error) {  // No descriptors for its reactor.
    return fail(Code::kExhausted, fmt::format("http: {}", error.what()));
  }
}

Status HttpServer::start() {
  State* const raw = state_.get();
  TERRACE_ASSIGN_OR_RETURN(raw->thread,
                           start_thread(
                               "terrace-http", [raw](const std::stop_token&) { raw->run(); },
                               [raw](const char*) { raw->end.set(); }));
  return {};
}

HttpServer::~HttpServer() {
  if (state_ == nullptr) return;
  if (state_->process != ::getpid()) {
    // In a forked child: the thread is not here, and the reactor is the parent's.
    state_->listener.reset(-1);
    (void)state_.release();
    return;
  }
  if (!close(state_->clock.now() + kJoinGrace)) leave_behind(std::move(state_));
}

bool HttpServer::close(Nanoseconds deadline) {
  State& state = *state_;
  if (!state.thread.joinable()) return true;
  state.io.stop();
  if (!state.end.wait(deadline, state.clock)) return false;
  state.thread.join();
  return true;
}

std::string HttpServer::problem() const {
  const MutexLock lock(state_->mutex);
  return state_->problem;
}

std::string HttpServer::url() const {
  const MutexLock lock(state_->mutex);
  return state_->url;
}

}  // namespace terrace::serve
