#include "terrace/base/file.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
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

// Without the check the first line that opens waits for a writer, for ever.
TEST(FileTest, APipeInAFilesPlaceIsRefusedAtOnce) {
  const std::string path = scratch("file_pipe");
  ASSERT_EQ(::mkfifo(path.c_str(), 0600), 0);
  for (const int flags : {O_RDONLY, O_WRONLY | O_CREAT, O_RDWR | O_CREAT}) {
    const auto file = open_regular_file(path, flags);
    ASSERT_FALSE(file.has_value()) << flags;
    EXPECT_EQ(file.error().code(), Code::kInvalid);
    EXPECT_NE(file.error().message().find(path + ": it is a named pipe"), std::string::npos);
    EXPECT_NE(file.error().message().find("put a regular file in its place"), std::string::npos);
  }
  EXPECT_EQ(read_file(path, 1_KiB).error().code(), Code::kInvalid);
  ASSERT_EQ(::rename(path.c_str(), (path + ".tmp").c_str()), 0);
  EXPECT_EQ(write_file_atomic(path, "x").code(), Code::kInvalid);
  std::filesystem::remove(path + ".tmp");
}

TEST(FileTest, ASocketADeviceAndADirectoryAreNoRegularFiles) {
  const std::string path = scratch("file_socket");
  const UniqueFd socket(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  path.copy(address.sun_path, sizeof address.sun_path - 1);
  ASSERT_EQ(::bind(socket.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address), 0);
  for (const std::string& other : {path, std::string("/dev/null"), testing::TempDir()}) {
    EXPECT_EQ(open_regular_file(other, O_RDONLY).error().code(), Code::kInvalid) << other;
  }
  std::filesystem::remove(path);
}

TEST(FileTest, ARegularFileIsOpenedAsAskedAndThroughALink) {
  const std::string path = scratch("file_regular");
  ASSERT_TRUE(write_file_atomic(path, "one").is_ok());
  std::filesystem::create_symlink(path, path + "-link");
  const auto file = open_regular_file(path + "-link", O_RDWR);
  ASSERT_TRUE(file.has_value());
  // Such a descriptor would make io_uring give EAGAIN.
  EXPECT_EQ(::fcntl(file->get(), F_GETFL) & (O_NONBLOCK | O_ACCMODE), O_RDWR);
  EXPECT_NE(::fcntl(file->get(), F_GETFD) & FD_CLOEXEC, 0);
  const auto refused = open_regular_file(path + "-link", O_RDWR | O_NOFOLLOW);
  ASSERT_FALSE(refused.has_value());
  EXPECT_EQ(refused.error().code(), Code::kInvalid);
  EXPECT_NE(refused.error().message().find("it is a symbolic link"), std::string::npos);
  std::filesystem::remove(path + "-link");
  std::filesystem::remove(path);
}

TEST(FileTest, DescriptorsAreClosedOnExec) {
  const auto file = open_file("/dev/null", O_RDONLY);
  ASSERT_TRUE(file.has_value());
  EXPECT_NE(::fcntl(file->get(), F_GETFD) & FD_CLOEXEC, 0);
}

}  // namespace
}  // namespace terrace
