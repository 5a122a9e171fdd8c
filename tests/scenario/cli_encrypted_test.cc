// `terrace inspect | verify | object gc | key id` on what was encrypted, with keys and without.
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <fstream>
#include <nlohmann/json.hpp>

#include "scenario/cli_run.h"
#include "terrace/testing/crypt.h"
#include "terrace/tier/disk/disk_rig.h"

namespace terrace::tier::disk {
namespace {

using scenario::Ran;
using scenario::terrace_command;
using ::testing::AllOf;
using ::testing::HasSubstr;
using testing::id_of;
using ::testing::Not;
using testing::ring_of;

// Three blocks under key 1, then two under key 2, and one that is not encrypted.
class CliEncryptedTest : public ::testing::Test {
 protected:
  void SetUp() override {
    store("1", 0, 3);
    store("2", 10, 12);
    store("", 20, 21);
  }
  void store(const std::string& keys, std::uint64_t first, std::uint64_t end) {
    rig_.options().crypt.ring = ring_of(keys);
    ASSERT_TRUE(rig_.open().is_ok());
    for (std::uint64_t n = first; n < end; ++n) ASSERT_TRUE(rig_.write(n).is_ok());
    rig_.settle();
    rig_.close();
  }
  [[nodiscard]] std::string key_file(char digit) const {
    const std::string path = keys_.path() + "/" + digit;
    std::ofstream(path) << "terrace-key-1 " << std::string(64, digit) << "\n";
    EXPECT_EQ(::chmod(path.c_str(), 0600), 0);
    return path;
  }
  [[nodiscard]] static std::string in_environment(char digit) {
    return "HOME=/home/u TERRACE_ENCRYPTION_KEY=" + std::string(64, digit);
  }
  [[nodiscard]] std::string verify() const { return "verify --offline " + rig_.path(); }
  [[nodiscard]] std::string inspect() const { return "inspect " + rig_.path(); }

  Rig rig_;
  ScratchDirectory keys_;
};

TEST_F(CliEncryptedTest, WithoutAKeyItSaysWhichOnesAreNeededAndFindsNoDamage) {
  for (const std::string& words : {verify(), inspect()}) {
    SCOPED_TRACE(words);
    const Ran ran = terrace_command(words);
    EXPECT_EQ(ran.code, 0) << ran.out << ran.error;
    EXPECT_THAT(ran.out,
                AllOf(HasSubstr("encrypted with key " + id_of('1') + ": 3 blocks; that key is not"),
                      HasSubstr("encrypted with key " + id_of('2') + ": 2 blocks; that key is not"),
                      HasSubstr("not encrypted: 1 blocks\n")));
  }
  EXPECT_THAT(terrace_command(verify()).out, HasSubstr("6 blocks, 6 good, 0 damaged"));
}

TEST_F(CliEncryptedTest, KeysComeFromTheEnvironmentOrFromFiles) {
  const Ran by_text = terrace_command(verify(), in_environment('1'));
  EXPECT_EQ(by_text.code, 0) << by_text.error;
  EXPECT_THAT(by_text.out,
              AllOf(HasSubstr("encrypted with key " + id_of('1') + ": 3 blocks; 3 opened"),
                    HasSubstr("encrypted with key " + id_of('2') + ": 2 blocks; that key is not"),
                    HasSubstr("only encryption.accept_plain serves them")));
  EXPECT_THAT(by_text.out + by_text.error, Not(HasSubstr("1111"))) << "a key was printed";
  const Ran by_file = terrace_command(verify() + " --set encryption.key_file=" + key_file('2') +
                                      " --set encryption.old_key_files=" + key_file('1'));
  EXPECT_THAT(by_file.out, AllOf(HasSubstr("3 opened"), HasSubstr("2 opened")));
  const std::string settings = keys_.path() + "/terrace.toml";
  std::ofstream(settings) << "[encryption]\nkey_file = \"" << key_file('2') << "\"\n";
  const Ran by_toml = terrace_command(verify() + " --file " + settings);
  EXPECT_THAT(by_toml.out, AllOf(HasSubstr("2 opened"), Not(HasSubstr("3 opened"))));
  EXPECT_THAT(terrace_command(inspect() + " --file " + settings).out,
              HasSubstr(id_of('2') + ": 2 blocks; that key is at hand"));
}

TEST_F(CliEncryptedTest, JsonHoldsTheSame) {
  const auto verified =
      nlohmann::json::parse(terrace_command(verify() + " --json", in_environment('1'))
                                .out)[0]["owners"][0]["namespaces"][0]["encryption"];
  EXPECT_EQ(verified["plain_blocks"], 1);
  ASSERT_EQ(verified["keys"].size(), 2U);
  const auto inspected =
      nlohmann::json::parse(terrace_command(inspect() + " --json", in_environment('1'))
                                .out)[0]["owners"][0]["namespaces"][0]["encryption"];
  for (const auto& key : verified["keys"]) {
    const bool is_first = key["id"] == id_of('1');
    EXPECT_EQ(key["at_hand"], is_first);
    EXPECT_EQ(key["opened"], is_first ? 3 : 0);
    EXPECT_EQ(key["blocks"], is_first ? 3 : 2);
  }
  EXPECT_EQ(inspected["keys"][0]["id"], verified["keys"][0]["id"]);
  EXPECT_EQ(inspected["keys"][0]["at_hand"], verified["keys"][0]["at_hand"]);
}

TEST_F(CliEncryptedTest, KeysThatCannotBeHadAreSaidAndTheRestIsTold) {
  const std::string path = key_file('1');
  ASSERT_EQ(::chmod(path.c_str(), 0644), 0);
  for (const std::string& words : {verify(), inspect()}) {
    const Ran ran = terrace_command(fmt::format("{} --set encryption.key_file={}", words, path));
    EXPECT_EQ(ran.code, 1);
    EXPECT_THAT(ran.error, AllOf(HasSubstr("no keys: "), HasSubstr("chmod 600")));
    EXPECT_THAT(ran.out, HasSubstr("encrypted with key " + id_of('1')));
  }
  EXPECT_EQ(terrace_command(verify() + " --set encryption.key_file").code, 2);
}

TEST_F(CliEncryptedTest, KeyIdTellsThoseOfTheSettings) {
  const Ran none = terrace_command("key id");
  EXPECT_EQ(none.code, 0);
  EXPECT_THAT(none.out, HasSubstr("nothing is encrypted"));
  EXPECT_EQ(terrace_command("key id --json").out, "[]\n");
  const std::string old = " --set encryption.old_key_files=" + key_file('2');
  const Ran both = terrace_command("key id" + old, in_environment('1'));
  EXPECT_EQ(both.out, id_of('1') + " writes and reads\n" + id_of('2') + " reads\n") << both.error;
  EXPECT_EQ(terrace_command("key id --json" + old, in_environment('1')).out,
            "[\"" + id_of('1') + "\",\"" + id_of('2') + "\"]\n");
  const Ran bad = terrace_command("key id --set encryption.key_file=/nonexistent/key");
  EXPECT_EQ(bad.code, 1);
  EXPECT_THAT(bad.error, HasSubstr("/nonexistent/key"));
}

}  // namespace
}  // namespace terrace::tier::disk
