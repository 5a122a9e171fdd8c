#include "terrace/serve/ledger_file.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <sstream>
#include <string>
#include <vector>

#include "terrace/testing/eventually.h"
#include "terrace/testing/fake_clock.h"
#include "terrace/testing/memory_log.h"
#include "terrace/testing/scratch_directory.h"

namespace terrace::serve {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

class LedgerFileTest : public ::testing::Test {
 protected:
  [[nodiscard]] std::string path() const { return scratch_.path() + "/ledgers.jsonl"; }
  [[nodiscard]] LedgerFileOptions options() const {
    LedgerFileOptions options;
    options.path = path();
    options.engine_id = "e";
    options.seed = 4;
    return options;
  }
  void end(const std::string& name, manager::LedgerState state = manager::LedgerState::kEnded) {
    manager::KeptLedger kept;
    kept.name = manager::Label(name);
    kept.state = state;
    kept.ended = clock_.now();
    (void)ring_.add(kept);
  }
  [[nodiscard]] static std::vector<std::string> names(const std::string& file) {
    std::istringstream lines(read_file(file, 16_MiB).value_or(""));
    std::vector<std::string> found;
    for (std::string line; std::getline(lines, line);) {
      const auto json = nlohmann::json::parse(line, nullptr, false);
      found.push_back(json.is_object() ? json["request"].get<std::string>() : "(torn)");
    }
    return found;
  }
  [[nodiscard]] LedgerWriter writer() { return writer(options()); }
  [[nodiscard]] LedgerWriter writer(LedgerFileOptions options) {
    return {std::move(options), ring_, clock_, log_};
  }

  testing::ScratchDirectory scratch_;
  testing::FakeClock clock_;
  testing::MemoryLog log_;
  manager::LedgerRing ring_{1024, clock_};
};

TEST_F(LedgerFileTest, EachRequestThatEndedIsALine) {
  LedgerWriter writer = this->writer();
  writer.tick();
  EXPECT_FALSE(std::filesystem::exists(path())) << "nothing to say";
  end("a");
  end("b");
  writer.tick();
  writer.tick();
  EXPECT_THAT(names(path()), ElementsAre("a", "b"));
  end("c");
  writer.tick();
  EXPECT_THAT(names(path()), ElementsAre("a", "b", "c"));
  struct stat facts{};
  ASSERT_EQ(::stat(path().c_str(), &facts), 0);
  EXPECT_EQ(facts.st_mode & 0777U, 0600U);
  EXPECT_EQ(log_.count("event=ledger_file state=writing"), 1U);
}

TEST_F(LedgerFileTest, ALoadThatIsNotReportedYetIsWaitedForAWhile) {
  LedgerWriter writer = this->writer();
  end("a", manager::LedgerState::kReporting);
  end("b");
  writer.tick();
  EXPECT_FALSE(std::filesystem::exists(path()));
  manager::Ledger ledger;
  ledger.prompt = Tokens(9);
  ring_.amend(1, ledger, manager::LedgerState::kEnded);
  writer.tick();
  EXPECT_THAT(names(path()), ElementsAre("a", "b"));
  EXPECT_THAT(read_file(path(), 1_MiB).value(), HasSubstr("\"prompt_tokens\":9"));
  end("c", manager::LedgerState::kReporting);
  clock_.advance(seconds(5));
  writer.tick();
  EXPECT_THAT(names(path()), ElementsAre("a", "b", "c")) << "as far as it is known";
  end("d", manager::LedgerState::kReporting);
  writer.tick(/*is_last=*/true);
  EXPECT_THAT(names(path()), ElementsAre("a", "b", "c", "d"));
}

TEST_F(LedgerFileTest, AShareOfThemIsThatShare) {
  for (const double share : {0.0, 0.25, 1.0}) {
    LedgerFileOptions some = options();
    some.path += std::to_string(share);
    some.share = share;
    manager::LedgerRing ring(4096, clock_);
    LedgerWriter writer(some, ring, clock_, log_);
    for (int i = 0; i < 4000; ++i) {
      manager::KeptLedger kept;
      kept.state = manager::LedgerState::kEnded;
      (void)ring.add(kept);
    }
    writer.tick();
    EXPECT_NEAR(static_cast<double>(names(some.path).size()), 4000 * share, 150);
    EXPECT_EQ(writer.lost(), 0U);
  }
}

TEST_F(LedgerFileTest, AFullFileIsRenamedAndTwoAreTheMost) {
  LedgerFileOptions small = options();
  small.size = 1_MiB;
  LedgerWriter writer = this->writer(small);
  for (int i = 0; i < 6000; ++i) {  // Some 3 MiB.
    end(std::to_string(i));
    if (i % 200 == 0) writer.tick();
  }
  writer.tick();
  EXPECT_LE(std::filesystem::file_size(path()), 1U << 20U);
  EXPECT_LE(std::filesystem::file_size(path() + ".1"), 1U << 20U);
  EXPECT_EQ(std::distance(std::filesystem::directory_iterator(scratch_.path()), {}), 2);
  EXPECT_EQ(names(path()).back(), "5999");
  EXPECT_EQ(writer.lost(), 0U);
}

TEST_F(LedgerFileTest, WhoeverRenamesTheFileIsFollowed) {
  LedgerWriter writer = this->writer();
  end("a");
  writer.tick();
  std::filesystem::rename(path(), path() + ".old");
  end("b");
  writer.tick();
  EXPECT_THAT(names(path()), ElementsAre("b"));
  EXPECT_THAT(names(path() + ".old"), ElementsAre("a"));
}

TEST_F(LedgerFileTest, SeveralEnginesMayShareAFile) {
  LedgerFileOptions small = options();
  small.size = 1_MiB;
  LedgerWriter one = writer(small);
  LedgerWriter two = writer(small);
  for (int i = 0; i < 3000; ++i) {
    end(std::to_string(i));
    if (i % 100 != 0) continue;
    one.tick();
    two.tick();
  }
  for (const std::string& file : {path(), path() + ".1"}) {
    EXPECT_LE(std::filesystem::file_size(file), 1U << 20U);
    EXPECT_THAT(names(file), ::testing::Not(::testing::Contains("(torn)")));
  }
}

// A directory that is not there, one that nobody may write to, a thing that is no file, a link.
TEST_F(LedgerFileTest, APlaceThatCannotBeHadIsSaidOnceAndTriedAgain) {
  LedgerFileOptions wrong = options();
  wrong.path = scratch_.path() + "/not-there/l.jsonl";
  LedgerWriter writer = this->writer(wrong);
  for (int i = 0; i < 5; ++i) {
    end("a");
    writer.tick();
    clock_.advance(seconds(61));
  }
  EXPECT_EQ(log_.count("state=off"), 1U) << log_.text();
  EXPECT_THAT(log_.text(), AllOf(HasSubstr("not-there"), HasSubstr("ENOENT"),
                                 HasSubstr("let ledger.file name another place")));
  EXPECT_EQ(writer.lost(), 5U);
  std::filesystem::create_directory(scratch_.path() + "/not-there");
  end("b");
  writer.tick();
  EXPECT_THAT(names(wrong.path), ElementsAre("b"));
  EXPECT_THAT(log_.text(), HasSubstr("state=writing path=\"" + wrong.path + "\" share=1 lost=5"));
}

TEST_F(LedgerFileTest, NothingIsWrittenThroughALinkOrIntoAPipe) {
  const std::string victim = scratch_.path() + "/victim";
  std::filesystem::create_symlink(victim, path());
  LedgerWriter writer = this->writer();
  end("a");
  writer.tick();
  EXPECT_FALSE(std::filesystem::exists(victim));
  LedgerFileOptions pipe = options();
  pipe.path = scratch_.path() + "/pipe";
  ASSERT_EQ(::mkfifo(pipe.path.c_str(), 0600), 0);
  LedgerWriter other = this->writer(pipe);
  other.tick();
  EXPECT_EQ(log_.count("state=off"), 2U) << log_.text();
}

// As a full disk does it, in the middle of a line.
TEST_F(LedgerFileTest, AFullDiskCostsLinesAndNoMore) {
  const pid_t child = ::fork();
  if (child == 0) {
    ::signal(SIGXFSZ, SIG_IGN);
    const rlimit limit{500, RLIM_INFINITY};  // One line and a part of the next.
    ::setrlimit(RLIMIT_FSIZE, &limit);
    LedgerWriter writer = this->writer();
    for (const char* name : {"a", "b", "c"}) end(name);
    writer.tick();
    const bool is_said = log_.count("state=off") == 1 && writer.lost() == 3;
    const rlimit none{RLIM_INFINITY, RLIM_INFINITY};
    ::setrlimit(RLIMIT_FSIZE, &none);
    end("d");
    writer.tick();  // Too early to try again.
    clock_.advance(seconds(61));
    writer.tick();
    ::_exit(is_said ? 0 : 1);
  }
  int status = -1;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  EXPECT_EQ(status, 0);
  EXPECT_THAT(names(path()), ElementsAre("a", "(torn)", "d"));
}

TEST_F(LedgerFileTest, WhatLeftTheRingBeforeItWasWrittenIsCounted) {
  manager::LedgerRing ring(4, clock_);
  LedgerWriter writer(options(), ring, clock_, log_);
  for (int i = 0; i < 10; ++i) {
    manager::KeptLedger kept;
    kept.state = manager::LedgerState::kEnded;
    kept.name = manager::Label(std::to_string(i));
    (void)ring.add(kept);
  }
  writer.tick();
  EXPECT_THAT(names(path()), ElementsAre("6", "7", "8", "9"));
  EXPECT_EQ(writer.lost(), 6U);
}

TEST_F(LedgerFileTest, TheThreadWritesWhatIsThereWhenItIsClosed) {
  const SystemClock clock;
  LedgerFileOptions patient = options();
  patient.every = seconds(3600);
  auto file = LedgerFile::start(patient, ring_, clock, log_);
  ASSERT_TRUE(file.has_value());
  end("a", manager::LedgerState::kReporting);
  end("b");
  EXPECT_TRUE((*file)->close(clock.now() + seconds(60)));
  EXPECT_THAT(names(path()), ElementsAre("a", "b"));
  EXPECT_TRUE((*file)->close(clock.now())) << "again";
}

TEST_F(LedgerFileTest, TheThreadLooksFromTimeToTime) {
  const SystemClock clock;
  LedgerFileOptions quick = options();
  quick.every = milliseconds(1);
  auto file = LedgerFile::start(quick, ring_, clock, log_);
  ASSERT_TRUE(file.has_value());
  end("a");
  EXPECT_TRUE(testing::eventually([&] { return names(path()).size() == 1; }));
}

TEST_F(LedgerFileTest, OneThatIsLeftOpenInAChildWritesNothingThere) {
  const SystemClock clock;
  LedgerFileOptions patient = options();
  patient.every = seconds(3600);
  auto file = LedgerFile::start(patient, ring_, clock, log_);
  ASSERT_TRUE(file.has_value());
  end("a");
  const pid_t child = ::fork();
  if (child == 0) {
    file->reset();
    ::_exit(std::filesystem::exists(path()) ? 1 : 0);
  }
  int status = -1;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  EXPECT_EQ(status, 0);
  EXPECT_TRUE((*file)->close(clock.now() + seconds(60)));
  EXPECT_THAT(names(path()), ElementsAre("a"));
}

}  // namespace
}  // namespace terrace::serve
