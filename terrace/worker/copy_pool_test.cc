#include "terrace/worker/copy_pool.h"

#include <gtest/gtest.h>

#include <atomic>
#include <stdexcept>
#include <thread>
#include <vector>

#include "terrace/testing/eventually.h"

namespace terrace::worker {
namespace {

TEST(CopyPoolTest, RunsEachItemOnceHoweverManyRounds) {
  NullLog log;
  const auto pool = CopyPool::start(4, log);
  for (std::size_t round = 0; round < 3000; ++round) {
    const std::size_t count = round % 17;
    std::vector<std::atomic<int>> runs(17);
    pool->run(count, [&](std::size_t i) { runs[i].fetch_add(1); });
    for (std::size_t i = 0; i < runs.size(); ++i) ASSERT_EQ(runs[i].load(), i < count ? 1 : 0);
  }
}

TEST(CopyPoolTest, ExceptionOfAnItemReachesTheCallerAndThePoolGoesOn) {
  NullLog log;
  const auto pool = CopyPool::start(3, log);
  for (int round = 0; round < 100; ++round) {
    EXPECT_THROW(pool->run(50,
                           [](std::size_t i) {
                             if (i == 20) throw std::runtime_error("x");
                           }),
                 std::runtime_error);
    std::atomic<int> runs{0};
    pool->run(8, [&](std::size_t) { runs.fetch_add(1); });
    ASSERT_EQ(runs.load(), 8);
  }
}

TEST(CopyPoolTest, HelpersTakePart) {
  NullLog log;
  const auto pool = CopyPool::start(2, log);
  const auto self = std::this_thread::get_id();
  std::atomic<bool> has_helped{false};
  pool->run(2, [&](std::size_t) {
    if (std::this_thread::get_id() != self) has_helped.store(true);
    EXPECT_TRUE(testing::eventually([&] { return has_helped.load(); }));
  });
}

TEST(CopyPoolTest, OneThreadIsTheCallersOwn) {
  NullLog log;
  const auto pool = CopyPool::start(1, log);
  EXPECT_EQ(pool->threads(), 1U);
  const auto self = std::this_thread::get_id();
  pool->run(5, [&](std::size_t) { EXPECT_EQ(std::this_thread::get_id(), self); });
}

}  // namespace
}  // namespace terrace::worker
