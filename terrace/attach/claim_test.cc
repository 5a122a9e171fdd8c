#include <optional>
#include <thread>

#include "terrace/attach/attach_fixture.h"

namespace terrace::attach {
namespace {

class ClaimTest : public AttachTest {};

TEST_F(ClaimTest, SocketPathEndsAt107Bytes) {
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

TEST_F(ClaimTest, DirectoryAndSocketAreForTheirUserOnly) {
  const auto owner = server();
  struct stat facts{};
  ASSERT_EQ(::stat(directory().c_str(), &facts), 0);
  EXPECT_EQ(facts.st_mode & 07777U, 0700U);
  ASSERT_EQ(::stat(path().c_str(), &facts), 0);
  EXPECT_EQ(facts.st_mode & 0777U, 0600U);
}

TEST_F(ClaimTest, DirectoryOpenToOthersIsRefusedWithTheWayOut) {
  ASSERT_EQ(::mkdir(directory().c_str(), 0700), 0);
  ASSERT_EQ(::chmod(directory().c_str(), 0750), 0);
  const std::string text = refusal(server_options());
  EXPECT_TRUE(has_text(text, "attach.directory")) << text;
  EXPECT_TRUE(has_text(text, "0750")) << text;
  EXPECT_TRUE(has_text(text, "chmod 700")) << text;
}

TEST_F(ClaimTest, DirectoryThatIsALinkOrAFileIsRefused) {
  const std::string real = scratch_.path() + "/real";
  ASSERT_EQ(::mkdir(real.c_str(), 0700), 0);
  ASSERT_EQ(::symlink(real.c_str(), directory().c_str()), 0);
  EXPECT_TRUE(has_text(refusal(server_options()), "symbolic link"));
  ASSERT_EQ(::unlink(directory().c_str()), 0);
  ::close(::open(directory().c_str(), O_CREAT | O_WRONLY | O_CLOEXEC, 0600));
  EXPECT_TRUE(has_text(refusal(server_options()), "no directory"));
}

TEST_F(ClaimTest, WhatTheSystemRefusesNamesTheSettingAndTheWayOut) {
  const std::string file = scratch_.path() + "/file";
  ::close(::open(file.c_str(), O_CREAT | O_WRONLY | O_CLOEXEC, 0600));
  AttachServer::Options below = server_options();
  below.directory = file + "/attach";
  const auto started = AttachServer::start(std::move(below), clock_, log_);
  ASSERT_FALSE(started.has_value());
  const std::string text = started.error().message();
  EXPECT_TRUE(has_text(text, "attach.directory: mkdir " + file + "/attach: ENOTDIR")) << text;
  EXPECT_TRUE(has_text(text, "or choose another directory")) << text;
  // What stands in the place of the lock file is named as well.
  ASSERT_EQ(::mkdir(directory().c_str(), 0700), 0);
  const std::string lock = path().substr(0, path().size() - 5) + ".lock";
  ASSERT_EQ(::mkdir(lock.c_str(), 0700), 0);
  const auto blocked = AttachServer::start(server_options(), clock_, log_);
  ASSERT_FALSE(blocked.has_value());
  EXPECT_TRUE(has_text(blocked.error().message(), "attach.directory: open " + lock))
      << blocked.error().message();
}

// Needs root to make such a directory and such a peer; without root nobody can be another user.
TEST_F(ClaimTest, AnotherUserIsRefusedOnEitherSide) {
  if (::geteuid() != 0) return;
  ASSERT_EQ(::mkdir(directory().c_str(), 0700), 0);
  ASSERT_EQ(::chown(directory().c_str(), 1000, 1000), 0);
  EXPECT_TRUE(has_text(refusal(server_options()), "belongs to user 1000"));
  ASSERT_EQ(::chown(directory().c_str(), 0, 0), 0);

  const auto owner = server();
  // Even if somebody opens the way by hand, credentials decide.
  ASSERT_EQ(::chmod(directory().c_str(), 0755), 0);
  ASSERT_EQ(::chmod(path().c_str(), 0777), 0);
  // From inside: the folders above may be closed to others.
  const std::string folder = directory();
  const std::string socket_file = "./" + path().substr(path().rfind('/') + 1);
  Child stranger([&](const auto& say_ready) {
    if (::chdir(folder.c_str()) != 0 || ::setgid(1000) != 0 || ::setuid(1000) != 0) ::_exit(1);
    const auto mine = connect_to(socket_file);  // A worker refuses another user's owner as well.
    const bool refused_here = !mine.has_value() && mine.error().code() == Code::kRefused;
    const int socket = connected_socket(socket_file);
    Channel channel{UniqueFd(socket)};
    (void)channel.send(wire::AttachHello{RankId(0), layout_of()});
    if (refused_here) say_ready();
  });
  ASSERT_TRUE(comes(*owner, AttachChange::kRefused));
  EXPECT_TRUE(has_text(find(AttachChange::kRefused)->detail, "user 1000"));
  EXPECT_GE(log_.count("warn part=attach event=stranger_refused process=" +
                       std::to_string(stranger.pid()) + " user=1000"),
            1U)
      << log_.text();
  EXPECT_FALSE(owner->all_attached());
}

TEST_F(ClaimTest, OneLiveOwnerPerEngineId) {
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

TEST_F(ClaimTest, DeadOwnersSocketIsReplacedThoughItsChildStillListens) {
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

TEST_F(ClaimTest, RemainsOfOtherDeadOwnersAreSweptAndLiveOnesAreNot) {
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

// Remains that seem to come from tomorrow are left, as new ones are; a live owner is never touched.
TEST_F(ClaimTest, AClockThatStepsBackTakesNobodysSocket) {
  class Yesterday final : public Clock {
   public:
    [[nodiscard]] Nanoseconds now() const override { return clock_.now(); }
    [[nodiscard]] std::int64_t wall_seconds() const override {
      return clock_.wall_seconds() - 86'400;
    }

   private:
    SystemClock clock_;
  };
  const Yesterday yesterday;
  AttachServer::Options other = server_options();
  other.engine_id = "other";
  const auto live = server(other);
  auto own = AttachServer::start(server_options(), yesterday, log_);
  ASSERT_TRUE(own.has_value()) << own.error().text();
  const auto worker = client();
  EXPECT_TRUE(eventually([&] { return worker->attachment() != nullptr; })) << worker->problem();
  EXPECT_EQ(::access(socket_path(directory(), "other").value().c_str(), F_OK), 0);
  // Its own place is free again, whatever the clock says.
  own->reset();
  own = AttachServer::start(server_options(), yesterday, log_);
  EXPECT_TRUE(own.has_value()) << own.error().text();
}

TEST_F(ClaimTest, ClaimsOfOneProcessTakenAtOnceSpareEachOther) {
  ASSERT_EQ(::mkdir(directory().c_str(), 0700), 0);
  const auto place = [&](std::string_view ending) {
    return place_of(directory(), "engine", ending).value();
  };
  for (int round = 0; round < 200; ++round) {
    // What an owner of both that was killed has left.
    for (const std::string_view ending : {".lock", "-admin.lock"}) {
      ::close(::open(place(ending).c_str(), O_CREAT | O_WRONLY | O_CLOEXEC, 0600));
      const timespec old[2] = {{1'000'000, 0}, {1'000'000, 0}};
      ASSERT_EQ(::utimensat(AT_FDCWD, place(ending).c_str(), old, 0), 0);
    }
    std::optional<Claim> one;
    std::optional<Claim> other;
    {
      const std::jthread thread([&] {
        auto taken = Claim::take(directory(), place("-admin.sock"), clock_, SocketKind::kBytes);
        if (taken.has_value()) other.emplace(std::move(*taken));
      });
      auto taken = Claim::take(directory(), place(".sock"), clock_);
      if (taken.has_value()) one.emplace(std::move(*taken));
    }
    ASSERT_TRUE(one.has_value() && other.has_value()) << round;
    for (const std::string_view ending : {".sock", ".lock", "-admin.sock", "-admin.lock"}) {
      ASSERT_EQ(::access(place(ending).c_str(), F_OK), 0) << ending << " in round " << round;
    }
  }
}

}  // namespace
}  // namespace terrace::attach
