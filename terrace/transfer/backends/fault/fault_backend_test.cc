#include "terrace/transfer/backends/fault/fault_backend.h"

#include <fcntl.h>
#include <gtest/gtest.h>

#include <algorithm>

#include "terrace/base/file.h"
#include "terrace/testing/eventually.h"
#include "terrace/testing/scratch_directory.h"
#include "terrace/transfer/backends/fault/recorder.h"
#include "terrace/transfer/builtin.h"

namespace terrace::transfer {
namespace {

std::unique_ptr<Backend> threads() {
  auto chosen = make_backend("threads", {16, 2});
  EXPECT_TRUE(chosen.has_value());
  return std::move(chosen->backend);
}

class FaultBackendTest : public ::testing::Test {
 protected:
  FaultBackendTest() : faults_(threads(), 7), out_(16384), in_(16384) {
    auto file = open_file(scratch_.path() + "/x", O_RDWR | O_CREAT);
    file_ = *std::move(file);
    faults_.name_file(file_.get(), "/kv/x");
    for (std::size_t i = 0; i < out_.size(); ++i) out_[i] = static_cast<std::byte>(i * 7 / 3);
  }
  Transfer make(IoOp op, std::uint64_t offset = 0) {
    Transfer transfer;
    transfer.op = op;
    transfer.file = file_.get();
    transfer.offset = offset;
    if (op == IoOp::kRead || op == IoOp::kWrite) {
      auto& memory = op == IoOp::kRead ? in_ : out_;
      transfer.pieces[0] = {memory.data(), memory.size()};
      transfer.piece_count = 1;
    }
    return transfer;
  }
  std::vector<Completion> collect(std::size_t count) {
    std::vector<Completion> completions;
    EXPECT_TRUE(testing::eventually([&] {
      faults_.wait(milliseconds(20));
      faults_.poll(completions);
      return completions.size() >= count;
    }));
    return completions;
  }
  Status run(const Transfer& transfer) {
    EXPECT_TRUE(faults_.submit(transfer).is_ok());
    return collect(1).at(0).status;
  }
  std::size_t differing() const {
    std::size_t bits = 0;
    for (std::size_t i = 0; i < in_.size(); ++i) {
      bits +=
          static_cast<std::size_t>(__builtin_popcount(std::to_integer<unsigned>(in_[i] ^ out_[i])));
    }
    return bits;
  }

  testing::ScratchDirectory scratch_;
  UniqueFd file_;
  FaultBackend faults_;
  std::vector<std::byte> out_;
  std::vector<std::byte> in_;
};

TEST_F(FaultBackendTest, AimedErrorsFailThatOperationAndNameTheFile) {
  faults_.aim(Fault::kError, IoOp::kWrite);
  const Status status = run(make(IoOp::kWrite));
  EXPECT_EQ(status.code(), Code::kIo);
  EXPECT_EQ(status.message(), "pwrite /kv/x: EIO (5: Input/output error)");
  EXPECT_TRUE(run(make(IoOp::kWrite)).is_ok());
  faults_.aim(Fault::kNoSpace, IoOp::kWrite);
  EXPECT_EQ(run(make(IoOp::kWrite)).code(), Code::kExhausted);
}

TEST_F(FaultBackendTest, ABadSectorFailsEachReadThatCoversItForGood) {
  ASSERT_TRUE(run(make(IoOp::kWrite)).is_ok());
  ASSERT_TRUE(run(make(IoOp::kWrite, 16384)).is_ok());
  faults_.spoil("/kv/x", 16384);
  faults_.spoil("/kv/y", 0);
  for (int i = 0; i < 3; ++i) EXPECT_EQ(run(make(IoOp::kRead, 16384)).code(), Code::kIo);
  EXPECT_EQ(run(make(IoOp::kRead, 4096)).code(), Code::kIo);
  EXPECT_TRUE(run(make(IoOp::kRead, 0)).is_ok()) << "it ends before";
  EXPECT_TRUE(run(make(IoOp::kWrite, 16384)).is_ok());
}

TEST_F(FaultBackendTest, AFlippedReadDiffersInOneBitAndSaysOk) {
  ASSERT_TRUE(run(make(IoOp::kWrite)).is_ok());
  faults_.aim(Fault::kFlip, IoOp::kRead);
  EXPECT_TRUE(run(make(IoOp::kRead)).is_ok());
  EXPECT_EQ(differing(), 1U);
}

// Else the backend below shows what is right, and it is spoiled once nobody looks any more.
TEST_F(FaultBackendTest, OfAReadNothingIsShownBeforeItIsSpoiled) {
  struct Shown final : Arrivals {
    void on_bytes(std::uint64_t, std::uint64_t) override { ++calls; }
    int calls = 0;
  } shown;
  Transfer read = make(IoOp::kRead);
  read.arrivals = &shown;
  const auto inner = threads();
  ASSERT_TRUE(run(make(IoOp::kWrite)).is_ok());
  ASSERT_TRUE(inner->submit(read).is_ok());
  std::vector<Completion> completions;
  ASSERT_TRUE(testing::eventually([&] {
    inner->wait(milliseconds(20));
    inner->poll(completions);
    return !completions.empty();
  }));
  ASSERT_GT(shown.calls, 0) << "the backend below shows them";
  shown.calls = 0;
  for (const Fault fault : {Fault::kNone, Fault::kFlip, Fault::kCut, Fault::kReplay}) {
    faults_.aim(fault, IoOp::kRead);
    EXPECT_TRUE(run(read).is_ok());
    EXPECT_EQ(shown.calls, 0) << to_string(fault);
  }
}

TEST_F(FaultBackendTest, AFlippedWriteLeavesTheCallersMemoryAlone) {
  const auto before = out_;
  faults_.aim(Fault::kFlip, IoOp::kWrite);
  ASSERT_TRUE(run(make(IoOp::kWrite)).is_ok());
  EXPECT_EQ(out_, before);
  ASSERT_TRUE(run(make(IoOp::kRead)).is_ok());
  EXPECT_EQ(differing(), 1U);
}

TEST_F(FaultBackendTest, ATornWriteLandsInPartAndSaysOk) {
  std::vector<std::byte> old(16384, std::byte{0xEE});
  Transfer write = make(IoOp::kWrite);
  write.pieces[0].data = old.data();
  ASSERT_TRUE(run(write).is_ok());
  bool is_torn = false;
  for (int i = 0; i < 20 && !is_torn; ++i) {
    faults_.aim(Fault::kCut, IoOp::kWrite);
    ASSERT_TRUE(run(make(IoOp::kWrite)).is_ok());
    ASSERT_TRUE(run(make(IoOp::kRead)).is_ok());
    is_torn = in_ != out_;
    const auto first_old = static_cast<std::size_t>(
        std::mismatch(in_.begin(), in_.end(), out_.begin()).first - in_.begin());
    EXPECT_TRUE(std::all_of(in_.begin() + static_cast<std::ptrdiff_t>(first_old), in_.end(),
                            [](std::byte b) { return b == std::byte{0xEE}; }) ||
                !is_torn);
    ASSERT_TRUE(run(write).is_ok());
  }
  EXPECT_TRUE(is_torn);
}

TEST_F(FaultBackendTest, AMisplacedReadBringsAnotherPlace) {
  ASSERT_TRUE(run(make(IoOp::kWrite)).is_ok());
  std::vector<std::byte> other(16384, std::byte{0x11});
  Transfer write = make(IoOp::kWrite, 16384);
  write.pieces[0].data = other.data();
  ASSERT_TRUE(run(write).is_ok());
  faults_.aim(Fault::kMisplace, IoOp::kRead);
  ASSERT_TRUE(run(make(IoOp::kRead)).is_ok());
  EXPECT_EQ(in_, other);
}

TEST_F(FaultBackendTest, LostCompletionsComeWhenReleased) {
  faults_.aim(Fault::kLose, IoOp::kWrite);
  ASSERT_TRUE(faults_.submit(make(IoOp::kWrite)).is_ok());
  std::vector<Completion> completions;
  ASSERT_TRUE(testing::eventually([&] {
    faults_.wait(milliseconds(20));
    faults_.poll(completions);
    return faults_.lost() == 1;
  }));
  EXPECT_TRUE(completions.empty());
  EXPECT_EQ(faults_.in_flight(), 1U);
  faults_.release_lost();
  EXPECT_TRUE(collect(1)[0].status.is_ok());
}

TEST_F(FaultBackendTest, AHangingDeviceAnswersWhenReleased) {
  faults_.hold(true);
  ASSERT_TRUE(faults_.submit(make(IoOp::kWrite)).is_ok());
  std::vector<Completion> completions;
  for (int i = 0; i < 5; ++i) {
    faults_.wait(milliseconds(5));
    faults_.poll(completions);
  }
  EXPECT_TRUE(completions.empty());
  faults_.hold(false);
  EXPECT_EQ(collect(1).size(), 1U);
}

TEST_F(FaultBackendTest, DevicesMayAlsoSayTheseAndTheFileIsNamed) {
  const std::pair<Fault, const char*> all[] = {
      {Fault::kInterrupt, "EINTR"}, {Fault::kAgain, "EAGAIN"}, {Fault::kReadOnly, "EROFS"}};
  for (const auto& [fault, name] : all) {
    faults_.aim(fault, IoOp::kWrite);
    const Status status = run(make(IoOp::kWrite));
    EXPECT_EQ(status.code(), fault == Fault::kReadOnly ? Code::kRefused : Code::kIo);
    EXPECT_TRUE(status.message().starts_with(std::string("pwrite /kv/x: ") + name))
        << status.message();
    EXPECT_EQ(faults_.injected(fault), 1U);
  }
}

TEST_F(FaultBackendTest, AReplayedReadBringsWhatLayThereBefore) {
  FaultRates rates;
  rates.replayed_read = 100;
  faults_.set_rates(rates);
  std::vector<std::byte> old(16384, std::byte{0xEE});
  Transfer write = make(IoOp::kWrite);
  write.pieces[0].data = old.data();
  ASSERT_TRUE(run(write).is_ok());
  ASSERT_TRUE(run(make(IoOp::kWrite)).is_ok());
  EXPECT_TRUE(run(make(IoOp::kRead)).is_ok());
  EXPECT_EQ(in_, old);
  faults_.set_rates({});
  EXPECT_TRUE(run(make(IoOp::kRead)).is_ok());
  EXPECT_EQ(in_, out_);
}

TEST_F(FaultBackendTest, ACompletionThatComesTwiceCountsOnce) {
  faults_.aim(Fault::kDuplicate, IoOp::kWrite);
  ASSERT_TRUE(run(make(IoOp::kWrite)).is_ok());
  // Another transfer has its place by the time the second one comes.
  faults_.aim(Fault::kLose, IoOp::kRead);
  ASSERT_TRUE(faults_.submit(make(IoOp::kRead)).is_ok());
  std::vector<Completion> completions;
  ASSERT_TRUE(testing::eventually([&] {
    faults_.wait(milliseconds(1));
    faults_.poll(completions);
    return faults_.counters().stray.value() == 1;
  }));
  EXPECT_TRUE(completions.empty());
  EXPECT_EQ(faults_.in_flight(), 1U);
  ASSERT_TRUE(testing::eventually([&] {
    faults_.poll(completions);
    return faults_.lost() == 1;
  }));
  faults_.release_lost();
  EXPECT_TRUE(collect(1)[0].status.is_ok());
}

TEST_F(FaultBackendTest, ReorderedCompletionsChangePlaces) {
  FaultRates rates;
  rates.reordered = 100;
  faults_.set_rates(rates);
  bool is_reordered = false;
  for (int i = 0; i < 50 && !is_reordered; ++i) {
    std::vector<std::uint64_t> tokens;
    faults_.hold(true);
    for (std::uint64_t token = 1; token <= 4; ++token) {
      Transfer transfer = make(IoOp::kSync);
      transfer.token = token;
      ASSERT_TRUE(faults_.submit(transfer).is_ok());
    }
    faults_.hold(false);
    for (const Completion& completion : collect(4)) tokens.push_back(completion.token);
    is_reordered = !std::is_sorted(tokens.begin(), tokens.end());
    std::sort(tokens.begin(), tokens.end());
    EXPECT_EQ(tokens, (std::vector<std::uint64_t>{1, 2, 3, 4}));
  }
  EXPECT_TRUE(is_reordered);
}

TEST_F(FaultBackendTest, EqualSeedsInjectEqualFaults) {
  std::vector<std::uint64_t> totals;
  for (int i = 0; i < 2; ++i) {
    FaultBackend faults(threads(), 99);
    FaultRates rates;
    rates.write_error = 30;
    rates.no_space = 10;
    faults.set_rates(rates);
    for (int n = 0; n < 100; ++n) {
      ASSERT_TRUE(faults.submit(make(IoOp::kWrite)).is_ok());
      std::vector<Completion> completions;
      ASSERT_TRUE(testing::eventually([&] {
        faults.wait(milliseconds(20));
        faults.poll(completions);
        return !completions.empty();
      }));
    }
    totals.push_back(faults.injected(Fault::kError) * 1000 + faults.injected(Fault::kNoSpace));
  }
  EXPECT_EQ(totals[0], totals[1]);
  EXPECT_GT(totals[0], 1000U);
}

class RecorderTest : public ::testing::Test {
 protected:
  void SetUp() override {
    file_ = open_file(scratch_.path() + "/x", O_RDWR | O_CREAT).value();
    auto faults = std::make_unique<FaultBackend>(threads(), 1);
    faults_ = faults.get();
    backend_ = std::make_unique<RecordingBackend>(std::move(faults), recorder_);
    backend_->name_file(file_.get(), "x");
  }
  Status run(IoOp op, std::uint64_t offset = 0) {
    Transfer transfer;
    transfer.op = op;
    transfer.file = file_.get();
    transfer.offset = offset;
    transfer.length = 4096;
    if (op == IoOp::kWrite) {
      transfer.pieces[0] = {memory_.data(), memory_.size()};
      transfer.piece_count = 1;
    }
    EXPECT_TRUE(backend_->submit(transfer).is_ok());
    std::vector<Completion> completions;
    EXPECT_TRUE(testing::eventually([&] {
      backend_->wait(milliseconds(20));
      backend_->poll(completions);
      return !completions.empty();
    }));
    return completions.at(0).status;
  }

  testing::ScratchDirectory scratch_;
  UniqueFd file_;
  std::vector<std::byte> memory_ = std::vector<std::byte>(4096, std::byte{1});
  Recorder recorder_;
  FaultBackend* faults_ = nullptr;
  std::unique_ptr<RecordingBackend> backend_;
  Rng rng_{3};
};

TEST_F(RecorderTest, WhatAFailedSyncWasToKeepNoLaterOneKeeps) {
  ASSERT_TRUE(run(IoOp::kWrite).is_ok());
  faults_->aim(Fault::kError, IoOp::kSync);
  ASSERT_FALSE(run(IoOp::kSync).is_ok());
  ASSERT_TRUE(run(IoOp::kSync).is_ok());
  // The length alone is there: the file's journal tries again.
  const auto after = recorder_.survivors(recorder_.now(), rng_, 0);
  ASSERT_EQ(after.size(), 1U);
  EXPECT_EQ(after[0].kind, Recorder::Kind::kAllocate);
  EXPECT_TRUE(after[0].bytes.empty());
  ASSERT_TRUE(run(IoOp::kWrite).is_ok());
  ASSERT_TRUE(run(IoOp::kSync).is_ok());
  const auto last = recorder_.survivors(recorder_.now(), rng_, 0);
  ASSERT_EQ(last.size(), 2U);
  EXPECT_EQ(last[1].kind, Recorder::Kind::kWrite);
}

TEST_F(RecorderTest, AnAllocationIsDurableOnceItWasSynced) {
  ASSERT_TRUE(run(IoOp::kAllocate, 8192).is_ok());
  EXPECT_TRUE(recorder_.survivors(recorder_.now(), rng_, 0).empty());
  EXPECT_EQ(recorder_.survivors(recorder_.now(), rng_, 100).at(0).file_bytes, 12288U);
  ASSERT_TRUE(run(IoOp::kSync).is_ok());
  EXPECT_EQ(recorder_.survivors(recorder_.now(), rng_, 0).at(0).file_bytes, 12288U);
}

// How many changes of names and lengths have landed where nothing lands by chance.
std::size_t landed_names(const Recorder& recorder, Rng& rng, unsigned percent) {
  std::size_t names = 0;
  for (const auto& landed : recorder.survivors(recorder.now(), rng, percent)) {
    names += landed.kind > Recorder::Kind::kSync ? 1 : 0;
  }
  return names;
}

TEST_F(RecorderTest, NamesLandInTheirOrderAndWithTheSyncOfTheirDirectory) {
  using Kind = Recorder::Kind;
  recorder_.note({.kind = Kind::kDirectory, .path = "/d"});
  recorder_.note({.kind = Kind::kCreate, .path = "/d/x.tmp"});
  recorder_.note({.kind = Kind::kWrite, .path = "/d/x.tmp", .bytes = memory_});
  recorder_.note({.kind = Kind::kSync, .path = "/d/x.tmp"});
  EXPECT_EQ(landed_names(recorder_, rng_, 0), 0U);
  recorder_.note({.kind = Kind::kRename, .path = "/d/x", .source = "/d/x.tmp"});
  recorder_.note({.kind = Kind::kCreate, .path = "/d/y"});
  EXPECT_EQ(landed_names(recorder_, rng_, 100), 4U);
  recorder_.note({.kind = Kind::kSync, .path = "/d"});
  EXPECT_EQ(landed_names(recorder_, rng_, 0), 4U) << "the journal has what came before, too";
  recorder_.note({.kind = Kind::kTruncate, .path = "/d/y", .file_bytes = 7});
  EXPECT_EQ(landed_names(recorder_, rng_, 0), 4U);
  recorder_.note({.kind = Kind::kSync, .path = "/d/y"});
  EXPECT_EQ(landed_names(recorder_, rng_, 0), 5U);
  bool was_cut = false;
  for (int i = 0; i < 20; ++i) {
    recorder_.note({.kind = Kind::kRemove, .path = "/d/y"});
    const auto landed = recorder_.survivors(recorder_.now(), rng_, 50);
    const bool has_all = landed.back().kind == Kind::kRemove;
    was_cut = was_cut || !has_all;
  }
  EXPECT_TRUE(was_cut);
}

TEST_F(RecorderTest, AfterAKillWhatWasWrittenIsStillInDoubtUntilSomebodySyncsIt) {
  ASSERT_TRUE(run(IoOp::kWrite, 0).is_ok());
  const std::size_t killed = recorder_.now();
  ASSERT_TRUE(run(IoOp::kSync, 0).is_ok());
  ASSERT_TRUE(run(IoOp::kWrite, 4096).is_ok());
  recorder_.go_on_after_kill(killed, "x", "y");
  EXPECT_EQ(recorder_.now(), killed);
  EXPECT_TRUE(recorder_.survivors(killed, rng_, 0).empty());
  const auto all = recorder_.survivors(killed, rng_, 100);
  ASSERT_EQ(all.size(), 8U) << "sectors, none of the second write";
  EXPECT_EQ(all.front().path, "y");
  recorder_.note({.kind = Recorder::Kind::kSync, .path = "y"});
  EXPECT_EQ(recorder_.survivors(recorder_.now(), rng_, 0).size(), 1U);
}

TEST_F(RecorderTest, DistrustedSyncsKeepNothing) {
  ASSERT_TRUE(run(IoOp::kWrite).is_ok());
  ASSERT_TRUE(run(IoOp::kSync).is_ok());
  recorder_.distrust_syncs();
  EXPECT_TRUE(recorder_.survivors(recorder_.now(), rng_, 0).empty());
}

TEST_F(RecorderTest, WhatWasSyncedSurvivesAndTheRestMayTear) {
  ASSERT_TRUE(run(IoOp::kWrite, 0).is_ok());
  const std::size_t unsynced = recorder_.now();
  ASSERT_TRUE(run(IoOp::kSync, 0).is_ok());
  ASSERT_TRUE(run(IoOp::kWrite, 8192).is_ok());
  EXPECT_TRUE(recorder_.survivors(unsynced, rng_, 0).empty());
  EXPECT_EQ(recorder_.survivors(unsynced, rng_, 100).size(), 8U);  // Sectors.
  ASSERT_EQ(recorder_.survivors(recorder_.now(), rng_, 0).size(), 1U);
  EXPECT_EQ(recorder_.survivors(recorder_.now(), rng_, 0)[0].bytes.size(), 4096U);
  const std::size_t torn = recorder_.survivors(recorder_.now(), rng_, 50).size();
  EXPECT_GT(torn, 1U);
  EXPECT_LT(torn, 9U);
}

}  // namespace
}  // namespace terrace::transfer
