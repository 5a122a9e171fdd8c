#include <gtest/gtest.h>

#include "terrace/capi/convert_internal.h"

namespace terrace::capi {
namespace {

class ConvertTest : public testing::Test {
 protected:
  ConvertTest() {
    owner_.struct_size = sizeof owner_;
    owner_.block_tokens = 32;
    owner_.rank_count = 2;
    owner_.group_count = 1;
    owner_.groups = &group_;
    owner_.engine_id = "engine";
    owner_.fingerprint = "content.model=smol\nlayout.block_tokens=32\n";
    owner_.can_load = 1;
  }
  const std::uint64_t pieces_[2] = {24576, 24576};
  terrace_group_layout group_{sizeof(terrace_group_layout), 2, pieces_};
  terrace_owner_options owner_{};
  config::Settings settings_;
};

TEST_F(ConvertTest, LayoutFingerprintAndRolesArriveInTheManagersOptions) {
  settings_.tenant = "acme";
  const auto options = convert_owner(owner_, settings_);
  ASSERT_TRUE(options.has_value()) << options.error().text();
  EXPECT_EQ(options->layout.ranks, 2);
  EXPECT_EQ(options->layout.groups[0].shard_bytes(), Bytes(49152));
  EXPECT_FALSE(options->can_store);
  EXPECT_TRUE(options->can_load);
  EXPECT_EQ(options->fingerprint.content.back(), (FingerprintField{"tenant", "acme"}));
  EXPECT_TRUE(options->disk.paths.empty());
}

TEST_F(ConvertTest, SettingsReachTheTiers) {
  settings_.host.size = 8_MiB;
  settings_.disk.size = 16_MiB;
  settings_.disk.paths = {"/a", "/b"};
  settings_.disk.backend = config::DiskBackend::kThreads;
  settings_.disk.write = config::DiskWrite::kDemote;
  settings_.disk.queue = Blocks(9);
  const auto options = convert_owner(owner_, settings_);
  ASSERT_TRUE(options.has_value());
  EXPECT_EQ(options->host.size, 8_MiB);
  EXPECT_EQ(options->disk.paths.size(), 2U);
  EXPECT_EQ(options->disk.backend, "threads");
  EXPECT_TRUE(options->disk.is_demote);
  EXPECT_EQ(options->disk.queue_blocks, 9U);
}

TEST_F(ConvertTest, StagingHostPoolHasTheStagingSize) {
  settings_.host.is_staging = true;
  settings_.host.staging = 4_MiB;
  EXPECT_EQ(convert_owner(owner_, settings_)->host.size, 4_MiB);
}

TEST_F(ConvertTest, MalformedStructsAreInvalid) {
  group_.piece_count = 0;
  EXPECT_EQ(convert_owner(owner_, settings_).error().code(), Code::kInvalid);
  group_.piece_count = 2;
  group_.struct_size = 4;
  EXPECT_EQ(convert_owner(owner_, settings_).error().code(), Code::kInvalid);
  group_.struct_size = sizeof group_;
  owner_.engine_id = "";
  EXPECT_EQ(convert_owner(owner_, settings_).error().code(), Code::kInvalid);
  owner_.engine_id = "engine";
  owner_.block_tokens = 0;
  EXPECT_EQ(convert_owner(owner_, settings_).error().code(), Code::kInvalid);
  const terrace_extra_key key{sizeof key, 9, nullptr, 0, 0, 0};
  EXPECT_EQ(convert_extra_keys(&key, 1).error().code(), Code::kInvalid);
}

}  // namespace
}  // namespace terrace::capi
