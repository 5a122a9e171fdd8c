// `terrace why` and `terrace top` against admin sockets, as people start them: in a shell, in a
// pipe and on a terminal of their own.
#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>

#include <array>
#include <csignal>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "scenario/cli_run.h"
#include "terrace/serve/admin_server.h"
#include "terrace/testing/eventually.h"
#include "terrace/testing/scratch_directory.h"

namespace terrace {
namespace {

using scenario::Ran;
using scenario::terrace_command;
using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;

// As far as the command line can see one: it knows the requests that it is given, newest first.
class MadeUpEngine {
 public:
  MadeUpEngine(const std::string& directory, const std::string& id, std::vector<std::string> names,
               bool has_ledgers = true) {
    serve::AdminServer::Options options;
    options.directory = directory;
    options.engine_id = id;
    options.hooks.status = [id] {
      return nlohmann::json{{"engine", id},          {"process", 77},
                            {"health", "green"},     {"ready", true},
                            {"mode", "on"},          {"uptime_seconds", 60},
                            {"prompt_tokens", 1000}, {"hit_tokens", {{"host", 250}}}}
          .dump();
    };
    options.hooks.set_mode = [](manager::Mode, std::string_view) { return Status(); };
    if (has_ledgers) {
      options.hooks.ledgers = [names = std::move(names), id](const serve::LedgerQuery& query) {
        nlohmann::json found = nlohmann::json::array();
        for (const std::string& name : names) {
          if (!name.starts_with(query.request) || found.size() >= query.most) continue;
          found.push_back({{"request", name},
                           {"number", names.size() - found.size()},
                           {"state", "ended"},
                           {"time", 1'800'000'000},
                           {"engine", id},
                           {"prompt_tokens", 400},
                           {"hit_tokens", {{"host", 320}}},
                           {"first_miss", "evicted"}});
        }
        return nlohmann::json{{"engine", id}, {"block_tokens", 16}, {"ledgers", found}}.dump();
      };
    }
    auto started = serve::AdminServer::start(std::move(options), clock_, log_);
    EXPECT_TRUE(started.has_value());
    server_ = std::move(*started);
    EXPECT_TRUE(testing::eventually([&] { return server_->is_open(); }));
  }

 private:
  SystemClock clock_;
  NullLog log_;
  std::unique_ptr<serve::AdminServer> server_;
};

class CliLedgerTest : public ::testing::Test {
 protected:
  [[nodiscard]] std::string directory() const { return scratch_.path() + "/s"; }
  [[nodiscard]] Ran run(const std::string& arguments) const {
    return terrace_command(arguments + " --directory " + directory());
  }
  testing::ScratchDirectory scratch_;
};

TEST_F(CliLedgerTest, ARequestIsFoundByItsIdOrHowThatBegins) {
  const MadeUpEngine engine(directory(), "one", {"cmpl-2", "cmpl-1", "chat-1"});
  for (const char* name : {"cmpl-1", "chat"}) {
    const Ran ran = run(std::string("why ") + name);
    EXPECT_EQ(ran.code, 0) << ran.error;
    EXPECT_THAT(ran.out, AllOf(HasSubstr(std::string("request ") + name),
                               HasSubstr("of engine one (process 77): ended"),
                               HasSubstr("first miss: evicted\n"), HasSubstr("way out:\n"),
                               HasSubstr("`terrace advise`")));
  }
  const auto json = nlohmann::json::parse(run("why --json cmpl-1").out);
  ASSERT_EQ(json.size(), 1U);
  EXPECT_EQ(json[0]["first_miss"], "evicted");
}

TEST_F(CliLedgerTest, SeveralThatAreMeantAreListedUnlessOneIsMeantExactly) {
  const MadeUpEngine engine(directory(), "one", {"11", "1", "10", "1"});
  const Ran exact = run("why 1");
  EXPECT_EQ(exact.code, 0) << exact.error;
  EXPECT_THAT(exact.out, HasSubstr("1 earlier request had the same id"));
  const MadeUpEngine other(directory(), "two", {"cmpl-7", "cmpl-8", "10"});
  const Ran unclear = run("why cmpl");
  EXPECT_EQ(unclear.code, 2);
  EXPECT_THAT(unclear.out, IsEmpty());
  EXPECT_THAT(unclear.error, AllOf(HasSubstr("'cmpl' begins the ids of several requests"),
                                   HasSubstr("\ncmpl-7 "), HasSubstr("\ncmpl-8 ")));
  const Ran of_two = run("why 10");
  EXPECT_EQ(of_two.code, 2) << "two engines call one so";
  EXPECT_THAT(of_two.error, HasSubstr("--engine"));
  EXPECT_EQ(run("why 10 --engine two").code, 0);
  EXPECT_EQ(nlohmann::json::parse(run("why cmpl --json").out).size(), 2U);
}

TEST_F(CliLedgerTest, AnUnknownIdIsAFailureThatNamesThoseThereAre) {
  {
    const MadeUpEngine engine(directory(), "one", {"cmpl-2", "cmpl-1"});
    const Ran ran = run("why nobody");
    EXPECT_EQ(ran.code, 1);
    EXPECT_THAT(ran.out, IsEmpty());
    EXPECT_THAT(ran.error, AllOf(HasSubstr("no request 'nobody'"), HasSubstr("ledger.keep"),
                                 HasSubstr("\ncmpl-2 "), HasSubstr("\ncmpl-1 ")));
    EXPECT_EQ(run("why nobody --json").out, "[]\n");
    // What a terminal would obey, and more than is kept.
    const Ran strange = run("why \"$(printf '\\033[2J%0200d' 0)\"");
    EXPECT_EQ(strange.code, 1);
    EXPECT_THAT(strange.error, Not(HasSubstr("\033")));
    const Ran list = run("why");
    EXPECT_EQ(list.code, 0);
    EXPECT_THAT(list.out, AllOf(HasSubstr("request "), HasSubstr("\ncmpl-2 ")));
  }
  const MadeUpEngine idle(directory(), "one", {});
  EXPECT_THAT(run("why cmpl-1").error, HasSubstr("none has ended yet"));
}

TEST_F(CliLedgerTest, AnIdAsTheListCutsItIsFound) {
  const std::string id = "chatcmpl-0123456789abcdef0123456789abcdef";
  const MadeUpEngine engine(directory(), "one", {id, "other"});
  const std::string list = run("why").out;
  const std::size_t at = list.find("\nchatcmpl-") + 1;
  const std::string cut = list.substr(at, list.find(' ', at) - at);
  ASSERT_THAT(cut, ::testing::EndsWith("~"));
  const Ran ran = run("why '" + cut + "'");
  EXPECT_EQ(ran.code, 0) << ran.error;
  EXPECT_THAT(ran.out, HasSubstr(id));
}

TEST_F(CliLedgerTest, AnEngineThatKeepsNoneIsSaid) {
  const MadeUpEngine old(directory(), "old", {}, false);
  const Ran ran = run("why cmpl-1");
  EXPECT_EQ(ran.code, 1);
  EXPECT_THAT(ran.error, HasSubstr("no ledgers are kept here"));
  const Ran top = run("top --once");
  EXPECT_EQ(top.code, 0) << top.error;
  EXPECT_THAT(top.out, HasSubstr("engine old (process 77): health green"));
}

TEST_F(CliLedgerTest, WithoutAnEngineBothFailAndNameTheDirectory) {
  for (const std::string verb : {"why x", "top", "top --once"}) {
    const Ran ran = run(verb);
    EXPECT_EQ(ran.code, 1);
    EXPECT_THAT(ran.error, AllOf(HasSubstr(directory()), HasSubstr("--directory")));
  }
}

TEST_F(CliLedgerTest, InAPipeItIsShownOnceAndPlain) {
  const MadeUpEngine one(directory(), "one", {"cmpl-1"});
  const MadeUpEngine two(directory(), "two", {});
  for (const std::string verb : {"top", "top --once"}) {
    const Ran ran = run(verb);
    EXPECT_EQ(ran.code, 0) << ran.error;
    EXPECT_THAT(ran.out,
                AllOf(HasSubstr("engine one (process 77): health green"),
                      HasSubstr("engine two (process 77): health green"), HasSubstr("host 25.0%"),
                      HasSubstr("\ncmpl-1 "), Not(HasSubstr("\033"))));
  }
  EXPECT_THAT(run("top --engine two").out, Not(HasSubstr("engine one")));
  const auto json = nlohmann::json::parse(run("top --json").out);
  ASSERT_EQ(json.size(), 2U);
  EXPECT_EQ(json[0]["prompt_tokens"], 1000);
  // Engines come in the order of their sockets' names.
  EXPECT_EQ(json[0]["ledgers"].size() + json[1]["ledgers"].size(), 1U);
  EXPECT_EQ(run("top --every 0").code, 2);
}

// Where there are no pseudo-terminals, as in a chroot without devpts, those of a mount that only
// this process sees; closed if that is not allowed.
UniqueFd open_terminal() {
  UniqueFd terminal(::posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC));
  if (!terminal.is_open() && ::unshare(CLONE_NEWNS) == 0 &&
      ::mount("devpts", "/dev/pts", "devpts", MS_NOSUID | MS_NOEXEC, "newinstance,ptmxmode=0666") ==
          0) {
    terminal = UniqueFd(::posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC));
  }
  if (terminal.is_open() && ::grantpt(terminal.get()) == 0 && ::unlockpt(terminal.get()) == 0) {
    return terminal;
  }
  ADD_FAILURE() << "there are no pseudo-terminals: mount devpts on /dev/pts, or be root";
  return {};
}

// A terminal of 80 columns with the command on it.
class Terminal {
 public:
  explicit Terminal(const std::string& directory, const char* kind = "TERM=xterm") {
    master_ = open_terminal();
    if (!master_.is_open()) return;
    const winsize size{.ws_row = 24, .ws_col = 80, .ws_xpixel = 0, .ws_ypixel = 0};
    ::ioctl(master_.get(), TIOCSWINSZ, &size);
    // Stays open: the terminal is still there when the command has ended.
    user_ = UniqueFd(::open(::ptsname(master_.get()), O_RDWR | O_NOCTTY | O_CLOEXEC));
    ::tcgetattr(user_.get(), &before_);
    child_ = ::fork();
    if (child_ != 0) return;
    ::setsid();
    ::ioctl(user_.get(), TIOCSCTTY, 0);
    for (int fd = 0; fd <= 2; ++fd) ::dup2(user_.get(), fd);
    const rlimit none{};
    ::setrlimit(RLIMIT_CORE, &none);  // One of the signals would leave a core.
    const char* const environment[] = {kind, nullptr};
    ::execle(TERRACE_CLI, "terrace", "top", "--every", "0.2", "--directory", directory.c_str(),
             nullptr, environment);
    ::_exit(127);
  }
  ~Terminal() {
    if (child_ <= 0) return;
    ::kill(child_, SIGKILL);
    ::waitpid(child_, nullptr, 0);
  }
  void press(const std::string& keys) {
    ASSERT_EQ(::write(master_.get(), keys.data(), keys.size()), static_cast<ssize_t>(keys.size()));
  }
  void send(int signal) const { ::kill(child_, signal); }
  // Until `part` was shown, from where the last such call ended.
  bool shows(const std::string& part) {
    if (child_ <= 0) return false;
    const bool is_there = testing::eventually([&] {
      take();
      return shown_.find(part, seen_) != std::string::npos;
    });
    if (is_there) seen_ = shown_.find(part, seen_) + part.size();
    return is_there;
  }
  // How it ended, or stopped.
  int await() {
    int status = -1;
    EXPECT_TRUE(testing::eventually([&] {
      take();
      return ::waitpid(child_, &status, WNOHANG | WUNTRACED) == child_;
    }));
    take();
    if (!WIFSTOPPED(status)) child_ = -1;
    return status;
  }
  [[nodiscard]] bool is_as_before() const {
    termios now{};
    ::tcgetattr(user_.get(), &now);
    return now.c_iflag == before_.c_iflag && now.c_oflag == before_.c_oflag &&
           now.c_cflag == before_.c_cflag && now.c_lflag == before_.c_lflag &&
           std::memcmp(now.c_cc, before_.c_cc, sizeof now.c_cc) == 0 && shown_.ends_with(kLeave);
  }
  [[nodiscard]] const std::string& shown() const { return shown_; }

  static constexpr const char* kEnter = "\x1b[?1049h\x1b[?25l";
  static constexpr const char* kLeave = "\x1b[?25h\x1b[?1049l";

 private:
  void take() {
    std::array<char, 4096> piece{};
    for (;;) {
      pollfd entry{master_.get(), POLLIN, 0};
      if (::poll(&entry, 1, 0) <= 0) return;
      const ssize_t got = ::read(master_.get(), piece.data(), piece.size());
      if (got <= 0) return;
      shown_.append(piece.data(), static_cast<std::size_t>(got));
    }
  }

  UniqueFd master_;
  UniqueFd user_;
  termios before_{};
  pid_t child_ = -1;
  std::string shown_;
  std::size_t seen_ = 0;
};

TEST_F(CliLedgerTest, OnATerminalItGoesOnUntilSomebodyEndsItAndLeavesAllAsItWas) {
  const MadeUpEngine engine(directory(), "one", {"cmpl-1"});
  for (const std::string& key : {std::string("\x03"), std::string("q"), std::string("\x04")}) {
    Terminal terminal(directory());
    ASSERT_TRUE(terminal.shows(Terminal::kEnter));
    ASSERT_TRUE(terminal.shows("health green")) << terminal.shown();
    ASSERT_TRUE(terminal.shows("health green")) << "and again";
    terminal.press(key);
    const int status = terminal.await();
    EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0) << status;
    EXPECT_TRUE(terminal.is_as_before());
  }
}

TEST_F(CliLedgerTest, ASignalThatEndsItEndsItAsEverAfterTheTerminalIsAsItWas) {
  const MadeUpEngine engine(directory(), "one", {"cmpl-1"});
  for (const int signal : {SIGTERM, SIGHUP, SIGQUIT}) {
    Terminal terminal(directory());
    ASSERT_TRUE(terminal.shows("health green"));
    terminal.send(signal);
    const int status = terminal.await();
    EXPECT_TRUE(WIFSIGNALED(status) && WTERMSIG(status) == signal) << status;
    EXPECT_TRUE(terminal.is_as_before());
  }
}

TEST_F(CliLedgerTest, AStoppedOneLeavesTheTerminalAndComesBack) {
  const MadeUpEngine engine(directory(), "one", {"cmpl-1"});
  Terminal terminal(directory());
  ASSERT_TRUE(terminal.shows("health green"));
  terminal.press("\x1a");
  EXPECT_TRUE(WIFSTOPPED(terminal.await()));
  EXPECT_TRUE(terminal.is_as_before());
  terminal.send(SIGCONT);
  EXPECT_TRUE(terminal.shows(Terminal::kEnter));
  EXPECT_TRUE(terminal.shows("health green"));
  terminal.press("q");
  EXPECT_TRUE(WIFEXITED(terminal.await()));
  EXPECT_TRUE(terminal.is_as_before());
}

TEST_F(CliLedgerTest, AnEngineThatEndsMeanwhileIsSaidAndALaterOneShown) {
  auto engine = std::make_unique<MadeUpEngine>(directory(), "one", std::vector<std::string>{});
  Terminal terminal(directory());
  ASSERT_TRUE(terminal.shows("health green"));
  engine.reset();
  EXPECT_TRUE(terminal.shows("no engine answers"));
  engine = std::make_unique<MadeUpEngine>(directory(), "two", std::vector<std::string>{});
  EXPECT_TRUE(terminal.shows("engine two (process 77): health green"));
  terminal.press("q");
  EXPECT_TRUE(WIFEXITED(terminal.await()));
}

TEST_F(CliLedgerTest, ATerminalThatCanDoNothingGetsItOnce) {
  const MadeUpEngine engine(directory(), "one", {});
  Terminal terminal(directory(), "TERM=dumb");
  EXPECT_TRUE(WIFEXITED(terminal.await()));
  EXPECT_THAT(terminal.shown(), AllOf(HasSubstr("health green"), Not(HasSubstr("\x1b"))));
}

}  // namespace
}  // namespace terrace
