// Looks by hands that take their time: which look is whose answer, and what it found.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <deque>
#include <filesystem>

#include "terrace/testing/fake_clock.h"
#include "terrace/testing/file_calls.h"
#include "terrace/testing/memory_log.h"
#include "terrace/tier/disk/disk_rig.h"
#include "terrace/tier/disk/flights_internal.h"
#include "terrace/tier/disk/looker_internal.h"
#include "terrace/tier/disk/volume_internal.h"

namespace terrace::tier::disk {
namespace {

using ::testing::HasSubstr;
namespace fs = std::filesystem;

// Does a job when the test says so.
class LateHands final : public Hands {
 public:
  explicit LateHands(std::deque<Job>& jobs) : jobs_(jobs) {}
  void post(Job job, bool /*is_urgent*/) override { jobs_.push_back(std::move(job)); }

 private:
  std::deque<Job>& jobs_;
};

class LookerTest : public ::testing::Test {
 protected:
  void SetUp() override {
    const DiskTier::Options& options = rig_.options();
    auto adoption = adopt_owner_directory(rig_.path(), options.fingerprint.content_digest(),
                                          options.fingerprint.layout_digest());
    ASSERT_TRUE(adoption.has_value() && adoption->owner.has_value());
    Volume::Options volume;
    volume.layout = &options.layout;
    volume.fingerprint = &options.fingerprint;
    volume.share_bytes = 64 << 20;
    auto opened = Volume::open(*std::move(adoption->owner), volume, log_);
    ASSERT_TRUE(opened.has_value()) << opened.error().text();
    volume_ = *std::move(opened);
    ASSERT_EQ(volume_->fit(64 << 20, 0).text(), Status().text());
    clock_.advance(seconds(1000));
  }
  void make(bool has_hand) {
    auto made =
        Looker::create(*volume_, has_hand ? std::make_unique<LateHands>(jobs_) : nullptr, clock_);
    ASSERT_TRUE(made.has_value()) << made.error().text();
    looker_ = *std::move(made);
  }
  void do_next() {
    ASSERT_FALSE(jobs_.empty());
    const Hands::Job job = std::move(jobs_.front());
    jobs_.pop_front();
    job();
  }

  testing::FakeClock clock_;
  testing::MemoryLog log_;
  Rig rig_;
  std::unique_ptr<Volume> volume_;
  std::deque<Hands::Job> jobs_;
  std::unique_ptr<Looker> looker_;
};

TEST_F(LookerTest, WithoutAHandItIsMadeAtOnce) {
  make(false);
  EXPECT_EQ(looker_->number(), 0U);
  looker_->begin();
  EXPECT_EQ(looker_->number(), 1U);
  EXPECT_FALSE(looker_->is_under_way());
  EXPECT_TRUE(looker_->sight().is_linked);
  EXPECT_EQ(looker_->sight().place.text(), Status().text());
  EXPECT_GT(looker_->sight().total_bytes, 0U);
  EXPECT_EQ(looker_->ask(true), 2U);
  EXPECT_EQ(looker_->number(), 2U);
}

TEST_F(LookerTest, WhatWasFoundCountsFromWhenTheLookBegan) {
  make(true);
  looker_->begin();
  clock_.advance(seconds(3));
  looker_->begin();  // It is at it.
  ASSERT_EQ(jobs_.size(), 1U);
  looker_->take();
  EXPECT_EQ(looker_->number(), 0U);
  EXPECT_EQ(looker_->under_way_for(), seconds(3));
  do_next();
  looker_->take();
  EXPECT_EQ(looker_->number(), 1U);
  EXPECT_EQ(looker_->age(), seconds(3));
  EXPECT_EQ(looker_->under_way_for(), Nanoseconds(0));
}

TEST_F(LookerTest, WhoAsksIsNotAnsweredByALookFromBefore) {
  make(true);
  looker_->begin();
  fs::rename(rig_.owner(), rig_.path() + "/elsewhere");
  const std::uint64_t wanted = looker_->ask();
  EXPECT_EQ(looker_->ask(true), wanted) << "one for all who ask meanwhile";
  ASSERT_EQ(jobs_.size(), 1U);
  do_next();
  looker_->take();
  EXPECT_LT(looker_->number(), wanted);
  do_next();
  looker_->take();
  EXPECT_EQ(looker_->number(), wanted);
  EXPECT_THAT(looker_->sight().place.message(), HasSubstr("ENOENT"));
  EXPECT_TRUE(jobs_.empty());
}

TEST_F(LookerTest, ADeletedFileIsNotAPathThatLeadsElsewhere) {
  make(true);
  fs::remove(rig_.owner() + "/0.slots");
  looker_->begin();
  do_next();
  looker_->take();
  EXPECT_FALSE(looker_->sight().is_linked);
}

// As one that was shut down after an error, or whose server is away.
class FailsFstat final : public testing::FileWatch {
 public:
  explicit FailsFstat(std::string path) : path_(std::move(path)) {}
  void on_change(const testing::FileChange& /*change*/) override {}
  bool fails_fstat(const std::string& path) override { return path == path_; }

 private:
  const std::string path_;
};

TEST_F(LookerTest, AFileOfWhichItsFileSystemCannotSayIsNotDeleted) {
  make(true);
  for (const char* const name : {"/0.slots", "/ns-0001/slots.meta", "/extents.meta"}) {
    const FailsFstat failing(rig_.owner() + name);
    looker_->begin();
    do_next();
    looker_->take();
    EXPECT_TRUE(looker_->sight().is_linked) << name;
    EXPECT_EQ(looker_->sight().place.code(), Code::kIo) << name;
    EXPECT_THAT(looker_->sight().place.message(),
                HasSubstr("fstat " + rig_.owner() + name + ": EIO"));
  }
  looker_->begin();
  do_next();
  looker_->take();
  EXPECT_EQ(looker_->sight().place.text(), Status().text()) << "it came back";
}

TEST_F(LookerTest, ADeletedFileIsSeenBesideOneOfWhichNobodyCanSay) {
  make(false);
  fs::remove(rig_.owner() + "/extents.meta");
  const FailsFstat failing(rig_.owner() + "/0.slots");
  looker_->begin();
  EXPECT_FALSE(looker_->sight().is_linked);
}

// The volume's files may be closed and the looker gone when it comes back.
TEST_F(LookerTest, ALookOwnsWhatItUses) {
  make(true);
  looker_->begin();
  looker_.reset();
  volume_.reset();
  fs::remove_all(rig_.owner());
  do_next();
}

TEST_F(LookerTest, NobodyWaitsForOneThatHangs) {
  make(true);
  looker_->begin();
  EXPECT_FALSE(looker_->end(milliseconds(1)));
  clock_.advance(kHanging + seconds(1));
  EXPECT_FALSE(looker_->end(seconds(3600)));
  do_next();
  EXPECT_TRUE(looker_->end(Nanoseconds(0)));
}

TEST(LackOfRoomTest, LeavesHalfOfWhatStaysFreeForOthersAtTheStart) {
  Sight sight;
  EXPECT_EQ(lack_of_room(sight, 1U << 30U), "") << "nobody knows";
  sight.total_bytes = 1ULL << 40U;
  const std::uint64_t kept = reserve_of(sight.total_bytes) / 2;
  sight.free_bytes = kept + 4096;
  EXPECT_EQ(lack_of_room(sight, 4096), "");
  EXPECT_THAT(lack_of_room(sight, 4097), HasSubstr("others have used its file system up"));
}

}  // namespace
}  // namespace terrace::tier::disk
