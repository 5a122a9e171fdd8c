// Peers of the HTTP port that send nonsense, nothing, too much, slowly, or never read: each is
// refused or dropped, and the next honest one is answered.
#include <deque>

#include "terrace/base/rng.h"
#include "terrace/serve/http/http_fixture.h"
#include "terrace/testing/property.h"

namespace terrace::serve {
namespace {

using ::testing::HasSubstr;
using ::testing::StartsWith;

constexpr std::string_view kGet = "GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n";

class HttpHostileTest : public HttpServerTest {};

TEST_F(HttpHostileTest, RandomBytesAreRefusedOrDropped) {
  const auto server = serving();
  const auto chosen = testing::property(20261130, 300);
  Rng rng(chosen.seed);
  for (std::uint64_t i = 0; i < chosen.steps; ++i) {
    std::string bytes(rng.below(2000), '\0');
    for (char& byte : bytes) byte = static_cast<char>(rng.below(256));
    if (rng.chance(30)) bytes.insert(0, "GET /metrics HTTP/1.1\r\n");
    if (rng.chance(30)) bytes += "\r\n\r\n";
    Raw raw(port_);
    raw.send(bytes);
    raw.end_sending();
    const std::string answer = raw.receive();
    EXPECT_TRUE(answer.empty() || answer.starts_with("HTTP/1.1 4")) << answer;
  }
  EXPECT_TRUE(answers());
}

TEST_F(HttpHostileTest, ChangedRequestsAreAnsweredByHttpOrNotAtAll) {
  const auto server = serving();
  const auto chosen = testing::property(20261131, 300);
  Rng rng(chosen.seed);
  for (std::uint64_t i = 0; i < chosen.steps; ++i) {
    std::string bytes(kGet);
    for (std::uint64_t change = 0; change <= rng.below(4); ++change) {
      bytes[rng.below(bytes.size())] = static_cast<char>(rng.below(256));
    }
    Raw raw(port_);
    raw.send(bytes);
    raw.end_sending();
    const std::string answer = raw.receive();
    EXPECT_TRUE(answer.empty() || answer.starts_with("HTTP/1.1 ")) << answer;
  }
  EXPECT_TRUE(answers());
}

TEST_F(HttpHostileTest, ARequestCutAnywhereGetsNothing) {
  const auto server = serving();
  for (std::size_t length = 0; length < kGet.size(); ++length) {
    Raw raw(port_);
    raw.send(kGet.substr(0, length));
    raw.end_sending();
    EXPECT_EQ(raw.receive(), "") << length;
  }
  EXPECT_TRUE(answers());
}

TEST_F(HttpHostileTest, WrongMethodsAndTargetsAreTold) {
  const auto server = serving();
  for (const std::string method :
       {"POST", "PUT", "DELETE", "PATCH", "TRACE", "OPTIONS", "CONNECT"}) {
    const std::string text = answer(method + " /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n");
    EXPECT_THAT(text, StartsWith("HTTP/1.1 405")) << method;
    EXPECT_THAT(text, HasSubstr("Allow: GET, HEAD"));
  }
  EXPECT_THAT(answer("FROB /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n"),
              StartsWith("HTTP/1.1 405"));
  EXPECT_THAT(answer("GET /metrics HTTP/1.1\r\nHost: evil.example\r\n\r\n"),
              StartsWith("HTTP/1.1 421"));
  EXPECT_THAT(answer("metrics please\r\n\r\n"), StartsWith("HTTP/1.1 400"));
  EXPECT_THAT(answer("GET /metrics HTTP/9.9\r\n\r\n"), StartsWith("HTTP/1.1 400"));
}

TEST_F(HttpHostileTest, LongHeadersAndAnyBodyAreRefused) {
  const auto server = serving();
  const std::string head = "GET /metrics HTTP/1.1\r\nHost: localhost\r\n";
  const std::string too_large = "HTTP/1.1 431 Request Header Fields Too Large";
  EXPECT_EQ(first_line(head + "X: " + std::string(9'000, 'x') + "\r\n\r\n"), too_large);
  EXPECT_EQ(first_line("GET /" + std::string(9'000, 'x') + " HTTP/1.1\r\n\r\n"), too_large);
  std::string many = head;
  for (int i = 0; i < 5'000; ++i) many += "A: b\r\n";
  EXPECT_EQ(first_line(many + "\r\n"), too_large);
  EXPECT_EQ(first_line(head + "Content-Length: 1\r\n\r\nx"), "HTTP/1.1 413 Payload Too Large");
  EXPECT_EQ(first_line(head + "Content-Length: 18446744073709551615\r\n\r\n").substr(0, 10),
            "HTTP/1.1 4");
  EXPECT_EQ(first_line(head + "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"),
            "HTTP/1.1 413 Payload Too Large");
  EXPECT_TRUE(answers());
}

TEST_F(HttpHostileTest, AHeaderThatComesByTheByteIsDroppedAtTheDeadline) {
  const auto server = serving(milliseconds(20));
  Raw silent(port_);
  EXPECT_EQ(silent.receive(), "");
  Raw slow(port_);
  EXPECT_TRUE(eventually([&] { return !slow.send("G"); }));
  EXPECT_TRUE(answers());
}

TEST_F(HttpHostileTest, APeerThatSendsOnAfterItsAnswerIsDroppedAtTheDeadline) {
  const auto server = serving(milliseconds(50));
  Raw endless(port_);
  endless.send("GET /metrics HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9999999\r\n\r\n");
  EXPECT_TRUE(eventually([&] { return !endless.send(std::string(4096, 'x')); }));
  EXPECT_TRUE(answers());
}

TEST_F(HttpHostileTest, APeerThatNeverReadsIsDroppedAtTheDeadline) {
  metrics_ = std::string(32U << 20U, 'm');
  const auto server = serving(milliseconds(50));
  const auto before = open_files().size();
  Raw deaf(port_);
  deaf.send(kGet);
  EXPECT_THAT(get("/api/settings"), StartsWith("HTTP/1.1 200"));  // So the deaf one was heard.
  EXPECT_TRUE(eventually([&] { return open_files().size() == before + 1; }));  // Ours alone.
  EXPECT_THAT(get("/api/settings"), StartsWith("HTTP/1.1 200"));
}

TEST_F(HttpHostileTest, ServersEndWhileAPeerNeverReads) {
  metrics_ = std::string(32U << 20U, 'm');
  const auto server = serving();
  Raw deaf(port_);
  deaf.send(kGet);
  EXPECT_THAT(get("/api/status"), StartsWith("HTTP/1.1 200"));
  EXPECT_TRUE(server->close(clock_.now() + seconds(60)));
}

TEST_F(HttpHostileTest, SilentPeersHoldUpNobodyAndTheOldestGoes) {
  const auto server = serving();
  std::vector<std::unique_ptr<Raw>> silent;
  for (std::size_t i = 0; i < HttpServer::kMaxConnections; ++i) {
    silent.push_back(std::make_unique<Raw>(port_));
  }
  EXPECT_TRUE(answers());
  EXPECT_TRUE(eventually([&] { return silent.front()->has_been_closed(); }));
  EXPECT_FALSE(silent.back()->has_been_closed());
}

TEST_F(HttpHostileTest, ThousandsOfConnectionsLeaveNothingBehind) {
  const auto server = serving();
  ASSERT_TRUE(answers());
  const auto before = open_files().size();
  std::deque<Raw> held;
  for (int i = 0; i < 3'000; ++i) {
    held.emplace_back(port_);
    ASSERT_TRUE(held.back().is_connected()) << i;
    if (i % 3 == 0) held.back().send("GET /met");
    if (held.size() > 100) held.pop_front();
    if (i % 1'000 == 0) {
      EXPECT_TRUE(answers()) << i;
    }
  }
  EXPECT_TRUE(answers());
  EXPECT_LE(open_files().size(), before + held.size() + HttpServer::kMaxConnections + 1);
  held.clear();
  EXPECT_TRUE(eventually([&] { return open_files().size() <= before; }));
}

TEST_F(HttpHostileTest, WithoutDescriptorsItWaitsAndThenGoesOn) {
  const auto server = serving();
  ASSERT_TRUE(answers());
  std::vector<UniqueFd> taken;
  for (;;) {
    UniqueFd fd(::dup(0));
    if (!fd.is_open()) break;
    taken.push_back(std::move(fd));
  }
  taken.pop_back();
  Raw late(port_);  // Takes the last one: the server finds none to accept it with.
  ASSERT_TRUE(late.is_connected());
  late.send(kGet);
  taken.clear();
  EXPECT_THAT(late.receive(), StartsWith("HTTP/1.1 200 OK"));
}

}  // namespace
}  // namespace terrace::serve
