#include "terrace/attach/attach_server.h"

#include <fmt/format.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <optional>
#include <thread>
#include <utility>

#include "terrace/attach/claim.h"
#include "terrace/attach/server_loop_internal.h"
#include "terrace/base/thread.h"

namespace terrace::attach {
namespace {

constexpr std::size_t kMaxRefusals = 64;
constexpr std::size_t kMaxEvents = 1024;
constexpr const char* kThreadEnded = "attach: the thread that serves the ranks has ended";

Result<UniqueFd> make_event_fd() {
  UniqueFd fd(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  if (!fd.is_open()) return fail(Status::from_errno(errno, "eventfd", "attach"));
  return fd;
}

void signal(const UniqueFd& fd) {
  const std::uint64_t one = 1;
  (void)!::write(fd.get(), &one, sizeof one);  // Full means readable already.
}

}  // namespace

Result<std::unique_ptr<ServerBoard>> ServerBoard::create(std::uint16_t ranks) {
  std::unique_ptr<ServerBoard> board(new ServerBoard);
  TERRACE_ASSIGN_OR_RETURN(board->event_fd_, make_event_fd());
  const MutexLock lock(board->mutex_);
  board->epochs_.resize(ranks);
  board->events_.reserve(kMaxEvents + kMaxRefusals);
  return board;
}

void ServerBoard::push(AttachEvent event) {
  {
    const MutexLock lock(mutex_);
    if (event.change == AttachChange::kAttached) epochs_[event.rank.value()] = event.epoch;
    if (event.change == AttachChange::kDied) epochs_[event.rank.value()] = Epoch(0);
    if (event.change == AttachChange::kRefused && ++refusals_ > kMaxRefusals) return;
    events_.push_back(std::move(event));
  }
  signal(event_fd_);
}

std::vector<AttachEvent> ServerBoard::take() {
  std::vector<AttachEvent> taken;
  taken.reserve(kMaxEvents + kMaxRefusals);
  std::uint64_t count = 0;
  (void)!::read(event_fd_.get(), &count, sizeof count);
  const MutexLock lock(mutex_);
  refusals_ = 0;
  std::swap(taken, events_);
  return taken;
}

Epoch ServerBoard::epoch_of(RankId rank) const {
  const MutexLock lock(mutex_);
  return rank.value() < epochs_.size() ? epochs_[rank.value()] : Epoch(0);
}

bool ServerBoard::all_attached() const {
  const MutexLock lock(mutex_);
  for (const Epoch epoch : epochs_) {
    if (epoch == Epoch(0)) return false;
  }
  return true;
}

bool ServerBoard::is_full() const {
  const MutexLock lock(mutex_);
  return events_.size() >= kMaxEvents / 2;
}

void ServerBoard::fail_thread(const char* reason) noexcept {
  std::string text;
  try {
    text = fmt::format("{}: {}", kThreadEnded, reason);
  } catch (...) {  // No memory: then without the reason.
    text.clear();
  }
  {
    const MutexLock lock(mutex_);
    has_failed_ = true;
    problem_.swap(text);
    for (std::size_t rank = 0; rank < epochs_.size(); ++rank) {
      const Epoch epoch = std::exchange(epochs_[rank], Epoch(0));
      if (epoch == Epoch(0)) continue;
      // Both without memory: there is room for one of each rank, and the text is short.
      events_.push_back({.change = AttachChange::kDied,
                         .rank = RankId(static_cast<std::uint16_t>(rank)),
                         .epoch = epoch,
                         .detail = "server ended",
                         .process = 0});
    }
  }
  signal(event_fd_);
}

std::string ServerBoard::problem() const {
  const MutexLock lock(mutex_);
  return has_failed_ && problem_.empty() ? kThreadEnded : problem_;
}

struct AttachServer::State {
  Options options;
  const Clock& clock;
  LogSink& log;
  pid_t process = ::getpid();
  std::optional<Claim> claim;
  UniqueFd stop_fd;
  std::unique_ptr<ServerBoard> board;
  std::jthread thread;  // Last: joined before what it uses goes.

  State(Options given, const Clock& its_clock, LogSink& its_log)
      : options(std::move(given)), clock(its_clock), log(its_log) {}
  void tell_breach(const char* reason) const noexcept {
    try {
      log.write(LogLevel::kError, fmt::format("part=attach event=breach reason=\"{}\"", reason));
    } catch (...) {  // No memory: problem() says it.
      return;
    }
  }
};

AttachServer::AttachServer(std::unique_ptr<State> state) : state_(std::move(state)) {}

Result<std::unique_ptr<AttachServer>> AttachServer::start(Options options, const Clock& clock,
                                                          LogSink& log) {
  TERRACE_RETURN_IF_ERROR(options.layout.validate());
  TERRACE_RETURN_IF_ERROR(options.geometry.validate());
  if (options.lanes.size() != options.layout.ranks ||
      options.geometry.lanes != options.layout.ranks) {
    return fail(Code::kInvalid, fmt::format("attach: {} lanes for {} ranks", options.lanes.size(),
                                            options.layout.ranks));
  }
  TERRACE_ASSIGN_OR_RETURN(const std::string path,
                           socket_path(options.directory, options.engine_id));
  auto state = std::make_unique<State>(std::move(options), clock, log);
  TERRACE_ASSIGN_OR_RETURN(state->stop_fd, make_event_fd());
  TERRACE_ASSIGN_OR_RETURN(state->board, ServerBoard::create(state->options.layout.ranks));
  TERRACE_ASSIGN_OR_RETURN(Claim claim, Claim::take(state->options.directory, path, clock));
  state->claim.emplace(std::move(claim));
  State* const raw = state.get();
  TERRACE_ASSIGN_OR_RETURN(state->thread, start_thread(
                                              "terrace-attach",
                                              [raw](const std::stop_token&) {
                                                ServerLoop(raw->options, raw->claim->listener(),
                                                           raw->stop_fd.get(), *raw->board,
                                                           raw->clock, raw->log)
                                                    .run();
                                              },
                                              [raw](const char* reason) {
                                                raw->board->fail_thread(reason);
                                                raw->tell_breach(reason);
                                              }));
  return std::unique_ptr<AttachServer>(new AttachServer(std::move(state)));
}

AttachServer::~AttachServer() {
  if (state_->process != ::getpid()) {
    // In a forked child: the thread is not here, files and socket are the parent's. Descriptors are
    // closed so that the child does not keep a dead owner's socket listening.
    state_->claim->abandon();
    (void)state_.release();
    return;
  }
  signal(state_->stop_fd);
}

std::vector<AttachEvent> AttachServer::take_events() { return state_->board->take(); }
bool AttachServer::all_attached() const { return state_->board->all_attached(); }
Epoch AttachServer::epoch_of(RankId rank) const { return state_->board->epoch_of(rank); }
int AttachServer::event_fd() const { return state_->board->event_fd(); }
std::string AttachServer::problem() const { return state_->board->problem(); }

}  // namespace terrace::attach
