// Which directory an owner takes, what it leaves alone, and what survives a change of size, paths
// or model.
#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/mount.h>
#include <sys/stat.h>

#include <fstream>

#include "terrace/tier/disk/disk_rig.h"
#include "terrace/tier/disk/format_internal.h"
#include "terrace/tier/disk/inspect.h"
#include "terrace/tier/disk/owner_directory_internal.h"

namespace terrace::tier::disk {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;

// Everything below `path`, with its bytes: equal before and after = nothing was touched.
std::map<std::string, std::string> tree(const std::string& path) {
  std::map<std::string, std::string> all;
  for (const auto& entry : fs::recursive_directory_iterator(path)) {
    std::string content = "(directory)";
    if (entry.is_regular_file()) {
      std::ifstream file(entry.path(), std::ios::binary);
      content.assign(std::istreambuf_iterator<char>(file), {});
    }
    all[entry.path().string()] = content;
  }
  return all;
}

void write_text(const std::string& path, const std::string& text) {
  std::ofstream(path, std::ios::binary) << text;
}

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

TEST_F(LeftAloneTest, AMissingHeaderBesideData) {
  make_used();
  fs::remove(rig_.owner() + "/extents.meta");
  expect_left_alone("no extents.meta");
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

// A file system of a given size, made for one test; needs the right to mount, which CI's root has.
// What fills up or fails without it is in disk_fault_test.cc.
class SmallDisk {
 public:
  explicit SmallDisk(std::uint64_t bytes) {
    const std::string options = "size=" + std::to_string(bytes);
    is_mounted_ = ::mount("tmpfs", scratch_.path().c_str(), "tmpfs", 0, options.c_str()) == 0;
  }
  ~SmallDisk() {
    if (is_mounted_) ::umount2(scratch_.path().c_str(), MNT_DETACH);
  }
  bool make_read_only() {
    return ::mount("tmpfs", scratch_.path().c_str(), "tmpfs", MS_REMOUNT | MS_RDONLY, nullptr) == 0;
  }
  [[nodiscard]] bool is_mounted() const { return is_mounted_; }
  [[nodiscard]] const std::string& path() const { return scratch_.path(); }

 private:
  ScratchDirectory scratch_;
  bool is_mounted_ = false;
};

TEST(SmallDiskTest, AReadOnlyDirectoryIsLeftAloneAndTold) {
  SmallDisk disk(8 << 20);
  ASSERT_TRUE(disk.is_mounted()) << "this test mounts a tmpfs: run it as root";
  Rig rig;
  rig.options().paths = {disk.path()};
  ASSERT_TRUE(rig.open().is_ok());
  ASSERT_TRUE(rig.write(1).is_ok());
  rig.close();
  ASSERT_TRUE(disk.make_read_only());
  const auto before = tree(disk.path());
  const Status status = rig.open();
  EXPECT_EQ(status.code(), Code::kRefused);
  EXPECT_THAT(status.message(), HasSubstr("EROFS"));
  EXPECT_EQ(tree(disk.path()), before);
  EXPECT_TRUE(inspect_directory(disk.path()).has_value());
}

TEST(SmallDiskTest, ASmallerDiskThanAskedForIsUsedAsFarAsItGoes) {
  const SmallDisk disk(24 << 20);
  ASSERT_TRUE(disk.is_mounted()) << "this test mounts a tmpfs: run it as root";
  Rig rig;
  rig.options().paths = {disk.path()};
  rig.options().blocks = 0;
  rig.options().size = 64_MiB;
  ASSERT_EQ(rig.open().text(), Status().text());
  ASSERT_EQ(rig.tier().problems().size(), 1U);
  EXPECT_THAT(rig.tier().problems()[0],
              HasSubstr("disk.size: 64 MiB asked for, 17 MiB can be had in disk.paths: the disk "
                        "tier is smaller"));
  EXPECT_THAT(
      rig.tier().problems()[0],
      HasSubstr(disk.path() + "/terrace-00: holds 0 MiB; its file system has 24 MiB, 23 MiB "
                              "free, of which 6 MiB stay free"));
  EXPECT_THAT(rig.log(), HasSubstr("error disk problem=\"disk.size: 64 MiB asked for"));
  EXPECT_GT(rig.tier().slots(), 100U);
  rig.settle();
  EXPECT_GE(fs::space(disk.path()).available, 5U << 20U);
  for (std::uint64_t n = 0; n < 20; ++n) EXPECT_TRUE(rig.write(n).is_ok());
}

TEST(SmallDiskTest, PathsOnOneFileSystemShareWhatIsFreeThere) {
  const SmallDisk disk(32 << 20);
  ASSERT_TRUE(disk.is_mounted()) << "this test mounts a tmpfs: run it as root";
  Rig rig;
  rig.options().paths = {disk.path() + "/a", disk.path() + "/b"};
  rig.options().blocks = 0;
  rig.options().size = 64_MiB;
  ASSERT_EQ(rig.open().text(), Status().text());
  EXPECT_THAT(rig.log(), HasSubstr("2 of disk.paths share it"));
  rig.settle();
  EXPECT_GE(fs::space(disk.path()).available, 7U << 20U);
  EXPECT_LE(fs::space(disk.path()).available, 10U << 20U);
}

// Somebody else filled it meanwhile: what is there stays, or every full disk would empty the cache.
TEST(SmallDiskTest, AReserveThatIsGoneTakesNoBlock) {
  const SmallDisk disk(32 << 20);
  ASSERT_TRUE(disk.is_mounted()) << "this test mounts a tmpfs: run it as root";
  Rig rig;
  rig.options().paths = {disk.path()};
  rig.options().blocks = 0;
  rig.options().size = 16_MiB;
  ASSERT_TRUE(rig.open().is_ok());
  rig.settle();
  for (std::uint64_t n = 0; n < 200; ++n) ASSERT_TRUE(rig.write(n).is_ok());
  rig.close();
  {
    std::ofstream hog(disk.path() + "/somebody-elses", std::ios::binary);
    const std::string megabyte(1 << 20, 'x');
    for (int i = 0; i < 14; ++i) hog << megabyte;
  }
  ASSERT_EQ(rig.open().text(), Status().text());
  for (std::uint64_t n = 0; n < 200; ++n) EXPECT_TRUE(rig.read(n).is_ok()) << n;
  // Without anything of its own it takes nothing, and says what is missing.
  rig.close();
  fs::remove_all(disk.path() + "/terrace-00");
  std::ofstream(disk.path() + "/more", std::ios::binary) << std::string(11 << 20, 'x');
  const Status status = rig.open();
  EXPECT_EQ(status.code(), Code::kRefused);
  EXPECT_THAT(status.message(), HasSubstr("disk.size"));
  EXPECT_THAT(status.message(), HasSubstr("MiB stay free for others"));
}

TEST(SmallDiskTest, ADiskThatFillsUpWhileServingDropsWritesAndRecovers) {
  const SmallDisk disk(40 << 20);
  ASSERT_TRUE(disk.is_mounted()) << "this test mounts a tmpfs: run it as root";
  Rig rig;
  rig.options().paths = {disk.path()};
  rig.options().preallocate = "zerofill";
  rig.options().blocks = 0;
  rig.options().size = 16_MiB;
  ASSERT_TRUE(rig.open().is_ok());
  const std::string hog = disk.path() + "/somebody-elses";
  {
    std::ofstream file(hog, std::ios::binary);
    const std::string megabyte(1 << 20, 'x');
    while (file.good()) file.write(megabyte.data(), 1 << 20).flush();
  }
  std::uint64_t number = 0;
  Status status;
  while (status.is_ok() && number < 5000) status = rig.write(number++);
  EXPECT_TRUE(status.code() == Code::kExhausted || status.code() == Code::kUnavailable)
      << status.text();
  EXPECT_THAT(rig.tier().problems().at(0), HasSubstr("state=full"));
  for (std::uint64_t n = 0; n + 1 < number; ++n) EXPECT_TRUE(rig.read(n).is_ok());
  fs::remove(hog);
  ASSERT_TRUE(rig.reopen().is_ok());
  EXPECT_TRUE(rig.write(9999).is_ok());
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

TEST(DiskSizeTest, AGrownTierKeepsItsBlocks) {
  Rig rig;
  ASSERT_TRUE(rig.open().is_ok());
  for (std::uint64_t n = 0; n < 16; ++n) ASSERT_TRUE(rig.write(n).is_ok());
  rig.options().blocks = 64;
  ASSERT_TRUE(rig.reopen().is_ok());
  EXPECT_EQ(rig.tier().slots(), 64U);
  for (std::uint64_t n = 0; n < 16; ++n) EXPECT_TRUE(rig.read(n).is_ok()) << n;
  for (std::uint64_t n = 16; n < 64; ++n) ASSERT_TRUE(rig.write(n).is_ok());
  EXPECT_TRUE(rig.has(0));
}

TEST(DiskSizeTest, AShrunkTierKeepsWhatFits) {
  Rig rig;
  rig.options().blocks = 64;
  ASSERT_TRUE(rig.open().is_ok());
  for (std::uint64_t n = 0; n < 64; ++n) ASSERT_TRUE(rig.write(n).is_ok());
  rig.options().blocks = 24;
  ASSERT_TRUE(rig.reopen().is_ok());
  EXPECT_EQ(rig.tier().slots(), 24U);
  std::uint32_t kept = 0;
  for (std::uint64_t n = 0; n < 64; ++n) {
    if (!rig.has(n)) continue;
    ++kept;
    EXPECT_TRUE(rig.read(n).is_ok());
  }
  EXPECT_EQ(kept, 24U);
  EXPECT_TRUE(rig.write(100).is_ok());
  // What was cut off must not come back when the tier grows again.
  rig.options().blocks = 64;
  ASSERT_TRUE(rig.reopen().is_ok());
  for (std::uint64_t n = 0; n < 64; ++n) {
    if (rig.has(n)) {
      EXPECT_EQ(rig.read(n).text(), Status().text());
    }
  }
}

TEST(DiskSizeTest, AnAddedPathWipesNothingAndIsUsed) {
  Rig rig;
  ASSERT_TRUE(rig.open().is_ok());
  for (std::uint64_t n = 0; n < 16; ++n) ASSERT_TRUE(rig.write(n).is_ok());
  const ScratchDirectory second;
  rig.options().paths = {second.path(), rig.path()};
  rig.options().blocks = 40;
  ASSERT_TRUE(rig.reopen().is_ok());
  for (std::uint64_t n = 0; n < 16; ++n) EXPECT_TRUE(rig.read(n).is_ok()) << n;
  for (std::uint64_t n = 16; n < 40; ++n) ASSERT_TRUE(rig.write(n).is_ok());
  for (std::uint64_t n = 0; n < 40; ++n) EXPECT_TRUE(rig.read(n).is_ok()) << n;
  const auto seen = inspect_directory(second.path());
  ASSERT_TRUE(seen.has_value());
  EXPECT_GT(seen->at(0).namespaces.at(0).sealed, 4U);
}

TEST(DiskSizeTest, BlocksAreStripedOverPathsAndSurviveALostOne) {
  const ScratchDirectory second;
  Rig rig;
  rig.options().paths.push_back(second.path());
  ASSERT_TRUE(rig.open().is_ok());
  for (std::uint64_t n = 0; n < 16; ++n) ASSERT_TRUE(rig.write(n).is_ok());
  const auto seen = inspect_directory(second.path());
  EXPECT_EQ(seen->at(0).namespaces.at(0).sealed, 8U);
  rig.close();
  fs::remove_all(second.path() + "/terrace-00");
  ASSERT_TRUE(rig.open().is_ok());
  std::uint32_t found = 0;
  for (std::uint64_t n = 0; n < 16; ++n) found += rig.read(n).is_ok() ? 1 : 0;
  EXPECT_EQ(found, 8U);
}

TEST(DiskSizeTest, NotEvenOneBlockIsAnErrorThatNamesTheSetting) {
  Rig rig;
  rig.options().blocks = 0;
  rig.options().size = 4_KiB;
  const Status status = rig.open();
  EXPECT_FALSE(status.is_ok());
  EXPECT_THAT(status.message(), HasSubstr("disk.size"));
}

TEST(DiskSizeTest, MemoryPerSlotIsBoundedWhateverTheSize) {
  Rig rig({1, {8192}}, std::filesystem::temp_directory_path().string());
  rig.options().blocks = 0;
  rig.options().size = 4_GiB;
  ASSERT_EQ(rig.open().text(), Status().text());
  EXPECT_GT(rig.tier().slots(), 300'000U);
  EXPECT_TRUE(rig.write(1).is_ok());
  EXPECT_LE(rig.tier().memory().value() / rig.tier().slots(), 72U);  // 64 + 8 for the alias.
}

TEST(DiskNamespaceTest, TheLeastRecentlyUsedNamespaceGivesItsSpaceFirst) {
  Rig rig;
  rig.options().blocks = 48;
  const auto fill = [&](const std::string& model, std::uint64_t first, std::uint64_t count) {
    rig.set_model(model);
    ASSERT_TRUE(rig.reopen().is_ok());
    for (std::uint64_t n = first; n < first + count; ++n) {
      ASSERT_EQ(rig.write(n).text(), Status().text()) << model << n;
    }
    // used.txt has seconds; the rig's files are aged by hand instead of waiting.
    rig.close();
  };
  fill("model-a", 100, 14);
  write_text(rig.owner() + "/ns-0001/used.txt", "1000\n");
  fill("model-b", 200, 14);
  write_text(rig.owner() + "/ns-0002/used.txt", "2000\n");
  fill("model-c", 300, 30);
  rig.set_model("model-b");
  ASSERT_TRUE(rig.open().is_ok());
  std::uint32_t b_left = 0;
  for (std::uint64_t n = 200; n < 214; ++n) b_left += rig.read(n).is_ok() ? 1 : 0;
  rig.set_model("model-a");
  ASSERT_TRUE(rig.reopen().is_ok());
  std::uint32_t a_left = 0;
  for (std::uint64_t n = 100; n < 114; ++n) a_left += rig.read(n).is_ok() ? 1 : 0;
  rig.set_model("model-c");
  ASSERT_TRUE(rig.reopen().is_ok());
  for (std::uint64_t n = 300; n < 330; ++n) EXPECT_TRUE(rig.read(n).is_ok()) << n;
  EXPECT_LT(a_left, 14U);
  EXPECT_GE(b_left, a_left);
  EXPECT_EQ(rig.metric("terrace_disk_corrupt_blocks_total"), 0);
}

TEST(DiskNamespaceTest, AnotherBlockSizeLivesBesideTheOld) {
  Rig small({1, {8192}});
  small.options().blocks = 64;
  ASSERT_TRUE(small.open().is_ok());
  for (std::uint64_t n = 0; n < 10; ++n) ASSERT_TRUE(small.write(n).is_ok());
  small.close();
  Rig large({2, {30000}});
  large.options().paths = small.options().paths;
  large.options().blocks = 6;
  ASSERT_EQ(large.open().text(), Status().text());
  for (std::uint64_t n = 0; n < 2; ++n) ASSERT_TRUE(large.write(n).is_ok());
  for (std::uint64_t n = 0; n < 2; ++n) EXPECT_TRUE(large.read(n).is_ok());
  large.close();
  ASSERT_TRUE(small.open().is_ok());
  for (std::uint64_t n = 0; n < 10; ++n) {
    if (small.has(n)) {
      EXPECT_EQ(small.read(n).text(), Status().text());
    }
  }
  EXPECT_EQ(small.metric("terrace_disk_corrupt_blocks_total"), 0);
}

class DamagedFingerprintTest : public ::testing::Test {
 protected:
  void SetUp() override {
    ASSERT_TRUE(rig_.open().is_ok());
    for (std::uint64_t n = 0; n < 5; ++n) ASSERT_TRUE(rig_.write(n).is_ok());
    rig_.close();
  }
  [[nodiscard]] std::string file() const { return rig_.owner() + "/ns-0001/fingerprint.txt"; }
  void expect_all_found() {
    for (std::uint64_t n = 0; n < 5; ++n) EXPECT_EQ(rig_.read(n).text(), Status().text()) << n;
  }
  void expect_written_anew() {
    ASSERT_EQ(rig_.open().text(), Status().text());
    expect_all_found();
    EXPECT_EQ(rig_.metric("terrace_disk_damaged_fingerprints_total"), 1);
    EXPECT_THAT(rig_.log(), HasSubstr("warn disk file=" + file() + " fingerprint=damaged"));
    EXPECT_THAT(rig_.log(), HasSubstr("it is written anew"));
    EXPECT_FALSE(fs::exists(rig_.owner() + "/ns-0002"));
    ASSERT_EQ(rig_.reopen().text(), Status().text());
    EXPECT_EQ(rig_.metric("terrace_disk_damaged_fingerprints_total"), 0);
    expect_all_found();
  }
  Rig rig_;
};

TEST_F(DamagedFingerprintTest, GarbageIsWrittenAnewFromWhatTheFramesProve) {
  write_text(file(), "garbage");
  expect_written_anew();
}

TEST_F(DamagedFingerprintTest, AMissingOneIsWrittenAnew) {
  fs::remove(file());
  expect_written_anew();
}

TEST_F(DamagedFingerprintTest, APipeInItsPlaceIsWrittenAnew) {
  fs::remove(file());
  ASSERT_EQ(::mkfifo(file().c_str(), 0600), 0);
  expect_written_anew();
}

// Reads like a fingerprint, but not like that of the blocks there.
TEST_F(DamagedFingerprintTest, AFlippedLetterIsWrittenAnew) {
  std::string text = rig_.options().fingerprint.text();
  text.replace(text.find("model-a"), 7, "model-q");
  write_text(file(), text);
  expect_written_anew();
}

TEST_F(DamagedFingerprintTest, AnotherEnginesIsToldAndLeftToIt) {
  write_text(file(), "garbage");
  rig_.set_model("model-b");
  ASSERT_EQ(rig_.open().text(), Status().text());
  EXPECT_EQ(rig_.metric("terrace_disk_damaged_fingerprints_total"), 1);
  EXPECT_THAT(rig_.log(), HasSubstr("those of another engine"));
  for (std::uint64_t n = 0; n < 5; ++n) EXPECT_FALSE(rig_.has(n));
  rig_.set_model("model-a");
  ASSERT_EQ(rig_.reopen().text(), Status().text());
  EXPECT_THAT(rig_.log(), HasSubstr("it is written anew"));
  expect_all_found();
  ASSERT_EQ(rig_.reopen().text(), Status().text());
  EXPECT_EQ(rig_.metric("terrace_disk_damaged_fingerprints_total"), 0);
}

// Else the directory used longest ago would be taken.
TEST_F(DamagedFingerprintTest, ItsDirectoryIsStillTheOneAdopted) {
  {
    const auto lock = DirectoryLock::try_lock(rig_.owner());
    ASSERT_TRUE(lock.has_value() && lock->has_value());
    Rig other;
    other.options().paths = rig_.options().paths;
    other.set_model("model-b");
    ASSERT_TRUE(other.open().is_ok());
    ASSERT_TRUE(other.write(7).is_ok());
  }
  write_text(rig_.owner(1) + "/ns-0001/used.txt", "1000\n");
  write_text(file(), "garbage");
  expect_written_anew();
}

TEST_F(DamagedFingerprintTest, WhereNothingProvesWhoseItIsTheBlocksMissAndTheWayOutIsTold) {
  write_text(file(), "garbage");
  fs::resize_file(rig_.owner() + "/ns-0001/slots.meta", 0);
  const auto slots = tree(rig_.owner()).at(rig_.owner() + "/0.slots");
  ASSERT_EQ(rig_.open().text(), Status().text());
  EXPECT_FALSE(rig_.has(1));
  EXPECT_EQ(rig_.metric("terrace_disk_damaged_fingerprints_total"), 1);
  EXPECT_THAT(rig_.log(), HasSubstr("error disk file=" + file() + " fingerprint=damaged"));
  EXPECT_THAT(rig_.log(), HasSubstr("put a copy of the file back, or delete " + rig_.owner()));
  EXPECT_EQ(tree(rig_.owner()).at(rig_.owner() + "/0.slots"), slots);
  // Its space is used when it is needed.
  for (std::uint64_t n = 0; n < 20; ++n) EXPECT_TRUE(rig_.write(n).is_ok());
  for (std::uint64_t n = 10; n < 20; ++n) EXPECT_TRUE(rig_.read(n).is_ok());
}

TEST_F(DamagedFingerprintTest, AFrameThatIsNotItsRecordsProvesNothing) {
  write_text(file(), "garbage");
  std::fstream frames(rig_.owner() + "/0.slots", std::ios::in | std::ios::out | std::ios::binary);
  std::string page(4096, '\0');
  frames.seekg(3 * 3 * 4096);
  frames.read(page.data(), 4096);  // A good frame, of another block.
  frames.seekp(0);
  frames.write(page.data(), 4096);
  frames.close();
  ASSERT_EQ(rig_.open().text(), Status().text());
  EXPECT_FALSE(rig_.has(1));
  EXPECT_THAT(rig_.log(), HasSubstr("no frame there says whose blocks these are"));
}

TEST(DiskNamespaceTest, AFingerprintThatCouldNotBeReadBackIsNotWritten) {
  Rig rig;
  rig.options().fingerprint.content.push_back({"model", "model-a"});
  const Status status = rig.open();
  EXPECT_EQ(status.code(), Code::kInvalid);
  EXPECT_THAT(status.message(), HasSubstr("content.model is given twice"));
  EXPECT_TRUE(fs::is_empty(rig.path()));
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
