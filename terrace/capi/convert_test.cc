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
  terrace_group_layout group_{sizeof(terrace_group_layout), 2, pieces_, 0, 0, 0};
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

TEST_F(ConvertTest, TiersThatAreOnlyAskedAboutHaveTheirEviction) {
  settings_.mode = config::Mode::kObserve;
  settings_.host.eviction = "lru";
  settings_.disk.eviction = "hazard";
  const auto options = convert_owner(owner_, settings_);
  ASSERT_TRUE(options.has_value() && options->observed);
  EXPECT_EQ(options->host.eviction, "lru");
  EXPECT_EQ(options->observed->disk_eviction, "hazard");
}

// Both would be written to disk and not read back.
TEST_F(ConvertTest, AFieldThatTwoGiveIsRefusedByName) {
  owner_.fingerprint = "content.tenant=acme\ncontent.weights=00ff\n";
  EXPECT_TRUE(convert_owner(owner_, settings_).has_value());
  owner_.model_directory = "/model";
  const auto weights = convert_owner(owner_, settings_);
  ASSERT_FALSE(weights.has_value());
  EXPECT_EQ(weights.error().code(), Code::kInvalid);
  EXPECT_NE(weights.error().message().find("content.weights is given twice"), std::string::npos);
  settings_.tenant = "acme";
  const auto tenant = convert_owner(owner_, settings_);
  ASSERT_FALSE(tenant.has_value());
  EXPECT_NE(tenant.error().message().find("content.tenant is given twice"), std::string::npos);
}

// Else weights that were replaced under a running engine would name its blocks.
TEST_F(ConvertTest, WeightsHaveToBeOlderThanTheProcess) {
  const auto options = convert_owner(owner_, settings_);
  ASSERT_TRUE(options.has_value());
  EXPECT_GT(options->weights_loaded_from, process_start() - seconds(1));
  EXPECT_LT(options->weights_loaded_from, process_start() + seconds(1));
}

TEST_F(ConvertTest, SettingsReachTheTiers) {
  settings_.host.size = 8_MiB;
  settings_.disk.size = 16_MiB;
  settings_.disk.paths = {"/a", "/b"};
  settings_.disk.backend = config::DiskBackend::kThreads;
  settings_.disk.write = config::DiskWrite::kDemote;
  settings_.disk.queue = Blocks(9);
  settings_.disk.admission = "expected";
  settings_.disk.admission_entries = 5000;
  settings_.disk.admission_loss = 1.5;
  const auto options = convert_owner(owner_, settings_);
  ASSERT_TRUE(options.has_value());
  EXPECT_EQ(options->disk.admission, "expected");
  EXPECT_EQ(options->disk.filter.expected.entries, 5000U);
  EXPECT_DOUBLE_EQ(options->disk.filter.expected.most_lost, 0.015);
  EXPECT_EQ(options->host.size, 8_MiB);
  EXPECT_EQ(options->disk.paths.size(), 2U);
  EXPECT_EQ(options->disk.backend, "threads");
  EXPECT_TRUE(options->disk.is_demote);
  EXPECT_EQ(options->disk.queue_blocks, 9U);
}

TEST_F(ConvertTest, ALibraryBeatsTheBackend) {
  settings_.host.size = 8_MiB;
  settings_.disk.size = 16_MiB;
  settings_.disk.paths = {"/a"};
  settings_.disk.backend = config::DiskBackend::kThreads;
  settings_.disk.backend_library = "/opt/lib.so";
  const auto options = convert_owner(owner_, settings_);
  ASSERT_TRUE(options.has_value());
  EXPECT_EQ(options->disk.backend, "library");
  EXPECT_EQ(options->disk.io.library, "/opt/lib.so");
}

// Blocks that were to be encrypted never lie there in clear because a file was away.
TEST_F(ConvertTest, AKeyThatCannotBeReadIsRefusedNotGoneWithout) {
  settings_.encryption.key_file = "/nonexistent/key";
  const auto none = convert_owner(owner_, settings_);
  ASSERT_FALSE(none.has_value());
  EXPECT_NE(none.error().message().find("terrace key new"), std::string::npos);
  settings_.encryption = {};
  settings_.encryption.key = std::string(64, '5');
  settings_.encryption.accept_plain = true;
  settings_.encryption.threads = 3;
  const auto options = convert_owner(owner_, settings_);
  ASSERT_TRUE(options.has_value());
  ASSERT_NE(options->encryption.keys, nullptr);
  EXPECT_TRUE(options->encryption.accepts_plain);
  EXPECT_EQ(options->encryption.threads, 3U);
  settings_.encryption = {};
  EXPECT_EQ(convert_owner(owner_, settings_)->encryption.keys, nullptr);
}

TEST_F(ConvertTest, EvidenceLiesWithTheDiskElseWithTheSockets) {
  owner_.fingerprint = "content.dtype=torch.bfloat16\nlayout.block_tokens=32\n";
  settings_.attach.directory = "/run/terrace";
  settings_.disk.paths = {"/mnt/a", "/mnt/b"};  // The default has one, too.
  auto options = convert_owner(owner_, settings_);
  ASSERT_TRUE(options.has_value());
  EXPECT_EQ(options->shadow.element, ElementType::kBFloat16);
  EXPECT_EQ(options->shadow.evidence, "/run/terrace/evidence");
  EXPECT_EQ(options->shadow.marks, std::vector<std::string>{"/run/terrace/evidence"});
  settings_.disk.size = 1_GiB;
  options = convert_owner(owner_, settings_);
  EXPECT_EQ(options->shadow.evidence, "/mnt/a/evidence");
  EXPECT_EQ(options->shadow.marks,
            (std::vector<std::string>{"/mnt/a/evidence", "/mnt/b/evidence"}));
  settings_.shadow.evidence = "/e";
  options = convert_owner(owner_, settings_);
  EXPECT_EQ(options->shadow.evidence, "/e");
  EXPECT_EQ(options->shadow.marks, std::vector<std::string>{"/e"});
}

TEST_F(ConvertTest, WithEncryptionNoKvLiesInTheClearUnlessSomebodySaysWhere) {
  settings_.attach.directory = "/run/terrace";
  settings_.encryption.key = std::string(64, '5');
  auto options = convert_owner(owner_, settings_);
  ASSERT_TRUE(options.has_value());
  EXPECT_EQ(options->shadow.evidence, "");
  EXPECT_EQ(options->shadow.marks, std::vector<std::string>{"/run/terrace/evidence"});
  settings_.shadow.evidence = "/e";
  options = convert_owner(owner_, settings_);
  EXPECT_EQ(options->shadow.evidence, "/e");
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

template <typename T>
void expect_named(const Result<T>& result, const std::string& field) {
  ASSERT_FALSE(result.has_value()) << field;
  EXPECT_EQ(result.error().code(), Code::kInvalid);
  EXPECT_NE(result.error().message().find(field), std::string::npos) << result.error().message();
}

constexpr std::uint64_t kHuge = std::uint64_t{1} << 61U;

TEST_F(ConvertTest, BlocksThatNoHashTakesAreInvalid) {
  owner_.block_tokens = (1U << 20U) + 1;
  expect_named(convert_owner(owner_, settings_), "block_tokens");
  owner_.block_tokens = 1U << 31U;
  expect_named(convert_owner(owner_, settings_), "block_tokens");
  owner_.block_tokens = 1U << 20U;
  EXPECT_TRUE(convert_owner(owner_, settings_).has_value());
  terrace_worker_options worker{};
  worker.struct_size = sizeof worker;
  worker.block_tokens = 1U << 31U;
  expect_named(convert_worker(worker, settings_), "block_tokens");
  std::uint32_t token = 0;
  std::uint8_t hash[16];
  EXPECT_EQ(terrace_hash_sequence(1U << 31U, &token, 1, nullptr, 0, hash), TERRACE_INVALID);
  EXPECT_EQ(terrace_hash_sequence(16, &token, kHuge, nullptr, 0, hash), TERRACE_INVALID);
}

TEST_F(ConvertTest, AbsurdSizesOfARequestAreInvalidAndNamed) {
  const std::uint32_t token = 0;
  const std::uint8_t identity = 0;
  terrace_extra_key keys[2] = {{sizeof keys[0], 1, &identity, 1, 0, 0},
                               {sizeof keys[0], 1, &identity, 1, 0, 0}};
  terrace_request_options request{sizeof request, 0, &token, 1, keys, 2, 0, nullptr, nullptr};
  EXPECT_TRUE(convert_request(request).has_value());
  request.token_count = kHuge;
  expect_named(convert_request(request), "token_count");
  request.token_count = 1;
  request.prompt_tokens = kHuge;
  expect_named(convert_request(request), "prompt_tokens");
  request.prompt_tokens = 0;
  request.extra_key_count = kHuge;
  expect_named(convert_request(request), "extra_key_count");
  request.extra_key_count = 2;
  keys[1].identity_length = std::uint64_t{1} << 62U;
  expect_named(convert_request(request), "identity_length");
  keys[1].identity_length = kMaxIdentityBytes;  // One byte more than is left beside the first.
  expect_named(convert_request(request), "identity_length");
}

TEST_F(ConvertTest, AbsurdSizesOfProgressAreInvalidAndNamed) {
  const std::uint32_t token = 0;
  const std::uint64_t alias = 0;
  const std::uint32_t* const tables[1] = {&token};
  std::uint64_t counts[1] = {1};
  const terrace_progress good{sizeof good, 0, 1, 1, &token, 1, tables, counts, &alias, 0, 1};
  EXPECT_TRUE(convert_progress(good, 1).has_value());
  terrace_progress progress = good;
  progress.computed_tokens = kHuge;
  expect_named(convert_progress(progress, 1), "computed_tokens");
  progress = good;
  progress.new_token_count = kHuge;
  expect_named(convert_progress(progress, 1), "new_token_count");
  progress = good;
  progress.alias_count = kHuge;
  expect_named(convert_progress(progress, 1), "alias_count");
  counts[0] = kHuge;
  expect_named(convert_progress(good, 1), "block_counts");
}

}  // namespace
}  // namespace terrace::capi
