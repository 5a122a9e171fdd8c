#include <fcntl.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "terrace/attach/attach_client.h"
#include "terrace/attach/attach_server.h"
#include "terrace/attach/channel_internal.h"
#include "terrace/attach/claim_internal.h"
#include "terrace/testing/eventually.h"
#include "terrace/testing/scratch_directory.h"
#include "terrace/wire/attach_messages.h"

namespace terrace::attach {
namespace {

using testing::eventually;

Layout layout_of(std::uint16_t ranks = 1) {
  Layout layout;
  layout.block_tokens = Tokens(32);
  layout.ranks = ranks;
  layout.groups = {{GroupId(0), std::vector<Bytes>(30, Bytes(8192))}};
  return layout;
}

int listening_socket(const std::string& path) {
  const int fd = ::socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  std::memcpy(address.sun_path, path.data(), path.size());
  EXPECT_EQ(::bind(fd, reinterpret_cast<const sockaddr*>(&address), sizeof address), 0);
  EXPECT_EQ(::listen(fd, 8), 0);
  return fd;
}

int connected_socket(const std::string& path) {
  const int fd = ::socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  std::memcpy(address.sun_path, path.data(), path.size());
  if (::connect(fd, reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0) return fd;
  ::close(fd);
  return -1;
}

bool has_text(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

// A forked process that runs `body`, says so once `body` called its argument, and lives until
// killed.
class Child {
 public:
  explicit Child(const std::function<void(const std::function<void()>& say_ready)>& body) {
    int ends[2] = {-1, -1};
    EXPECT_EQ(::pipe2(ends, O_CLOEXEC), 0);
    std::fflush(nullptr);
    pid_ = ::fork();
    if (pid_ == 0) {
      body([&] { (void)!::write(ends[1], "r", 1); });
      for (;;) ::pause();
    }
    ::close(ends[1]);
    char byte = 0;
    EXPECT_EQ(::read(ends[0], &byte, 1), 1);
    ::close(ends[0]);
  }
  ~Child() { kill(); }
  void kill() {
    if (pid_ <= 0) return;
    ::kill(pid_, SIGKILL);
    ::waitpid(pid_, nullptr, 0);
    pid_ = 0;
  }
  [[nodiscard]] pid_t pid() const { return pid_; }

 private:
  pid_t pid_ = 0;
};

class AttachTest : public ::testing::Test {
 protected:
  [[nodiscard]] std::string directory() const { return scratch_.path() + "/attach"; }
  [[nodiscard]] std::string path() const { return socket_path(directory(), "engine").value(); }

  void make_lanes(std::uint16_t ranks) {
    geometry_ = {Bytes(30 * 8192), 12, ranks};
    lanes_.clear();
    for (int i = 0; i < ranks; ++i) {
      auto lane = memory::Lane::create(geometry_, false, "test");
      ASSERT_TRUE(lane.has_value());
      lanes_.push_back(std::move(*lane));
    }
  }

  [[nodiscard]] AttachServer::Options server_options(std::uint16_t ranks = 1) {
    if (lanes_.size() != ranks) make_lanes(ranks);
    AttachServer::Options options;
    options.directory = directory();
    options.engine_id = "engine";
    options.owner = 4711;
    options.layout = layout_of(ranks);
    options.geometry = geometry_;
    for (const memory::Lane& lane : lanes_) options.lanes.push_back(&lane);
    return options;
  }

  std::unique_ptr<AttachServer> server(AttachServer::Options options) {
    auto started = AttachServer::start(std::move(options), clock_, log_);
    EXPECT_TRUE(started.has_value()) << started.error().text();
    return std::move(started).value();
  }
  std::unique_ptr<AttachServer> server() { return server(server_options()); }
  std::string refusal(AttachServer::Options options) {
    const auto started = AttachServer::start(std::move(options), clock_, log_);
    if (started.has_value()) return "started";
    EXPECT_EQ(started.error().code(), Code::kRefused) << started.error().text();
    return started.error().message();
  }

  std::unique_ptr<AttachClient> client(unsigned rank = 0, Layout layout = layout_of()) {
    AttachClient::Options options;
    options.directory = directory();
    options.engine_id = "engine";
    options.rank = RankId(static_cast<std::uint16_t>(rank));
    options.layout = std::move(layout);
    options.handshake_limit = client_limit_;
    auto started = AttachClient::start(std::move(options), clock_, log_);
    EXPECT_TRUE(started.has_value()) << started.error().text();
    return std::move(started).value();
  }

  // Events taken so far, until one of kind `change` has come.
  bool comes(AttachServer& server, AttachChange change) {
    return eventually([&] {
      for (AttachEvent& event : server.take_events()) events_.push_back(std::move(event));
      return find(change) != nullptr;
    });
  }
  [[nodiscard]] const AttachEvent* find(AttachChange change) const {
    const auto found = std::find_if(events_.begin(), events_.end(),
                                    [&](const AttachEvent& e) { return e.change == change; });
    return found == events_.end() ? nullptr : &*found;
  }

  testing::ScratchDirectory scratch_;
  SystemClock clock_;
  NullLog log_;
  memory::SegmentGeometry geometry_;
  std::vector<memory::Lane> lanes_;
  std::vector<AttachEvent> events_;
  Nanoseconds client_limit_ = seconds(30);
};

TEST_F(AttachTest, WorkerGetsTheOwnersLane) {
  const auto owner = server();
  const auto worker = client();
  ASSERT_TRUE(eventually([&] { return worker->attachment() != nullptr; })) << worker->problem();
  const auto attachment = worker->attachment();
  EXPECT_EQ(attachment->owner, 4711U);
  EXPECT_EQ(attachment->geometry, geometry_);
  attachment->lane.slot(SlotIndex(7))[5] = std::byte{42};
  EXPECT_EQ(lanes_[0].slot(SlotIndex(7))[5], std::byte{42});
  EXPECT_EQ(worker->problem(), "");
  ASSERT_TRUE(eventually([&] { return owner->all_attached(); }));
  EXPECT_EQ(owner->epoch_of(RankId(0)), attachment->epoch);
  EXPECT_NE(attachment->epoch, Epoch(0));
}

// vLLM builds workers first.
TEST_F(AttachTest, WorkerMayComeBeforeTheOwnerAndItsDirectory) {
  const auto worker = client();
  EXPECT_EQ(worker->attachment(), nullptr);
  EXPECT_TRUE(has_text(worker->problem(), "no owner") || has_text(worker->problem(), "waiting"));
  const auto owner = server();
  EXPECT_TRUE(eventually([&] { return worker->attachment() != nullptr; })) << worker->problem();
}

TEST_F(AttachTest, ProblemNamesTheSettingAfterTheTimeoutAndTriesGoOn) {
  AttachClient::Options options;
  options.directory = directory();
  options.engine_id = "engine";
  options.layout = layout_of();
  options.timeout = Nanoseconds(0);
  const auto worker = AttachClient::start(options, clock_, log_);
  ASSERT_TRUE(worker.has_value());
  EXPECT_TRUE(eventually([&] { return has_text((*worker)->problem(), "attach.timeout"); }));
  const auto owner = server();
  EXPECT_TRUE(eventually([&] { return (*worker)->attachment() != nullptr; }));
}

TEST_F(AttachTest, EventsComeInOrderAndTheDescriptorSaysWhen) {
  const auto owner = server();
  EXPECT_FALSE(is_readable(owner->event_fd()));
  const auto worker = client();
  ASSERT_TRUE(eventually([&] { return is_readable(owner->event_fd()); }));
  ASSERT_TRUE(comes(*owner, AttachChange::kPopulated));
  ASSERT_EQ(events_.size(), 2U);
  EXPECT_EQ(events_[0].change, AttachChange::kAttached);
  EXPECT_EQ(events_[0].epoch, events_[1].epoch);
  EXPECT_FALSE(is_readable(owner->event_fd()));
}

TEST_F(AttachTest, EachRankGetsItsOwnLane) {
  const auto owner = server(server_options(2));
  const auto rank_1 = client(1, layout_of(2));
  ASSERT_TRUE(eventually([&] { return rank_1->attachment() != nullptr; }));
  EXPECT_FALSE(owner->all_attached());
  const auto rank_0 = client(0, layout_of(2));
  ASSERT_TRUE(eventually([&] { return owner->all_attached(); }));
  ASSERT_TRUE(eventually([&] { return rank_0->attachment() != nullptr; }));
  rank_0->attachment()->lane.slot(SlotIndex(3))[0] = std::byte{1};
  rank_1->attachment()->lane.slot(SlotIndex(3))[0] = std::byte{2};
  EXPECT_EQ(lanes_[0].slot(SlotIndex(3))[0], std::byte{1});
  EXPECT_EQ(lanes_[1].slot(SlotIndex(3))[0], std::byte{2});
  EXPECT_NE(owner->epoch_of(RankId(0)), owner->epoch_of(RankId(1)));
}

TEST_F(AttachTest, OtherLayoutIsRefusedAndTheFieldNamed) {
  const auto owner = server(server_options(2));
  const auto problem_with = [&](const std::function<void(Layout&)>& change) {
    Layout layout = layout_of(2);
    change(layout);
    const auto worker = client(0, layout);
    EXPECT_TRUE(eventually([&] { return has_text(worker->problem(), "layout."); }));
    EXPECT_EQ(worker->attachment(), nullptr);
    return worker->problem();
  };
  EXPECT_TRUE(has_text(problem_with([](Layout& l) { l.block_tokens = Tokens(64); }),
                       "layout.block_tokens: the owner has 32, the worker 64"));
  EXPECT_TRUE(has_text(problem_with([](Layout& l) { l.ranks = 3; }), "layout.ranks"));
  EXPECT_TRUE(
      has_text(problem_with([](Layout& l) { l.groups.push_back({GroupId(1), {Bytes(1)}}); }),
               "layout.groups: the owner has 1, the worker 2"));
  EXPECT_TRUE(has_text(problem_with([](Layout& l) { l.groups[0].group = GroupId(5); }),
                       "layout.groups[0].group"));
  EXPECT_TRUE(has_text(problem_with([](Layout& l) { l.groups[0].piece_bytes.pop_back(); }),
                       "layout.groups[0].pieces: the owner has 30, the worker 29"));
  EXPECT_TRUE(has_text(problem_with([](Layout& l) { l.groups[0].piece_bytes[7] = Bytes(16); }),
                       "layout.groups[0].piece_bytes[7]: the owner has 8192, the worker 16"));
  ASSERT_TRUE(comes(*owner, AttachChange::kRefused));
  EXPECT_TRUE(has_text(find(AttachChange::kRefused)->detail, "layout.block_tokens"));
  EXPECT_FALSE(owner->all_attached());
}

TEST_F(AttachTest, RankOutsideTheLayoutIsInvalid) {
  AttachClient::Options options;
  options.directory = directory();
  options.engine_id = "engine";
  options.layout = layout_of(2);
  options.rank = RankId(2);
  const auto worker = AttachClient::start(options, clock_, log_);
  ASSERT_FALSE(worker.has_value());
  EXPECT_EQ(worker.error().code(), Code::kInvalid);
}

TEST_F(AttachTest, SecondWorkerOfALivingRankIsRefused) {
  const auto owner = server();
  const auto first = client();
  ASSERT_TRUE(eventually([&] { return owner->all_attached(); }));
  const Epoch epoch = owner->epoch_of(RankId(0));
  const auto second = client();
  ASSERT_TRUE(eventually([&] { return has_text(second->problem(), "is alive"); }));
  EXPECT_EQ(second->attachment(), nullptr);
  EXPECT_EQ(owner->epoch_of(RankId(0)), epoch);
}

TEST_F(AttachTest, EndedAttachmentIsReportedAndTheNextHasAHigherEpoch) {
  const auto owner = server();
  auto first = client();
  ASSERT_TRUE(comes(*owner, AttachChange::kPopulated));
  const Epoch epoch = find(AttachChange::kPopulated)->epoch;
  first.reset();
  ASSERT_TRUE(comes(*owner, AttachChange::kDied));
  EXPECT_EQ(find(AttachChange::kDied)->epoch, epoch);
  EXPECT_EQ(owner->epoch_of(RankId(0)), Epoch(0));
  const auto second = client();
  ASSERT_TRUE(eventually([&] { return owner->all_attached(); }));
  EXPECT_GT(owner->epoch_of(RankId(0)), epoch);
}

TEST_F(AttachTest, KilledProcessIsReportedThoughItsChildKeepsTheConnection) {
  const auto owner = server();
  pid_t grandchild = 0;
  {
    int ends[2] = {-1, -1};
    ASSERT_EQ(::pipe2(ends, O_CLOEXEC), 0);
    Child process([&](const auto& say_ready) {
      const int socket = connected_socket(path());
      Channel channel{UniqueFd(socket)};
      (void)channel.send(wire::AttachHello{RankId(0), layout_of()});
      while (!channel.receive(true).has_value()) (void)::poll(nullptr, 0, 1);  // Welcome.
      while (!channel.receive(true).has_value()) (void)::poll(nullptr, 0, 1);  // Files.
      (void)channel.send(wire::AttachProgress{});
      const pid_t inner = ::fork();  // Keeps a copy of the connection open.
      if (inner == 0) {
        for (;;) ::pause();
      }
      (void)!::write(ends[1], &inner, sizeof inner);
      say_ready();
      for (;;) ::pause();
    });
    ASSERT_EQ(::read(ends[0], &grandchild, sizeof grandchild),
              static_cast<ssize_t>(sizeof grandchild));
    ::close(ends[0]);
    ::close(ends[1]);
    ASSERT_TRUE(comes(*owner, AttachChange::kAttached));
    process.kill();
  }
  EXPECT_TRUE(comes(*owner, AttachChange::kDied));
  EXPECT_EQ(find(AttachChange::kDied)->detail, "process ended");
  ::kill(grandchild, SIGKILL);
}

TEST_F(AttachTest, WorkerAttachesAnewWhenTheOwnerIsReplaced) {
  auto owner = server();
  const auto worker = client();
  ASSERT_TRUE(eventually([&] { return worker->attachment() != nullptr; }));
  const auto old = worker->attachment();
  owner.reset();
  ASSERT_TRUE(eventually([&] { return worker->attachment() == nullptr; }));
  EXPECT_NE(worker->problem(), "");
  AttachServer::Options next = server_options();
  next.owner = 4712;
  owner = server(std::move(next));
  ASSERT_TRUE(eventually([&] { return worker->attachment() != nullptr; })) << worker->problem();
  EXPECT_EQ(worker->attachment()->owner, 4712U);
  old->lane.slot(SlotIndex(0))[0] = std::byte{1};  // Who still uses the old one can.
}

TEST_F(AttachTest, SocketPathEndsAt107Bytes) {
  const std::size_t fits = 107 - (1 + 24 + 5);
  const std::string longest = "/" + std::string(fits - 1, 'd');
  ASSERT_TRUE(socket_path(longest, "e").has_value());
  EXPECT_EQ(socket_path(longest, "e")->size(), 107U);
  const auto too_long = socket_path(longest + "d", "e");
  ASSERT_FALSE(too_long.has_value());
  EXPECT_EQ(too_long.error().code(), Code::kInvalid);
  EXPECT_TRUE(has_text(too_long.error().message(), "attach.directory"));
  EXPECT_FALSE(socket_path("relative", "e").has_value());
  EXPECT_FALSE(socket_path("", "e").has_value());
  EXPECT_NE(*socket_path("/d", "e"), *socket_path("/d", "f"));
}

TEST_F(AttachTest, DirectoryAndSocketAreForTheirUserOnly) {
  const auto owner = server();
  struct stat facts{};
  ASSERT_EQ(::stat(directory().c_str(), &facts), 0);
  EXPECT_EQ(facts.st_mode & 07777U, 0700U);
  ASSERT_EQ(::stat(path().c_str(), &facts), 0);
  EXPECT_EQ(facts.st_mode & 0777U, 0600U);
}

TEST_F(AttachTest, DirectoryOpenToOthersIsRefusedWithTheWayOut) {
  ASSERT_EQ(::mkdir(directory().c_str(), 0700), 0);
  ASSERT_EQ(::chmod(directory().c_str(), 0750), 0);
  const std::string text = refusal(server_options());
  EXPECT_TRUE(has_text(text, "attach.directory")) << text;
  EXPECT_TRUE(has_text(text, "0750")) << text;
  EXPECT_TRUE(has_text(text, "chmod 700")) << text;
}

TEST_F(AttachTest, DirectoryThatIsALinkOrAFileIsRefused) {
  const std::string real = scratch_.path() + "/real";
  ASSERT_EQ(::mkdir(real.c_str(), 0700), 0);
  ASSERT_EQ(::symlink(real.c_str(), directory().c_str()), 0);
  EXPECT_TRUE(has_text(refusal(server_options()), "symbolic link"));
  ASSERT_EQ(::unlink(directory().c_str()), 0);
  ::close(::open(directory().c_str(), O_CREAT | O_WRONLY | O_CLOEXEC, 0600));
  EXPECT_TRUE(has_text(refusal(server_options()), "no directory"));
}

// Needs root to make such a directory and such a peer; without root nobody can be another user.
TEST_F(AttachTest, AnotherUserIsRefusedOnEitherSide) {
  if (::geteuid() != 0) return;
  ASSERT_EQ(::mkdir(directory().c_str(), 0700), 0);
  ASSERT_EQ(::chown(directory().c_str(), 1000, 1000), 0);
  EXPECT_TRUE(has_text(refusal(server_options()), "belongs to user 1000"));
  ASSERT_EQ(::chown(directory().c_str(), 0, 0), 0);

  const auto owner = server();
  // Even if somebody opens the way by hand, credentials decide.
  ASSERT_EQ(::chmod(scratch_.path().c_str(), 0755), 0);
  ASSERT_EQ(::chmod(directory().c_str(), 0755), 0);
  ASSERT_EQ(::chmod(path().c_str(), 0777), 0);
  const std::string socket_file = path();
  Child stranger([&](const auto& say_ready) {
    if (::setgid(1000) != 0 || ::setuid(1000) != 0) ::_exit(1);
    const auto mine = connect_to(socket_file);  // A worker refuses another user's owner as well.
    const bool refused_here = !mine.has_value() && mine.error().code() == Code::kRefused;
    const int socket = connected_socket(socket_file);
    Channel channel{UniqueFd(socket)};
    (void)channel.send(wire::AttachHello{RankId(0), layout_of()});
    if (refused_here) say_ready();
  });
  ASSERT_TRUE(comes(*owner, AttachChange::kRefused));
  EXPECT_TRUE(has_text(find(AttachChange::kRefused)->detail, "user 1000"));
  EXPECT_FALSE(owner->all_attached());
}

TEST_F(AttachTest, OneLiveOwnerPerEngineId) {
  auto first = server();
  EXPECT_TRUE(has_text(refusal(server_options()), "this process already has an owner"));
  first.reset();
  AttachServer::Options options = server_options();
  Child other([&](const auto& say_ready) {
    const auto started = AttachServer::start(options, clock_, log_);
    if (!started.has_value()) ::_exit(1);
    say_ready();
    for (;;) ::pause();
  });
  const std::string text = refusal(server_options());
  EXPECT_TRUE(has_text(text, "process " + std::to_string(other.pid()))) << text;
  EXPECT_TRUE(has_text(text, "another engine id")) << text;
  other.kill();
  const auto second = server();
  const auto worker = client();
  EXPECT_TRUE(eventually([&] { return worker->attachment() != nullptr; })) << worker->problem();
}

TEST_F(AttachTest, DeadOwnersSocketIsReplacedThoughItsChildStillListens) {
  AttachServer::Options options = server_options();
  int ends[2] = {-1, -1};
  ASSERT_EQ(::pipe2(ends, O_CLOEXEC), 0);
  Child dying([&](const auto& say_ready) {
    const auto started = AttachServer::start(options, clock_, log_);
    const pid_t orphan = ::fork();  // Inherits the listening socket.
    if (orphan == 0) {
      for (;;) ::pause();
    }
    (void)!::write(ends[1], &orphan, sizeof orphan);
    say_ready();
    for (;;) ::pause();
  });
  pid_t orphan = 0;
  ASSERT_EQ(::read(ends[0], &orphan, sizeof orphan), static_cast<ssize_t>(sizeof orphan));
  ::close(ends[0]);
  ::close(ends[1]);
  dying.kill();
  const auto worker = client();  // Meets the orphan's socket first, which nobody serves.
  const auto owner = server();
  EXPECT_TRUE(eventually([&] { return worker->attachment() != nullptr; })) << worker->problem();
  ::kill(orphan, SIGKILL);
}

TEST_F(AttachTest, RemainsOfOtherDeadOwnersAreSweptAndLiveOnesAreNot) {
  const auto start_other = [&](const std::string& id, const auto& say_ready) {
    AttachServer::Options options = server_options();
    options.engine_id = id;
    const auto started = AttachServer::start(options, clock_, log_);
    if (!started.has_value()) ::_exit(1);
    say_ready();
    for (;;) ::pause();
  };
  make_lanes(1);
  Child dead([&](const auto& say_ready) { start_other("dead", say_ready); });
  Child live([&](const auto& say_ready) { start_other("live", say_ready); });
  dead.kill();
  const auto file_of = [&](const std::string& id, const std::string& ending) {
    const std::string socket_file = socket_path(directory(), id).value();
    return socket_file.substr(0, socket_file.size() - 5) + ending;
  };
  for (const std::string id : {"dead", "live"}) {
    const timespec old[2] = {{1'000'000, 0}, {1'000'000, 0}};
    ASSERT_EQ(::utimensat(AT_FDCWD, file_of(id, ".lock").c_str(), old, 0), 0);
  }
  auto owner = server();
  EXPECT_NE(::access(file_of("dead", ".sock").c_str(), F_OK), 0);
  EXPECT_NE(::access(file_of("dead", ".lock").c_str(), F_OK), 0);
  EXPECT_EQ(::access(file_of("live", ".sock").c_str(), F_OK), 0);
  EXPECT_EQ(::access(file_of("live", ".lock").c_str(), F_OK), 0);
  owner.reset();
  EXPECT_NE(::access(file_of("engine", ".sock").c_str(), F_OK), 0);
  EXPECT_NE(::access(file_of("engine", ".lock").c_str(), F_OK), 0);
}

TEST_F(AttachTest, ForkedChildNeitherUnlinksNorHangs) {
  auto owner = server();
  auto worker = client();
  ASSERT_TRUE(eventually([&] { return worker->attachment() != nullptr; }));
  Child child([&](const auto& say_ready) {
    owner.reset();
    worker.reset();
    say_ready();
  });
  child.kill();
  EXPECT_NE(worker->attachment(), nullptr);
  worker.reset();
  ASSERT_TRUE(comes(*owner, AttachChange::kDied));
  const auto next = client();
  EXPECT_TRUE(eventually([&] { return next->attachment() != nullptr; })) << next->problem();
}

TEST_F(AttachTest, SilentPeerIsDroppedAtTheDeadlineAndHoldsUpNobody) {
  AttachServer::Options options = server_options();
  options.handshake_limit = seconds(1);
  const auto owner = server(std::move(options));
  const UniqueFd silent(connected_socket(path()));
  const auto worker = client();
  ASSERT_TRUE(comes(*owner, AttachChange::kAttached));
  ASSERT_TRUE(comes(*owner, AttachChange::kRefused));
  EXPECT_TRUE(has_text(find(AttachChange::kRefused)->detail, "in time"));
  EXPECT_TRUE(owner->all_attached());
}

TEST_F(AttachTest, ManySilentPeersCannotKeepAWorkerOut) {
  const auto owner = server();
  std::vector<UniqueFd> silent;
  for (int i = 0; i < 100; ++i) {
    ASSERT_TRUE(eventually([&] {
      const int fd = connected_socket(path());
      if (fd >= 0) silent.emplace_back(fd);
      return fd >= 0;
    }));
  }
  const auto worker = client();
  EXPECT_TRUE(eventually([&] { return worker->attachment() != nullptr; })) << worker->problem();
}

TEST_F(AttachTest, GarbageIsRefusedAndTheServerLives) {
  const auto owner = server();
  const auto hello = wire::encode(wire::AttachHello{RankId(0), layout_of()});
  ASSERT_TRUE(hello.has_value());
  std::string newer = *hello;
  newer[4] = 2;
  const auto progress = wire::encode(wire::AttachProgress{});
  const std::vector<std::string> inputs = {"x",
                                           std::string(60'000, 'A'),
                                           hello->substr(0, hello->size() - 1),
                                           newer,
                                           *progress,
                                           *hello + "tail",
                                           std::string(70'000, 'B')};
  for (const std::string& input : inputs) {
    const UniqueFd peer(connected_socket(path()));
    ASSERT_EQ(::send(peer.get(), input.data(), input.size(), MSG_NOSIGNAL),
              static_cast<ssize_t>(input.size()));
    ASSERT_TRUE(eventually([&] { return Channel(UniqueFd(::dup(peer.get()))).has_hung_up(); }));
  }
  for (int i = 0; i < 200; ++i) {  // Each is an event; not all of them wait.
    const UniqueFd peer(connected_socket(path()));
    (void)::send(peer.get(), "x", 1, MSG_NOSIGNAL);
    ASSERT_TRUE(eventually([&] { return Channel(UniqueFd(::dup(peer.get()))).has_hung_up(); }));
  }
  EXPECT_LE(owner->take_events().size(), 64U);
  const auto worker = client();
  EXPECT_TRUE(eventually([&] { return worker->attachment() != nullptr; })) << worker->problem();
  EXPECT_EQ(owner->problem(), "");
}

TEST_F(AttachTest, DescriptorsSentUninvitedAreNotTaken) {
  const auto owner = server();
  const auto open_here = [] {
    int count = 0;
    for (int fd = 0; fd < 1024; ++fd) count += ::fcntl(fd, F_GETFD) >= 0 ? 1 : 0;
    return count;
  };
  const UniqueFd peer(connected_socket(path()));
  const UniqueFd file(::open("/dev/null", O_RDONLY | O_CLOEXEC));
  const int before = open_here();
  Channel channel{UniqueFd(::dup(peer.get()))};
  std::vector<UniqueFd> files;
  files.emplace_back(::dup(file.get()));
  ASSERT_TRUE(channel.send(wire::AttachFiles{0, 1}, files).is_ok());
  ASSERT_TRUE(eventually([&] { return channel.has_hung_up(); }));
  files.clear();
  channel.close();
  EXPECT_LE(open_here(), before);
}

// ---- A worker facing an owner that is not what it says.

class FalseOwnerTest : public AttachTest {
 protected:
  FalseOwnerTest() {
    EXPECT_EQ(::mkdir(directory().c_str(), 0700), 0);
    listener_ = UniqueFd(listening_socket(path()));
  }
  Channel accepted() {
    return Channel(UniqueFd(::accept4(listener_.get(), nullptr, nullptr, SOCK_CLOEXEC)));
  }
  void expect_problem(const AttachClient& worker, const std::string& part) {
    EXPECT_TRUE(eventually([&] { return has_text(worker.problem(), part); })) << worker.problem();
    EXPECT_EQ(worker.attachment(), nullptr);
  }
  UniqueFd listener_;
};

TEST_F(FalseOwnerTest, OneThatNeverAnswersIsLeftAfterTheLimit) {
  client_limit_ = milliseconds(20);
  const auto worker = client();
  const Channel silent = accepted();
  expect_problem(*worker, "does not answer");
}

TEST_F(FalseOwnerTest, UnsealedOrMissingFilesAreNeverMapped) {
  make_lanes(1);
  const wire::AttachWelcome welcome{1, Epoch(1), geometry_.slot_bytes, geometry_.slots, 1, 1};
  const auto worker = client();
  {
    Channel channel = accepted();
    std::vector<UniqueFd> files;
    files.emplace_back(::memfd_create("unsealed", MFD_CLOEXEC | MFD_ALLOW_SEALING));
    ASSERT_EQ(::ftruncate(files[0].get(), static_cast<off_t>(geometry_.lane_bytes().value())), 0);
    ASSERT_TRUE(channel.send(welcome).is_ok());
    ASSERT_TRUE(channel.send(wire::AttachFiles{0, 1}, files).is_ok());
    expect_problem(*worker, "no sealed memfd");
  }
  {
    Channel channel = accepted();
    ASSERT_TRUE(channel.send(welcome).is_ok());
    ASSERT_TRUE(channel.send(wire::AttachFiles{0, 1}).is_ok());  // Promised, not sent.
    expect_problem(*worker, "disorder");
  }
}

TEST_F(FalseOwnerTest, GeometryThatDoesNotFitIsRefused) {
  const auto worker = client();
  const auto answer = [&](const wire::AttachWelcome& welcome, const std::string& problem) {
    Channel channel = accepted();
    ASSERT_TRUE(channel.send(welcome).is_ok());
    expect_problem(*worker, problem);
  };
  answer({1, Epoch(1), Bytes(4096), 12, 1, 1}, "too small");
  answer({1, Epoch(1), Bytes(UINT64_MAX), 12, 1, 1}, "slot_bytes");
  answer({1, Epoch(1), Bytes(30 * 8192), 12, 2, 1}, "does not fit its layout");
  answer({1, Epoch(1), Bytes(30 * 8192), 12, 1, UINT32_MAX}, "does not fit its layout");
}

}  // namespace
}  // namespace terrace::attach
