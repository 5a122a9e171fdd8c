// Which directory an owner takes, and what it leaves alone.
#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <cstring>
#include <fstream>

#include "terrace/tier/disk/disk_rig.h"
#include "terrace/tier/disk/format_internal.h"
#include "terrace/tier/disk/inspect.h"
#include "terrace/tier/disk/owner_directory_internal.h"

namespace terrace::tier::disk {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;

TEST(DiskDirectoryTest, TwoOwnersOfOnePathWorkSideBySide) {
  Rig first;
  ASSERT_TRUE(first.open().is_ok());
  ASSERT_TRUE(first.write(1).is_ok());
  Rig second;
  second.options().paths = first.options().paths;
  ASSERT_EQ(second.open().text(), Status().text());
  EXPECT_FALSE(second.has(1));
  ASSERT_TRUE(second.write(2).is_ok());
  EXPECT_TRUE(fs::exists(first.owner(0)) && fs::exists(first.owner(1)));
  // Each finds its own again, in whatever order they start.
  first.close();
  second.close();
  ASSERT_TRUE(second.open().is_ok());
  ASSERT_TRUE(first.open().is_ok());
  EXPECT_EQ(static_cast<int>(first.has(1)) + static_cast<int>(second.has(1)), 1);
  EXPECT_EQ(static_cast<int>(first.has(2)) + static_cast<int>(second.has(2)), 1);
  EXPECT_FALSE(fs::exists(first.owner(2)));
}

TEST(DiskDirectoryTest, ALockOutlivesALookAtTheDirectory) {
  Rig rig;
  ASSERT_TRUE(rig.open().is_ok());
  const auto seen = inspect_directory(rig.path());
  ASSERT_TRUE(seen.has_value());
  EXPECT_TRUE(seen->at(0).is_locked);
  // A POSIX lock would be gone had the inspection opened and closed the file.
  const auto lock = DirectoryLock::try_lock(rig.owner());
  ASSERT_TRUE(lock.has_value());
  EXPECT_FALSE(lock->has_value());
  rig.close();
  EXPECT_FALSE(*DirectoryLock::is_locked(rig.owner()));
}

TEST(DiskDirectoryTest, TheFreeDirectoryWithMostOfTheNamespaceIsAdopted) {
  Rig first;
  Rig second;
  second.options().paths = first.options().paths;
  second.set_model("model-b");
  ASSERT_TRUE(first.open().is_ok());
  ASSERT_TRUE(second.open().is_ok());
  ASSERT_TRUE(first.write(1).is_ok());
  ASSERT_TRUE(second.write(2).is_ok());
  first.close();
  second.close();
  ASSERT_TRUE(second.open().is_ok());  // First to come, yet terrace-00 is not its.
  EXPECT_TRUE(second.read(2).is_ok());
  ASSERT_TRUE(first.open().is_ok());
  EXPECT_TRUE(first.read(1).is_ok());
}

TEST(DiskDirectoryTest, ANewModelSharesAFreeDirectoryInsteadOfFillingTheDiskTwice) {
  Rig rig;
  ASSERT_TRUE(rig.open().is_ok());
  ASSERT_TRUE(rig.write(1).is_ok());
  rig.set_model("model-b");
  ASSERT_TRUE(rig.reopen().is_ok());
  EXPECT_FALSE(fs::exists(rig.owner(1)));
}

class LeftAloneTest : public ::testing::Test {
 protected:
  // The path must not be used, nothing in it changed, and the reason told.
  void expect_left_alone(const std::string& hint) {
    const auto before = tree(rig_.path());
    const Status status = rig_.open();
    EXPECT_EQ(status.code(), Code::kRefused) << status.text();
    EXPECT_THAT(status.message(), HasSubstr(hint));
    EXPECT_THAT(status.message(), HasSubstr("disk.paths"));
    EXPECT_EQ(tree(rig_.path()), before);
  }
  void make_used() {
    ASSERT_TRUE(rig_.open().is_ok());
    ASSERT_TRUE(rig_.write(1).is_ok());
    rig_.close();
  }
  Rig rig_;
};

TEST_F(LeftAloneTest, AForeignDirectory) {
  fs::create_directories(rig_.owner());
  write_text(rig_.owner() + "/holiday.jpg", "not a cache");
  expect_left_alone("not ours");
}

TEST_F(LeftAloneTest, AFileInTheDirectorysPlace) {
  write_text(rig_.owner(), "a file");
  expect_left_alone("opendir");
}

// Their checksums would be right: what is planted is a hit.
TEST_F(LeftAloneTest, ADirectoryInWhichOthersMayWrite) {
  make_used();
  fs::permissions(rig_.owner(), fs::perms::others_write, fs::perm_options::add);
  expect_left_alone("others may write there");
  fs::permissions(rig_.owner(), fs::perms::others_write, fs::perm_options::remove);
  fs::permissions(rig_.owner(), fs::perms::group_write, fs::perm_options::add);
  ASSERT_TRUE(rig_.open().is_ok());
  EXPECT_TRUE(rig_.has(1));
}

TEST_F(LeftAloneTest, ALinkInTheDirectorysPlace) {
  make_used();
  const ScratchDirectory elsewhere;
  fs::rename(rig_.owner(), elsewhere.path() + "/moved");
  fs::create_directory_symlink(elsewhere.path() + "/moved", rig_.owner());
  expect_left_alone("it is a symbolic link");
}

// Needs root to make another user's directory.
TEST(DiskDirectoryTest, AnotherUsersDirectoryIsPassedOver) {
  if (::geteuid() != 0) return;
  Rig rig;
  ASSERT_TRUE(rig.open().is_ok());
  ASSERT_TRUE(rig.write(1).is_ok());
  rig.close();
  ASSERT_EQ(::chown(rig.owner(0).c_str(), 1000, 1000), 0);
  const auto before = tree(rig.owner(0));
  ASSERT_EQ(rig.open().text(), Status().text());
  EXPECT_FALSE(rig.has(1));
  EXPECT_TRUE(fs::exists(rig.owner(1)));
  EXPECT_EQ(tree(rig.owner(0)), before);
  rig.close();
  // A file server that maps users gives path and directory one owner.
  ASSERT_EQ(::chown(rig.path().c_str(), 1000, 1000), 0);
  ASSERT_TRUE(rig.open().is_ok());
  EXPECT_TRUE(rig.has(1));
}

TEST_F(LeftAloneTest, ANewerFormat) {
  make_used();
  std::fstream file(rig_.owner() + "/extents.meta",
                    std::ios::in | std::ios::out | std::ios::binary);
  file.seekp(8);
  const std::uint32_t version = kFormatVersion + 1;
  file.write(reinterpret_cast<const char*>(&version), sizeof version);
  file.close();
  expect_left_alone("newer Terrace");
}

TEST_F(LeftAloneTest, ATruncatedHeader) {
  make_used();
  fs::resize_file(rig_.owner() + "/extents.meta", 100);
  expect_left_alone("shorter than its header");
}

TEST_F(LeftAloneTest, ADamagedHeader) {
  make_used();
  std::fstream file(rig_.owner() + "/extents.meta",
                    std::ios::in | std::ios::out | std::ios::binary);
  file.seekp(20);
  file.write("xx", 2);
  file.close();
  expect_left_alone("checksum");
}

// Whole by its checksum, but no Terrace writes it: somebody's or some program's mistake.
class HeaderFieldTest : public LeftAloneTest {
 protected:
  // Puts the field at `at`, and the page's checksum right.
  template <typename T>
  void put_field(std::size_t at, T value) {
    const std::string path = rig_.owner() + "/extents.meta";
    std::fstream file(path, std::ios::in | std::ios::out | std::ios::binary);
    std::array<std::byte, kPageBytes> page{};
    file.read(reinterpret_cast<char*>(page.data()), kPageBytes);
    std::memcpy(page.data() + at, &value, sizeof value);
    std::memset(page.data() + kCrcAt, 0, sizeof(std::uint32_t));
    const std::uint32_t crc = crc32c(page);
    std::memcpy(page.data() + kCrcAt, &crc, sizeof crc);
    file.seekp(0);
    file.write(reinterpret_cast<const char*>(page.data()), kPageBytes);
  }
  void expect_refused(const std::string& field) {
    const std::string file = rig_.owner() + "/extents.meta";
    expect_left_alone(file + ": field " + field);
    expect_left_alone("damaged or foreign; it is left alone: delete it, or name another directory");
    const auto seen = inspect_directory(rig_.path());
    ASSERT_TRUE(seen.has_value());
    EXPECT_THAT(seen->at(0).problem, HasSubstr("field " + field));
  }
  static constexpr std::size_t kVersionAt = 8;
  static constexpr std::size_t kCrcAt = 12;
  static constexpr std::size_t kExtentBytesAt = 16;
};

TEST_F(HeaderFieldTest, AnExtentSizeOutsideTheFormat) {
  make_used();
  for (const std::uint64_t bytes :
       {std::uint64_t{0}, std::uint64_t{4096}, kLeastExtentBytes / 2, kLeastExtentBytes + 4096,
        2 * kMostExtentBytes, std::uint64_t{1} << 63U, UINT64_MAX}) {
    put_field(kExtentBytesAt, bytes);
    expect_refused("extent_bytes: " + std::to_string(bytes));
  }
  put_field(kExtentBytesAt, kLeastExtentBytes);  // As it was: nothing of the cache is lost.
  ASSERT_EQ(rig_.open().text(), Status().text());
  EXPECT_TRUE(rig_.read(1).is_ok());
}

TEST_F(HeaderFieldTest, VersionZero) {
  make_used();
  put_field(kVersionAt, std::uint32_t{0});
  expect_refused("version: 0");
}

TEST_F(LeftAloneTest, AMissingHeaderBesideData) {
  make_used();
  fs::remove(rig_.owner() + "/extents.meta");
  expect_left_alone("no extents.meta");
}

TEST_F(LeftAloneTest, AFileInThePathsPlace) {
  const std::string file = rig_.path() + "/file";
  write_text(file, "a file");
  rig_.options().paths = {file};
  const Status status = rig_.open();
  EXPECT_EQ(status.code(), Code::kRefused) << status.text();
  EXPECT_THAT(status.message(), HasSubstr("opendir " + file));
  EXPECT_THAT(status.message(), HasSubstr("name another directory in disk.paths"));
  EXPECT_EQ(fs::file_size(file), 6U);
}

TEST_F(LeftAloneTest, AnUnusablePathDoesNotStopTheOthers) {
  fs::create_directories(rig_.owner());
  write_text(rig_.owner() + "/holiday.jpg", "not a cache");
  const ScratchDirectory other;
  rig_.options().paths.push_back(other.path());
  ASSERT_EQ(rig_.open().text(), Status().text());
  ASSERT_FALSE(rig_.tier().problems().empty());
  EXPECT_THAT(rig_.tier().problems()[0], HasSubstr(rig_.owner()));
  EXPECT_TRUE(rig_.write(1).is_ok());
  EXPECT_TRUE(rig_.read(1).is_ok());
}

// Without the check whoever opens it waits for a writer, for ever.
TEST_F(LeftAloneTest, APipeInAFilesPlaceIsRefusedAtOnce) {
  for (const std::string name : {"owner.lock", "extents.meta", "0.slots", "ns-0001/slots.meta"}) {
    make_used();
    const std::string file = rig_.owner() + "/" + name;
    ASSERT_TRUE(fs::remove(file));
    ASSERT_EQ(::mkfifo(file.c_str(), 0600), 0);
    EXPECT_TRUE(inspect_directory(rig_.path()).has_value());
    const Status status = rig_.open();
    EXPECT_FALSE(status.is_ok()) << name;
    EXPECT_THAT(status.message(), HasSubstr(file + ": it is a named pipe"));
    EXPECT_THAT(status.message(), HasSubstr("disk.paths"));
    fs::remove_all(rig_.owner());
  }
}

// Following it, an owner would write its records over whatever file the link names.
TEST_F(LeftAloneTest, ALinkInAFilesPlaceIsNotFollowed) {
  const ScratchDirectory elsewhere;
  const std::string target = elsewhere.path() + "/letters.txt";
  for (const std::string name :
       {"owner.lock", "extents.meta", "0.slots", "ns-0001/slots.meta", "ns-0001/used.txt.tmp"}) {
    make_used();
    const std::string file = rig_.owner() + "/" + name;
    write_text(target, "a letter");
    if (fs::exists(file)) {  // Whole, so that nothing but the link is wrong.
      fs::copy_file(file, target, fs::copy_options::overwrite_existing);
      fs::remove(file);
    }
    fs::create_symlink(target, file);
    const auto before = tree(elsewhere.path());
    const Status status = rig_.open();
    EXPECT_FALSE(status.is_ok()) << name;
    EXPECT_THAT(status.message(), HasSubstr(file + ": it is a symbolic link"));
    rig_.close();
    EXPECT_EQ(tree(elsewhere.path()), before) << name;
    fs::remove_all(rig_.owner());
  }
}

TEST_F(LeftAloneTest, APipeInThePlaceOfTheTimeOfUseLosesNoBlock) {
  make_used();
  const std::string file = rig_.owner() + "/ns-0001/used.txt";
  ASSERT_TRUE(fs::remove(file));
  ASSERT_EQ(::mkfifo(file.c_str(), 0600), 0);
  ASSERT_EQ(rig_.open().text(), Status().text());
  EXPECT_TRUE(rig_.read(1).is_ok());
}

TEST_F(LeftAloneTest, ADirectoryThatWasOnlyBegunIsTaken) {
  fs::create_directories(rig_.owner());
  write_text(rig_.owner() + "/owner.lock", "");
  write_text(rig_.owner() + "/extents.meta.tmp", "half");
  EXPECT_EQ(rig_.open().text(), Status().text());
}

class AliasedPathsTest : public ::testing::Test {
 protected:
  void expect_refused(const std::string& first, const std::string& second,
                      const std::string& message) {
    rig_.options().paths = {first, second};
    const Status status = rig_.open();
    EXPECT_EQ(status.code(), Code::kInvalid) << status.text();
    EXPECT_EQ(status.message(), "disk.paths: " + message);
    EXPECT_FALSE(fs::exists(first + "/terrace-00") || fs::exists(second + "/terrace-00"));
  }
  Rig rig_;
  const std::string path_ = rig_.path() + "/kv";
};

TEST_F(AliasedPathsTest, ALinkToTheSameDirectoryIsRefused) {
  fs::create_directories(path_);
  const std::string link = rig_.path() + "/link";
  fs::create_directory_symlink(path_, link);
  expect_refused(path_, link, path_ + " and " + link + " are the same directory; name it once");
  expect_refused(path_, path_ + "/.//",
                 path_ + " and " + path_ + "/.// are the same directory; name it once");
}

TEST_F(AliasedPathsTest, OneInsideTheOtherIsRefusedWhicheverComesFirst) {
  const std::string inner = path_ + "/more/kv";
  const std::string way_out =
      inner + " lies inside " + path_ + "; name one of them, or another directory";
  expect_refused(path_, inner, way_out);
  expect_refused(inner, path_, way_out);
}

TEST_F(AliasedPathsTest, ASecondMountOfTheSameDirectoryIsRefused) {
  fs::create_directories(path_ + "/inner");
  const std::string mount = rig_.path() + "/mount";
  fs::create_directories(mount);
  ASSERT_EQ(::mount(path_.c_str(), mount.c_str(), nullptr, MS_BIND, nullptr), 0)
      << "this test mounts: run it as root";
  expect_refused(path_, mount, path_ + " and " + mount + " are the same directory; name it once");
  expect_refused(
      mount, path_ + "/inner",
      path_ + "/inner lies inside " + mount + "; name one of them, or another directory");
  ASSERT_EQ(::umount2(mount.c_str(), MNT_DETACH), 0);
}

TEST_F(AliasedPathsTest, NeighboursWithOneBeginningAreFine) {
  rig_.options().paths = {path_, path_ + "-2"};
  EXPECT_EQ(rig_.open().text(), Status().text());
}

TEST(DiskInspectTest, ShowsOwnersNamespacesAndSlotsAndWritesNothing) {
  Rig rig;
  ASSERT_TRUE(rig.open().is_ok());
  for (std::uint64_t n = 0; n < 5; ++n) ASSERT_TRUE(rig.write(n).is_ok());
  rig.close();
  const auto before = tree(rig.path());
  const auto seen = inspect_directory(rig.path());
  ASSERT_TRUE(seen.has_value());
  EXPECT_EQ(tree(rig.path()), before);
  ASSERT_EQ(seen->size(), 1U);
  const InspectedOwner& owner = seen->at(0);
  EXPECT_EQ(owner.state, "usable");
  EXPECT_TRUE(owner.problem.empty());
  EXPECT_FALSE(owner.is_locked);
  ASSERT_EQ(owner.namespaces.size(), 1U);
  EXPECT_EQ(owner.namespaces[0].sealed, 5U);
  EXPECT_EQ(owner.namespaces[0].fingerprint, rig.options().fingerprint.text());
  EXPECT_EQ(owner.namespaces[0].content_digest, rig.options().fingerprint.content_digest());
  EXPECT_GT(owner.namespaces[0].bytes, 0U);
  EXPECT_EQ(inspect_directory("/nowhere/at/all").error().code(), Code::kIo);
}

}  // namespace
}  // namespace terrace::tier::disk
