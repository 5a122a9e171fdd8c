// What the admin socket answers, and how it begins and ends. Hostile peers: admin_hostile_test.cc.
#include "terrace/serve/admin_server.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>
#include <thread>

#include "terrace/serve/admin_fixture.h"

namespace terrace::serve {
namespace {

using ::testing::HasSubstr;

nlohmann::json error_of(const AdminReply& reply) {
  EXPECT_EQ(std::ranges::count(reply.body, '\n'), 1) << reply.body;
  return nlohmann::json::parse(reply.body).at("error");
}

TEST(AdminAnswersTest, OnlyTheOwnersUserAndRootMayAsk) {
  EXPECT_TRUE(may_ask(1000, 1000));
  EXPECT_TRUE(may_ask(0, 1000));
  EXPECT_FALSE(may_ask(1001, 1000));
  EXPECT_FALSE(may_ask(1000, 0));
}

TEST(AdminAnswersTest, TheSocketLiesBesideTheRendezvousAndItsPathEndsAt107Bytes) {
  const std::size_t fits = 107 - (1 + 24 + 11);
  const std::string longest = "/" + std::string(fits - 1, 'd');
  ASSERT_TRUE(admin_path(longest, "e").has_value());
  EXPECT_EQ(admin_path(longest, "e")->size(), 107U);
  const auto too_long = admin_path(longest + "d", "e");
  ASSERT_FALSE(too_long.has_value());
  EXPECT_THAT(too_long.error().message(), HasSubstr("attach.directory"));
  EXPECT_NE(*admin_path("/d", "e"), *admin_path("/d", "f"));
}

TEST_F(AdminServerTest, StatusAndMetricsAreWhatTheOwnerSays) {
  const auto server = serving();
  EXPECT_EQ(ask("GET", "/status").body, "{\"health\":\"green\"}\n");
  EXPECT_EQ(ask("GET", "/metrics").body, "terrace_mode 0\n");
  EXPECT_EQ(ask("GET", "/status?pretty=1").code, 200U);
  EXPECT_EQ(asked_.load(), 2U);
  EXPECT_THAT(log_.text(), HasSubstr("event=admin socket=" + path()));
}

TEST_F(AdminServerTest, LedgersAreAskedForByABeginOfTheirIdAndSoMany) {
  AdminServer::Options given = options();
  given.hooks.ledgers = [](const LedgerQuery& query) {
    return fmt::format("{{\"request\":\"{}\",\"most\":{}}}", query.request, query.most);
  };
  const auto server = start(std::move(given));
  ASSERT_TRUE(eventually([&] { return server->is_open(); }));
  EXPECT_EQ(ask("GET", "/ledgers").body, "{\"request\":\"\",\"most\":20}\n");
  EXPECT_EQ(ask("GET", "/ledgers?request=a%2Db&most=3").body, "{\"request\":\"a-b\",\"most\":3}\n");
  const AdminReply wrong = ask("GET", "/ledgers?most=many");
  EXPECT_EQ(wrong.code, 400U);
  EXPECT_THAT(error_of(wrong), HasSubstr("/ledgers?request=ID&most=20"));
  EXPECT_EQ(ask("PUT", "/ledgers").code, 405U);
}

TEST_F(AdminServerTest, WhereNoLedgersAreKeptThatIsSaid) {
  const auto server = serving();
  EXPECT_EQ(ask("GET", "/ledgers").code, 409U);
}

TEST_F(AdminServerTest, AnEngineThatCannotBeSwitchedSaysWhy) {
  refusal_ = manager::observes_to_its_end();
  const auto server = serving();
  const AdminReply reply = ask("PUT", "/mode", R"({"mode":"on"})");
  EXPECT_EQ(reply.code, 409U);
  EXPECT_THAT(error_of(reply), HasSubstr("start it again with mode=on"));
}

TEST_F(AdminServerTest, ModeIsSwitchedAndWhoAskedIsKnown) {
  const auto server = serving();
  const AdminReply reply = ask("PUT", "/mode", R"({"mode":"paused"})");
  EXPECT_EQ(reply.code, 200U);
  EXPECT_EQ(reply.body, "{\"mode\":\"paused\"}\n");
  EXPECT_EQ(mode_.load(), manager::Mode::kPaused);
  EXPECT_EQ(by_, "\"process " + std::to_string(::getpid()) + " user " + std::to_string(::getuid()) +
                     "\"");
  EXPECT_EQ(ask("PUT", "/mode", R"( {"mode" : "readonly"} )").code, 200U);
  EXPECT_EQ(mode_.load(), manager::Mode::kReadOnly);
  EXPECT_EQ(ask("PUT", "/mode", R"({"mode":"on"})").code, 200U);
  EXPECT_EQ(mode_.load(), manager::Mode::kOn);
}

TEST_F(AdminServerTest, WhatIsNotThereIsRefusedWithTheWayOut) {
  const auto server = serving();
  const AdminReply nowhere = ask("GET", "/");
  EXPECT_EQ(nowhere.code, 404U);
  EXPECT_THAT(error_of(nowhere), HasSubstr("GET /status"));
  EXPECT_EQ(ask("GET", "/status/").code, 404U);
  const AdminReply method = ask("POST", "/mode", R"({"mode":"paused"})");
  EXPECT_EQ(method.code, 405U);
  EXPECT_EQ(error_of(method), "/mode takes PUT only");
  EXPECT_EQ(ask("PUT", "/status").code, 405U);
  EXPECT_EQ(ask("HEAD", "/metrics").code, 405U);
  Raw raw(path());
  raw.send("DELETE /mode HTTP/1.1\r\n\r\n");
  EXPECT_THAT(raw.receive(), HasSubstr("Allow: PUT\r\n"));
  EXPECT_EQ(mode_.load(), manager::Mode::kOn);
}

TEST_F(AdminServerTest, BodiesThatAreNoModeAreRefusedWithTheWayOut) {
  const auto server = serving();
  const std::string deep(60'000, '[');
  for (const std::string& body : std::vector<std::string>{
           std::string(), std::string("paused"), std::string("{"), std::string("[]"),
           std::string("null"), std::string("{}"), std::string(R"({"mode":null})"),
           std::string(R"({"mode":["paused"]})"), std::string(R"({"mode":"off"})"),
           std::string(R"({"mode":"paused","for":"1h"})"), std::string("{\"mode\":\"\xff\"}"), deep,
           "{\"mode\":" + deep}) {
    const AdminReply reply = ask("PUT", "/mode", body);
    EXPECT_EQ(reply.code, 400U) << body.substr(0, 40);
    EXPECT_THAT(error_of(reply), HasSubstr("modes are on, readonly and paused"));
  }
  EXPECT_EQ(mode_.load(), manager::Mode::kOn);
}

TEST_F(AdminServerTest, AScrubIsBegunWithItsRateAndRefusedInWords) {
  auto given = options();
  std::uint64_t rate = 1;
  bool is_open = true;
  given.hooks.scrub = [&](std::uint64_t asked, std::string_view) -> Result<std::uint64_t> {
    rate = asked;
    if (!is_open) return fail(Code::kUnavailable, "not yet");
    return 7;
  };
  const auto server = start(std::move(given));
  ASSERT_TRUE(eventually([&] { return server->is_open(); }));
  const AdminReply begun = ask("PUT", "/scrub", "{}");
  EXPECT_EQ(begun.code, 200U);
  EXPECT_EQ(begun.body, "{\"pass\":7}\n");
  EXPECT_EQ(rate, 0U);
  EXPECT_EQ(ask("PUT", "/scrub", R"({"bytes_per_second":4096})").code, 200U);
  EXPECT_EQ(rate, 4096U);
  EXPECT_EQ(ask("GET", "/scrub").code, 405U);
  for (const std::string body : {"", "[]", "{", R"({"rate":1})", R"({"bytes_per_second":-1})",
                                 R"({"bytes_per_second":"1"})"}) {
    const AdminReply reply = ask("PUT", "/scrub", body);
    EXPECT_EQ(reply.code, 400U) << body;
    EXPECT_THAT(error_of(reply), HasSubstr("bytes_per_second")) << body;
  }
  is_open = false;
  const AdminReply refused = ask("PUT", "/scrub", "{}");
  EXPECT_EQ(refused.code, 409U);
  EXPECT_EQ(error_of(refused), "not yet");
}

TEST_F(AdminServerTest, WithoutADiskTierThereIsNothingToScrub) {
  const auto server = serving();
  const AdminReply reply = ask("PUT", "/scrub", "{}");
  EXPECT_EQ(reply.code, 409U);
  EXPECT_THAT(error_of(reply), HasSubstr("no disk tier"));
}

TEST_F(AdminServerTest, AHookThatBreaksIsReportedAndTheNextOneIsAnswered) {
  const auto server = serving();
  fault_ = [] { throw base::Breach("made up"); };
  const AdminReply broken = ask("GET", "/status");
  EXPECT_EQ(broken.code, 500U);
  EXPECT_THAT(error_of(broken), HasSubstr("made up"));
  EXPECT_EQ(breach_, "made up");
  breach_.clear();
  fault_ = [] { throw std::bad_alloc(); };
  EXPECT_EQ(ask("GET", "/status").code, 503U);
  EXPECT_EQ(breach_, "");
  fault_ = nullptr;
  EXPECT_TRUE(answers());
}

TEST_F(AdminServerTest, TheSocketIsForItsUserAndGoesWithTheServer) {
  auto server = serving();
  struct stat facts{};
  ASSERT_EQ(::stat(directory().c_str(), &facts), 0);
  EXPECT_EQ(facts.st_mode & 07777U, 0700U);
  ASSERT_EQ(::stat(path().c_str(), &facts), 0);
  EXPECT_EQ(facts.st_mode & 0777U, 0600U);
  const Raw silent(path());
  const std::string place = path();
  EXPECT_TRUE(server->close(clock_.now() + seconds(60)));
  EXPECT_FALSE(server->is_open());
  EXPECT_NE(::access(place.c_str(), F_OK), 0);
  EXPECT_TRUE(server->close(clock_.now()));  // Again: nothing happens.
  EXPECT_EQ(ask_admin(place, "GET", "/status", "", seconds(1), clock_).error().code(),
            Code::kUnavailable);
}

TEST_F(AdminServerTest, ADirectoryOpenToOthersIsNamedWithTheWayOut) {
  ASSERT_EQ(::mkdir(directory().c_str(), 0700), 0);
  ASSERT_EQ(::chmod(directory().c_str(), 0755), 0);
  const auto server = start(options());
  EXPECT_TRUE(eventually([&] { return !log_.text().empty(); }));
  EXPECT_THAT(log_.text(), HasSubstr("event=admin_off path=\"" + path()));
  EXPECT_THAT(log_.text(), HasSubstr("chmod 700"));
  EXPECT_FALSE(server->is_open());
  EXPECT_TRUE(server->close(clock_.now() + seconds(60)));
}

TEST_F(AdminServerTest, ADirectoryTooLongForItIsNamed) {
  AdminServer::Options given = options();
  given.directory = "/tmp/" + std::string(100, 'd');
  const auto server = start(given);
  EXPECT_TRUE(eventually([&] { return !log_.text().empty(); }));
  EXPECT_THAT(log_.text(), HasSubstr("choose a shorter directory"));
}

TEST_F(AdminServerTest, ASecondOwnerOfTheNameLeavesTheFirstAlone) {
  const auto first = serving();
  {
    const auto second = start(options());
    EXPECT_TRUE(
        eventually([&] { return log_.text().find("event=admin_off") != std::string::npos; }));
    EXPECT_THAT(log_.text(), HasSubstr("this process already has an owner"));
  }
  EXPECT_TRUE(answers());
}

TEST_F(AdminServerTest, TwoEnginesOfOneProcessAnswerForThemselves) {
  const auto first = serving();
  AdminServer::Options given = options();
  given.engine_id = "other";
  given.hooks.status = [] { return std::string("other"); };
  const auto second = start(given);
  ASSERT_TRUE(eventually([&] { return second->is_open(); }));
  const auto found = admin_sockets(directory());
  ASSERT_TRUE(found.has_value());
  EXPECT_EQ(found->size(), 2U);
  EXPECT_TRUE(answers());
  const auto other = admin_path(directory(), "other").value();
  EXPECT_EQ(ask_admin(other, "GET", "/status", "", seconds(60), clock_)->body, "other\n");
}

// Forks before any thread of ours runs in this process.
TEST_F(AdminServerTest, ADeadOwnersSocketIsReplaced) {
  int ends[2] = {-1, -1};
  ASSERT_EQ(::pipe2(ends, O_CLOEXEC), 0);
  const pid_t child = ::fork();
  if (child == 0) {
    const auto server = serving();
    (void)!::write(ends[1], "r", 1);
    for (;;) ::pause();
  }
  ::close(ends[1]);
  char byte = 0;
  ASSERT_EQ(::read(ends[0], &byte, 1), 1);
  ::close(ends[0]);
  const auto refused = start(options());
  EXPECT_TRUE(eventually([&] { return !log_.text().empty(); }));
  EXPECT_THAT(log_.text(), HasSubstr("process " + std::to_string(child) + " owns"));
  ::kill(child, SIGKILL);
  ::waitpid(child, nullptr, 0);
  EXPECT_EQ(ask_admin(path(), "GET", "/status", "", seconds(60), clock_).error().code(),
            Code::kUnavailable);
  const auto server = serving();
  EXPECT_TRUE(answers());
}

TEST_F(AdminServerTest, AForkedChildNeitherServesNorRemovesTheSocket) {
  auto server = serving();
  const std::string place = path();
  const pid_t child = ::fork();
  if (child == 0) {
    const auto before = open_files().size();
    server
        .reset();  // At once, and listening no more: the lock's and the socket's files are closed.
    ::_exit(::access(place.c_str(), F_OK) == 0 && open_files().size() + 2 == before ? 0 : 1);
  }
  int status = -1;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  EXPECT_EQ(status, 0);
  EXPECT_TRUE(answers());
  server.reset();
  EXPECT_NE(::access(place.c_str(), F_OK), 0);
}

TEST_F(AdminServerTest, ItsThreadBlocksAllSignalsAndItsFilesCloseOnExec) {
  const auto before = open_files();
  const auto server = serving();
  const Raw one(path());
  ASSERT_TRUE(answers());  // So the other one was accepted as well.
  for (const int fd : open_files()) {
    if (std::ranges::find(before, fd) != before.end()) continue;
    EXPECT_NE(::fcntl(fd, F_GETFD) & FD_CLOEXEC, 0) << fd;
  }
  bool is_found = false;
  for (const auto& task : std::filesystem::directory_iterator("/proc/self/task")) {
    const auto name = read_file(task.path().string() + "/comm", 1_MiB);
    if (!name.has_value() || *name != "terrace-admin\n") continue;
    is_found = true;
    const std::string status = read_file(task.path().string() + "/status", 1_MiB).value();
    const auto at = status.find("SigBlk:\t");
    // All but KILL, STOP and the two that the C library keeps.
    EXPECT_EQ(status.substr(at + 8, 16), "fffffffe7ffbfeff");
  }
  EXPECT_TRUE(is_found);
}

// ---- The other side.

// Listens at the place of an admin socket and runs `body` on the first connection.
void with_stranger(const std::string& path, const std::function<void(int)>& body,
                   const std::function<void()>& test) {
  const UniqueFd listener(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  std::memcpy(address.sun_path, path.data(), path.size());
  ASSERT_EQ(::bind(listener.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address), 0);
  ASSERT_EQ(::listen(listener.get(), 1), 0);
  std::jthread thread([&] {
    const UniqueFd peer(::accept4(listener.get(), nullptr, nullptr, SOCK_CLOEXEC));
    body(peer.get());
  });
  test();
}

TEST_F(AdminServerTest, AStrangersAnswerIsNamedAndNeverWaitedForTooLong) {
  const std::string place = scratch_.path() + "/x-admin.sock";
  const auto code_of = [&](Nanoseconds limit) {
    const auto reply = ask_admin(place, "GET", "/status", "", limit, clock_);
    return reply.has_value() ? Code::kOk : reply.error().code();
  };
  const auto send = [](int fd, std::string_view text) {
    (void)::send(fd, text.data(), text.size(), MSG_NOSIGNAL);
  };
  for (const std::string_view text :
       {"", "hello", "HTTP/1.1 200 OK\r\n", "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nshort"}) {
    with_stranger(
        place, [&](int fd) { send(fd, text); },
        [&] { EXPECT_EQ(code_of(seconds(60)), Code::kInvalid) << text; });
    ::unlink(place.c_str());
  }
  std::atomic<bool> is_over{false};
  with_stranger(
      place,
      [&](int fd) {
        send(fd, "HTTP/1.1 200 OK\r\n");
        EXPECT_TRUE(eventually([&] { return is_over.load(); }));
      },
      [&] {
        EXPECT_EQ(code_of(milliseconds(30)), Code::kDeadline);
        is_over.store(true);
      });
}

TEST_F(AdminServerTest, OnlyAdminSocketsAreFoundAndADirectoryThatIsMissingHasNone) {
  EXPECT_TRUE(admin_sockets(directory())->empty());
  ASSERT_EQ(::mkdir(directory().c_str(), 0700), 0);
  for (const std::string name :
       {"a.sock", "a.lock", "b-admin.sock", "b-admin.lock", "a-admin.sock"})
    ASSERT_TRUE(write_file_atomic(directory() + "/" + name, "").is_ok());
  const auto found = admin_sockets(directory());
  ASSERT_TRUE(found.has_value());
  EXPECT_THAT(*found,
              ::testing::ElementsAre(directory() + "/a-admin.sock", directory() + "/b-admin.sock"));
  EXPECT_FALSE(admin_sockets(directory() + "/a.sock").has_value());
}

}  // namespace
}  // namespace terrace::serve
