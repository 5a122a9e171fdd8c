#include "terrace/serve/status_json.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

namespace terrace::serve {
namespace {

using ::testing::HasSubstr;

manager::StatusReport sample() {
  manager::StatusReport report;
  report.engine = "e-1";
  report.process = 4711;
  report.is_ready = true;
  report.canary = "passed";
  report.uptime = seconds(90);
  manager::TierStatus disk;
  disk.tier = Tier::kDisk;
  disk.state = manager::TierState::kOpen;
  disk.detail = "io_uring, O_DIRECT";
  disk.capacity = 8_GiB;
  disk.slots = {1, 2, 3, 4, 5, 6};
  disk.pinned = 7;
  report.tiers = {disk};
  report.disk_flow = {.written_bytes = 3'000'000'000,
                      .served_bytes = 6'000'000'000,
                      .budget_bytes = 1'000'000'000'000,
                      .budget_left = 2'000'000'000,
                      .dropped_admission = 17,
                      .dropped_budget = 19};
  report.queues = {{"disk_write", 3, 1024, 9}};
  report.attachments = {{RankId(1), Epoch(4), 4711, true, ""},
                        {RankId(2), Epoch(0), 0, false, "layout differs"}};
  report.namespaces = {{.content = std::string(64, 'a'),
                        .layout = std::string(64, 'b'),
                        .slots = {0, 5, 12},
                        .blocks = 12,
                        .is_ours = true}};
  report.requests = 11;
  report.hit_tokens[static_cast<std::size_t>(Tier::kDisk)] = 640;
  report.miss_blocks[static_cast<std::size_t>(manager::MissReason::kCorrupt)] = 2;
  report.load_bytes_per_second[static_cast<std::size_t>(Tier::kDisk)] = 1.5e9;
  report.plan_ratios[static_cast<std::size_t>(Tier::kDisk)] = {.p50 = 1.0, .p90 = 1.5};
  report.slow_loads = 5;
  report.abandoned_loads = 3;
  return report;
}

TEST(StatusJsonTest, WhatOtherSizesWouldHold) {
  manager::StatusReport report = sample();
  EXPECT_EQ(nlohmann::json::parse(status_json(report))["forecast"]["blocks_asked"], 0);
  report.forecast = {.blocks_asked = 5000,
                     .sizes = {{Tier::kHost, 1, Bytes(2'000'000'000), 19.58},
                               {Tier::kHost, 2, Bytes(4'000'000'000), 27.89},
                               {Tier::kDisk, 1, Bytes(8'000'000'000), 35}},
                     .block = Bytes(64'000),
                     .block_tokens = Tokens(16),
                     .curve = {{Bytes(1'000'000), 12.5}}};
  const auto json = nlohmann::json::parse(status_json(report))["forecast"];
  EXPECT_EQ(json["blocks_asked"], 5000);
  EXPECT_EQ(json["sizes"][1]["tier"], "host");
  EXPECT_EQ(json["sizes"][1]["factor"], 2);
  EXPECT_EQ(json["sizes"][1]["bytes"], 4'000'000'000);
  EXPECT_EQ(json["sizes"][1]["hit_percent"], 27.89);
}

TEST(StatusJsonTest, ThePageWhereThereIsOne) {
  manager::StatusReport report = sample();
  EXPECT_EQ(nlohmann::json::parse(status_json(report))["page"], "");
  report.page = "http://127.0.0.1:6880/";
  EXPECT_EQ(nlohmann::json::parse(status_json(report))["page"], "http://127.0.0.1:6880/");
}

TEST(StatusJsonTest, HowFarPlansWereOff) {
  const manager::StatusReport report = sample();
  const auto json = nlohmann::json::parse(status_json(report));
  EXPECT_EQ(json["plan_ratios"], nlohmann::json::parse(R"({"disk":{"p50":1.0,"p90":1.5}})"));
  EXPECT_EQ(json["slow_loads"], 5);
  EXPECT_EQ(json["abandoned_loads"], 3);
}

TEST(StatusJsonTest, CheckedHits) {
  manager::StatusReport report = sample();
  report.shadow = {.share = 0.001,
                   .why_none = "",
                   .floor_element = 0.5,
                   .floor_rms = 0.25,
                   .requests = 3,
                   .tokens = 640,
                   .equal = 11,
                   .within = 7,
                   .beyond = 1,
                   .skipped = 2,
                   .is_quarantined = true};
  const auto json = nlohmann::json::parse(status_json(report))["shadow"];
  EXPECT_EQ(json["share"], 0.001);
  EXPECT_EQ(json["floor"]["element"], 0.5);
  EXPECT_EQ(json["floor"]["rms"], 0.25);
  EXPECT_EQ(json["requests"], 3);
  EXPECT_EQ(json["tokens"], 640);
  EXPECT_EQ(json["equal_blocks"], 11);
  EXPECT_EQ(json["within_blocks"], 7);
  EXPECT_EQ(json["beyond_blocks"], 1);
  EXPECT_EQ(json["skipped_blocks"], 2);
  EXPECT_EQ(json["quarantined"], true);
  EXPECT_FALSE(json.contains("why_none"));
  report.shadow.why_none = "of another type";
  EXPECT_EQ(nlohmann::json::parse(status_json(report))["shadow"]["why_none"], "of another type");
}

TEST(StatusJsonTest, AScrubWithWhatItFound) {
  manager::StatusReport report = sample();
  EXPECT_FALSE(nlohmann::json::parse(status_json(report)).contains("scrub"));
  tier::ScrubReport scrub;
  scrub.pass = 3;
  scrub.is_running = true;
  scrub.progress = 0.25;
  scrub.good_blocks = 8;
  scrub.bad_blocks = 1;
  scrub.passed_over = {"/kv/b/terrace-00"};
  scrub.waits_for = "/kv/a/terrace-00";
  scrub.found = {{.file = "/kv/0.slots", .offset = 4096, .group = GroupId(2), .reason = "torn"}};
  report.scrub = scrub;
  const auto json = nlohmann::json::parse(status_json(report));
  EXPECT_EQ(json["scrub"]["pass"], 3);
  EXPECT_EQ(json["scrub"]["running"], true);
  EXPECT_EQ(json["scrub"]["passed_over"][0], "/kv/b/terrace-00");
  EXPECT_EQ(json["scrub"]["waits_for"], "/kv/a/terrace-00");
  EXPECT_EQ(json["scrub"]["found"][0]["file"], "/kv/0.slots");
  EXPECT_EQ(json["scrub"]["found"][0]["offset"], 4096);
  EXPECT_EQ(json["scrub"]["found"][0]["group"], 2);
}

TEST(StatusJsonTest, EachKeyHoldsWhatTheReportHolds) {
  const auto json = nlohmann::json::parse(status_json(sample()));
  EXPECT_EQ(json["engine"], "e-1");
  EXPECT_EQ(json["process"], 4711);
  EXPECT_EQ(json["health"], "green");
  EXPECT_EQ(json["ready"], true);
  EXPECT_EQ(json["mode"], "on");
  EXPECT_EQ(json["tiers"][0]["tier"], "disk");
  EXPECT_EQ(json["tiers"][0]["slots"]["free"], 1);
  EXPECT_EQ(json["tiers"][0]["slots"]["quarantined"], 6);
  EXPECT_EQ(json["tiers"][0]["slots"]["pinned"], 7);
  EXPECT_EQ(json["queues"][0]["dropped"], 9);
  EXPECT_EQ(json["attachments"][1]["attached"], false);
  EXPECT_EQ(json["attachments"][1]["detail"], "layout differs");
  EXPECT_EQ(json["namespaces"][0]["blocks"], 12);
  EXPECT_EQ(json["namespaces"][0]["slots"]["host"], 5);
  EXPECT_EQ(json["namespaces"][0]["slots"]["disk"], 12);
  EXPECT_EQ(json["hit_tokens"]["disk"], 640);
  EXPECT_EQ(json["miss_blocks"]["corrupt"], 2);
  EXPECT_EQ(json["miss_blocks"]["never_stored"], 0);
  EXPECT_DOUBLE_EQ(json["uptime_seconds"], 90.0);
  EXPECT_EQ(json["disk_flow"]["written_bytes"], 3'000'000'000);
  EXPECT_EQ(json["disk_flow"]["served_bytes"], 6'000'000'000);
  EXPECT_DOUBLE_EQ(json["disk_flow"]["written_per_served"], 0.5);
  EXPECT_EQ(json["disk_flow"]["write_budget_bytes"], 1'000'000'000'000);
  EXPECT_EQ(json["disk_flow"]["write_budget_left"], 2'000'000'000);
  EXPECT_EQ(json["disk_flow"]["dropped_admission"], 17);
  EXPECT_EQ(json["disk_flow"]["dropped_write_budget"], 19);
}

TEST(StatusJsonTest, HealthIsRedWithItsReasons) {
  auto report = sample();
  report.is_healthy = false;
  report.problems = {"disk: /kv: EROFS; remount it writable"};
  EXPECT_EQ(nlohmann::json::parse(status_json(report))["health"], "red");
}

TEST(StatusJsonTest, ASwitchedModeIsSaidAndLeavesHealthGreen) {
  auto report = sample();
  report.mode = manager::Mode::kPaused;
  EXPECT_EQ(nlohmann::json::parse(status_json(report))["mode"], "paused");
  report.mode = manager::Mode::kReadOnly;
  EXPECT_EQ(nlohmann::json::parse(status_json(report))["mode"], "readonly");
}

TEST(StatusJsonTest, PoisonedIsNeverGreen) {
  auto report = sample();
  report.is_poisoned = true;
  EXPECT_EQ(nlohmann::json::parse(status_json(report))["health"], "red");
}

TEST(StatusJsonTest, BytesThatAreNotUtf8DoNotBreakTheJson) {
  auto report = sample();
  report.problems = {"open /kv/\xff\xfe: ENOENT"};
  const auto json = nlohmann::json::parse(status_json(report));
  EXPECT_THAT(json["problems"][0].get<std::string>(), HasSubstr("ENOENT"));
}

}  // namespace
}  // namespace terrace::serve
