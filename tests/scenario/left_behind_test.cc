// A disk or a shared store that hangs when the owner closes: closing ends all the same, and what
// they may still use stays.
#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/uio.h>

#include <atomic>
#include <filesystem>
#include <fstream>
#include <map>

#include "scenario/manager_rig.h"
#include "terrace/base/file.h"
#include "terrace/testing/hang.h"
#include "terrace/testing/left_thread.h"
#include "terrace/transfer/backends/dir/dir_store.h"

namespace terrace::scenario {
namespace {

// Reads of a device that has not answered yet.
struct LateReads {
  std::atomic<bool> is_held{false};
  std::atomic<int> count{0};
  std::vector<transfer::Transfer> reads;  // The I/O thread's, until that has ended.
};

class LateBackend final : public transfer::Backend {
 public:
  LateBackend(std::unique_ptr<Backend> inner, LateReads& late)
      : Backend(inner->depth()), inner_(std::move(inner)), late_(late) {}
  [[nodiscard]] std::string_view name() const override { return inner_->name(); }
  void name_file(int file, const std::string& path) override {
    Backend::name_file(file, path);
    inner_->name_file(file, path);
  }
  void wake() override { inner_->wake(); }

 protected:
  Status start(const transfer::Transfer& transfer) override {
    if (late_.is_held && transfer.op == transfer::IoOp::kRead) {
      late_.reads.push_back(transfer);
      ++late_.count;
      return {};
    }
    flights_.emplace(transfer.token, transfer);
    return inner_->submit(transfer);
  }
  void collect(std::vector<Finished>& finished) override {
    std::vector<transfer::Completion> ended;
    inner_->poll(ended);
    for (transfer::Completion& completion : ended) {
      finished.push_back(
          {flights_.extract(completion.token).mapped(), std::move(completion.status)});
    }
  }
  void pause(Nanoseconds limit) override { inner_->wait(std::min(limit, milliseconds(1))); }

 private:
  std::unique_ptr<Backend> inner_;
  LateReads& late_;
  std::map<std::uint64_t, transfer::Transfer> flights_;
};

class LeftBehind : public ::testing::Test {
 protected:
  void TearDown() override { base::set_sync_point("dir.stop", {}); }

  [[nodiscard]] EngineOptions with_store() const {
    return {.tune = [path = scratch_.path()](manager::Options& made) {
      made.object.open_store = [path](const Clock&, LogSink&) {
        transfer::DirStoreOptions dir;
        dir.path = path + "/shared";
        dir.threads = 1;
        std::filesystem::create_directories(dir.path);
        return transfer::make_dir_store(dir);
      };
      made.object.pack_blocks = 2;
    }};
  }
  // The device does at last what it was asked for, wherever that memory is now.
  [[nodiscard]] bool end_late(const transfer::Transfer& read) const {
    const std::string path = scratch_.path() + "/late";
    const std::string bytes(read.bytes(), '\x5a');
    std::ofstream(path, std::ios::binary) << bytes;
    const auto file = open_file(path, O_RDONLY);
    std::vector<iovec> pieces;
    pieces.reserve(read.piece_count);
    for (std::size_t i = 0; i < read.piece_count; ++i) {
      pieces.push_back({read.pieces.at(i).data, read.pieces.at(i).bytes});
    }
    // EFAULT where nothing is mapped any more.
    const ssize_t got = ::preadv(file->get(), pieces.data(), static_cast<int>(pieces.size()), 0);
    return got == static_cast<ssize_t>(bytes.size());
  }

  const Scratch scratch_;
};

TEST_F(LeftBehind, ADiskThatHangsKeepsTheHostMemoryThatItReadsInto) {
  EngineOptions options{.disk_path = scratch_.path() + "/d"};
  const auto tokens = Engine::make_tokens(4, 1);
  {
    Engine before(scratch_, options);
    ASSERT_TRUE(before.wait_ready());
    (void)before.run(tokens);
    ASSERT_TRUE(before.wait_on_disk(5));
  }
  LateReads late;
  options.tune = [&late](manager::Options& made) {
    made.disk.decorate = [&late](std::unique_ptr<transfer::Backend> inner) {
      return std::make_unique<LateBackend>(std::move(inner), late);
    };
  };
  {
    Engine engine(scratch_, options);
    ASSERT_TRUE(engine.wait_ready());
    late.is_held = true;
    const RequestId id = engine.begin(tokens);
    ASSERT_TRUE(wait_until([&] {
      (void)engine.manager().poll_request(id, Tokens(0), Tokens(1U << 30U));
      (void)engine.step();
      return late.count > 0;
    }));
    engine.manager().close(milliseconds(10));
    EXPECT_TRUE(engine.manager().has_left_behind());
  }
  ASSERT_FALSE(late.reads.empty());
  for (const transfer::Transfer& read : late.reads) EXPECT_TRUE(end_late(read));
}

// A file server that is away: who asks it for the path of a disk directory waits for it.
TEST_F(LeftBehind, APathThatHangsHoldsUpNoTierAndDoesNotHoldUpClosing) {
  testing::Hang hang("lstat");
  Engine engine(scratch_, {.disk_path = scratch_.path() + "/d"});
  ASSERT_TRUE(engine.wait_ready());
  hang.hold();
  ASSERT_TRUE(wait_until([&] { return hang.held() == 1; }));
  const auto tokens = Engine::make_tokens(4, 1);
  EXPECT_EQ(engine.run(tokens).loaded, 0U);
  const Outcome again = engine.run(tokens);
  EXPECT_GT(again.loaded, 0U);
  EXPECT_TRUE(again.is_right);
  EXPECT_TRUE(engine.wait_on_disk(5)) << "the I/O thread writes";
  EXPECT_EQ(hang.held(), 1) << "somebody waited for it";
  engine.manager().close(milliseconds(10));
  EXPECT_EQ(hang.held(), 1) << "closing waited for it";
  EXPECT_FALSE(engine.manager().has_left_behind()) << "nobody uses host memory";
  engine.stop();
  ASSERT_TRUE(testing::has_thread("terrace-look-0"));
  const auto soil = testing::soil_freed_memory();
  hang.release();
  EXPECT_TRUE(wait_until([] { return !testing::has_thread("terrace-look-0"); }));
}

// From the start on: there is no disk then, and all else is as without one.
TEST_F(LeftBehind, AnOnlyPathThatDoesNotAnswerAtTheStartKeepsNoStoreFromOpening) {
  testing::Hang hang("stat", "terrace-path-0");
  hang.hold();
  EngineOptions options = with_store();
  options.disk_path = scratch_.path() + "/d";
  options.tune = [tune = options.tune](manager::Options& made) {
    tune(made);
    made.disk.first_look_limit = milliseconds(50);
  };
  Engine engine(scratch_, options);
  ASSERT_TRUE(engine.wait_ready());
  const auto status = engine.manager().status();
  EXPECT_THAT(status.problems, ::testing::Contains(::testing::AllOf(
                                   ::testing::HasSubstr("stat " + options.disk_path),
                                   ::testing::HasSubstr("until the engine restarts"))));
  for (const auto& tier : status.tiers) {
    if (tier.tier == Tier::kObject) {
      EXPECT_EQ(tier.state, manager::TierState::kOpen);
    }
  }
  const auto tokens = Engine::make_tokens(4, 1);
  (void)engine.run(tokens);
  EXPECT_EQ(engine.run(tokens).loaded, 4U);
  EXPECT_FALSE(engine.manager().reset(seconds(1)).is_ok()) << "blocks may lie there";
  engine.manager().close(seconds(5));
  EXPECT_EQ(hang.held(), 1) << "closing waited for it";
  EXPECT_FALSE(engine.manager().has_left_behind());
  engine.stop();
  hang.release();
  EXPECT_TRUE(wait_until([] { return !testing::has_thread("terrace-path-0"); }));
}

TEST_F(LeftBehind, TiersStayClosedWhereTheOnlyMarkOfAQuarantineWouldBeSilent) {
  testing::Hang hang("stat", "terrace-path-0");
  hang.hold();
  EngineOptions options = with_store();
  options.disk_path = scratch_.path() + "/d";
  options.tune = [&, tune = options.tune](manager::Options& made) {
    tune(made);
    made.disk.paths.push_back(scratch_.path() + "/answers");
    made.disk.first_look_limit = milliseconds(50);
    made.shadow.marks = {options.disk_path + "/evidence"};
  };
  Engine engine(scratch_, options);
  ASSERT_TRUE(engine.wait_ready());
  for (const auto& tier : engine.manager().status().tiers) {
    if (tier.tier == Tier::kObject || tier.tier == Tier::kDisk) {
      EXPECT_NE(tier.state, manager::TierState::kOpen) << static_cast<int>(tier.tier);
    }
  }
  const auto tokens = Engine::make_tokens(4, 1);
  (void)engine.run(tokens);
  EXPECT_EQ(engine.run(tokens).loaded, 4U) << "what this engine computed itself";
  engine.stop();
  hang.release();
  EXPECT_TRUE(wait_until([] { return !testing::has_thread("terrace-path-0"); }));
}

TEST_F(LeftBehind, ClosingDoesNotWaitForAPathThatDoesNotAnswerAtTheStart) {
  testing::Hang hang("stat", "terrace-path-0");
  hang.hold();
  Engine engine(scratch_, {.disk_path = scratch_.path() + "/d"});
  ASSERT_TRUE(wait_until([&] { return hang.held() == 1; }));
  engine.manager().close(milliseconds(10));
  EXPECT_EQ(hang.held(), 1) << "closing waited for it";
  EXPECT_FALSE(engine.manager().has_left_behind());
  hang.release();
  EXPECT_TRUE(wait_until([] { return !testing::has_thread("terrace-path-0"); }));
}

TEST_F(LeftBehind, AStoreThatHangsDoesNotHoldUpClosingAndKeepsWhatItUses) {
  testing::Hang hang("dir.begun");
  Engine engine(scratch_, with_store());
  ASSERT_TRUE(engine.wait_ready());
  hang.hold();
  (void)engine.run(Engine::make_tokens(4, 1));
  ASSERT_TRUE(wait_until([&] { return hang.held() == 1; }));
  engine.manager().close(milliseconds(10));
  EXPECT_EQ(hang.held(), 1) << "closing waited for it";
  EXPECT_TRUE(engine.manager().has_left_behind());
  engine.stop();
  ASSERT_TRUE(testing::has_thread("terrace-dir-0"));
  const auto soil = testing::soil_freed_memory();
  hang.release();
  EXPECT_TRUE(wait_until([] { return !testing::has_thread("terrace-dir-0"); }));
}

TEST_F(LeftBehind, AStoreThatEndsInTimeIsNot) {
  testing::Hang hang("dir.begun");
  Engine engine(scratch_, with_store());
  ASSERT_TRUE(engine.wait_ready());
  hang.hold();
  (void)engine.run(Engine::make_tokens(4, 1));
  ASSERT_TRUE(wait_until([&] { return hang.held() == 1; }));
  base::set_sync_point("dir.stop", [&] { hang.release(); });
  engine.manager().close(milliseconds(10));
  EXPECT_FALSE(engine.manager().has_left_behind());
  EXPECT_FALSE(testing::has_thread("terrace-dir-0"));
}

}  // namespace
}  // namespace terrace::scenario
