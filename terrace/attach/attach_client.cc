#include "terrace/attach/attach_client.h"

#include <fmt/format.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <optional>
#include <thread>
#include <utility>

#include "terrace/attach/attach_server.h"
#include "terrace/attach/channel_internal.h"
#include "terrace/attach/claim.h"
#include "terrace/base/mutex.h"
#include "terrace/base/sync_point.h"
#include "terrace/base/thread.h"

namespace terrace::attach {
namespace {

// While nobody listens the socket is looked for this often: soon at first, an engine's other half
// is usually seconds away; after a refusal, or in vain, seldom.
constexpr Nanoseconds kFirstPause = milliseconds(2);
constexpr Nanoseconds kLongestPause = milliseconds(50);
constexpr Nanoseconds kRefusedPause = seconds(1);
// Present before the attachment shows, so that a small lane is usable at once: 256 MiB, 0.1 s.
constexpr std::uint32_t kFirstExtents = 8;

enum class Wake : std::uint8_t { kReadable, kStop, kLate };

}  // namespace

struct AttachClient::State {
  const Options options;
  const std::string path;
  const Clock& clock;
  LogSink& log;
  const pid_t process = ::getpid();
  UniqueFd stop_fd;
  mutable Mutex mutex;
  std::shared_ptr<Attachment> attached TERRACE_GUARDED_BY(mutex);
  std::string problem TERRACE_GUARDED_BY(mutex);
  ThreadEnd ended;
  std::jthread thread;  // Last: joined before what it uses goes.

  State(Options given, std::string its_path, const Clock& its_clock, LogSink& its_log)
      : options(std::move(given)), path(std::move(its_path)), clock(its_clock), log(its_log) {}

  void request_stop() const {
    const std::uint64_t one = 1;
    (void)!::write(stop_fd.get(), &one, sizeof one);
  }
  void run();
  Status attach_once();
  [[nodiscard]] Result<Channel> connect_and_greet();
  [[nodiscard]] Result<Received> receive(Channel& channel, const UniqueFd& owner,
                                         Nanoseconds deadline);
  [[nodiscard]] Result<std::shared_ptr<Attachment>> take_lane(Channel& channel,
                                                              const UniqueFd& owner);
  [[nodiscard]] Status populate(Channel& channel, const UniqueFd& owner, Attachment& attachment,
                                std::uint32_t extents, Nanoseconds limit);
  [[nodiscard]] Status give_up(Channel& channel, std::shared_ptr<Attachment>& attachment,
                               const Status& why);
  [[nodiscard]] Wake wait(int fd, int second_fd, Nanoseconds limit) const;
  [[nodiscard]] bool is_stopping() const { return is_readable(stop_fd.get()); }
  void publish(std::shared_ptr<Attachment> attachment);
  void set_problem(const std::string& text, LogLevel level = LogLevel::kWarn);
};

void AttachClient::State::publish(std::shared_ptr<Attachment> attachment) {
  const bool is_attached = attachment != nullptr;
  {
    const MutexLock lock(mutex);
    std::swap(attached, attachment);
    if (is_attached) problem.clear();
  }
  // The former attachment goes here, outside the lock: dropping it may unmap gigabytes.
}

void AttachClient::State::set_problem(const std::string& text, LogLevel level) {
  bool is_new = false;
  {
    const MutexLock lock(mutex);
    is_new = problem != text;
    if (is_new) problem = text;
  }
  if (is_new) log.write(level, fmt::format("part=attach problem=\"{}\"", text));
}

Wake AttachClient::State::wait(int fd, int second_fd, Nanoseconds limit) const {
  pollfd entries[3] = {{stop_fd.get(), POLLIN, 0}, {fd, POLLIN, 0}, {second_fd, POLLIN, 0}};
  const std::int64_t rounded_up = (std::max<std::int64_t>(limit.value(), 0) + 999'999) / 1'000'000;
  (void)::poll(entries, 3, static_cast<int>(std::min<std::int64_t>(rounded_up, 60'000)));
  if (entries[0].revents != 0) return Wake::kStop;
  return entries[1].revents != 0 || entries[2].revents != 0 ? Wake::kReadable : Wake::kLate;
}

void AttachClient::State::run() {
  const Nanoseconds give_up = clock.now() + options.timeout;
  Nanoseconds pause = kFirstPause;
  while (!is_stopping()) {
    const Status status = attach_once();
    publish(nullptr);
    if (status.is_ok()) {  // Was attached; the owner has gone, the next one may be starting.
      pause = kFirstPause;
      if (wait(-1, -1, pause) == Wake::kStop) return;
      continue;
    }
    const bool is_expected = status.code() == Code::kUnavailable;
    if (is_expected && clock.now() < give_up) {
      // Engines build their workers first: so every start begins.
      set_problem(status.message(), LogLevel::kInfo);
    } else if (is_expected) {
      set_problem(
          fmt::format("{}; attach.timeout has passed: does the engine's scheduler run, with "
                      "the same engine id and attach.directory?",
                      status.message()));
    } else {
      set_problem(status.message());
    }
    pause = is_expected ? std::min(pause * 2, kLongestPause) : std::max(pause, kRefusedPause);
    if (wait(-1, -1, pause) == Wake::kStop) return;
  }
}

// Ok once an attachment has come and gone.
Status AttachClient::State::attach_once() {
  TERRACE_ASSIGN_OR_RETURN(Channel channel, connect_and_greet());
  TERRACE_ASSIGN_OR_RETURN(const Peer peer, peer_of(channel.fd()));
  const UniqueFd owner = watch_peer(channel.fd(), peer);
  TERRACE_SYNC_POINT("attach.client.greeted");
  auto attachment = take_lane(channel, owner);
  if (!attachment.has_value()) {
    if (attachment.error().code() == Code::kExhausted) {
      (void)channel.send(wire::AttachRefusal{Code::kRefused, attachment.error().message()});
    }
    return attachment.error();
  }
  if (options.is_populating) {
    const Nanoseconds enough(options.handshake_limit.value() / 8);
    const Status status = populate(channel, owner, **attachment, kFirstExtents, enough);
    if (!status.is_ok()) return give_up(channel, *attachment, status);
  }
  // Shown before the owner hears of it: the orders it then sends find it.
  publish(*attachment);
  TERRACE_RETURN_IF_ERROR(channel.send(wire::AttachProgress{wire::AttachStage::kMapped}));
  log.write(LogLevel::kInfo,
            fmt::format("part=attach event=attached rank={} epoch={} slots={} huge_pages={}",
                        options.rank.value(), (*attachment)->epoch.value(),
                        (*attachment)->geometry.slots, (*attachment)->lane.uses_huge_pages()));
  if (options.is_populating) {
    const Status status = populate(channel, owner, **attachment, UINT32_MAX, kNoDeadline);
    if (!status.is_ok()) return give_up(channel, *attachment, status);
    (void)channel.send(wire::AttachProgress{wire::AttachStage::kPopulated});
  }
  const Wake wake = [&] {
    for (;;) {
      const Wake got = wait(channel.fd(), owner.get(), seconds(60));
      if (got == Wake::kLate) continue;
      if (got == Wake::kReadable && !is_readable(owner.get()) &&
          channel.receive(false).has_value()) {
        continue;  // Nothing is due from an owner; only its end matters.
      }
      return got;
    }
  }();
  if (wake == Wake::kReadable) {
    log.write(LogLevel::kWarn, fmt::format("part=attach event=owner_gone rank={} epoch={}",
                                           options.rank.value(), (*attachment)->epoch.value()));
    set_problem("attach: the owner at " + path + " has gone");
  }
  return {};
}

Result<Channel> AttachClient::State::connect_and_greet() {
  TERRACE_ASSIGN_OR_RETURN(UniqueFd socket, connect_to(path));
  Channel channel(std::move(socket));
  const Status sent = channel.send(wire::AttachHello{options.rank, options.layout});
  if (sent.code() == Code::kClosed) {
    return fail(Code::kUnavailable, "attach: the owner at " + path + " closed the connection");
  }
  TERRACE_RETURN_IF_ERROR(sent);
  return channel;
}

Result<Received> AttachClient::State::receive(Channel& channel, const UniqueFd& owner,
                                              Nanoseconds deadline) {
  for (;;) {
    auto received = channel.receive(true);
    if (received.has_value()) {
      if (const auto* refusal = std::get_if<wire::AttachRefusal>(&received->message)) {
        return fail(refusal->code, "attach: " + refusal->detail);
      }
      return received;
    }
    if (received.error().code() == Code::kClosed) {
      return fail(Code::kUnavailable, "attach: the owner at " + path + " closed the connection");
    }
    if (received.error().code() != Code::kUnavailable) return received;
    // A dead owner's socket can stay open in a child that it forked.
    if (is_readable(owner.get())) return fail(Code::kUnavailable, "attach: the owner is dead");
    const Nanoseconds left = deadline - clock.now();
    if (left <= Nanoseconds(0) || wait(channel.fd(), owner.get(), left) == Wake::kStop) {
      return fail(Code::kUnavailable, "attach: the owner at " + path + " does not answer");
    }
  }
}

Result<std::shared_ptr<Attachment>> AttachClient::State::take_lane(Channel& channel,
                                                                   const UniqueFd& owner) {
  const Nanoseconds deadline = clock.now() + options.handshake_limit;
  TERRACE_ASSIGN_OR_RETURN(const Received first, receive(channel, owner, deadline));
  const auto* const welcome = std::get_if<wire::AttachWelcome>(&first.message);
  if (welcome == nullptr) return fail(Code::kRefused, "attach: the owner's answer is no welcome");
  const memory::SegmentGeometry geometry{welcome->slot_bytes, welcome->slots, welcome->lanes};
  TERRACE_RETURN_IF_ERROR(geometry.validate());
  for (const GroupLayout& group : options.layout.groups) {
    if (group.shard_bytes() > geometry.slot_bytes) {
      return fail(Code::kRefused,
                  fmt::format("attach: slots of {} bytes are too small for group {}",
                              geometry.slot_bytes.value(), group.group.value()));
    }
  }
  if (geometry.lanes != options.layout.ranks || welcome->files != geometry.files()) {
    return fail(Code::kRefused, "attach: the owner's geometry does not fit its layout");
  }
  std::vector<UniqueFd> files;
  while (files.size() < welcome->files) {
    TERRACE_ASSIGN_OR_RETURN(Received next, receive(channel, owner, deadline));
    const auto* const batch = std::get_if<wire::AttachFiles>(&next.message);
    if (batch == nullptr || batch->first != files.size() || batch->count != next.files.size()) {
      return fail(Code::kRefused, "attach: the owner's descriptors came in disorder");
    }
    std::move(next.files.begin(), next.files.end(), std::back_inserter(files));
  }
  TERRACE_ASSIGN_OR_RETURN(memory::Lane lane, memory::Lane::map(geometry, std::move(files)));
  return std::make_shared<Attachment>(welcome->owner, welcome->epoch, geometry, std::move(lane));
}

// A copy into memory that the system refused would end as a signal: does without the tier.
Status AttachClient::State::give_up(Channel& channel, std::shared_ptr<Attachment>& attachment,
                                    const Status& why) {
  publish(nullptr);
  // To the owner the end of the attachment means that no late write can land: let a copy finish.
  while (attachment.use_count() > 1 && wait(-1, -1, milliseconds(1)) != Wake::kStop) {
  }
  (void)channel.send(wire::AttachRefusal{Code::kRefused, why.message()});
  return why;
}

// Goes on from where it was, up to `extents` or until `limit` has passed.
Status AttachClient::State::populate(Channel& channel, const UniqueFd& owner,
                                     Attachment& attachment, std::uint32_t extents,
                                     Nanoseconds limit) {
  const Nanoseconds begin = clock.now();
  const std::uint32_t end = std::min(extents, attachment.geometry.extents());
  for (std::uint32_t i = attachment.lane.populated_extents(); i < end; ++i) {
    const bool is_over = clock.now() - begin >= limit;
    if (is_over || is_stopping() || channel.has_hung_up() || is_readable(owner.get())) return {};
    TERRACE_SYNC_POINT("attach.client.populate");
    TERRACE_RETURN_IF_ERROR(options.populate ? options.populate(attachment.lane, i)
                                             : attachment.lane.populate(i));
  }
  return {};
}

AttachClient::AttachClient(std::unique_ptr<State> state) : state_(std::move(state)) {}

Result<std::unique_ptr<AttachClient>> AttachClient::start(Options options, const Clock& clock,
                                                          LogSink& log) {
  TERRACE_RETURN_IF_ERROR(options.layout.validate());
  if (options.rank.value() >= options.layout.ranks) {
    return fail(Code::kInvalid, fmt::format("attach: rank {} of {} ranks", options.rank.value(),
                                            options.layout.ranks));
  }
  TERRACE_ASSIGN_OR_RETURN(std::string path, socket_path(options.directory, options.engine_id));
  // What cannot be said is refused here, not in the thread, where nobody would hear of it.
  const auto hello = wire::encode(wire::AttachHello{options.rank, options.layout});
  if (!hello.has_value()) return fail(hello.error());
  auto state = std::make_unique<State>(std::move(options), std::move(path), clock, log);
  state->stop_fd = UniqueFd(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  if (!state->stop_fd.is_open()) return fail(Status::from_errno(errno, "eventfd", "attach"));
  {
    const MutexLock lock(state->mutex);
    state->problem = "attach: waiting for the owner at " + state->path;
  }
  State* const raw = state.get();
  TERRACE_ASSIGN_OR_RETURN(
      state->thread, start_thread(
                         "terrace-worker",
                         [raw](const std::stop_token&) {
                           raw->run();
                           raw->ended.set();
                         },
                         [raw](const char* reason) {
                           raw->publish(nullptr);
                           raw->set_problem(std::string("attach: broken invariant: ") + reason);
                           raw->ended.set();
                         }));
  return std::unique_ptr<AttachClient>(new AttachClient(std::move(state)));
}

AttachClient::~AttachClient() {
  if (state_->process !=
      ::getpid()) {  // In a forked child: thread and connection are the parent's.
    (void)state_.release();
    return;
  }
  state_->request_stop();
}

bool AttachClient::close(Nanoseconds deadline) {
  state_->request_stop();
  if (!state_->thread.joinable()) return true;
  if (!state_->ended.wait(deadline, state_->clock)) return false;
  state_->thread.join();
  return true;
}

std::shared_ptr<const Attachment> AttachClient::attachment() const {
  const MutexLock lock(state_->mutex);
  return state_->attached;
}

std::string AttachClient::problem() const {
  const MutexLock lock(state_->mutex);
  return state_->attached != nullptr ? std::string() : state_->problem;
}

}  // namespace terrace::attach
