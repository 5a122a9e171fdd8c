// Every variable of KVBM that its users may have set: what it becomes here.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <set>

#include "terrace/config/load.h"
#include "terrace/config/table.h"
#include "terrace/config/value.h"

namespace terrace::config {
namespace {

using ::testing::AllOf;
using ::testing::Contains;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using Environment = std::map<std::string, std::string, std::less<>>;

// A host size of our own makes every environment loadable.
Result<Loaded> load_with(Environment environment) {
  Sources sources;
  sources.environment = std::move(environment);
  sources.environment.emplace("HOME", "/home/u");
  if (!sources.environment.contains("DYN_KVBM_CPU_CACHE_GB")) {
    sources.environment.emplace("TERRACE_HOST_SIZE", "1GiB");
  }
  return load(sources);
}
std::string value_of(const Loaded& loaded, std::string_view name) {
  const Row& row = *find_row(name);
  return format_value(row, fetch_value(row, loaded.settings));
}
std::string error_of(Environment environment) {
  const auto loaded = load_with(std::move(environment));
  if (loaded.has_value()) return "(loaded)";
  EXPECT_EQ(loaded.error().code(), Code::kInvalid);
  return loaded.error().message();
}

struct AliasCase {
  const char* variable;
  const char* text;
  const char* setting;
  const char* value;
};
void PrintTo(const AliasCase& one, std::ostream* out) { *out << one.variable << "=" << one.text; }

constexpr AliasCase kCases[] = {
    {"DYN_KVBM_CPU_CACHE_GB", "20", "host.size", "20GB"},
    {"DYN_KVBM_CPU_CACHE_GB", "0.5", "host.size", "500MB"},
    {"DYN_KVBM_CPU_CACHE_GB", "1e1", "host.size", "10GB"},
    {"DYN_KVBM_CPU_CACHE_OVERRIDE_NUM_BLOCKS", "77", "host.blocks", "77"},
    {"DYN_KVBM_CPU_CACHE_OVERRIDE_NUM_BLOCKS", "0", "host.blocks", "0"},
    {"DYN_KVBM_DISK_CACHE_GB", "1.024", "disk.size", "1024MB"},
    {"DYN_KVBM_DISK_CACHE_OVERRIDE_NUM_BLOCKS", "5", "disk.blocks", "5"},
    {"DYN_KVBM_DISK_CACHE_DIR", "/mnt/nvme/", "disk.paths", "/mnt/nvme"},
    {"DYN_KVBM_DISK_ZEROFILL_FALLBACK", "false", "disk.preallocate", "auto"},
    {"DYN_KVBM_DISK_DISABLE_O_DIRECT", "", "disk.direct", "false"},
    {"DYN_KVBM_DISK_DISABLE_O_DIRECT", "false", "disk.direct", "false"},
    {"DYN_KVBM_DISK_ALLOCATOR_TYPE", "default", "disk.direct_at", "fcntl"},
    {"DYN_KVBM_DISK_ALLOCATOR_TYPE", "open-direct", "disk.direct_at", "open"},
    {"DYN_KVBM_DISABLE_DISK_OFFLOAD_FILTER", "true", "disk.admission", "all"},
    {"DYN_KVBM_DISABLE_DISK_OFFLOAD_FILTER", "false", "disk.admission", "all"},
    {"DYN_KVBM_MAX_CONCURRENT_TRANSFERS", "8", "offload.inflight", "8"},
    {"DYN_KVBM_MAX_TRANSFER_BATCH_SIZE", "32", "offload.batch", "32"},
    {"DYN_KVBM_TRANSFER_BATCH_SIZE", "33", "offload.batch", "33"},
    {"DYN_KVBM_HOST_OFFLOAD_PREFIX_MIN_PRIORITY", "100", "offload.min_priority", "100"},
    {"DYN_KVBM_LEADER_WORKER_INIT_TIMEOUT_SECS", "1800", "attach.timeout", "30min"},
    {"DYN_KVBM_LEADER_ZMQ_PUB_PORT", "56001", "events.bind", "tcp://127.0.0.1:57001"},
    {"DYN_KVBM_TRTLLM_ZMQ_PORT", "20081", "events.engine", "tcp://127.0.0.1:20081"},
    {"DYN_VLLM_KV_EVENT_PORT", "20080", "events.engine", "tcp://127.0.0.1:20080"},
    {"DYN_KVBM_KV_EVENTS_ENABLE_CONSOLIDATOR", "true", "events.enabled", "true"},
    {"DYN_KVBM_KV_EVENTS_CONSOLIDATOR_MODE", "dedup", "events.mode", "merged"},
    {"DYN_KVBM_KV_EVENTS_CONSOLIDATOR_MODE", "passthrough", "events.mode", "passthrough"},
    {"DYN_KVBM_METRICS", "true", "metrics.enabled", "true"},
    {"DYN_KVBM_METRICS", "true", "metrics.kvbm_names", "kvbm"},
    {"DYN_KVBM_METRICS", "false", "metrics.kvbm_names", "off"},
    {"DYN_KVBM_METRICS_PORT", "7000", "metrics.port", "7000"},
    {"DYN_KVBM_CACHE_STATS_MAX_REQUESTS", "50", "metrics.window", "50"},
    {"DYN_KVBM_CACHE_STATS_LOG_INTERVAL_SECS", "9", "log.hits_every", "9s"},
    {"DYN_KVBM_CPU_CACHE_GB", "20", "log.hits_every", "5s"},
    {"DYN_KVBM_DISK_CACHE_OVERRIDE_NUM_BLOCKS", "5", "log.hits_every", "5s"},
    {"DYN_KVBM_METRICS", "true", "log.hits_every", "0s"},
    {"DYN_KVBM_ENABLE_RECORD", "yes", "trace.record", "true"},
    {"ENABLE_KVBM_RECORD", "1", "trace.record", "true"},
    {"DYN_KVBM_NCCL_MLA_MODE", "on", "parallel.mla", "load_once"},
    {"DYN_KVBM_NCCL_MLA_MODE", "off", "parallel.mla", "per_rank"},
    {"DYN_KVBM_DISABLE_WRITE_COMBINED", "", "host.write_combined", "false"},
    {"DYN_MEMORY_DISABLE_NUMA", "1", "host.numa", "off"},
    {"DYN_MEMORY_DISABLE_NUMA", "0", "host.numa", "auto"},
    {"DYN_KVBM_NIXL_BACKEND_POSIX", "true", "transfer.backends", "posix"},
    {"DYN_KVBM_NIXL_BACKEND_UCX", "false", "transfer.backends", ""},
    {"DYN_KVBM_OBJECT_ENABLED", "0", "object.enabled", "false"},
    {"DYN_KVBM_OBJECT_BUCKET", "b-{worker_id}", "object.bucket", "b-{worker_id}"},
    {"DYN_KVBM_OBJECT_ENDPOINT", "http://s3:9000", "object.endpoint", "http://s3:9000"},
    {"DYN_KVBM_OBJECT_REGION", "eu", "object.region", "eu"},
    {"DYN_KVBM_OBJECT_ACCESS_KEY", "AK", "object.access_key", "<hidden>"},
    {"DYN_KVBM_OBJECT_SECRET_KEY", "SK", "object.secret_key", "<hidden>"},
    {"DYN_KVBM_OBJECT_NUM_BLOCKS", "6", "object.blocks", "6"},
    {"AWS_ENDPOINT_URL_S3", "https://s3:9000", "object.endpoint", "https://s3:9000"},
    {"AWS_REGION", "eu", "object.region", "eu"},
    {"AWS_ACCESS_KEY_ID", "AK", "object.access_key", "<hidden>"},
    {"AWS_SECRET_ACCESS_KEY", "SK", "object.secret_key", "<hidden>"},
    {"AWS_SESSION_TOKEN", "ST", "object.session_token", "<hidden>"},
    {"AWS_SHARED_CREDENTIALS_FILE", "/a/credentials", "object.credentials_file", "/a/credentials"},
    {"AWS_PROFILE", "kv", "object.profile", "kv"},
    {"DYN_KVBM_G2PB_ADMISSION_POLICY", "eager", "peer.admission", "eager"},
    {"DYN_KVBM_G3PB_ADMISSION_POLICY", "after_first_reuse", "peer.admission", "after_first_reuse"},
    {"ETCD_ENDPOINTS", "http://e:2379", "cluster.etcd", "http://e:2379"},
    {"NATS_SERVER", "nats://n:4222", "cluster.nats", "nats://n:4222"}};

class AliasTest : public ::testing::TestWithParam<AliasCase> {};

TEST_P(AliasTest, BecomesTheSettingInKvbmsUnit) {
  const AliasCase& one = GetParam();
  const auto loaded = load_with({{one.variable, one.text}});
  ASSERT_TRUE(loaded.has_value()) << loaded.error().message();
  EXPECT_EQ(value_of(*loaded, one.setting), one.value);
}

INSTANTIATE_TEST_SUITE_P(Kvbm, AliasTest, ::testing::ValuesIn(kCases));

class BadAliasTest : public ::testing::TestWithParam<AliasCase> {};

TEST_P(BadAliasTest, IsRefusedNamingVariableSettingAndWayOut) {
  const AliasCase& one = GetParam();
  EXPECT_THAT(error_of({{one.variable, one.text}}),
              AllOf(HasSubstr(std::string("setting ") + one.setting),
                    HasSubstr(std::string("environment ") + one.variable), HasSubstr(one.value),
                    HasSubstr(environment_name(one.setting))));
}

INSTANTIATE_TEST_SUITE_P(
    Kvbm, BadAliasTest,
    ::testing::Values(
        AliasCase{"DYN_KVBM_CPU_CACHE_GB", "20GB", "host.size", "\"20GB\" is not a number"},
        AliasCase{"DYN_KVBM_CPU_CACHE_GB", "nan", "host.size", "is not a number"},
        AliasCase{"DYN_KVBM_CPU_CACHE_GB", "-1", "host.size", "is negative"},
        AliasCase{"DYN_KVBM_CPU_CACHE_GB", "1e300", "host.size", "is too large"},
        AliasCase{"DYN_KVBM_CPU_CACHE_GB", "", "host.size", "is not a number"},
        AliasCase{"DYN_KVBM_CPU_CACHE_OVERRIDE_NUM_BLOCKS", "1.5", "host.blocks", "whole number"},
        AliasCase{"DYN_KVBM_DISK_CACHE_DIR", "tmp", "disk.paths", "absolute path"},
        AliasCase{"DYN_KVBM_DISK_ALLOCATOR_TYPE", "direct", "disk.direct_at", "open-direct"},
        AliasCase{"DYN_KVBM_DISABLE_DISK_OFFLOAD_FILTER", "2", "disk.admission", "boolean"},
        AliasCase{"DYN_KVBM_MAX_CONCURRENT_TRANSFERS", "0", "offload.inflight", "out of range"},
        AliasCase{"DYN_KVBM_MAX_TRANSFER_BATCH_SIZE", "x", "offload.batch", "whole number"},
        AliasCase{"DYN_KVBM_HOST_OFFLOAD_PREFIX_MIN_PRIORITY", "101", "offload.min_priority",
                  "from 0 to 100"},
        AliasCase{"DYN_KVBM_LEADER_WORKER_INIT_TIMEOUT_SECS", "soon", "attach.timeout", "number"},
        AliasCase{"DYN_KVBM_LEADER_ZMQ_PUB_PORT", "64536", "events.bind", "from 1 to 64535"},
        AliasCase{"DYN_KVBM_TRTLLM_ZMQ_PORT", "70000", "events.engine", "from 1 to 65535"},
        AliasCase{"DYN_KVBM_KV_EVENTS_CONSOLIDATOR_MODE", "both", "events.mode", "dedup"},
        AliasCase{"DYN_KVBM_METRICS", "maybe", "metrics.enabled", "boolean"},
        AliasCase{"DYN_KVBM_METRICS_PORT", "0", "metrics.port", "from 1 to 65535"},
        AliasCase{"DYN_KVBM_NIXL_BACKEND_UCX", "maybe", "transfer.backends", "boolean"},
        AliasCase{"DYN_KVBM_G2PB_ADMISSION_POLICY", "never", "peer.admission", "eager"}));

TEST(KvbmTest, EveryAliasOfTheTableHasACase) {
  std::set<std::string_view> tested;
  for (const AliasCase& one : kCases) tested.insert(one.variable);
  for (const Row& row : rows()) {
    for (const Alias& alias : row.aliases) {
      if (alias.kind == AliasKind::kNone) continue;
      EXPECT_TRUE(tested.contains(alias.name)) << alias.name;
    }
  }
}

TEST(KvbmTest, BlocksBeatSizeBecauseBothStand) {
  const auto loaded =
      load_with({{"DYN_KVBM_CPU_CACHE_GB", "20"}, {"DYN_KVBM_CPU_CACHE_OVERRIDE_NUM_BLOCKS", "7"}});
  ASSERT_TRUE(loaded.has_value());
  EXPECT_EQ(loaded->settings.host.blocks, Blocks(7));
}

TEST(KvbmTest, AliasAndOwnNameMayAgreeButNotDiffer) {
  const auto same =
      load_with({{"DYN_KVBM_CPU_CACHE_GB", "20"}, {"TERRACE_HOST_SIZE", "20000000000"}});
  ASSERT_TRUE(same.has_value()) << same.error().message();
  EXPECT_THAT(error_of({{"DYN_KVBM_CPU_CACHE_GB", "20"}, {"TERRACE_HOST_SIZE", "20GiB"}}),
              AllOf(HasSubstr("host.size"), HasSubstr("DYN_KVBM_CPU_CACHE_GB says 20GB"),
                    HasSubstr("TERRACE_HOST_SIZE says 20GiB")));
  EXPECT_THAT(error_of({{"DYN_KVBM_MAX_TRANSFER_BATCH_SIZE", "16"},
                        {"DYN_KVBM_TRANSFER_BATCH_SIZE", "17"}}),
              AllOf(HasSubstr("DYN_KVBM_MAX_TRANSFER_BATCH_SIZE"),
                    HasSubstr("DYN_KVBM_TRANSFER_BATCH_SIZE")));
}

TEST(KvbmTest, WhatBothNamesSayIsRefusedAsOurs) {
  const Environment folder = {{"DYN_KVBM_DISK_CACHE_DIR", "/a"}, {"TERRACE_DISK_PATHS", "/a"}};
  EXPECT_THAT(error_of(folder), HasSubstr("disk.paths (environment TERRACE_DISK_PATHS), disk.size: "
                                          "directories are named"));
  EXPECT_THAT(error_of({{"DYN_KVBM_OBJECT_ENABLED", "1"}, {"TERRACE_OBJECT_ENABLED", "true"}}),
              HasSubstr("setting object.bucket: object.enabled needs it"));
  const auto sized = load_with({{"DYN_KVBM_DISK_CACHE_GB", "8"}, {"TERRACE_DISK_SIZE", "8GB"}});
  ASSERT_TRUE(sized.has_value()) << sized.error().message();
  EXPECT_EQ(sized->origins.at("disk.size").text, "environment TERRACE_DISK_SIZE");
  EXPECT_EQ(sized->settings.disk.admission, "frequency") << "KVBM's names size it, too";
}

TEST(KvbmTest, AliasStandsAtTheEnvironmentsLevel) {
  Sources sources;
  sources.environment = {{"DYN_KVBM_CPU_CACHE_GB", "20"}};
  sources.engine_json = R"({"host.size":"3GiB"})";
  const auto loaded = load(sources);
  ASSERT_TRUE(loaded.has_value());
  EXPECT_EQ(loaded->settings.host.size, 3_GiB);
}

TEST(KvbmTest, DiskByAliasBringsKvbmsFilter) {
  for (const char* variable :
       {"DYN_KVBM_DISK_CACHE_GB", "DYN_KVBM_DISK_CACHE_OVERRIDE_NUM_BLOCKS"}) {
    const auto loaded = load_with({{variable, "8"}});
    ASSERT_TRUE(loaded.has_value());
    EXPECT_EQ(loaded->settings.disk.admission, "frequency") << variable;
    EXPECT_THAT(loaded->origins.at("disk.admission").text, HasSubstr(variable));
  }
  const auto zero = load_with({{"DYN_KVBM_DISK_CACHE_GB", "0"}});
  ASSERT_TRUE(zero.has_value());
  EXPECT_EQ(zero->settings.disk.admission, "all");
  const auto own = load_with({{"TERRACE_DISK_SIZE", "8GB"}});
  ASSERT_TRUE(own.has_value());
  EXPECT_EQ(own->settings.disk.admission, "all");
}

TEST(KvbmTest, ADiskThatAHigherSourceSizesHasNoFilterOfKvbm) {
  const auto admission = [](const char* json, Environment environment) {
    Sources sources;
    sources.environment = std::move(environment);
    sources.environment.emplace("HOME", "/home/u");
    sources.engine_json = json;
    const auto loaded = load(sources);
    return loaded.has_value() ? loaded->settings.disk.admission : loaded.error().message();
  };
  const Environment kvbm = {{"DYN_KVBM_DISK_CACHE_GB", "8"}};
  EXPECT_EQ(admission(R"({"disk.size":"8GiB"})", kvbm), "all");
  EXPECT_EQ(admission(R"({"disk.blocks":100})", kvbm), "all");
  EXPECT_EQ(admission(R"({"host.size":"1GiB"})", kvbm), "frequency");
  EXPECT_EQ(
      admission(R"({"disk.size":"8GiB"})", {{"DYN_KVBM_DISK_CACHE_OVERRIDE_NUM_BLOCKS", "9"}}),
      "frequency");
  EXPECT_EQ(admission(R"({"disk.size":"8GiB","disk.admission":"frequency"})", kvbm), "frequency");
}

TEST(KvbmTest, FilterSwitchedOffOrNamedOtherwiseIsObeyed) {
  const char* const off = "DYN_KVBM_DISABLE_DISK_OFFLOAD_FILTER";
  const auto switched = load_with({{"DYN_KVBM_DISK_CACHE_GB", "8"}, {off, "true"}});
  ASSERT_TRUE(switched.has_value());
  EXPECT_EQ(switched->settings.disk.admission, "all");
  const auto kept = load_with({{"DYN_KVBM_DISK_CACHE_GB", "8"}, {off, "false"}});
  ASSERT_TRUE(kept.has_value());
  EXPECT_EQ(kept->settings.disk.admission, "frequency");
  const auto own = load_with({{"DYN_KVBM_DISK_CACHE_GB", "8"}, {"TERRACE_DISK_ADMISSION", "all"}});
  ASSERT_TRUE(own.has_value());
  EXPECT_EQ(own->settings.disk.admission, "all");
  EXPECT_THAT(
      error_of(
          {{"DYN_KVBM_DISK_CACHE_GB", "8"}, {off, "false"}, {"TERRACE_DISK_ADMISSION", "all"}}),
      AllOf(HasSubstr(off), HasSubstr("TERRACE_DISK_ADMISSION")));
}

TEST(KvbmTest, WeakAliasesMoveOnlyTheDefault) {
  const auto loaded =
      load_with({{"DYN_KVBM_METRICS", "1"}, {"TERRACE_METRICS_KVBM_NAMES", "both"}});
  ASSERT_TRUE(loaded.has_value()) << loaded.error().message();
  EXPECT_EQ(loaded->settings.metrics.kvbm_names, KvbmNames::kBoth);
  const auto engine =
      load_with({{"DYN_VLLM_KV_EVENT_PORT", "20080"}, {"DYN_KVBM_TRTLLM_ZMQ_PORT", "20081"}});
  ASSERT_TRUE(engine.has_value()) << engine.error().message();
  EXPECT_EQ(engine->settings.events.engine, "tcp://127.0.0.1:20081");
}

TEST(KvbmTest, KnownNamesWithoutEffectAreNotedOnce) {
  for (const Ineffective& name : ineffective_names()) {
    const auto loaded = load_with({{std::string(name.name), "anything"}});
    ASSERT_TRUE(loaded.has_value());
    EXPECT_THAT(loaded->notes, ::testing::ElementsAre(AllOf(HasSubstr(std::string(name.name)),
                                                            HasSubstr("has no effect"))));
    EXPECT_THAT(loaded->warnings, IsEmpty());
  }
}

TEST(KvbmTest, UnknownNameIsAWarningWithTheNearest) {
  const auto loaded = load_with({{"DYN_KVBM_CPU_CACHE_GBS", "20"}});
  ASSERT_TRUE(loaded.has_value());
  EXPECT_THAT(loaded->warnings, Contains(AllOf(HasSubstr("DYN_KVBM_CPU_CACHE_GBS"),
                                               HasSubstr("the nearest is DYN_KVBM_CPU_CACHE_GB"))));
}

TEST(KvbmTest, SecondVersionIsRefusedNamingOurSetting) {
  EXPECT_THAT(error_of({{"KVBM_CONFIG_PATH", "/etc/kvbm.toml"}}),
              AllOf(HasSubstr("KVBM_CONFIG_PATH"), HasSubstr("config.file"),
                    HasSubstr("TERRACE_CONFIG_FILE")));
  EXPECT_THAT(error_of({{"KVBM_HOST_SIZE", "2"}}), HasSubstr("TERRACE_HOST_SIZE"));
}

TEST(KvbmTest, OtherPeoplesVariablesAreLeftAlone) {
  const auto loaded = load_with(
      {{"DYN_NAMESPACE", "x"}, {"VLLM_NIXL_SIDE_CHANNEL_PORT", "5600"}, {"PYTHONHASHSEED", "0"}});
  ASSERT_TRUE(loaded.has_value());
  EXPECT_THAT(loaded->warnings, IsEmpty());
  EXPECT_THAT(loaded->notes, IsEmpty());
}

TEST(KvbmTest, ABucketByAliasesAloneIsUsed) {
  const auto loaded = load_with({{"DYN_KVBM_OBJECT_ENABLED", "1"},
                                 {"DYN_KVBM_OBJECT_BUCKET", "kv"},
                                 {"DYN_KVBM_OBJECT_ENDPOINT", "http://s3:9000"},
                                 {"DYN_KVBM_OBJECT_ACCESS_KEY", "AK"},
                                 {"DYN_KVBM_OBJECT_SECRET_KEY", "SK"}});
  ASSERT_TRUE(loaded.has_value()) << loaded.error().message();
  EXPECT_TRUE(loaded->settings.object.enabled);
}

TEST(KvbmTest, ObjectByAliasWarnsButAloneIsNoTier) {
  const auto loaded = load_with({{"DYN_KVBM_OBJECT_ENABLED", "1"}});
  ASSERT_TRUE(loaded.has_value());
  EXPECT_THAT(loaded->warnings,
              Contains(AllOf(HasSubstr("DYN_KVBM_OBJECT_ENABLED"), HasSubstr("object.bucket"),
                             HasSubstr("no bucket is used"))));
  EXPECT_FALSE(loaded->settings.object.enabled);
  Sources alone;
  alone.environment = {{"HOME", "/home/u"}, {"DYN_KVBM_OBJECT_ENABLED", "1"}};
  const auto refused = load(alone);
  ASSERT_FALSE(refused.has_value());
  EXPECT_THAT(refused.error().message(),
              AllOf(HasSubstr("host.size"), HasSubstr("disk.size"), HasSubstr("object")));
}

TEST(KvbmTest, TierCombinationsOfItsTable) {
  const auto state = [](Environment environment) {
    Sources sources;
    sources.environment = std::move(environment);
    sources.environment.emplace("HOME", "/home/u");
    const auto loaded = load(sources);
    if (!loaded.has_value()) return std::string("error");
    const Settings& settings = loaded->settings;
    return std::string(settings.host.is_staging ? "staging" : "host") +
           (settings.disk.is_used() ? "+disk" : "");
  };
  EXPECT_EQ(state({}), "error");
  EXPECT_EQ(state({{"DYN_KVBM_CPU_CACHE_GB", "0"}}), "error");
  EXPECT_EQ(state({{"DYN_KVBM_CPU_CACHE_GB", "1"}}), "host");
  EXPECT_EQ(state({{"DYN_KVBM_CPU_CACHE_GB", "1"}, {"DYN_KVBM_DISK_CACHE_GB", "2"}}), "host+disk");
  EXPECT_EQ(state({{"DYN_KVBM_CPU_CACHE_GB", "0"}, {"DYN_KVBM_DISK_CACHE_GB", "2"}}),
            "staging+disk");
  EXPECT_EQ(state({{"DYN_KVBM_DISK_CACHE_GB", "2"}}), "staging+disk");
  EXPECT_EQ(state({{"DYN_KVBM_CPU_CACHE_GB", "0.5"}, {"DYN_KVBM_DISK_CACHE_GB", "2"}}),
            "host+disk");
}

}  // namespace
}  // namespace terrace::config
