// What the admission filters do to a trace of real prompts, in exact counts (admission_bench prints
// more of them): the figures in docs are these.
#include "terrace/testing/admission_replay.h"

#include <gtest/gtest.h>

namespace terrace::catalog {
namespace {

using testing::AdmissionReplay;

AdmissionReplay::Counts replay(const std::string& filter, unsigned host, unsigned disk) {
  auto trace =
      testing::PrefixTrace::read(TERRACE_SOURCE_DIR "/tests/data/mooncake/conversation.tree");
  if (!trace) {
    ADD_FAILURE() << "tests/data/mooncake/conversation.tree is missing or malformed";
    return {};
  }
  const auto share = [&](unsigned percent) {
    return static_cast<std::uint32_t>(trace->unique_blocks() * percent / 100);
  };
  policy::AdmissionOptions options;
  options.reuse.tier_blocks = share(disk);
  auto made = policy::make_admission(filter, options);
  AdmissionReplay replay(share(host), share(disk), std::move(made.value()));
  return replay.run(*trace, seconds(59 * 60));
}

TEST(AdmissionReplayTest, ReuseWritesAFifthOfAllAndKeepsThreeQuartersOfTheHits) {
  const auto all = replay("all", 1, 10);
  const auto reuse = replay("reuse", 1, 10);
  EXPECT_EQ(all.writes, 208'040U);
  EXPECT_EQ(reuse.writes, 43'178U);
  EXPECT_EQ(all.host_hits + all.disk_hits, 80'419U);
  EXPECT_EQ(reuse.host_hits + reuse.disk_hits, 62'203U);
}

TEST(AdmissionReplayTest, FrequencyWritesLessAndHitsLess) {
  const auto frequency = replay("frequency", 1, 10);
  EXPECT_EQ(frequency.writes, 32'754U);
  EXPECT_EQ(frequency.host_hits + frequency.disk_hits, 56'844U);
}

}  // namespace
}  // namespace terrace::catalog
