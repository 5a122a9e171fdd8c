// Several namespaces in one directory, and what a damaged fingerprint means.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <fstream>

#include "terrace/tier/disk/disk_rig.h"
#include "terrace/tier/disk/owner_directory_internal.h"

namespace terrace::tier::disk {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;

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
  large.options().blocks = 20;  // Room for both.
  ASSERT_EQ(large.open().text(), Status().text());
  for (std::uint64_t n = 0; n < 2; ++n) ASSERT_TRUE(large.write(n).is_ok());
  for (std::uint64_t n = 0; n < 2; ++n) EXPECT_TRUE(large.read(n).is_ok());
  large.close();
  ASSERT_TRUE(small.open().is_ok());
  for (std::uint64_t n = 0; n < 10; ++n) EXPECT_EQ(small.read(n).text(), Status().text()) << n;
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

// As a kill while used.txt was written leaves it.
TEST(DiskNamespaceTest, AnEmptyNamespaceThatCannotBeRemovedKeepsItsText) {
  for (const char* const left : {"used.txt.tmp", "somebody.txt"}) {
    Rig rig;
    ASSERT_TRUE(rig.open().is_ok());
    rig.close();
    const std::string name_space = rig.owner() + "/ns-0001";
    write_text(name_space + "/" + left, "17");
    ASSERT_TRUE(rig.open().is_ok());
    EXPECT_TRUE(fs::exists(name_space + "/fingerprint.txt")) << left;
    ASSERT_EQ(rig.write(1).text(), Status().text());
    ASSERT_TRUE(rig.reopen().is_ok());
    EXPECT_TRUE(rig.read(1).is_ok()) << left;
    EXPECT_EQ(rig.metric("terrace_disk_damaged_fingerprints_total"), 0) << left;
  }
}

}  // namespace
}  // namespace terrace::tier::disk
