#include "terrace/serve/http/http_server.h"

#include <algorithm>
#include <filesystem>
#include <stdexcept>

#include "terrace/base/check.h"
#include "terrace/serve/http/http_fixture.h"

namespace terrace::serve {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::StartsWith;

TEST_F(HttpServerTest, MetricsAndThePageComeOverThePort) {
  const auto server = serving();
  EXPECT_THAT(server->url(), StartsWith("http://127.0.0.1:"));
  EXPECT_EQ(server->problem(), "");
  EXPECT_THAT(log_.text(), HasSubstr("event=http url=" + server->url()));
  const std::string metrics = get("/metrics");
  EXPECT_THAT(metrics, StartsWith("HTTP/1.1 200 OK"));
  EXPECT_THAT(metrics, HasSubstr("\r\n\r\nterrace_mode 0\n"));
  EXPECT_THAT(metrics, HasSubstr("Content-Length: 15\r\n"));
  EXPECT_THAT(get("/"), HasSubstr("<!doctype html>"));
  EXPECT_THAT(get("/api/status"), HasSubstr("{\"health\":\"green\"}"));
  EXPECT_THAT(get("/nothing"), StartsWith("HTTP/1.1 404 Not Found"));
}

TEST_F(HttpServerTest, EveryAnswerForbidsWhatThePageDoesNotNeed) {
  const auto server = serving();
  for (const std::string target : {"/", "/page.js", "/metrics", "/nothing"}) {
    const std::string text = get(target);
    EXPECT_THAT(text, HasSubstr("Content-Security-Policy: default-src 'none'; script-src 'self';"));
    EXPECT_THAT(text, HasSubstr("frame-ancestors 'none'"));
    EXPECT_THAT(text, Not(HasSubstr("unsafe-inline")));
    EXPECT_THAT(text, HasSubstr("X-Content-Type-Options: nosniff"));
    EXPECT_THAT(text, HasSubstr("Cache-Control: no-store"));
    EXPECT_THAT(text, Not(HasSubstr("Access-Control-Allow-Origin")));
  }
}

TEST_F(HttpServerTest, HeadTellsTheLengthAndSendsNothing) {
  const auto server = serving();
  const std::string head = answer("HEAD /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n");
  EXPECT_THAT(head, HasSubstr("Content-Length: 15\r\n"));
  EXPECT_TRUE(head.ends_with("\r\n\r\n"));
}

TEST_F(HttpServerTest, ItSamplesWithoutBeingAsked) {
  HttpServer::Options given = options();
  given.sample_every = milliseconds(1);
  const auto server = start(std::move(given));
  EXPECT_TRUE(eventually([&] { return samples_.load() >= 3; }));
  EXPECT_EQ(asked_.load(), 0U);
}

TEST_F(HttpServerTest, APortInUseIsAProblemUntilItIsFree) {
  auto first = serving();
  HttpServer::Options given = options();
  given.port = port_;
  const auto second = start(std::move(given));
  ASSERT_TRUE(eventually([&] { return !second->problem().empty(); }));
  EXPECT_EQ(second->url(), "");
  EXPECT_THAT(second->problem(), HasSubstr("metrics.port: bind 127.0.0.1:"));
  EXPECT_THAT(second->problem(), HasSubstr("EADDRINUSE"));
  EXPECT_THAT(second->problem(), HasSubstr("another metrics.port"));
  EXPECT_THAT(log_.text(), HasSubstr("event=http_off"));
  EXPECT_TRUE(answers());  // The first one's.
  EXPECT_TRUE(eventually([&] { return samples_.load() >= 2; })) << "both keep their history";
  first.reset();
  ASSERT_TRUE(eventually([&] { return second->problem().empty(); }));
  EXPECT_TRUE(eventually([&] { return !second->url().empty(); }));
  EXPECT_TRUE(answers());
  const std::string text = log_.text();
  EXPECT_EQ(text.find("event=http_off"), text.rfind("event=http_off")) << "told once";
}

TEST_F(HttpServerTest, AnAddressThatIsNotHereIsAProblem) {
  HttpServer::Options given = options();
  given.address = "192.0.2.1";  // Of documentation: nobody has it.
  const auto server = start(std::move(given));
  ASSERT_TRUE(eventually([&] { return !server->problem().empty(); }));
  EXPECT_THAT(server->problem(), HasSubstr("EADDRNOTAVAIL"));
  EXPECT_TRUE(server->close(clock_.now() + seconds(60)));
}

TEST_F(HttpServerTest, AnAddressInWordsIsRefused) {
  HttpServer::Options given = options();
  given.address = "localhost";
  const auto created = HttpServer::create(std::move(given), clock_, log_);
  ASSERT_FALSE(created.has_value());
  EXPECT_EQ(created.error().code(), Code::kInvalid);
  EXPECT_THAT(created.error().message(), HasSubstr("metrics.address: \"localhost\""));
}

TEST_F(HttpServerTest, ARestartTakesThePortAgainAtOnce) {
  auto server = serving();
  ASSERT_TRUE(answers());  // Leaves a connection that the system remembers.
  const std::uint16_t port = port_;
  server.reset();
  HttpServer::Options given = options();
  given.port = port;
  given.retry = seconds(3600);
  const auto again = start(std::move(given));
  EXPECT_TRUE(eventually([&] { return !again->url().empty() || !again->problem().empty(); }));
  EXPECT_EQ(again->problem(), "");
}

TEST_F(HttpServerTest, AForkedChildDoesNotKeepThePort) {
  auto server = serving();
  const std::uint16_t port = port_;
  int ends[2] = {-1, -1};
  ASSERT_EQ(::pipe2(ends, O_CLOEXEC), 0);
  const pid_t child = ::fork();
  if (child == 0) {
    ::close(ends[1]);
    server.reset();
    char byte = 0;
    (void)!::read(ends[0], &byte, 1);  // Lives on until the test has ended.
    ::_exit(0);
  }
  EXPECT_TRUE(answers());
  server.reset();
  HttpServer::Options given = options();
  given.port = port;
  const auto again = start(std::move(given));
  EXPECT_TRUE(eventually([&] { return !again->url().empty(); })) << again->problem();
  ::close(ends[1]);
  ::waitpid(child, nullptr, 0);
  ::close(ends[0]);
}

TEST_F(HttpServerTest, AHookThatBreaksIsAnErrorAndTold) {
  const auto server = serving();
  fault_ = [] { throw std::runtime_error("one is two"); };
  const std::string text = get("/api/status");
  EXPECT_THAT(text, StartsWith("HTTP/1.1 500"));
  EXPECT_THAT(text, HasSubstr("one is two"));
  EXPECT_EQ(breach_, "one is two");
  fault_ = [] { throw std::bad_alloc(); };
  EXPECT_THAT(get("/api/status"), StartsWith("HTTP/1.1 503"));
  EXPECT_TRUE(answers());
}

TEST_F(HttpServerTest, ItsThreadBlocksAllSignalsAndItsFilesCloseOnExec) {
  const auto before = open_files();
  const auto server = serving();
  const Raw one(port_);
  ASSERT_TRUE(answers());  // So the other one was accepted as well.
  for (const int fd : open_files()) {
    if (std::ranges::find(before, fd) != before.end()) continue;
    EXPECT_NE(::fcntl(fd, F_GETFD) & FD_CLOEXEC, 0) << fd;
  }
  bool is_found = false;
  for (const auto& task : std::filesystem::directory_iterator("/proc/self/task")) {
    const auto name = read_file(task.path().string() + "/comm", 1_MiB);
    if (!name.has_value() || *name != "terrace-http\n") continue;
    is_found = true;
    const std::string status = read_file(task.path().string() + "/status", 1_MiB).value();
    const auto at = status.find("SigBlk:\t");
    // All but KILL, STOP and the two that the C library keeps.
    EXPECT_EQ(status.substr(at + 8, 16), "fffffffe7ffbfeff");
  }
  EXPECT_TRUE(is_found);
}

}  // namespace
}  // namespace terrace::serve
