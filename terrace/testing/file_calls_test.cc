#include "terrace/testing/file_calls.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <string>
#include <vector>

#include "terrace/base/file.h"
#include "terrace/testing/scratch_directory.h"

namespace terrace::testing {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;
using ::testing::Not;
using Kind = FileChange::Kind;

class Seen final : public FileWatch {
 public:
  explicit Seen(std::string below) : below_(std::move(below)) {}
  void on_change(const FileChange& change) override {
    const std::string name = change.path == below_ ? "." : change.path.substr(below_.size() + 1);
    lines.push_back(std::string(1, "CDWTARrdS"[static_cast<int>(change.kind)]) + " " + name);
    bytes.append(reinterpret_cast<const char*>(change.bytes.data()), change.bytes.size());
    last = change;
  }
  std::vector<std::string> lines;
  std::string bytes;
  FileChange last;

 private:
  const std::string below_;
};

TEST(FileCallsTest, AnAtomicWriteIsSeenStepByStep) {
  const ScratchDirectory scratch;
  ASSERT_TRUE(make_directories(scratch.path() + "/a").is_ok());
  Seen seen(scratch.path());
  ASSERT_TRUE(write_file_atomic(scratch.path() + "/a/x", "hello").is_ok());
  EXPECT_THAT(seen.lines, ElementsAre("C a/x.tmp", "W a/x.tmp", "S a/x.tmp", "R a/x", "S a"));
  EXPECT_EQ(seen.bytes, "hello");
}

TEST(FileCallsTest, EachCallThatChangesAFileIsSeenIfItSucceeds) {
  const ScratchDirectory scratch;
  Seen seen(scratch.path());
  const std::string path = scratch.path() + "/x";
  ASSERT_TRUE(make_directories(scratch.path() + "/d").is_ok());
  UniqueFd file(::open(path.c_str(), O_RDWR | O_CREAT, 0600));
  ASSERT_EQ(::pwrite(file.get(), "abc", 3, 7), 3);
  EXPECT_EQ(seen.last.offset, 7U);
  ASSERT_EQ(::ftruncate(file.get(), 4096), 0);
  EXPECT_EQ(seen.last.length, 4096U);
  ASSERT_EQ(::fdatasync(file.get()), 0);
  EXPECT_NE(::rmdir((scratch.path() + "/none").c_str()), 0);
  EXPECT_NE(::unlink((scratch.path() + "/none").c_str()), 0);
  file = UniqueFd(::open(path.c_str(), O_RDWR | O_TRUNC));
  ASSERT_EQ(::unlink(path.c_str()), 0);
  ASSERT_EQ(::rmdir((scratch.path() + "/d").c_str()), 0);
  EXPECT_THAT(seen.lines, ElementsAre("D d", "C x", "W x", "T x", "S x", "T x", "r x", "d d"));
}

class FailsFstat final : public FileWatch {
 public:
  void on_change(const FileChange& /*change*/) override {}
  bool fails_fstat(const std::string& path) override { return path.ends_with("/x"); }
};

TEST(FileCallsTest, AnFstatFailsWhereItIsTo) {
  const ScratchDirectory scratch;
  const UniqueFd x(::open((scratch.path() + "/x").c_str(), O_RDWR | O_CREAT, 0600));
  const UniqueFd y(::open((scratch.path() + "/y").c_str(), O_RDWR | O_CREAT, 0600));
  struct stat facts{};
  {
    const FailsFstat watch;
    EXPECT_NE(::fstat(x.get(), &facts), 0);
    EXPECT_EQ(errno, EIO);
    EXPECT_EQ(::fstat(y.get(), &facts), 0);
  }
  EXPECT_EQ(::fstat(x.get(), &facts), 0);
}

TEST(FileCallsTest, NobodyWatchesForLongerThanTheWatch) {
  const ScratchDirectory scratch;
  Seen outer(scratch.path());
  {
    const Seen inner(scratch.path());
  }
  ASSERT_TRUE(write_file_atomic(scratch.path() + "/x", "").is_ok());
  EXPECT_THAT(outer.lines, Not(IsEmpty()));
}

}  // namespace
}  // namespace terrace::testing
