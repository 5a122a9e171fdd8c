#include "terrace/worker/worker.h"

#include <gtest/gtest.h>

#include <atomic>
#include <cstring>
#include <string>
#include <thread>
#include <vector>

#include "terrace/base/sync_point.h"
#include "terrace/worker/worker_fixture.h"

namespace terrace::worker {
namespace {

TEST_F(WorkerTest, LoadedBlockHasTheBytesThatWereSaved) {
  start();
  engine_.fill(0, 3, 77);
  const auto wanted = engine_.read(0, 3);
  const Checksum checksum = saved(5, 3);
  EXPECT_EQ(checksum, checksum_of(wanted));
  EXPECT_EQ(std::memcmp(lane_->slot(SlotIndex(5)).data(), wanted.data(), wanted.size()), 0);

  wire::Orders step = orders(2);
  step.loads = {load(5, 9, checksum)};
  EXPECT_TRUE(run_loads(step).empty());
  EXPECT_EQ(engine_.read(0, 9), wanted);
  const wire::Report done = report();
  EXPECT_EQ(done.owner, kOwner);
  EXPECT_EQ(done.epoch, owner_->epoch_of(RankId(0)));
  EXPECT_EQ(done.step, StepId(2));
  EXPECT_EQ(done.load_bytes, wanted.size());
  EXPECT_TRUE(done.failures.empty());
  EXPECT_EQ(worker_->facts().loaded, 1U);
}

TEST_F(WorkerTest, GroupsAreFoundByIdAndKeepApart) {
  start();
  engine_.fill(1, 4, 5);
  const auto wanted = engine_.read(1, 4);
  const Checksum checksum = saved(2, 4, 3);
  const auto untouched = engine_.memory_[0];
  wire::Orders step = orders(2);
  step.loads = {load(2, 6, checksum, 3)};
  EXPECT_TRUE(run_loads(step).empty());
  EXPECT_EQ(engine_.read(1, 6), wanted);
  EXPECT_EQ(engine_.memory_[0], untouched);
}

// Any byte, any bit: a corrupted slot is always named and never silent.
TEST_F(WorkerTest, EveryFlippedByteIsAFailedBlock) {
  start();
  engine_.fill(0, 3, 78);
  const Checksum checksum = saved(5, 3);
  const auto shard = lane_->slot(SlotIndex(5)).first(1000);
  for (std::size_t i = 0; i < shard.size(); ++i) {
    shard[i] ^= static_cast<std::byte>(1U << (i % 8));
    wire::Orders step = orders(2 + i);
    step.loads = {load(5, 9, checksum)};
    ASSERT_EQ(run_loads(step), std::vector<std::uint32_t>{9}) << "byte " << i;
    shard[i] ^= static_cast<std::byte>(1U << (i % 8));
  }
  EXPECT_EQ(worker_->facts().corrupt, shard.size());
  const auto all = reports();
  ASSERT_EQ(all.size(), shard.size());
  EXPECT_EQ(all[7].failures.at(0).slot, slot(5));
  EXPECT_EQ(all[7].failures.at(0).device_block, 9U);
}

TEST_F(WorkerTest, OneBadBlockDoesNotSpoilTheOthers) {
  start();
  for (std::uint32_t i = 1; i <= 3; ++i) engine_.fill(0, i, i);
  const Checksum first = saved(1, 1);
  const Checksum second = saved(2, 2);
  const Checksum third = saved(3, 3);
  lane_->slot(SlotIndex(2))[0] ^= std::byte{1};
  wire::Orders step = orders(2);
  step.loads = {load(1, 11, first), load(2, 12, second), load(3, 13, third)};
  EXPECT_EQ(run_loads(step), std::vector<std::uint32_t>{12});
  EXPECT_EQ(engine_.read(0, 11), engine_.read(0, 1));
  EXPECT_EQ(engine_.read(0, 13), engine_.read(0, 3));
}

TEST_F(WorkerTest, OrdersOutsideTheGeometryFailAndTouchNothing) {
  start();
  engine_.fill(0, 3, 1);
  const Checksum checksum = saved(5, 3);
  const auto before = engine_.memory_;
  wire::Orders step = orders(2);
  step.loads = {load(12, 1, checksum),   load(UINT32_MAX, 2, checksum), load(5, 16, checksum),
                load(5, 4, checksum, 1), load(5, 0, checksum),          load(5, 5, checksum),
                load(5, 6, checksum)};
  step.loads[5].is_void = true;
  step.loads[6].checksums.clear();
  EXPECT_EQ(run_loads(step), (std::vector<std::uint32_t>{0, 1, 2, 4, 5, 6, 16}));
  EXPECT_EQ(report().failures.size(), 7U);
  EXPECT_EQ(engine_.memory_, before);

  const std::vector<std::byte> lane_before(lane_->slot(SlotIndex(5)).begin(),
                                           lane_->slot(SlotIndex(5)).end());
  step = orders(3);
  step.saves = {save(12, 1), save(5, 16), save(5, 1, 7), save(5, 0)};
  run_saves(step);
  const wire::Report done = report();
  ASSERT_EQ(done.saves.size(), 4U);
  for (const wire::SaveReport& one : done.saves) EXPECT_FALSE(one.is_filled);
  EXPECT_EQ(std::memcmp(lane_before.data(), lane_->slot(SlotIndex(5)).data(), lane_before.size()),
            0);
  EXPECT_EQ(worker_->facts().refused, 7U + 4U);
}

TEST_F(WorkerTest, ContradictingOrdersAreNotRun) {
  start();
  engine_.fill(0, 1, 1);
  engine_.fill(0, 2, 2);
  const Checksum first = saved(1, 1);
  const Checksum second = saved(2, 2);
  wire::Orders step = orders(2);
  step.loads = {load(1, 9, first), load(2, 9, second), load(1, 10, first), load(1, 10, first)};
  EXPECT_EQ(run_loads(step), std::vector<std::uint32_t>{9});  // The same order twice is one order.
  EXPECT_EQ(engine_.read(0, 10), engine_.read(0, 1));

  step = orders(3);
  step.canary_slot = 7;
  step.loads = {load(1, 11, first)};
  step.saves = {save(4, 1), save(4, 2), save(1, 2), save(7, 1), save(6, 1)};
  (void)reports();
  EXPECT_TRUE(run_loads(step).empty());
  run_saves(step);
  const wire::Report done = report();
  for (std::size_t i = 0; i < 4; ++i) EXPECT_FALSE(done.saves.at(i).is_filled) << i;
  EXPECT_TRUE(done.saves.at(4).is_filled);
}

TEST_F(WorkerTest, WhatIsComputedOnLoadsThatWereNeverRunIsNotSavedAndTheStepNotReported) {
  start();
  engine_.fill(0, 1, 1);
  const Checksum checksum = saved(1, 1);
  wire::Orders step = orders(2);
  step.loads = {load(1, 9, checksum)};
  step.saves = {save(4, 1)};
  const std::string bytes = encode(step);
  EXPECT_EQ(worker_->run_saves(bytes_of(bytes)).code(), Code::kUnavailable);
  EXPECT_TRUE(reports().empty());
  EXPECT_TRUE(run_loads(step).empty());
  run_saves(step);
  EXPECT_TRUE(report().saves.at(0).is_filled);
}

TEST_F(WorkerTest, BeforeAttachingAllLoadsFailAndSavesAreNotFilled) {
  open_worker();
  wire::Orders step = orders();
  step.canary_slot = 0;
  step.loads = {load(1, 4, Checksum{1}), load(2, 3, Checksum{2})};
  step.saves = {save(3, 5)};
  const std::string bytes = encode(step);
  EXPECT_EQ(worker_->run_canary(bytes_of(bytes)).code(), Code::kUnavailable);
  EXPECT_EQ(run_loads(step), (std::vector<std::uint32_t>{3, 4}));
  run_saves(step);
  const wire::Report done = report();
  EXPECT_EQ(done.epoch, Epoch(0));
  EXPECT_EQ(done.failures.size(), 2U);
  ASSERT_EQ(done.saves.size(), 1U);
  EXPECT_FALSE(done.saves[0].is_filled);
  EXPECT_EQ(done.canary, wire::CanaryResult::kNotRun);
  EXPECT_NE(worker_->problem(), "");
}

TEST_F(WorkerTest, OrdersOfAnotherOwnerAreRefused) {
  start();
  engine_.fill(0, 3, 1);
  const Checksum checksum = saved(5, 3);
  const auto before = engine_.memory_;
  wire::Orders step = orders(2);
  step.owner = kOwner + 1;
  step.loads = {load(5, 9, checksum)};
  step.saves = {save(6, 3)};
  EXPECT_EQ(run_loads(step), std::vector<std::uint32_t>{9});
  run_saves(step);
  EXPECT_EQ(engine_.memory_, before);
  const wire::Report done = report();
  EXPECT_EQ(done.owner, kOwner + 1);  // So that nobody takes it for work of his own.
  EXPECT_EQ(done.epoch, Epoch(0));
  EXPECT_FALSE(done.saves.at(0).is_filled);
}

TEST_F(WorkerTest, OldOrdersAreRefusedAfterTheOwnerWasReplaced) {
  start();
  engine_.fill(0, 3, 1);
  const Checksum checksum = saved(5, 3);
  start_owner(kOwner + 1);
  ASSERT_TRUE(eventually([&] { return worker_->facts().owner == kOwner + 1; }));
  ASSERT_TRUE(eventually([&] { return owner_->all_attached(); }));
  wire::Orders old = orders(2);
  old.loads = {load(5, 9, checksum)};
  EXPECT_EQ(run_loads(old), std::vector<std::uint32_t>{9});
  wire::Orders fresh = orders(3);
  fresh.owner = kOwner + 1;
  fresh.saves = {save(5, 3)};
  (void)reports();
  run_saves(fresh);
  const wire::Report done = report();
  EXPECT_TRUE(done.saves.at(0).is_filled);
  EXPECT_EQ(done.epoch, owner_->epoch_of(RankId(0)));
}

TEST_F(WorkerTest, CutForeignAndNewerOrdersAreErrorsWithoutEffect) {
  start();
  wire::Orders step = orders();
  step.canary_slot = 1;
  step.loads = {load(1, 4, Checksum{1})};
  step.saves = {save(3, 5)};
  const std::string whole = encode(step);
  const auto before = engine_.memory_;
  const auto expect_code = [&](const std::string& bytes, Code code) {
    EXPECT_EQ(worker_->run_canary(bytes_of(bytes)).code(), code);
    EXPECT_EQ(worker_->run_loads(bytes_of(bytes)).error().code(), code);
    EXPECT_EQ(worker_->refuse_loads(bytes_of(bytes)).error().code(), code);
    EXPECT_EQ(worker_->run_saves(bytes_of(bytes)).code(), code);
  };
  for (std::size_t length = 0; length < whole.size(); ++length) {
    expect_code(whole.substr(0, length), Code::kInvalid);
  }
  std::string newer = whole;
  newer[4] = 2;
  expect_code(newer, Code::kRefused);
  EXPECT_EQ(engine_.memory_, before);
  EXPECT_EQ(worker_->build_report(), "");
}

TEST_F(WorkerTest, RefusedLoadsAreReportedAndTouchNothing) {
  start();
  engine_.fill(0, 3, 1);
  const Checksum checksum = saved(5, 3);
  const auto before = engine_.memory_;
  wire::Orders step = orders(2);
  step.loads = {load(5, 9, checksum), load(5, 8, checksum)};
  const std::string bytes = encode(step);
  EXPECT_EQ(worker_->refuse_loads(bytes_of(bytes)), (std::vector<std::uint32_t>{8, 9}));
  EXPECT_EQ(engine_.memory_, before);
  const wire::Report done = report();
  EXPECT_EQ(done.failures.size(), 2U);
  EXPECT_EQ(done.epoch, owner_->epoch_of(RankId(0))) << "or the owner would not believe it";
}

// A report that says nothing of a canary means that the rank need not run it.
TEST_F(WorkerTest, RefusedLoadsBesideACanaryAreNoWordOfThatCanary) {
  start();
  wire::Orders step = orders(2);
  step.canary_slot = 0;
  step.loads = {load(5, 9, Checksum{1})};
  const std::string bytes = encode(step);
  EXPECT_EQ(worker_->refuse_loads(bytes_of(bytes)), std::vector<std::uint32_t>{9});
  EXPECT_EQ(report().epoch, Epoch(0));
}

TEST_F(WorkerTest, OrdersOfNothingAreReportedAtTheEndOfTheirStep) {
  start();
  EXPECT_TRUE(run_loads(orders()).empty());
  EXPECT_EQ(worker_->build_report(), "");
  run_saves(orders());
  const wire::Report done = report();
  EXPECT_EQ(done.owner, kOwner);
  EXPECT_EQ(done.epoch, owner_->epoch_of(RankId(0)));
  EXPECT_EQ(done.step, StepId(1));
  EXPECT_TRUE(done.saves.empty());
  EXPECT_TRUE(done.failures.empty());
  EXPECT_EQ(worker_->build_report(), "");
}

TEST_F(WorkerTest, WhoIsNotAttachedOrDidNotRunTheCanaryReportsNoOrdersOfNothing) {
  open_worker();
  run_saves(orders());
  EXPECT_EQ(worker_->build_report(), "");
  start_owner();
  attach();
  wire::Orders step = orders(2);
  step.canary_slot = 0;
  run_saves(step);
  EXPECT_EQ(worker_->build_report(), "");
}

TEST_F(WorkerTest, EachStepHasItsOwnReport) {
  start();
  for (std::uint64_t i = 1; i <= 3; ++i) {
    wire::Orders step = orders(i);
    step.saves = {save(static_cast<std::uint32_t>(i), static_cast<std::uint32_t>(i))};
    step.loads = {load(11, 9, Checksum{i})};
    EXPECT_EQ(run_loads(step), std::vector<std::uint32_t>{9});
    run_saves(step);
  }
  const auto all = reports();
  ASSERT_EQ(all.size(), 3U);
  for (std::uint64_t i = 1; i <= 3; ++i) {
    EXPECT_EQ(all[i - 1].step, StepId(i));
    EXPECT_EQ(all[i - 1].saves.at(0).slot.index, SlotIndex(static_cast<std::uint32_t>(i)));
    EXPECT_EQ(all[i - 1].failures.size(), 1U);
  }
  EXPECT_EQ(worker_->build_report(), "");
}

TEST_F(WorkerTest, OrdersThatDifferInAnythingAreReadAnew) {
  open_worker();
  wire::Orders step = orders();
  step.loads = {load(1, 8, Checksum{1})};
  const std::string first = wire::encode(step);
  step.loads = {load(1, 9, Checksum{1})};
  const std::string second = wire::encode(step);
  std::string damaged = first;
  damaged[damaged.size() / 2] ^= 1;
  ASSERT_EQ(first.size(), second.size());
  const auto failed = [&](const std::string& bytes) {
    return worker_->run_loads(std::as_bytes(std::span(bytes)));
  };
  const auto only = [](std::uint32_t block) { return std::vector<std::uint32_t>{block}; };
  for (int round = 0; round < 2; ++round) {
    EXPECT_EQ(failed(first).value(), only(8));
    EXPECT_EQ(failed(second).value(), only(9));
    EXPECT_FALSE(failed(damaged).has_value());
    EXPECT_FALSE(failed({}).has_value());
  }
}

TEST_F(WorkerTest, ReportsThatNobodyFetchesStayBounded) {
  open_worker();
  for (std::uint64_t i = 1; i <= 1500; ++i) {
    wire::Orders step = orders(i);
    step.loads = {load(1, 1, Checksum{1})};
    (void)run_loads(step);
  }
  const auto all = reports();
  EXPECT_EQ(all.size(), 1024U);
  EXPECT_EQ(all.back().step, StepId(1500));
}

TEST_F(WorkerTest, FailingDeviceMeansFailedLoadsAndUnfilledSaves) {
  auto cpu = memory::make_cpu_device(engine_.groups_, engine_.layout_);
  ASSERT_TRUE(cpu.has_value());
  const auto device = std::make_shared<FaultyDevice>(std::move(*cpu));
  start_owner();
  open_worker(device);
  attach();
  const Checksum checksum = saved(5, 3);
  device->is_failing = true;
  wire::Orders step = orders(2);
  step.loads = {load(5, 9, checksum)};
  step.saves = {save(6, 3)};
  EXPECT_EQ(run_loads(step), std::vector<std::uint32_t>{9});
  run_saves(step);
  EXPECT_FALSE(report().saves.at(0).is_filled);
}

TEST_F(WorkerTest, ADeviceThatWantsBatchesGetsAStepInOneCall) {
  auto cpu = memory::make_cpu_device(engine_.groups_, engine_.layout_);
  ASSERT_TRUE(cpu.has_value());
  const auto device = std::make_shared<FaultyDevice>(std::move(*cpu));
  device->takes_batches = true;
  start_owner();
  open_worker(device);
  attach();
  for (std::uint32_t i = 1; i <= 3; ++i) engine_.fill(0, i, i);
  wire::Orders out = orders();
  out.saves = {save(1, 1), save(2, 2), save(3, 3)};
  run_saves(out);
  EXPECT_EQ(device->calls, 1);
  const wire::Report done = report();
  lane_->slot(SlotIndex(2))[0] ^= std::byte{1};
  wire::Orders back = orders(2);
  for (std::uint32_t i = 1; i <= 3; ++i) {
    ASSERT_TRUE(done.saves.at(i - 1).is_filled);
    back.loads.push_back(load(i, i + 10, done.saves.at(i - 1).checksum));
  }
  EXPECT_EQ(run_loads(back), std::vector<std::uint32_t>{12});
  EXPECT_EQ(device->calls, 2);
  EXPECT_EQ(engine_.read(0, 11), engine_.read(0, 1));
  EXPECT_EQ(engine_.read(0, 13), engine_.read(0, 3));
  device->is_failing = true;
  back.step = StepId(3);
  back.saves = {save(6, 3)};
  EXPECT_EQ(run_loads(back), (std::vector<std::uint32_t>{11, 12, 13}));
  run_saves(back);
  EXPECT_FALSE(reports().back().saves.at(0).is_filled);
}

TEST_F(WorkerTest, ClosingEndsByItsLimitBesideACopyThatHangsAndAgainOnceItHasEnded) {
  auto cpu = memory::make_cpu_device(engine_.groups_, engine_.layout_);
  ASSERT_TRUE(cpu.has_value());
  const auto device = std::make_shared<FaultyDevice>(std::move(*cpu));
  start_owner();
  open_worker(device);
  attach();
  std::atomic<bool> has_arrived{false};
  std::atomic<bool> may_go_on{false};
  base::set_sync_point("worker.save.copied", [&] {
    has_arrived.store(true);
    EXPECT_TRUE(eventually([&] { return may_go_on.load(); }));
  });
  wire::Orders step = orders();
  step.saves = {save(6, 3)};
  std::thread hanging([&] { run_saves(step); });
  ASSERT_TRUE(eventually([&] { return has_arrived.load(); }));
  EXPECT_FALSE(worker_->close(Nanoseconds(0)));
  EXPECT_TRUE(owner_->all_attached());  // The owner must not think that no late write can land.
  const std::string next = encode(orders(2));
  EXPECT_EQ(worker_->run_saves(bytes_of(next)).code(), Code::kClosed);
  may_go_on.store(true);
  EXPECT_TRUE(worker_->close(testing::kPatience));
  hanging.join();
  base::set_sync_point("worker.save.copied", {});
  EXPECT_TRUE(eventually([&] { return !owner_->all_attached(); }));
}

TEST_F(WorkerTest, WrongRegionsAreRefusedAtOpen) {
  Worker::Options options;
  options.layout = engine_.layout_;
  options.groups = engine_.groups_;
  options.groups[1].regions[2].block_stride = 1;
  options.engine_id = "engine";
  options.attach_directory = scratch_.path();
  const auto opened = Worker::open(std::move(options), clock_, log_);
  ASSERT_FALSE(opened.has_value());
  EXPECT_EQ(opened.error().code(), Code::kInvalid);
  EXPECT_NE(opened.error().message().find("groups[1].regions[2]"), std::string::npos);
}

// Copies large enough for several threads.

class ThreadsTest : public WorkerTest {
 protected:
  ThreadsTest() : WorkerTest(Engine({20'000}, 30, 41)) {}
};

TEST_F(ThreadsTest, SharedCopiesAreTheSameAndBadBlocksStillNamed) {
  start_owner(kOwner, 40);
  open_worker(nullptr, 4);
  attach();
  EXPECT_EQ(worker_->facts().threads, 4U);
  wire::Orders step = orders();
  for (std::uint32_t i = 0; i < 20; ++i) {
    engine_.fill(0, i + 1, i);
    step.saves.push_back(save(i, i + 1));
  }
  run_saves(step);
  const wire::Report done = report();
  EXPECT_EQ(done.save_bytes, 20U * 600'000U);
  wire::Orders back = orders(2);
  for (std::uint32_t i = 0; i < 20; ++i) {
    ASSERT_TRUE(done.saves.at(i).is_filled);
    ASSERT_EQ(done.saves.at(i).checksum, checksum_of(engine_.read(0, i + 1)));
    back.loads.push_back(load(i, i + 21, done.saves.at(i).checksum));
  }
  lane_->slot(SlotIndex(13))[599'999] ^= std::byte{8};
  EXPECT_EQ(run_loads(back), std::vector<std::uint32_t>{13 + 21});
  for (std::uint32_t i = 0; i < 20; ++i) {
    if (i == 13) continue;
    ASSERT_EQ(engine_.read(0, i + 21), engine_.read(0, i + 1)) << i;
  }
}

}  // namespace
}  // namespace terrace::worker
