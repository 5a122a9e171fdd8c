#include "terrace/testing/foreign_bytes.h"

#include <gtest/gtest.h>

#include "terrace/attach/foreign_bytes_fixture.h"
#include "terrace/testing/property.h"

namespace terrace::attach {
namespace {

// What fuzz/ does for minutes, here for a moment: every seed, then changes of them.
template <typename End>
void expect_to_stand(End& end, std::uint64_t seed) {
  const std::vector<std::string> seeds = End::seeds();
  for (std::size_t i = 0; i < seeds.size(); ++i) ASSERT_EQ(end.run(seeds[i]), "") << "seed " << i;
  const auto chosen = testing::property(seed, 3000);
  Rng rng(chosen.seed);
  for (std::uint64_t i = 0; i < chosen.steps; ++i) {
    ASSERT_EQ(end.run(testing::changed(seeds, rng)), "") << "step " << i;
  }
}

TEST(ForeignBytesTest, AnOwnerOutlivesWhateverAWorkerSends) {
  OwnerUnderBytes owner;
  expect_to_stand(owner, 20261130);
  EXPECT_EQ(owner.run(OwnerUnderBytes::seeds().front()), "");  // As an honest one does.
  EXPECT_TRUE(owner.has_seen(AttachChange::kAttached));
  EXPECT_TRUE(owner.has_seen(AttachChange::kDied));
}

TEST(ForeignBytesTest, AWorkerOutlivesWhateverAnOwnerSends) {
  WorkerUnderBytes worker;
  expect_to_stand(worker, 20261131);
}

}  // namespace
}  // namespace terrace::attach
