#include "terrace/base/file.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>

namespace terrace {
namespace {

std::string scratch(const std::string& name) {
  const std::string path = testing::TempDir() + name + std::to_string(::getpid());
  std::filesystem::remove_all(path);
  return path;
}

TEST(FileTest, AtomicWriteIsReadBackAndLeavesNoTemporary) {
  const std::string directory = scratch("file_test");
  ASSERT_TRUE(make_directories(directory + "/a/b").is_ok());
  const std::string path = directory + "/a/b/x";
  ASSERT_TRUE(write_file_atomic(path, "one").is_ok());
  ASSERT_TRUE(write_file_atomic(path, "two").is_ok());
  EXPECT_EQ(read_file(path, 1_KiB).value(), "two");
  EXPECT_FALSE(std::filesystem::exists(path + ".tmp"));
  std::filesystem::remove_all(directory);
}

TEST(FileTest, TooLongAndMissingFilesAreErrorsThatNameThePath) {
  const std::string path = scratch("file_long");
  ASSERT_TRUE(write_file_atomic(path, std::string(2000, 'x')).is_ok());
  EXPECT_EQ(read_file(path, 1_KiB).error().code(), Code::kInvalid);
  std::filesystem::remove(path);
  const auto missing = read_file(path, 1_KiB);
  EXPECT_EQ(missing.error().code(), Code::kIo);
  EXPECT_NE(missing.error().message().find(path), std::string::npos);
}

TEST(FileTest, DescriptorsAreClosedOnExec) {
  const auto file = open_file("/dev/null", O_RDONLY);
  ASSERT_TRUE(file.has_value());
  EXPECT_NE(::fcntl(file->get(), F_GETFD) & FD_CLOEXEC, 0);
}

}  // namespace
}  // namespace terrace
