#include "terrace/manager/key_files.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>

#include "terrace/testing/scratch_directory.h"

namespace terrace::manager {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

const std::string kDigits(64, '5');

class KeyFilesTest : public ::testing::Test {
 protected:
  std::string put(const std::string& name, const std::string& text, mode_t mode = 0600) {
    const std::string path = scratch_.path() + "/" + name;
    std::ofstream(path) << text;
    EXPECT_EQ(::chmod(path.c_str(), mode), 0);
    return path;
  }
  testing::ScratchDirectory scratch_;
};

TEST_F(KeyFilesTest, ANewKeyIsForItsOwnerAloneAndReadBack) {
  const std::string path = scratch_.path() + "/key";
  const auto id = make_key_file(path);
  ASSERT_TRUE(id.has_value()) << id.error().text();
  struct stat facts{};
  ASSERT_EQ(::stat(path.c_str(), &facts), 0);
  EXPECT_EQ(facts.st_mode & 07777U, 0600U);
  const auto secret = read_key_file(path);
  ASSERT_TRUE(secret.has_value()) << secret.error().text();
  EXPECT_EQ(key_id_of(*secret), *id);
  const auto other = make_key_file(path + "2");
  ASSERT_TRUE(other.has_value());
  EXPECT_NE(*other, *id);
}

TEST_F(KeyFilesTest, NothingIsWrittenOverNorThroughALink) {
  const std::string path = put("key", "something else");
  EXPECT_EQ(make_key_file(path).error().code(), Code::kInvalid);
  const std::string link = scratch_.path() + "/link";
  std::filesystem::create_symlink(scratch_.path() + "/target", link);
  EXPECT_FALSE(make_key_file(link).has_value());
  EXPECT_FALSE(std::filesystem::exists(scratch_.path() + "/target"));
  std::ifstream file(path);
  EXPECT_EQ(std::string(std::istreambuf_iterator<char>(file), {}), "something else");
  EXPECT_FALSE(make_key_file(scratch_.path() + "/none/key").has_value());
}

TEST_F(KeyFilesTest, AFileThatOthersMayUseIsRefusedWithTheWayOut) {
  for (const mode_t mode : {0640U, 0604U, 0620U, 0602U, 0610U, 0644U}) {
    const auto key = read_key_file(put("key", kDigits, mode));
    ASSERT_FALSE(key.has_value()) << mode;
    EXPECT_EQ(key.error().code(), Code::kRefused);
    EXPECT_THAT(key.error().message(), HasSubstr("chmod 600"));
    EXPECT_THAT(key.error().message(), Not(HasSubstr("5555555555")));
  }
  EXPECT_TRUE(read_key_file(put("key", kDigits, 0400)).has_value());
}

TEST_F(KeyFilesTest, AnotherUsersFileIsRefused) {
  if (::geteuid() == 0) {  // Only root can make one.
    const std::string path = put("key", kDigits);
    ASSERT_EQ(::chown(path.c_str(), 12345, 12345), 0);
    EXPECT_THAT(read_key_file(path).error().message(), HasSubstr("belongs to user 12345"));
  }
}

TEST_F(KeyFilesTest, WhatIsNoKeyFileSaysSoAndNotItsContent) {
  const auto text = read_key_file(put("text", "secret words of mine"));
  EXPECT_EQ(text.error().code(), Code::kInvalid);
  EXPECT_THAT(text.error().message(), HasSubstr("terrace key new"));
  EXPECT_THAT(text.error().message(), Not(HasSubstr("secret words")));
  EXPECT_EQ(read_key_file(put("long", std::string(5000, '5'))).error().code(), Code::kInvalid);
  EXPECT_EQ(read_key_file(put("empty", "")).error().code(), Code::kInvalid);
  EXPECT_THAT(read_key_file(scratch_.path() + "/none").error().message(),
              HasSubstr("terrace key new"));
  EXPECT_FALSE(read_key_file(scratch_.path()).has_value());
  const std::string pipe = scratch_.path() + "/pipe";
  ASSERT_EQ(::mkfifo(pipe.c_str(), 0600), 0);
  EXPECT_FALSE(read_key_file(pipe).has_value());
}

TEST_F(KeyFilesTest, TheKeyWritesAndOldOnesRead) {
  const std::string now = put("now", kDigits);
  const std::string old = put("old", "terrace-key-1 " + std::string(64, '6') + "\n");
  const auto ring = load_keys({.key_file = now, .key = {}, .old_key_files = {old, now}});
  ASSERT_TRUE(ring.has_value()) << ring.error().text();
  ASSERT_EQ((*ring)->keys().size(), 2U);
  EXPECT_EQ((*ring)->keys()[0].id, key_id_of(*parse_master_key(kDigits)));
  const auto text =
      load_keys({.key_file = {}, .key = std::string(64, '7'), .old_key_files = {old}});
  ASSERT_TRUE(text.has_value());
  EXPECT_EQ((*text)->keys()[0].id, key_id_of(*parse_master_key(std::string(64, '7'))));
  EXPECT_EQ(*load_keys({}), nullptr);
  EXPECT_FALSE(load_keys({.key_file = now, .key = {}, .old_key_files = {now + "-none"}}));
  const auto bad = load_keys({.key_file = {}, .key = "my secret", .old_key_files = {}});
  EXPECT_THAT(bad.error().message(), HasSubstr("encryption.key"));
  EXPECT_THAT(bad.error().message(), Not(HasSubstr("my secret")));
}

}  // namespace
}  // namespace terrace::manager
