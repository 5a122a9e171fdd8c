// Peers of the admin socket that send nonsense, nothing, too much, or never read: each is refused
// or dropped, and the next honest one is answered.
#include <thread>

#include "terrace/base/rng.h"
#include "terrace/serve/admin_fixture.h"
#include "terrace/testing/property.h"

namespace terrace::serve {
namespace {

using ::testing::HasSubstr;
using ::testing::StartsWith;

constexpr std::string_view kPut =
    "PUT /mode HTTP/1.1\r\nHost: x\r\nContent-Length: 17\r\n\r\n{\"mode\":\"paused\"}";

class AdminHostileTest : public AdminServerTest {};

TEST_F(AdminHostileTest, RandomBytesAreRefusedOrDropped) {
  const auto server = serving();
  const auto chosen = testing::property(20261128, 500);
  Rng rng(chosen.seed);
  for (std::uint64_t i = 0; i < chosen.steps; ++i) {
    std::string bytes(rng.below(2000), '\0');
    for (char& byte : bytes) byte = static_cast<char>(rng.below(256));
    if (rng.chance(30)) bytes.insert(0, "GET /status HTTP/1.1\r\n");
    if (rng.chance(30)) bytes += "\r\n\r\n";
    Raw raw(path());
    raw.send(bytes);
    raw.end_sending();
    const std::string answer = raw.receive();
    EXPECT_TRUE(answer.empty() || answer.starts_with("HTTP/1.1 4")) << answer;
  }
  EXPECT_EQ(mode_.load(), manager::Mode::kOn);
  EXPECT_TRUE(answers());
}

TEST_F(AdminHostileTest, ARequestCutAnywhereDoesNothing) {
  const auto server = serving();
  for (std::size_t length = 0; length < kPut.size(); ++length) {
    Raw raw(path());
    raw.send(kPut.substr(0, length));
    raw.end_sending();
    EXPECT_EQ(raw.receive(), "") << length;
    const Raw gone(path());  // And one that goes without a word.
  }
  EXPECT_EQ(mode_.load(), manager::Mode::kOn);
  EXPECT_THAT(first_line(kPut), "HTTP/1.1 200 OK");
  EXPECT_EQ(mode_.load(), manager::Mode::kPaused);
}

TEST_F(AdminHostileTest, ARequestInSinglePiecesIsTaken) {
  const auto server = serving();
  Raw raw(path());
  for (const char& byte : kPut) ASSERT_TRUE(raw.send({&byte, 1}));
  EXPECT_THAT(raw.receive(), StartsWith("HTTP/1.1 200 OK"));
}

TEST_F(AdminHostileTest, ChangedRequestsNeverSwitchAnything) {
  const auto server = serving();
  const auto chosen = testing::property(20261129, 500);
  Rng rng(chosen.seed);
  for (std::uint64_t i = 0; i < chosen.steps; ++i) {
    std::string bytes(kPut);
    bytes.replace(bytes.find("paused"), 6, "unused");
    for (std::uint64_t change = 0; change <= rng.below(4); ++change) {
      bytes[rng.below(bytes.size())] = static_cast<char>(rng.below(256));
    }
    Raw raw(path());
    raw.send(bytes);
    raw.end_sending();
    const std::string answer = raw.receive();
    EXPECT_TRUE(answer.empty() || answer.starts_with("HTTP/1.1 4")) << answer;
  }
  EXPECT_EQ(mode_.load(), manager::Mode::kOn);
  EXPECT_TRUE(answers());
}

TEST_F(AdminHostileTest, MalformedRequestsGetALineThatHelps) {
  const auto server = serving();
  Raw raw(path());
  raw.send("pause please\r\n\r\n");
  const std::string answer = raw.receive();
  EXPECT_THAT(answer, StartsWith("HTTP/1.1 400 Bad Request"));
  EXPECT_THAT(answer, HasSubstr("{\"error\":\"this is no HTTP/1.1 request"));
  EXPECT_EQ(first_line("GET /status HTTP/1.1\r\nContent-Length: -1\r\n\r\n"),
            "HTTP/1.1 400 Bad Request");
  EXPECT_EQ(first_line("GET /status HTTP/1.1\r\nno colon\r\n\r\n"), "HTTP/1.1 400 Bad Request");
}

TEST_F(AdminHostileTest, LongHeadersAndBodiesAreRefused) {
  const auto server = serving();
  const std::string head = "GET /status HTTP/1.1\r\n";
  const std::string too_large = "HTTP/1.1 431 Request Header Fields Too Large";
  EXPECT_EQ(first_line(head + "X: " + std::string(9'000, 'x') + "\r\n\r\n"), too_large);
  EXPECT_EQ(first_line(head + "X: " + std::string(2'000'000, 'x')), too_large);
  EXPECT_EQ(first_line(std::string(2'000'000, 'G')).substr(0, 10), "HTTP/1.1 4");
  std::string many = head;
  for (int i = 0; i < 5'000; ++i) many += "A: b\r\n";
  EXPECT_EQ(first_line(many + "\r\n"), too_large);
  const std::string put = "PUT /mode HTTP/1.1\r\n";
  EXPECT_EQ(first_line(put + "Content-Length: 65537\r\n\r\n"), "HTTP/1.1 413 Payload Too Large");
  EXPECT_EQ(first_line(put + "Content-Length: 18446744073709551615\r\n\r\n").substr(0, 10),
            "HTTP/1.1 4");
  std::string pieces = put + "Transfer-Encoding: chunked\r\n\r\n";
  for (int i = 0; i < 70; ++i) pieces += "400\r\n" + std::string(1024, ' ') + "\r\n";
  EXPECT_EQ(first_line(pieces), "HTTP/1.1 413 Payload Too Large");
  EXPECT_EQ(first_line(put + "Content-Length: 65536\r\n\r\n" + std::string(65'536, ' ')),
            "HTTP/1.1 400 Bad Request");
  EXPECT_TRUE(answers());
}

// Without root nobody can be another user.
TEST_F(AdminHostileTest, AnotherUserIsNotHeardThoughTheWayIsOpen) {
  if (::geteuid() != 0) return;
  const auto server = serving();
  ASSERT_EQ(::chmod(directory().c_str(), 0755), 0);
  ASSERT_EQ(::chmod(path().c_str(), 0777), 0);
  const std::string name = "./" + path().substr(path().rfind('/') + 1);
  const pid_t stranger = ::fork();
  if (stranger == 0) {
    // From inside: the folders above may be closed to others.
    if (::chdir(directory().c_str()) != 0 || ::setgid(1000) != 0 || ::setuid(1000) != 0) ::_exit(2);
    Raw raw(name);
    if (!raw.is_connected()) ::_exit(3);
    raw.send("GET /status HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    ::_exit(raw.receive().empty() ? 0 : 4);
  }
  int status = 0;
  ASSERT_EQ(::waitpid(stranger, &status, 0), stranger);
  EXPECT_EQ(status, 0);
  EXPECT_EQ(asked_.load(), 0U);
  EXPECT_TRUE(answers());
}

TEST_F(AdminHostileTest, SilentPeersHoldUpNobodyAndTheOldestGoes) {
  const auto server = serving();
  std::vector<std::unique_ptr<Raw>> silent;
  for (std::size_t i = 0; i < AdminServer::kMaxConnections; ++i) {
    silent.push_back(std::make_unique<Raw>(path()));
  }
  EXPECT_TRUE(answers());
  EXPECT_TRUE(eventually([&] { return silent.front()->has_been_closed(); }));
  EXPECT_FALSE(silent.back()->has_been_closed());
}

TEST_F(AdminHostileTest, ASilentPeerIsDroppedAtTheDeadline) {
  const auto server = serving(milliseconds(20));
  Raw silent(path());
  EXPECT_EQ(silent.receive(), "");
  Raw slow(path());
  EXPECT_TRUE(eventually([&] { return !slow.send("G"); }));
  EXPECT_TRUE(answers());
}

TEST_F(AdminHostileTest, APeerThatNeverReadsIsDroppedAtTheDeadline) {
  metrics_ = std::string(8U << 20U, 'm');
  const auto server = serving(milliseconds(20));
  const auto before = open_files().size();
  Raw deaf(path());
  deaf.send("GET /metrics HTTP/1.1\r\n\r\n");
  EXPECT_TRUE(answers());
  EXPECT_TRUE(eventually([&] { return open_files().size() == before + 1; }));  // Ours alone.
  EXPECT_TRUE(deaf.has_been_closed());
}

TEST_F(AdminHostileTest, ServersEndWhileAPeerNeverReads) {
  metrics_ = std::string(8U << 20U, 'm');
  const auto server = serving();
  Raw deaf(path());
  deaf.send("GET /metrics HTTP/1.1\r\n\r\n");
  ASSERT_TRUE(answers());
  EXPECT_TRUE(server->close(clock_.now() + seconds(60)));
}

TEST_F(AdminHostileTest, TenThousandConnectionsLeaveNothingBehind) {
  const auto server = serving();
  ASSERT_TRUE(answers());
  const auto before = open_files().size();
  std::deque<Raw> held;
  std::uint64_t connected = 0;
  for (int i = 0; i < 10'000; ++i) {
    held.emplace_back(path());
    connected += held.back().is_connected() ? 1 : 0;
    if (i % 3 == 0) held.back().send("GET /sta");
    if (held.size() > 200) held.pop_front();
    if (i % 1'000 == 0) {
      EXPECT_TRUE(answers()) << i;
    }
  }
  EXPECT_EQ(connected, 10'000U);
  EXPECT_TRUE(answers());
  EXPECT_LE(open_files().size(), before + held.size() + AdminServer::kMaxConnections + 1);
  held.clear();
  EXPECT_TRUE(eventually([&] { return open_files().size() <= before; }));
}

TEST_F(AdminHostileTest, WithoutDescriptorsItWaitsAndThenGoesOn) {
  const auto server = serving();
  ASSERT_TRUE(answers());
  std::vector<UniqueFd> taken;
  for (;;) {
    UniqueFd fd(::dup(0));
    if (!fd.is_open()) break;
    taken.push_back(std::move(fd));
  }
  taken.pop_back();
  Raw late(path());  // Takes the last one: the server finds none to accept it with.
  ASSERT_TRUE(late.is_connected());
  late.send("GET /status HTTP/1.1\r\n\r\n");
  taken.clear();
  EXPECT_THAT(late.receive(), StartsWith("HTTP/1.1 200 OK"));
}

}  // namespace
}  // namespace terrace::serve
