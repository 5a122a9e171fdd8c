#include <gtest/gtest.h>
#include <terrace/terrace.h>

#include <array>
#include <atomic>
#include <functional>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "terrace/base/sync_point.h"
#include "terrace/testing/eventually.h"
#include "terrace/testing/left_thread.h"
#include "terrace/testing/scratch_directory.h"
#include "terrace/wire/orders.h"

namespace terrace::capi {
namespace {

using Blocks32 = std::vector<std::uint32_t>;

// A worker without an owner: whatever it is to load fails, and is named.
class WorkerAbiTest : public ::testing::Test {
 public:
  ~WorkerAbiTest() override { terrace_close_worker(worker_, 0); }

 protected:
  WorkerAbiTest() {
    const terrace_region region = {sizeof region, 0, memory_.data(), kPiece, kPiece};
    const terrace_group_regions group = {sizeof group, 1, &region, kBlocks, 0, 1};
    const std::string settings =
        R"({"host.size":"16MiB","attach.directory":")" + scratch_.path() + R"("})";
    const terrace_worker_options options = {sizeof options,  0, 1, 16, 1, 0, &group, "worker-abi",
                                            settings.c_str()};
    EXPECT_EQ(terrace_open_worker(&options, &worker_), TERRACE_OK) << terrace_last_error();
  }

  static std::string orders_of(std::uint64_t step, const Blocks32& blocks) {
    wire::Orders orders;
    orders.owner = 1;
    orders.step = StepId(step);
    for (const std::uint32_t block : blocks) {
      orders.loads.push_back({.slot = {},
                              .group = GroupId(0),
                              .device_block = block,
                              .is_void = false,
                              .checksums = {Checksum{1}}});
    }
    return wire::encode(orders);
  }
  terrace_code run_loads(const std::string& orders, std::uint64_t room) {
    failed_.assign(room, 0);
    const terrace_code code =
        terrace_run_loads(worker_, reinterpret_cast<const std::uint8_t*>(orders.data()),
                          orders.size(), failed_.data(), room, &count_);
    if (count_ <= room) failed_.resize(count_);
    return code;
  }
  // How many failures the reports since the last call name, step by step.
  std::vector<std::size_t> reported() {
    terrace_bytes bytes = {};
    EXPECT_EQ(terrace_build_report(worker_, &bytes), TERRACE_OK);
    const auto reports =
        wire::decode_reports({reinterpret_cast<const std::byte*>(bytes.data), bytes.length});
    std::vector<std::size_t> counts;
    if (!reports) return counts;
    for (const wire::Report& report : *reports) counts.push_back(report.failures.size());
    return counts;
  }

  static constexpr std::uint64_t kPiece = 4096;
  static constexpr std::uint64_t kBlocks = 8;
  const testing::ScratchDirectory scratch_;
  std::vector<std::uint8_t> memory_ = std::vector<std::uint8_t>(kPiece * kBlocks);
  terrace_worker* worker_ = nullptr;
  Blocks32 failed_;
  std::uint64_t count_ = 0;
};

TEST_F(WorkerAbiTest, ListThatHadNoRoomIsFetchedWithoutRepeatingTheWork) {
  const std::string orders = orders_of(1, {1, 2, 3});
  EXPECT_EQ(run_loads(orders, 2), TERRACE_OK);
  EXPECT_EQ(count_, 3U);
  EXPECT_EQ(run_loads(orders, 3), TERRACE_OK);
  EXPECT_EQ(failed_, (Blocks32{1, 2, 3}));
  EXPECT_EQ(reported(), std::vector<std::size_t>{3});
}

TEST_F(WorkerAbiTest, ListThatNobodyFetchedIsNotThatOfTheNextStep) {
  EXPECT_EQ(run_loads(orders_of(1, {1, 2, 3}), 1), TERRACE_OK);
  EXPECT_EQ(count_, 3U);
  EXPECT_EQ(run_loads(orders_of(2, {4, 5}), 8), TERRACE_OK);
  EXPECT_EQ(failed_, (Blocks32{4, 5}));
  EXPECT_EQ(reported(), (std::vector<std::size_t>{3, 2}));
}

TEST_F(WorkerAbiTest, UnreadableOrdersEndTheListThatNobodyFetched) {
  const std::string orders = orders_of(1, {1, 2});
  EXPECT_EQ(run_loads(orders, 0), TERRACE_OK);
  EXPECT_EQ(run_loads(orders.substr(1), 8), TERRACE_INVALID);
  EXPECT_EQ(count_, 0U);
  EXPECT_EQ(run_loads(orders_of(2, {3}), 8), TERRACE_OK);
  EXPECT_EQ(failed_, (Blocks32{3}));
}

TEST_F(WorkerAbiTest, NullArraysWithALengthAreInvalid) {
  std::uint32_t block = 0;
  EXPECT_EQ(terrace_run_canary(worker_, nullptr, 64), TERRACE_INVALID);
  EXPECT_EQ(terrace_run_saves(worker_, nullptr, 64), TERRACE_INVALID);
  EXPECT_EQ(terrace_run_loads(worker_, nullptr, 64, &block, 1, &count_), TERRACE_INVALID);
  const std::string orders = orders_of(1, {1});
  const auto* bytes = reinterpret_cast<const std::uint8_t*>(orders.data());
  EXPECT_EQ(terrace_run_loads(worker_, bytes, orders.size(), nullptr, 1, &count_), TERRACE_INVALID);
  EXPECT_EQ(terrace_run_loads(worker_, bytes, orders.size(), &block, 1, nullptr), TERRACE_INVALID);
  EXPECT_EQ(reported(), std::vector<std::size_t>());
  EXPECT_EQ(terrace_run_loads(worker_, bytes, orders.size(), nullptr, 0, &count_), TERRACE_OK);
  EXPECT_EQ(count_, 1U);
}

// A call that is held up at a point while another thread closes its worker.
class ClosedWorkerTest : public WorkerAbiTest {
 public:
  ~ClosedWorkerTest() override {
    base::set_sync_point("open_calls.waiting", {});
    base::set_sync_point("capi.worker.call", {});
    base::set_sync_point("capi.worker.loaded", {});
  }

 protected:
  // True when the close waited for the call, which then ended with TERRACE_OK.
  bool outlasts(const char* point, const std::function<terrace_code()>& call) {
    std::atomic<bool> is_waiting{false};
    std::atomic<bool> has_closed{false};
    base::set_sync_point("open_calls.waiting", [&] { is_waiting.store(true); });
    std::jthread closer;
    bool was_kept = false;
    base::set_sync_point(point, [&] {
      closer = std::jthread([&] {
        terrace_close_worker(std::exchange(worker_, nullptr), kDeadlineNs);
        has_closed.store(true);
      });
      EXPECT_TRUE(testing::eventually([&] { return is_waiting.load() || has_closed.load(); }));
      was_kept = !has_closed.load();
    });
    const terrace_code code = call();
    if (closer.joinable()) closer.join();
    EXPECT_TRUE(has_closed.load());
    return was_kept && code == TERRACE_OK;
  }

  static constexpr std::int64_t kDeadlineNs = seconds(60).value();
};

TEST_F(ClosedWorkerTest, LoadsOutlastTheCloseUntilTheirLastLine) {
  EXPECT_TRUE(outlasts("capi.worker.loaded", [&, worker = worker_] {
    const std::string orders = orders_of(1, {1, 2});
    Blocks32 failed(8);
    std::uint64_t count = 0;
    const terrace_code code =
        terrace_run_loads(worker, reinterpret_cast<const std::uint8_t*>(orders.data()),
                          orders.size(), failed.data(), failed.size(), &count);
    EXPECT_EQ(count, 2U);
    return code;
  }));
}

TEST_F(ClosedWorkerTest, StatusOutlastsTheClose) {
  EXPECT_TRUE(outlasts("capi.worker.call", [worker = worker_] {
    terrace_bytes text = {};
    return terrace_read_worker_status(worker, &text);
  }));
}

TEST_F(ClosedWorkerTest, LogOutlastsTheClose) {
  EXPECT_TRUE(outlasts("capi.worker.call", [worker = worker_] {
    terrace_bytes text = {};
    return terrace_read_worker_log(worker, &text);
  }));
}

TEST(WorkerCloseTest, AThreadThatHangsIsLeftBehindWithWhatItUses) {
  const testing::ScratchDirectory scratch;
  const std::string settings =
      R"({"host.size":"16MiB","attach.directory":")" + scratch.path() + R"("})";
  const std::uint64_t pieces[] = {4096};
  const terrace_group_layout layout = {sizeof layout, 1, pieces, 0, 0, 0};
  terrace_owner_options owner_options = {};
  owner_options.struct_size = sizeof owner_options;
  owner_options.block_tokens = 16;
  owner_options.rank_count = 1;
  owner_options.group_count = 1;
  owner_options.groups = &layout;
  owner_options.engine_id = "hangs";
  owner_options.settings_json = settings.c_str();
  terrace_owner* owner = nullptr;
  ASSERT_EQ(terrace_open_owner(&owner_options, &owner), TERRACE_OK) << terrace_last_error();
  std::atomic<bool> has_arrived{false};
  std::atomic<bool> may_go_on{false};
  base::set_sync_point("attach.client.populate", [&] {
    has_arrived.store(true);
    EXPECT_TRUE(testing::eventually([&] { return may_go_on.load(); }));
  });
  std::vector<std::uint8_t> memory(std::size_t{4096} * 8);
  const terrace_region region = {sizeof region, 0, memory.data(), 4096, 4096};
  const terrace_group_regions group = {sizeof group, 1, &region, 8, 0, 1};
  const terrace_worker_options options = {sizeof options,  0, 1, 16, 1, 0, &group, "hangs",
                                          settings.c_str()};
  terrace_worker* worker = nullptr;
  ASSERT_EQ(terrace_open_worker(&options, &worker), TERRACE_OK) << terrace_last_error();
  ASSERT_TRUE(testing::eventually([&] { return has_arrived.load(); }));
  terrace_close_worker(worker, 0);
  ASSERT_TRUE(testing::has_thread("terrace-worker"));
  const auto soil = testing::soil_freed_memory();
  base::set_sync_point("attach.client.populate", {});
  may_go_on.store(true);
  EXPECT_TRUE(testing::eventually([] { return !testing::has_thread("terrace-worker"); }));
  terrace_close_owner(owner, 0);
}

}  // namespace
}  // namespace terrace::capi
