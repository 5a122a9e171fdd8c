// A device fails a sync, the owner is killed, and the machine stops in the next one's life.
#include <gtest/gtest.h>

#include <filesystem>
#include <map>
#include <memory>
#include <string>

#include "campaign/medium.h"
#include "terrace/tier/disk/disk_rig.h"
#include "terrace/transfer/backends/fault/fault_backend.h"

namespace terrace::campaign {
namespace {

namespace fs = std::filesystem;
using tier::disk::Rig;

class FailedSyncTest : public ::testing::Test {
 protected:
  void SetUp() override {
    ASSERT_TRUE(first_.open().is_ok());
    ASSERT_TRUE(first_.write(0).is_ok());
    first_.settle();
    first_.close();
    fs::copy(first_.path(), snapshot_.path(), fs::copy_options::recursive);
  }
  void open_recorded(Rig& rig) {
    rig.options().decorate = [this](std::unique_ptr<transfer::Backend> inner) {
      auto faults = std::make_unique<transfer::FaultBackend>(std::move(inner), 1);
      faults_ = faults.get();
      return std::make_unique<transfer::RecordingBackend>(std::move(faults), recorder_);
    };
    const OpeningWatch watch(recorder_, rig.path());
    ASSERT_EQ(rig.open().text(), Status().text());
  }
  // What `now` has on its medium after a crash at `moment`; of what is in doubt `percent`.
  std::unique_ptr<Rig> rebuild(const Rig& now, std::size_t moment, unsigned percent) {
    auto after = std::make_unique<Rig>();
    fs::copy(snapshot_.path(), after->path(), fs::copy_options::recursive);
    const auto moved = [&](const std::string& path) {
      return path.empty() ? path : after->path() + path.substr(now.path().size());
    };
    for (const auto& landed : recorder_.survivors(moment, rng_, percent)) {
      EXPECT_TRUE(land(landed, moved(landed.path), moved(landed.source))) << landed.path;
    }
    return after;
  }

  // Since `moment`.
  void note_evictions(Rig& rig, std::size_t moment) {
    for (const catalog::Eviction& eviction : rig.tier().take_evicted()) {
      for (const auto& [n, when] : answered_) {
        if (tier::disk::hash_of(n) == eviction.key.hash) gone_.emplace(n, moment);
      }
    }
  }
  [[nodiscard]] std::size_t gone_at(std::uint64_t n) const {
    const auto found = gone_.find(n);
    return found == gone_.end() ? SIZE_MAX : found->second;
  }

  std::map<std::uint64_t, std::size_t> answered_;  // By block: the moment.
  std::map<std::uint64_t, std::size_t> gone_;      // Evicted.
  Rng rng_{1};
  transfer::Recorder recorder_;
  tier::disk::ScratchDirectory snapshot_;
  transfer::FaultBackend* faults_ = nullptr;
  Rig first_;
};

TEST_F(FailedSyncTest, WhatTheNextOwnerShowsOutlivesTheMachine) {
  open_recorded(first_);
  faults_->aim(transfer::Fault::kError, transfer::IoOp::kSync, 1, "slots.meta");
  ASSERT_EQ(first_.write(1).code(), Code::kIo);
  const std::size_t killed = recorder_.now();

  const auto second = rebuild(first_, killed, 100);
  recorder_.go_on_after_kill(killed, first_.path(), second->path());
  open_recorded(*second);
  ASSERT_TRUE(second->has(1)) << "as the system shows it";
  ASSERT_TRUE(second->read(1).is_ok());
  const std::size_t stopped = recorder_.now();

  const auto third = rebuild(*second, stopped, 0);
  ASSERT_EQ(third->open().text(), Status().text());
  for (std::uint64_t n = 0; n < 2; ++n) {
    EXPECT_TRUE(third->has(n)) << n;
    EXPECT_TRUE(third->read(n).is_ok()) << n;
  }
}

// The owner is killed between the failed sync and its word of that. Nothing tells the next one that
// the system shows records which the medium has not: whatever it builds on them, what it answered
// is found after the machine stops, and whatever is found is right.
class KilledAfterAFailedSyncTest : public FailedSyncTest {
 protected:
  static constexpr std::uint64_t kSlots = 16;

  void fill() {
    for (std::uint64_t n = 1; n < kSlots; ++n) ASSERT_TRUE(first_.write(n).is_ok());
    for (std::uint64_t n = 0; n < kSlots; ++n) answered_[n] = recorder_.now();
  }
  // The next sync of that file fails, for a block that may take another's slot, or a new run.
  void fail_sync(const std::string& file) {
    faults_->aim(transfer::Fault::kError, transfer::IoOp::kSync, 1, file);
    Status status;
    for (std::uint64_t n = 100; n < 100 + kSlots && status.is_ok(); ++n) {
      const std::size_t begun = recorder_.now();
      status = first_.write(n);
      if (status.is_ok()) answered_[n] = recorder_.now();
      note_evictions(first_, begun);
    }
    ASSERT_EQ(status.code(), Code::kIo);
    while (killed_ < recorder_.now() && !recorder_.is_untold(killed_, file)) ++killed_;
    ASSERT_TRUE(recorder_.is_untold(killed_, file));
  }
  void live_on() {
    second_ = rebuild(first_, killed_, 100);
    recorder_.go_on_after_kill(killed_, first_.path(), second_->path());
    open_recorded(*second_);
    EXPECT_EQ(second_->log().find("sync=failed_before"), std::string::npos) << "nothing tells it";
    for (std::uint64_t n = 200; n < 200 + 2 * kSlots; ++n) {
      const std::size_t begun = recorder_.now();
      ASSERT_EQ(second_->write(n).text(), Status().text());
      answered_[n] = recorder_.now();
      note_evictions(*second_, begun);
    }
  }
  void stop_at(std::size_t moment, unsigned percent) {
    const auto third = rebuild(*second_, moment, percent);
    ASSERT_EQ(third->open().text(), Status().text());
    for (const auto& [n, when] : answered_) {
      const bool is_found = third->has(n);
      EXPECT_TRUE(is_found || when > moment || gone_at(n) <= moment) << n;
      if (is_found) {
        EXPECT_EQ(third->read(n).text(), Status().text()) << n;
      }
    }
    ASSERT_EQ(third->write(1'000).text(), Status().text());
    ASSERT_EQ(third->read(1'000).text(), Status().text());
  }
  void stop_often() {
    for (std::size_t moment = killed_; moment <= recorder_.now(); ++moment) {
      for (const unsigned percent : {0U, 50U}) {
        SCOPED_TRACE(std::to_string(moment) + " " + std::to_string(percent));
        stop_at(moment, percent);
        if (HasFailure()) return;
      }
    }
  }

  std::size_t killed_ = 0;
  std::unique_ptr<Rig> second_;
};

TEST_F(KilledAfterAFailedSyncTest, OfRecordsNothingAnsweredIsLostAndNothingWrongIsFound) {
  open_recorded(first_);
  fill();
  fail_sync("slots.meta");
  live_on();
  stop_often();
}

TEST_F(KilledAfterAFailedSyncTest, OfClaimsNothingAnsweredIsLostAndNothingWrongIsFound) {
  open_recorded(first_);
  answered_[0] = recorder_.now();
  fail_sync("extents.meta");
  live_on();
  stop_often();
}

TEST_F(KilledAfterAFailedSyncTest, OfFramesNothingAnsweredIsLostAndNothingWrongIsFound) {
  open_recorded(first_);
  fill();
  fail_sync("0.slots");
  live_on();
  stop_often();
}

}  // namespace
}  // namespace terrace::campaign
