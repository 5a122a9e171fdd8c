#include "terrace/manager/weights.h"

#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdint>
#include <filesystem>
#include <fstream>
#include <string>

#include "terrace/base/file.h"

namespace terrace::manager {
namespace {

class WeightsTest : public testing::Test {
 protected:
  void SetUp() override {
    directory_ = testing::TempDir() + "weights" + std::to_string(::getpid());
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

TEST_F(WeightsTest, CacheIsKeyedByFileIdentityAndNeverUsedForFreshFiles) {
  save();
  const std::string cache = directory_ + "/cache";
  const std::string first = digest_weights(directory_, cache).value();
  // Just written: must not be remembered, since a second change could keep the time stamps.
  EXPECT_TRUE(std::filesystem::is_empty(cache));
  save(50);
  EXPECT_NE(digest_weights(directory_, cache).value(), first);
}

}  // namespace
}  // namespace terrace::manager
