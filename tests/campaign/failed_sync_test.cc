// A device fails a sync, the owner is killed, and the machine stops in the next one's life.
#include <gtest/gtest.h>

#include <filesystem>
#include <memory>

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

}  // namespace
}  // namespace terrace::campaign
