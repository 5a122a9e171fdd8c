// `terrace backend check` on plug-ins that are compiled outside the tree, from one C file and the
// public header alone: a right one passes, each broken one is found out by the check that is meant.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>

#include "scenario/cli_run.h"
#include "terrace/testing/scratch_directory.h"

namespace terrace {
namespace {

using nlohmann::json;
using scenario::Ran;
using scenario::terrace_command;
using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;

const std::string kBroken = "-DBREAK_";

// A folder that has nothing of the tree but a header and two C files.
class CliBackendTest : public ::testing::Test {
 protected:
  void SetUp() override {
    namespace fs = std::filesystem;
    fs::create_directories(folder_ / "include/terrace");
    fs::copy_file(TERRACE_BACKEND_HEADER, folder_ / "include/terrace/backend.h");
    for (const char* name : {"example.c", "broken.c"}) {
      fs::copy_file(fs::path(TERRACE_PLUGIN_SOURCES) / name, folder_ / name);
    }
  }
  std::string compile(const std::string& source, const std::string& flags = "") {
    std::string library = folder_ / "plugin.so";
    const std::string line = "cd " + folder_.string() +
                             " && " TERRACE_C_COMPILER
                             " -std=c11 -pedantic -Wall -Wextra -Werror -shared -fPIC -pthread -I "
                             "include " +
                             flags + " " + source + " -o plugin.so";
    EXPECT_EQ(std::system(line.c_str()), 0) << line;
    return library;
  }
  Ran check(const std::string& library, const std::string& flags) const {
    return terrace_command("backend check " + library + " --directory " + folder_.string() + " " +
                           flags);
  }

  const testing::ScratchDirectory scratch_;
  const std::filesystem::path folder_ = scratch_.path();
};

// What is left of what the check made.
bool is_tidy(const std::filesystem::path& folder) {
  return std::ranges::none_of(std::filesystem::directory_iterator(folder), [](const auto& entry) {
    return entry.path().filename().string().starts_with("terrace-backend-check");
  });
}

TEST_F(CliBackendTest, TheExampleBuiltFromThePublicHeaderAlonePasses) {
  const Ran ran = check(compile("example.c"), "--json --patience 60");
  EXPECT_EQ(ran.code, 0) << ran.out;
  const json result = json::parse(ran.out);
  EXPECT_EQ(result["good"], true);
  EXPECT_GE(result["checks"].size(), 17U);
  for (const json& one : result["checks"]) EXPECT_EQ(one["state"], "kept") << one;
  EXPECT_THAT(ran.error, AllOf(HasSubstr("[1/"), HasSubstr("random_traffic")));
  EXPECT_TRUE(is_tidy(folder_));
}

TEST_F(CliBackendTest, APersonIsToldWhatIsKeptAndWhatToDo) {
  const Ran good = check(compile("example.c"), "--patience 60");
  EXPECT_EQ(good.code, 0) << good.out;
  EXPECT_THAT(good.out, AllOf(HasSubstr("ok   random_traffic"), HasSubstr("17 of 17 promises kept"),
                              HasSubstr("disk.backend_library"), Not(HasSubstr("FAIL"))));
  const Ran bad = check(compile("broken.c", kBroken + "OFFSET"), "--patience 60");
  EXPECT_EQ(bad.code, 1);
  EXPECT_THAT(bad.out, AllOf(HasSubstr("FAIL random_traffic"), HasSubstr("seen: "),
                             HasSubstr("include/terrace/backend.h")));
}

TEST_F(CliBackendTest, WithoutALibraryOrAFolderItSaysSo) {
  EXPECT_EQ(terrace_command("backend").code, 2);
  EXPECT_EQ(terrace_command("backend check").code, 2);
  EXPECT_EQ(terrace_command("backend check x.so --patience 0").code, 2);
  EXPECT_EQ(terrace_command("backend check x.so --seed -1").code, 2);
  const Ran ran = terrace_command("backend check x.so --directory /nowhere/at/all");
  EXPECT_EQ(ran.code, 1);
  EXPECT_THAT(ran.error, AllOf(HasSubstr("/nowhere/at/all"), HasSubstr("--directory")));
  const Ran missing = check("/nowhere/x.so", "--json");
  EXPECT_EQ(missing.code, 1);
  const json result = json::parse(missing.out);
  EXPECT_EQ(result["checks"][0]["state"], "broken");
  EXPECT_THAT(result["checks"][0]["seen"].get<std::string>(), HasSubstr("/nowhere/x.so: ENOENT"));
  EXPECT_EQ(result["checks"][1]["state"], "not run");
  EXPECT_TRUE(is_tidy(folder_));
}

struct Broken {
  std::string how;
  std::string check;  // That finds it out, perhaps among others.
  std::string seen;
  std::string patience = "60";  // Short where the plug-in keeps the check waiting.
};

std::string broken_name(const ::testing::TestParamInfo<Broken>& tested) { return tested.param.how; }

class CliBrokenBackendTest : public CliBackendTest, public ::testing::WithParamInterface<Broken> {};

TEST_P(CliBrokenBackendTest, IsFoundOut) {
  const Broken& broken = GetParam();
  const std::string library = compile("broken.c", kBroken + broken.how);
  const Ran ran = check(library, "--json --patience " + broken.patience);
  EXPECT_EQ(ran.code, 1) << ran.out;
  const json result = json::parse(ran.out);
  EXPECT_EQ(result["good"], false);
  bool is_found = false;
  for (const json& one : result["checks"]) {
    if (one["name"] != broken.check) continue;
    is_found = true;
    EXPECT_EQ(one["state"], "broken");
    EXPECT_THAT(one["seen"].get<std::string>(), HasSubstr(broken.seen));
  }
  EXPECT_TRUE(is_found);
  EXPECT_TRUE(is_tidy(folder_));
}

INSTANTIATE_TEST_SUITE_P(
    Plugins, CliBrokenBackendTest,
    ::testing::Values(
        Broken{"NO_SYMBOL", "load", "exports no terrace_backend_describe"},
        Broken{"NO_TABLE", "load", "returned no table"},
        Broken{"VERSION", "load", "version 2 of the plug-in table"},
        Broken{"SHORT", "load", "compile it with"}, Broken{"TRANSFER_SIZE", "load", "112"},
        Broken{"NAME", "load", "name is not"}, Broken{"NO_POLL", "load", "no poll()"},
        Broken{"OPEN", "load", "no such device here"},
        Broken{"NO_INSTANCE", "load", "gave no instance"},
        Broken{"OFFSET", "random_traffic", "other bytes"},
        Broken{"PIECES", "pieces", "bytes moved, and no error"},
        Broken{"ALLOCATE", "allocate", "1 MiB was allocated"},
        Broken{"EARLY", "done_means_done", ""}, Broken{"LENGTH", "pieces", "32767 of 32768"},
        Broken{"HIDES_ERRORS", "errors", "instead of io"},
        Broken{"HIDES_THE_END", "past_the_end", "bytes moved, and no error"},
        Broken{"ERROR", "errors", "error -77, which is none"}, Broken{"REFUSES", "once", "EAGAIN"},
        Broken{"TOKEN", "pieces", "was not in flight"},
        Broken{"TWICE", "once", "was not in flight"},
        Broken{"NEGATIVE", "pieces", "poll() returned -1"},
        Broken{"TOO_MANY", "pieces", "poll() returned 65"},
        Broken{"CRASHES", "pieces", "ended by signal 6"},
        Broken{"LOSES", "pieces", "no completion for", "0.3"},
        Broken{"SILENT", "signal", "to its limit", "1"},
        Broken{"CLOSE", "end", "close() did not return", "0.3"},
        Broken{"BLOCKS", "pieces", "hung for", "0.1"}),
    broken_name);

}  // namespace
}  // namespace terrace
