#include <fmt/format.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

#include "terrace/attach/server_loop_internal.h"
#include "terrace/base/sync_point.h"

namespace terrace::attach {
namespace {

constexpr std::size_t kStrangers = 32;  // Connections shaking hands; beyond, the oldest one goes.
constexpr Nanoseconds kRetry = milliseconds(5);          // A peer that reads slowly is tried again.
constexpr Nanoseconds kAcceptPause = milliseconds(100);  // After running out of descriptors.
constexpr Nanoseconds kIdle = seconds(60);

int to_milliseconds(Nanoseconds span) {
  const std::int64_t rounded_up = (span.value() + 999'999) / 1'000'000;
  return static_cast<int>(std::clamp<std::int64_t>(rounded_up, 0, 60'000));
}

}  // namespace

ServerLoop::ServerLoop(const AttachServer::Options& options, int listener, int stop_fd,
                       ServerBoard& board, const Clock& clock, LogSink& log)
    : options_(options),
      listener_(listener),
      stop_fd_(stop_fd),
      board_(board),
      clock_(clock),
      log_(log),
      refused_workers_(clock, log, "part=attach event=refused"),
      refused_strangers_(clock, log, "part=attach event=stranger_refused"),
      failed_accepts_(clock, log, "part=attach event=accept_failed") {}

void ServerLoop::run() {
  while (!is_readable(stop_fd_)) {
    turn();
    wait();
  }
  for (LogLimit* limit : {&refused_workers_, &refused_strangers_, &failed_accepts_}) {
    limit->flush();
  }
}

void ServerLoop::turn() {
  TERRACE_SYNC_POINT("attach.server.turn");
  accept_all();
  for (Connection& connection : connections_) step(connection);
  std::erase_if(connections_, [](const Connection& c) { return c.phase == Phase::kClosed; });
  for (LogLimit* limit : {&refused_workers_, &refused_strangers_, &failed_accepts_}) {
    limit->tick();
  }
}

void ServerLoop::wait() {
  std::vector<pollfd> entries = {{stop_fd_, POLLIN, 0}};
  const Nanoseconds now = clock_.now();
  Nanoseconds limit = kIdle;
  if (accept_after_ <= now) {
    entries.push_back({listener_, POLLIN, 0});
  } else {
    limit = std::min(limit, accept_after_ - now);
  }
  for (const Connection& connection : connections_) {
    entries.push_back({connection.channel.fd(), POLLIN, 0});
    if (connection.process.is_open()) entries.push_back({connection.process.get(), POLLIN, 0});
    if (connection.phase == Phase::kSending) limit = std::min(limit, kRetry);
    if (connection.phase != Phase::kAttached) {
      limit = std::min(limit, std::max(connection.deadline - now, Nanoseconds(0)));
    }
  }
  (void)::poll(entries.data(), entries.size(), to_milliseconds(limit));
}

void ServerLoop::accept_all() {
  if (clock_.now() < accept_after_) return;
  for (std::size_t i = 0; i < kStrangers; ++i) {
    UniqueFd socket(::accept4(listener_, nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
    if (socket.is_open()) {
      accept_one(std::move(socket));
      continue;
    }
    if (errno != EAGAIN && errno != EINTR && errno != ECONNABORTED) {
      // Out of descriptors: the listener stays readable, so look away for a while.
      accept_after_ = clock_.now() + kAcceptPause;
      failed_accepts_.write(LogLevel::kError,
                            fmt::format("part=attach event=accept_failed errno={} way_out=\"raise "
                                        "RLIMIT_NOFILE (ulimit -n)\"",
                                        errno));
    }
    return;
  }
}

void ServerLoop::accept_one(UniqueFd socket) {
  const auto is_stranger = [](const Connection& c) {
    return c.phase != Phase::kAttached && c.phase != Phase::kClosed;
  };
  const auto strangers = std::count_if(connections_.begin(), connections_.end(), is_stranger);
  if (static_cast<std::size_t>(strangers) >= kStrangers) {
    // Connections are in order of arrival. A real worker says hello at once and is not the oldest.
    const auto oldest = std::find_if(connections_.begin(), connections_.end(), is_stranger);
    tell_refused(*oldest, "too many connections that do not finish their handshake");
    end(*oldest, "too many connections");
  }
  Connection connection;
  connection.channel = Channel(std::move(socket));
  connection.deadline = clock_.now() + options_.handshake_limit;
  const auto peer = peer_of(connection.channel.fd());
  if (!peer.has_value()) return;
  connection.peer = *peer;
  if (peer->user != ::geteuid()) {
    refuse(connection, Code::kRefused,
           fmt::format("user {} of process {} may not attach, this owner runs as user {}",
                       peer->user, peer->process, ::geteuid()));
    return;
  }
  connections_.push_back(std::move(connection));
}

void ServerLoop::step(Connection& connection) {
  if (connection.process.is_open() && is_readable(connection.process.get())) {
    end(connection, "process ended");
    return;
  }
  receive(connection);
  if (connection.phase == Phase::kSending) send_rest(connection);
  const bool is_late = connection.phase != Phase::kAttached && connection.phase != Phase::kClosed &&
                       clock_.now() >= connection.deadline;
  if (is_late) {
    refuse(connection, Code::kUnavailable,
           fmt::format("process {} did not finish its handshake in time", connection.peer.process));
  }
}

void ServerLoop::receive(Connection& connection) {
  // A worker sends three messages in its life; whoever sends more at once waits for the next turn.
  for (int i = 0; i < 4 && connection.phase != Phase::kClosed; ++i) {
    auto received = connection.channel.receive(false);
    if (!received.has_value()) {
      if (received.error().code() == Code::kUnavailable) return;
      if (received.error().code() == Code::kClosed) {
        end(connection, "connection closed");
      } else {
        refuse(connection, Code::kRefused, received.error().message());
      }
      return;
    }
    if (const auto* hello = std::get_if<wire::AttachHello>(&received->message);
        hello != nullptr && connection.phase == Phase::kHello) {
      take_hello(connection, *hello);
    } else if (const auto* progress = std::get_if<wire::AttachProgress>(&received->message);
               progress != nullptr) {
      take_progress(connection, progress->stage);
    } else if (const auto* refusal = std::get_if<wire::AttachRefusal>(&received->message);
               refusal != nullptr) {
      tell_refused(connection, "it gave up: " + refusal->detail);
      board_.push({AttachChange::kRefused, connection.rank, Epoch(0),
                   fmt::format("rank {}: {}", connection.rank.value(), refusal->detail)});
      end(connection, "gave up: " + refusal->detail);
    } else {
      refuse(connection, Code::kRefused, "a message that is not due");
    }
  }
}

void ServerLoop::take_hello(Connection& connection, const wire::AttachHello& hello) {
  connection.is_worker = true;
  connection.rank = hello.rank;
  const std::string difference = layout_difference(options_.layout, hello.layout);
  if (!difference.empty()) {
    refuse(connection, Code::kRefused, fmt::format("rank {}: {}", hello.rank.value(), difference));
    return;
  }
  if (hello.rank.value() >= options_.lanes.size()) {
    refuse(connection, Code::kRefused,
           fmt::format("rank: the owner has ranks 0 to {}, the worker is rank {}",
                       options_.lanes.size() - 1, hello.rank.value()));
    return;
  }
  connection.process = watch_peer(connection.channel.fd(), connection.peer);
  if (const std::string why = occupant(hello.rank); !why.empty()) {
    refuse(connection, Code::kRefused, why);
    return;
  }
  if (board_.is_full()) {
    refuse(connection, Code::kUnavailable, "the owner is not taking events");
    return;
  }
  connection.epoch = Epoch(++last_epoch_);
  connection.phase = Phase::kSending;
}

std::string ServerLoop::occupant(RankId rank) {
  for (Connection& other : connections_) {
    if (other.epoch == Epoch(0) || other.rank != rank || other.phase == Phase::kClosed) continue;
    const bool is_dead = other.process.is_open() && is_readable(other.process.get());
    if (is_dead || other.channel.has_hung_up()) {
      end(other, is_dead ? "process ended" : "connection closed");
      continue;
    }
    return fmt::format("rank: {} is attached by process {}, which is alive", rank.value(),
                       other.peer.process);
  }
  return {};
}

void ServerLoop::send_rest(Connection& connection) {
  const memory::Lane& lane = *options_.lanes[connection.rank.value()];
  const auto files = lane.files();
  Status status;
  if (!connection.is_welcomed) {
    status = connection.channel.send(wire::AttachWelcome{
        options_.owner, connection.epoch, options_.geometry.slot_bytes, options_.geometry.slots,
        options_.geometry.lanes, static_cast<std::uint32_t>(files.size())});
    connection.is_welcomed = status.is_ok();
  }
  while (status.is_ok() && connection.next_file < files.size()) {
    const std::size_t count =
        std::min(wire::kAttachFilesAtOnce, files.size() - connection.next_file);
    const wire::AttachFiles message{connection.next_file, static_cast<std::uint32_t>(count)};
    status = connection.channel.send(message, files.subspan(connection.next_file, count));
    if (status.is_ok()) connection.next_file += message.count;
  }
  if (status.is_ok()) {
    connection.phase = Phase::kMapping;
  } else if (status.code() != Code::kUnavailable) {
    end(connection, status.message());
  }
}

void ServerLoop::take_progress(Connection& connection, wire::AttachStage stage) {
  const bool is_mapped = stage == wire::AttachStage::kMapped;
  const bool is_due = is_mapped ? connection.phase == Phase::kMapping
                                : connection.phase == Phase::kAttached && !connection.has_populated;
  if (!is_due) {
    refuse(connection, Code::kRefused, "a message that is not due");
    return;
  }
  connection.phase = Phase::kAttached;
  connection.has_populated = !is_mapped;
  if (is_mapped) {
    log_.write(
        LogLevel::kInfo,
        fmt::format("part=attach event=attached rank={} epoch={} process={}",
                    connection.rank.value(), connection.epoch.value(), connection.peer.process));
  }
  board_.push({is_mapped ? AttachChange::kAttached : AttachChange::kPopulated,
               connection.rank,
               connection.epoch,
               {},
               connection.peer.process});
}

void ServerLoop::refuse(Connection& connection, Code code, const std::string& detail) {
  (void)connection.channel.send(wire::AttachRefusal{code, detail});
  tell_refused(connection, detail);
  board_.push({AttachChange::kRefused, connection.rank, Epoch(0), detail});
  end(connection, "refused");
}

// A worker that cannot attach is a cache that serves nothing; a stranger is none of ours.
void ServerLoop::tell_refused(const Connection& connection, const std::string& why) {
  const Peer& peer = connection.peer;
  if (connection.is_worker) {
    refused_workers_.write(
        LogLevel::kError,
        fmt::format("part=attach event=refused rank={} process={} user={} reason=\"{}\"",
                    connection.rank.value(), peer.process, peer.user, why));
  } else {
    refused_strangers_.write(
        LogLevel::kWarn,
        fmt::format("part=attach event=stranger_refused process={} user={} reason=\"{}\"",
                    peer.process, peer.user, why));
  }
}

void ServerLoop::end(Connection& connection, const std::string& how) {
  const bool was_attached = connection.phase == Phase::kAttached;
  connection.phase = Phase::kClosed;
  connection.channel.close();
  connection.process = UniqueFd();
  if (!was_attached) return;
  log_.write(LogLevel::kWarn, fmt::format("part=attach event=died rank={} epoch={} how=\"{}\"",
                                          connection.rank.value(), connection.epoch.value(), how));
  board_.push({AttachChange::kDied, connection.rank, connection.epoch, how});
}

}  // namespace terrace::attach
