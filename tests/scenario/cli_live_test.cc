// `terrace status | pause | readonly | resume` against admin sockets, as people start them.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <sys/un.h>

#include <atomic>
#include <cstring>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>

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

// As far as the command line can see one.
class MadeUpEngine {
 public:
  MadeUpEngine(const std::string& directory, const std::string& id, std::string health = "green",
               const nlohmann::json& other = nlohmann::json::object()) {
    serve::AdminServer::Options options;
    options.directory = directory;
    options.engine_id = id;
    options.hooks.status = [this, id, health, other] {
      nlohmann::json status{{"engine", id},
                            {"process", 77},
                            {"health", health},
                            {"problems", {"made up"}},
                            {"ready", true},
                            {"mode", to_string(mode_.load())},
                            {"tiers",
                             {{{"tier", "host"},
                               {"state", "open"},
                               {"detail", "d"},
                               {"slots", {{"sealed", 3}, {"free", 5}}}}}},
                            {"miss_blocks", {{"paused", 4}, {"late", 0}}}};
      status.update(other);
      return status.dump();
    };
    options.hooks.set_mode = [this](manager::Mode mode, std::string_view) {
      mode_.store(mode);
      return Status();
    };
    auto started = serve::AdminServer::start(std::move(options), clock_, log_);
    EXPECT_TRUE(started.has_value());
    server_ = std::move(*started);
    EXPECT_TRUE(testing::eventually([&] { return server_->is_open(); }));
  }
  [[nodiscard]] manager::Mode mode() const { return mode_.load(); }

 private:
  SystemClock clock_;
  NullLog log_;
  std::atomic<manager::Mode> mode_{manager::Mode::kOn};
  std::unique_ptr<serve::AdminServer> server_;
};

class CliLiveTest : public ::testing::Test {
 protected:
  [[nodiscard]] std::string directory() const { return scratch_.path() + "/s"; }
  [[nodiscard]] Ran run(const std::string& arguments) const {
    return terrace_command(arguments + " --directory " + directory());
  }
  // What an engine leaves that was killed.
  void leave_dead_socket() const {
    const std::string path = serve::admin_path(directory(), "dead").value();
    const UniqueFd fd(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    std::memcpy(address.sun_path, path.data(), path.size());
    ASSERT_EQ(::bind(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address), 0);
  }
  testing::ScratchDirectory scratch_;
};

TEST_F(CliLiveTest, OneEngineIsShownSwitchedAndSwitchedBack) {
  const MadeUpEngine engine(directory(), "one");
  const Ran status = run("status");
  EXPECT_EQ(status.code, 0) << status.error;
  EXPECT_THAT(status.out, AllOf(HasSubstr("engine one (process 77): health green, mode on, ready"),
                                HasSubstr("host: open, 3 blocks, 5 slots free"),
                                HasSubstr("missed blocks: paused 4\n")));
  EXPECT_EQ(run("pause").out, "engine one (process 77): mode paused\n");
  EXPECT_EQ(engine.mode(), manager::Mode::kPaused);
  EXPECT_EQ(run("readonly").code, 0);
  EXPECT_EQ(engine.mode(), manager::Mode::kReadOnly);
  const auto json = nlohmann::json::parse(run("status --json").out);
  EXPECT_EQ(json.at(0)["mode"], "readonly");
  EXPECT_EQ(json.at(0)["socket"], serve::admin_path(directory(), "one").value());
  const auto resumed = nlohmann::json::parse(run("resume --json").out);
  EXPECT_EQ(resumed.at(0)["mode"], "on");
  EXPECT_EQ(resumed.at(0)["before"], "readonly");
  EXPECT_EQ(engine.mode(), manager::Mode::kOn);
}

TEST_F(CliLiveTest, SeveralEnginesAreShownAndSwitchedOnlyByName) {
  const MadeUpEngine one(directory(), "one");
  const MadeUpEngine two(directory(), "two");
  EXPECT_THAT(run("status").out, AllOf(HasSubstr("engine one "), HasSubstr("engine two ")));
  EXPECT_THAT(run("status --engine two").out,
              AllOf(Not(HasSubstr("engine one ")), HasSubstr("engine two ")));
  const Ran unclear = run("pause");
  EXPECT_EQ(unclear.code, 2);
  EXPECT_THAT(unclear.error,
              AllOf(HasSubstr("--engine ID, or --all"), HasSubstr("\n  engine one (process 77)\n"),
                    HasSubstr("\n  engine two (process 77)\n")));
  EXPECT_EQ(one.mode(), manager::Mode::kOn);
  EXPECT_EQ(run("pause --engine two").code, 0);
  EXPECT_EQ(one.mode(), manager::Mode::kOn);
  EXPECT_EQ(two.mode(), manager::Mode::kPaused);
  EXPECT_EQ(run("readonly --all").code, 0);
  EXPECT_EQ(one.mode(), manager::Mode::kReadOnly);
  EXPECT_EQ(two.mode(), manager::Mode::kReadOnly);
  const Ran unknown = run("pause --engine three");
  EXPECT_EQ(unknown.code, 1);
  EXPECT_THAT(unknown.error, AllOf(HasSubstr("no engine 'three'"), HasSubstr("engine two")));
  EXPECT_EQ(run("resume --all --engine one").code, 2);
}

TEST_F(CliLiveTest, DeadEnginesAreSkippedAndSaid) {
  const MadeUpEngine one(directory(), "one");
  leave_dead_socket();
  const Ran paused = run("pause");
  EXPECT_EQ(paused.code, 0);
  EXPECT_THAT(paused.error, HasSubstr("skipped: it has ended"));
  EXPECT_EQ(one.mode(), manager::Mode::kPaused);
}

TEST_F(CliLiveTest, NoEngineIsAFailureThatNamesTheDirectory) {
  for (const std::string verb : {"status", "pause"}) {
    const Ran ran = run(verb);
    EXPECT_EQ(ran.code, 1);
    EXPECT_THAT(ran.out, IsEmpty());
    EXPECT_THAT(ran.error, AllOf(HasSubstr(directory()), HasSubstr("--directory")));
  }
  EXPECT_EQ(run("status --json").out, "[]\n");
}

TEST_F(CliLiveTest, RedHealthIsAFailureAndTheProblemIsShown) {
  const MadeUpEngine one(directory(), "one", "red");
  const Ran ran = run("status");
  EXPECT_EQ(ran.code, 1);
  EXPECT_THAT(ran.out, HasSubstr("health red, mode on, ready, up 0 s\n  problem: made up\n"));
}

// As another version could answer: what is understood is shown, and the others as ever.
TEST_F(CliLiveTest, AnAnswerOfOtherTypesHidesNobody) {
  const MadeUpEngine strange(directory(), "strange", "green",
                             {{"health", 5},
                              {"process", "77"},
                              {"ready", "yes"},
                              {"uptime_seconds", nullptr},
                              {"problems", {{"a", 1}}},
                              {"tiers", {{{"tier", 1}, {"slots", 2}, {"state", "open"}}}},
                              {"miss_blocks", 7}});
  const MadeUpEngine usual(directory(), "usual");
  const Ran shown = run("status");
  EXPECT_EQ(shown.code, 1);  // Nobody says that it is well.
  EXPECT_THAT(shown.out, HasSubstr("engine strange (process 0): health ?, mode on, not ready yet"));
  EXPECT_THAT(shown.out, HasSubstr("engine usual (process 77): health green"));
  EXPECT_EQ(run("pause --all").code, 0);
  EXPECT_EQ(strange.mode(), manager::Mode::kPaused);
}

TEST_F(CliLiveTest, TheDirectoryIsThatOfTheSettings) {
  const MadeUpEngine one(directory(), "one");
  EXPECT_EQ(terrace_command("status", "TERRACE_ATTACH_DIRECTORY=" + directory()).code, 0);
  const Ran refused = terrace_command("status", "TERRACE_ATTACH_DIRECTORY=relative");
  EXPECT_EQ(refused.code, 1);
  EXPECT_THAT(refused.error, HasSubstr("attach.directory"));
}

}  // namespace
}  // namespace terrace
