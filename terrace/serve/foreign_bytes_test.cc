#include "terrace/testing/foreign_bytes.h"

#include <gtest/gtest.h>

#include "terrace/serve/foreign_bytes_fixture.h"
#include "terrace/testing/property.h"

namespace terrace::serve {
namespace {

// What fuzz/ does for minutes, here for a moment: every seed, then changes of them.
template <typename End>
void expect_to_stand(std::uint64_t seed) {
  End end;
  const std::vector<std::string> seeds = End::seeds();
  for (std::size_t i = 0; i < seeds.size(); ++i) ASSERT_EQ(end.run(seeds[i]), "") << "seed " << i;
  const auto chosen = testing::property(seed, 3000);
  Rng rng(chosen.seed);
  for (std::uint64_t i = 0; i < chosen.steps; ++i) {
    ASSERT_EQ(end.run(testing::changed(seeds, rng)), "") << "step " << i;
  }
}

TEST(ForeignBytesTest, TheServerOutlivesWhateverIsAsked) {
  expect_to_stand<ServerUnderBytes>(20261132);
}

TEST(ForeignBytesTest, WhoAsksOutlivesWhateverIsAnswered) {
  expect_to_stand<ClientUnderBytes>(20261133);
}

}  // namespace
}  // namespace terrace::serve
