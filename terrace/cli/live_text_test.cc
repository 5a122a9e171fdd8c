#include "terrace/cli/live_text.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <utility>

#include "terrace/serve/status_json.h"

namespace terrace::cli {
namespace {

using ::testing::AllOf;
using ::testing::EndsWith;
using ::testing::HasSubstr;
using ::testing::Not;

// As an owner tells it.
manager::StatusReport report() {
  manager::StatusReport report;
  report.page = "http://127.0.0.1:6880/";
  report.is_ready = true;
  const auto open = [&](Tier tier, std::string detail) {
    manager::TierStatus& status = report.tiers.emplace_back();
    status.tier = tier;
    status.state = manager::TierState::kOpen;
    status.detail = std::move(detail);
  };
  open(Tier::kHost, "d");
  open(Tier::kDisk, "io_uring");
  open(Tier::kObject, "s3://b");
  report.disk_flow = {.written_bytes = 2'000'000'000,
                      .served_bytes = 500'000'000,
                      .budget_bytes = 10'000'000'000,
                      .budget_left = 1'000'000'000,
                      .dropped_admission = 7,
                      .dropped_budget = 3};
  return report;
}

std::string told(const manager::StatusReport& report) {
  return live_text("engine e (process 7)", serve::status_json(report));
}

TEST(LiveTextTest, ThePageAndTheDisksFlowAreTold) {
  const std::string text = told(report());
  EXPECT_THAT(text, HasSubstr("engine e (process 7): health green, mode on, ready, up 0 s\n"));
  EXPECT_THAT(text, HasSubstr("  page: http://127.0.0.1:6880/\n"));
  EXPECT_THAT(text, HasSubstr("  disk: open, 0 blocks, 0 slots free; io_uring\n"
                              "    written 2.00 GB, served 0.50 GB (4.00 written per byte "
                              "served); 7 blocks refused by admission\n"
                              "    write budget 10.00 GB in 24 h, 1.00 GB of it now; 3 blocks "
                              "dropped\n"));
  EXPECT_THAT(text, HasSubstr("  object: open; s3://b\n")) << "it has no slots";
}

TEST(LiveTextTest, QueuesSpeedsAndRanksAreToldWhereThereIsSomethingToTell) {
  manager::StatusReport busy = report();
  EXPECT_THAT(told(busy), AllOf(Not(HasSubstr("queue")), Not(HasSubstr("rank")),
                                Not(HasSubstr("measured")), Not(HasSubstr("planned"))));
  busy.queues = {{.name = "disk_read", .waiting = 0, .capacity = 32, .dropped = 0},
                 {.name = "disk_write", .waiting = 12, .capacity = 64, .dropped = 3}};
  busy.attachments.resize(2);
  busy.attachments[0].is_attached = true;
  busy.attachments[1].rank = RankId(1);
  busy.attachments[1].detail = "user 7";
  busy.load_bytes_per_second.at(static_cast<std::size_t>(Tier::kDisk)) = 1.5e9;
  busy.prefill_tokens_per_second = 120;
  busy.plan_ratios.at(static_cast<std::size_t>(Tier::kHost)) = {.p50 = 1, .p90 = 2};
  busy.plan_ratios.at(static_cast<std::size_t>(Tier::kDisk)) = {.p50 = 0.8, .p90 = 1.25};
  const std::string text = told(busy);
  EXPECT_THAT(text, AllOf(HasSubstr("  queue disk_write: 12 waiting of 64, 3 dropped\n"),
                          Not(HasSubstr("disk_read"))));
  EXPECT_THAT(text, AllOf(HasSubstr("  rank 1: not attached, user 7\n"), Not(HasSubstr("rank 0"))));
  EXPECT_THAT(text, HasSubstr("  measured: disk 1.50 GB/s, prefill 120 tokens/s\n"));
  EXPECT_THAT(text,
              HasSubstr("  planned loads took of what was predicted: host 100 % (p90 200 %), disk "
                        "80 % (p90 125 %); 0 slower than computing\n"));
}

TEST(LiveTextTest, CheckedHitsAndScrubsAreTold) {
  manager::StatusReport checked = report();
  EXPECT_THAT(told(checked), Not(HasSubstr("checked hits")));
  checked.shadow.requests = 4;
  checked.shadow.tokens = 900;
  checked.shadow.equal = 5;
  checked.shadow.within = 2;
  checked.shadow.skipped = 1;
  checked.scrub = tier::ScrubReport();
  checked.scrub->pass = 2;
  checked.scrub->is_running = true;
  checked.scrub->progress = 0.4;
  EXPECT_THAT(told(checked),
              AllOf(HasSubstr("  checked hits: 4 requests, 900 tokens; blocks: 5 equal, 2 within "
                              "the noise floor, 0 beyond it, 1 not compared\n"),
                    HasSubstr("  scrub: pass 2 running, 40 %:")));
  checked.shadow.why_none = "KV of 8 bit";
  EXPECT_THAT(told(checked), HasSubstr("  checked hits: none: KV of 8 bit\n"));
}

TEST(LiveTextTest, ItEndsWithWhatOtherSizesWouldHoldOnceThatIsKnown) {
  manager::StatusReport known = report();
  known.forecast.sizes = {
      {.tier = Tier::kHost, .factor = 0.5, .size = Bytes(1'000'000'000), .hit_percent = 12.4},
      {.tier = Tier::kHost, .factor = 1, .size = Bytes(2'000'000'000), .hit_percent = 19.6},
      {.tier = Tier::kDisk, .factor = 1, .size = Bytes(8'000'000'000), .hit_percent = 34.8}};
  known.forecast.blocks_asked = 999;
  EXPECT_THAT(told(known), Not(HasSubstr("would hold")));
  known.forecast.blocks_asked = 1000;
  EXPECT_THAT(told(known),
              EndsWith("  host would hold of the blocks asked for: 12.4 % with 1.00 GB, 19.6 % "
                       "with 2.00 GB (now)\n"
                       "  host and disk would hold of the blocks asked for: 34.8 % with 8.00 GB "
                       "(now)\n"));
}

TEST(LiveTextTest, NothingThatATerminalObeysComesThroughAndOtherTypesBreakNothing) {
  manager::StatusReport red = report();
  red.is_healthy = false;
  red.problems = {"/kv/\x1b[2J\nhealth: green"};
  red.tiers.at(0).detail = "/kv/\x1b]0;x\x07";
  EXPECT_THAT(told(red), AllOf(HasSubstr("  problem: /kv/?[2J?health: green\n"),
                               Not(HasSubstr("\x1b")), Not(HasSubstr("\x07"))));
  for (const char* strange :
       {"no JSON", "[]", "7", R"({"tiers":[1,{"slots":3}],"queues":{},"disk_flow":[],"shadow":1})",
        R"({"attachments":[3],"plan_ratios":{"x":1},"forecast":{"blocks_asked":1e9,"sizes":[1]}})",
        R"({"scrub":{"pass":"x"},"load_bytes_per_second":{"x":"y"},"problems":[3],"page":9})"}) {
    EXPECT_THAT(live_text("e", strange), HasSubstr("e: health "));
  }
}

}  // namespace
}  // namespace terrace::cli
