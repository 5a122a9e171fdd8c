// The eviction policies on workloads, the example of docs/adding-a-policy.md among them.
#include <fstream>
#include <iterator>

#include "contract/eviction_contract.h"
#include "contract/example_policy.h"
#include "contract/trace_contract.h"

namespace terrace::policy {

INSTANTIATE_TEST_SUITE_P(Example, EvictionContract, ::testing::Values(EvictionMaker(make_sampled)));

}  // namespace terrace::policy

namespace terrace::trace {
namespace {

INSTANTIATE_TEST_SUITE_P(Hazard, TraceContract, ::testing::Values(TraceMaker{"hazard", {}}));
INSTANTIATE_TEST_SUITE_P(Example, TraceContract,
                         ::testing::Values(TraceMaker{"sampled", policy::make_sampled}));

std::string content_of(const std::string& path) {
  std::ifstream file(path);
  return {std::istreambuf_iterator<char>(file), {}};
}

TEST(PolicyExampleTest, ThePageShowsWhatIsTested) {
  const std::string example = content_of(TERRACE_SOURCE_DIR "/tests/contract/example_policy.h");
  const std::string page = content_of(TERRACE_SOURCE_DIR "/docs/adding-a-policy.md");
  ASSERT_FALSE(example.empty());
  EXPECT_NE(page.find("```cpp\n" + example + "```\n"), std::string::npos)
      << "copy tests/contract/example_policy.h into docs/adding-a-policy.md";
}

}  // namespace
}  // namespace terrace::trace
