#include "terrace/manager/weights.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdint>
#include <filesystem>
#include <fstream>
#include <string>

#include "terrace/testing/eventually.h"

namespace terrace::manager {
namespace {

namespace fs = std::filesystem;

class WeightsTest : public ::testing::Test {
 protected:
  void SetUp() override {
    directory_ = ::testing::TempDir() + "weights" + std::to_string(::getpid());
    std::filesystem::remove_all(directory_);
    std::filesystem::create_directories(directory_ + "/cache");
  }
  void TearDown() override { std::filesystem::remove_all(directory_); }

  // Two tensors of `kTensorBytes` each, all bytes zero but those given.
  static constexpr std::size_t kTensorBytes = 100'000;
  std::string save(std::size_t changed_byte = SIZE_MAX,
                   const std::string& name = "model.safetensors") {
    const std::string header =
        R"({"__metadata__":{"format":"pt"},"a":{"dtype":"U8","shape":[100000],"data_offsets":[0,100000]},)"
        R"("b":{"dtype":"U8","shape":[100000],"data_offsets":[100000,200000]}})";
    std::string bytes(8, '\0');
    const std::uint64_t length = header.size();
    for (unsigned i = 0; i < 8; ++i) bytes[i] = static_cast<char>(length >> (8U * i));
    bytes += header;
    std::string data(2 * kTensorBytes, '\0');
    if (changed_byte != SIZE_MAX) data[changed_byte] = 1;
    bytes += data;
    write(bytes, name);
    return bytes;
  }
  void write(const std::string& bytes, const std::string& name = "model.safetensors") {
    std::ofstream(directory_ + "/" + name, std::ios::binary) << bytes;
  }
  std::string digest() { return digest_weights(directory_).value(); }

  std::string directory_;
};

TEST_F(WeightsTest, SameBytesGiveTheSameDigest) {
  save();
  const std::string first = digest();
  EXPECT_EQ(first.size(), 64U);
  save();
  EXPECT_EQ(digest(), first);
}

TEST_F(WeightsTest, ChangeInFirstMiddleOrLastPageOfAnyTensorIsSeen) {
  save();
  const std::string plain = digest();
  for (const std::size_t base : {std::size_t{0}, kTensorBytes}) {
    for (const std::size_t at : {std::size_t{0}, kTensorBytes / 2, kTensorBytes - 1}) {
      save(base + at);
      EXPECT_NE(digest(), plain) << "byte " << base + at;
    }
  }
}

TEST_F(WeightsTest, AnotherOrRenamedFileIsSeen) {
  save();
  const std::string one = digest();
  save(SIZE_MAX, "model-2.safetensors");
  EXPECT_NE(digest(), one);
}

TEST_F(WeightsTest, CutFileForeignFileAndHostileHeaderAreCorrupt) {
  const std::string whole = save();
  for (const std::size_t length :
       {std::size_t{0}, std::size_t{7}, std::size_t{60}, whole.size() - 1}) {
    write(whole.substr(0, length));
    const auto result = digest_weights(directory_);
    ASSERT_FALSE(result.has_value()) << length;
    EXPECT_EQ(result.error().code(), Code::kCorrupt) << length;
  }
  std::string huge = whole;
  for (int i = 0; i < 8; ++i) huge[static_cast<std::size_t>(i)] = '\xFF';
  write(huge);
  EXPECT_EQ(digest_weights(directory_).error().code(), Code::kCorrupt);
  std::string nested = std::string(8, '\0') + "[[[[";
  nested[0] = 4;
  write(nested);
  EXPECT_EQ(digest_weights(directory_).error().code(), Code::kCorrupt);
}

// Without the check the digest waits for a writer, for ever, and with it the opening thread.
TEST_F(WeightsTest, PipeAmongTheFilesIsRefusedByName) {
  save();
  const std::string pipe = directory_ + "/model-2.safetensors";
  ASSERT_EQ(::mkfifo(pipe.c_str(), 0600), 0);
  const auto result = digest_weights(directory_);
  ASSERT_FALSE(result.has_value());
  EXPECT_NE(result.error().message().find(pipe), std::string::npos);
}

TEST_F(WeightsTest, DirectoryWithoutWeightsIsNotFoundAndMissingOneIsIo) {
  EXPECT_EQ(digest_weights(directory_).error().code(), Code::kNotFound);
  EXPECT_EQ(digest_weights(directory_ + "/absent").error().code(), Code::kIo);
}

// The file system's clock stamps files and only goes on: `since` is chosen after them.
class WeightsAgeTest : public WeightsTest {
 protected:
  void SetUp() override {
    WeightsTest::SetUp();
    save();
    backdate(directory_);
    save();  // In place: the file is the last that changed.
  }
  [[nodiscard]] static Nanoseconds change_of(const std::string& path) {
    struct stat facts{};
    EXPECT_EQ(::lstat(path.c_str(), &facts), 0) << path;
    return Nanoseconds(static_cast<std::int64_t>(facts.st_ctim.tv_sec) * 1'000'000'000 +
                       facts.st_ctim.tv_nsec);
  }
  // The time of writing, as rsync sets it; not that of the change.
  static void backdate(const std::string& path) {
    const timespec times[2] = {{0, UTIME_OMIT}, {1, 0}};
    ASSERT_EQ(::utimensat(AT_FDCWD, path.c_str(), times, 0), 0) << path;
  }
  static void expect_refused(const std::string& directory, const std::string& path,
                             Nanoseconds since) {
    const Status status = check_unchanged(directory, since);
    EXPECT_EQ(status.code(), Code::kRefused) << status.text();
    EXPECT_TRUE(status.message().starts_with(path + " changed after the engine's process started"))
        << status.message();
  }
  const std::string file_ =
      ::testing::TempDir() + "weights" + std::to_string(::getpid()) + "/model.safetensors";
};

TEST_F(WeightsAgeTest, FilesOlderThanTheEngineAreThoseItLoaded) {
  EXPECT_TRUE(check_unchanged(directory_, change_of(file_) + seconds(1)).is_ok());
}

TEST_F(WeightsAgeTest, AFileThatChangedSinceIsRefusedWhateverItsTimeOfWriting) {
  backdate(file_);
  expect_refused(directory_, file_, change_of(file_));
  EXPECT_TRUE(check_unchanged(directory_, change_of(file_) + Nanoseconds(1)).is_ok());
}

TEST_F(WeightsAgeTest, AFileThatWentSinceIsSeenByItsFolder) {
  save(SIZE_MAX, "model-2.safetensors");
  std::filesystem::remove(directory_ + "/model-2.safetensors");
  const timespec times[2] = {{0, UTIME_OMIT}, {4'000'000'000, 0}};
  ASSERT_EQ(::utimensat(AT_FDCWD, directory_.c_str(), times, 0), 0);
  expect_refused(directory_, directory_, change_of(file_) + seconds(1));
}

TEST_F(WeightsAgeTest, ALinkTurnedToAnOlderFileIsSeen) {
  const std::string target = directory_ + "/cache/old";
  std::filesystem::rename(file_, target);
  ASSERT_TRUE(terrace::testing::eventually([&] {
    std::filesystem::remove(file_);
    std::filesystem::create_symlink("cache/old", file_);
    return change_of(file_) > change_of(target) + milliseconds(150);
  }));
  expect_refused(directory_, file_, change_of(target) + milliseconds(101));
}

// The link to the folder, one that leads to that link, and one above the folder.
TEST_F(WeightsAgeTest, ALinkOnTheWayThatWasTurnedIsSeen) {
  const fs::path links = directory_ + "/cache/links";
  const fs::path folder = directory_;
  const auto expect_seen = [&](const std::string& turned, const fs::path& to,
                               const std::string& way) {
    SCOPED_TRACE(way);
    ASSERT_TRUE(terrace::testing::eventually([&] {
      fs::remove(turned);
      fs::create_symlink(to, turned);
      return change_of(turned) > change_of(file_) + milliseconds(150);
    }));
    const Status status = check_unchanged(way, change_of(file_) + milliseconds(101));
    EXPECT_TRUE(status.message().starts_with(turned + " changed after")) << status.text();
    EXPECT_TRUE(check_unchanged(way, change_of(turned) + Nanoseconds(1)).is_ok());
  };
  fs::create_directories(links);
  fs::create_symlink("turned", links / "first");
  expect_seen(links / "turned", folder, links / "turned");
  expect_seen(links / "turned", folder, links / "first");
  expect_seen(links / "above", folder.parent_path(), links / "above" / folder.filename());
}

TEST_F(WeightsAgeTest, AFolderThatTookTheNameOfAnotherIsSeen) {
  ASSERT_TRUE(terrace::testing::eventually([&] {
    fs::rename(directory_, directory_ + "-old");
    fs::rename(directory_ + "-old", directory_);
    return change_of(directory_) > change_of(file_) + milliseconds(150);
  }));
  backdate(directory_);
  expect_refused(directory_, directory_, change_of(file_) + milliseconds(101));
}

TEST_F(WeightsAgeTest, LinksInACircleAreAnErrorNotAHang) {
  fs::create_symlink("two", directory_ + "/one");
  fs::create_symlink("one", directory_ + "/two");
  EXPECT_FALSE(check_unchanged(directory_ + "/one", Nanoseconds(INT64_MAX)).is_ok());
}

// Hugging Face's cache.
TEST_F(WeightsAgeTest, WhatIsNamedByItsContentMayComeWithTheEngine) {
  const auto make_snapshot = [&](const std::string& name, const std::string& blob) {
    const std::string hub = directory_ + "/hub-" + name;
    std::filesystem::create_directories(hub + "/blobs");
    std::filesystem::create_directories(hub + "/snapshots/" + name);
    std::filesystem::copy_file(file_, hub + "/blobs/" + blob);
    std::filesystem::create_symlink("../../blobs/" + blob,
                                    hub + "/snapshots/" + name + "/model.safetensors");
    return hub + "/snapshots/" + name;
  };
  const std::string blob(64, 'b');
  EXPECT_TRUE(check_unchanged(make_snapshot(std::string(40, 'c'), blob), Nanoseconds(0)).is_ok());
  // What only looks like it is not believed.
  EXPECT_FALSE(check_unchanged(make_snapshot("main", blob), Nanoseconds(0)).is_ok());
  EXPECT_FALSE(check_unchanged(make_snapshot(std::string(40, 'd'), "a"), Nanoseconds(0)).is_ok());
}

}  // namespace
}  // namespace terrace::manager
