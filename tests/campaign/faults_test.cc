// The campaign of faults in short, with a seed of its own.
#include "campaign/faults.h"

#include <gtest/gtest.h>

#include <set>

namespace terrace::campaign {
namespace {

TEST(FaultsTest, NoFaultOfAnyBackendBringsWrongBytesHangsOrLeaks) {
  Figures figures;
  run_faults(11, 20, figures);
  for (const std::string& finding : figures.findings) ADD_FAILURE() << finding;
  EXPECT_TRUE(figures.is_clean()) << json_line("faults", figures, 11, 0);
  std::set<std::string> backends;
  std::set<std::string> kinds;
  for (const auto& [key, count] : figures.injected) {
    backends.insert(key.first);
    kinds.insert(key.second);
  }
  EXPECT_EQ(backends, (std::set<std::string>{"dir", "io_uring", "memory", "s3", "threads"}));
  for (const char* kind : {"flip", "cut", "misplace", "replay", "error", "no_space", "interrupt",
                           "again", "reorder", "duplicate", "lose", "hang", "delay", "break",
                           "short_call", "EINTR", "rest.swapped_blocks", "rest.replayed_block"}) {
    EXPECT_TRUE(kinds.contains(kind)) << kind;
  }
}

}  // namespace
}  // namespace terrace::campaign
