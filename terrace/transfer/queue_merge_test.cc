// Reads of neighbouring ranges as one request, and what becomes of each when that fails.
#include <fcntl.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <set>

#include "terrace/base/file.h"
#include "terrace/testing/eventually.h"
#include "terrace/testing/fake_clock.h"
#include "terrace/testing/scratch_directory.h"
#include "terrace/transfer/backends/fault/fault_backend.h"
#include "terrace/transfer/builtin.h"
#include "terrace/transfer/queue.h"

namespace terrace::transfer {
namespace {

constexpr std::size_t kPiece = 4096;
constexpr std::size_t kBlocks = 32;

// Two files; block n of one is full of n + 1.
class QueueMergeTest : public ::testing::Test {
 protected:
  void SetUp() override {
    for (UniqueFd& file : files_) {
      file = *open_file(scratch_.path() + "/x" + std::to_string(&file - files_.data()),
                        O_RDWR | O_CREAT);
      for (std::size_t n = 0; n < kBlocks; ++n) {
        const std::vector<char> content(2 * kPiece, static_cast<char>(n + 1));
        ASSERT_EQ(::pwrite(file.get(), content.data(), content.size(),
                           static_cast<off_t>(n * content.size())),
                  static_cast<ssize_t>(content.size()));
      }
    }
    start(20 * kPiece);
  }
  void start(std::uint64_t merged_bytes, std::function<bool(Transfer&)> prepare = {},
             std::function<void(Transfer&)> release = {}) {
    queue_.reset();
    auto chosen = make_backend("threads", {.depth = 8, .threads = 1});
    backend_ = std::make_unique<FaultBackend>(std::move(chosen->backend), 1);
    Queue::Options options;
    options.merged_bytes = merged_bytes;
    options.prepare = std::move(prepare);
    options.release = std::move(release);
    queue_ = std::make_unique<Queue>(*backend_, clock_, std::move(options));
  }
  Transfer read(std::size_t block, std::size_t file = 0) {
    Transfer transfer;
    transfer.token = 100 * file + block;
    transfer.op = IoOp::kRead;
    transfer.io_class = IoClass::kTtftRead;
    transfer.file = files_[file].get();
    transfer.offset = block * 2 * kPiece;
    transfer.pieces[0] = {&memory_[file][block][0], kPiece};
    transfer.pieces[1] = {&memory_[file][block][kPiece], kPiece};
    transfer.piece_count = 2;
    return transfer;
  }
  void push(const std::vector<Transfer>& transfers) {
    for (const Transfer& transfer : transfers) ASSERT_TRUE(queue_->push(transfer).is_ok());
  }
  // By token.
  std::map<std::uint64_t, Status> collect(std::size_t count) {
    std::vector<Completion> completions;
    EXPECT_TRUE(testing::eventually([&] {
      queue_->poll(completions);
      backend_->wait(milliseconds(completions.size() < count ? 20 : 0));
      return completions.size() >= count;
    }));
    std::map<std::uint64_t, Status> found;
    for (Completion& one : completions) {
      EXPECT_TRUE(found.emplace(one.token, std::move(one.status)).second) << one.token;
    }
    EXPECT_EQ(found.size(), count);
    return found;
  }
  void expect_read(std::size_t block, std::size_t file = 0) {
    const auto& got = memory_[file][block];
    EXPECT_TRUE(std::ranges::all_of(got, [&](std::byte byte) {
      return byte == static_cast<std::byte>(block + 1);
    })) << block;
  }
  [[nodiscard]] std::uint64_t requests() const {
    return backend_->counters().done[static_cast<std::size_t>(IoOp::kRead)].value();
  }

  testing::ScratchDirectory scratch_;
  testing::FakeClock clock_;
  std::array<UniqueFd, 2> files_;
  std::array<std::array<std::array<std::byte, 2 * kPiece>, kBlocks>, 2> memory_{};
  std::unique_ptr<FaultBackend> backend_;
  std::unique_ptr<Queue> queue_;
};

TEST_F(QueueMergeTest, NeighboursGoAsOneRequestAndEachIsAnswered) {
  push({read(3), read(4), read(5), read(6)});
  for (const auto& [token, status] : collect(4)) EXPECT_TRUE(status.is_ok()) << token;
  for (std::size_t block = 3; block < 7; ++block) expect_read(block);
  EXPECT_EQ(requests(), 1U);
  EXPECT_TRUE(queue_->is_idle());
}

TEST_F(QueueMergeTest, OthersMayStandInBetween) {
  push({read(0, 0), read(0, 1), read(1, 0), read(1, 1), read(2, 0), read(9, 0)});
  for (const auto& [token, status] : collect(6)) EXPECT_TRUE(status.is_ok()) << token;
  for (std::size_t block = 0; block < 2; ++block) {
    expect_read(block, 0);
    expect_read(block, 1);
  }
  expect_read(9);
  EXPECT_EQ(requests(), 3U);
}

TEST_F(QueueMergeTest, NoMoreThanItsBytesAndPieces) {
  start(6 * kPiece);
  push({read(0), read(1), read(2), read(3), read(4), read(5)});
  EXPECT_EQ(collect(6).size(), 6U);
  EXPECT_EQ(requests(), 2U);
  start(UINT64_MAX);
  std::vector<Transfer> all;
  all.reserve(kMaxPieces);
  for (std::size_t block = 0; block < 2 * kMaxPieces / 2; ++block) all.push_back(read(block));
  push(all);
  EXPECT_EQ(collect(all.size()).size(), all.size());
  EXPECT_EQ(requests(), 2U);
  start(0);
  push({read(0), read(1)});
  EXPECT_EQ(collect(2).size(), 2U);
  EXPECT_EQ(requests(), 2U);
}

TEST_F(QueueMergeTest, WhenItFailsEachOneIsAskedForAlone) {
  backend_->aim(Fault::kError, IoOp::kRead, 2);  // The request, then its first part.
  push({read(0), read(1), read(2)});
  const auto found = collect(3);
  EXPECT_EQ(found.at(0).code(), Code::kIo);
  EXPECT_TRUE(found.at(1).is_ok());
  EXPECT_TRUE(found.at(2).is_ok());
  expect_read(1);
  expect_read(2);
  EXPECT_EQ(requests(), 4U);
  EXPECT_TRUE(queue_->is_idle());
}

TEST_F(QueueMergeTest, WhatEndsBehindTheFileFailsAlone) {
  push({read(kBlocks - 2), read(kBlocks - 1)});
  ASSERT_EQ(::ftruncate(files_[0].get(), static_cast<off_t>((kBlocks - 1) * 2 * kPiece)), 0);
  const auto found = collect(2);
  EXPECT_TRUE(found.at(kBlocks - 2).is_ok());
  EXPECT_EQ(found.at(kBlocks - 1).code(), Code::kCorrupt);
  expect_read(kBlocks - 2);
}

TEST_F(QueueMergeTest, WhatCannotBePreparedWaits) {
  std::size_t left = 2;
  start(20 * kPiece, [&](Transfer&) {
    if (left == 0) return false;
    --left;
    return true;
  });
  push({read(0), read(1), read(2)});
  EXPECT_EQ(collect(2).size(), 2U);
  EXPECT_EQ(queue_->waiting(), 1U);
  left = 1;
  EXPECT_EQ(collect(1).begin()->first, 2U);
  EXPECT_EQ(requests(), 2U);
}

// Else a read for a first token could find all of them in the hands of prefetches that wait for it.
TEST_F(QueueMergeTest, WhatWaitsAgainAfterAFailureHoldsNoBuffers) {
  std::size_t left = 2;
  std::set<std::uint64_t> prepared;
  std::vector<std::uint64_t> begun;
  const auto give_back = [&](std::uint64_t token) { left += prepared.erase(token); };
  start(
      20 * kPiece,
      [&](Transfer& transfer) {
        if (prepared.contains(transfer.token)) return true;
        if (left == 0) return false;
        --left;
        prepared.insert(transfer.token);
        begun.push_back(transfer.token);
        return true;
      },
      [&](Transfer& transfer) { give_back(transfer.token); });
  backend_->aim(Fault::kError, IoOp::kRead, 1);
  std::vector<Transfer> two = {read(0), read(1)};
  for (Transfer& transfer : two) transfer.io_class = IoClass::kPrefetch;
  push(two);
  std::vector<Completion> completions;
  queue_->poll(completions);
  ASSERT_EQ(left, 0U) << "both go as one";
  push({read(9)});
  std::size_t ended = 0;
  ASSERT_TRUE(testing::eventually([&] {
    completions.clear();
    queue_->poll(completions);
    for (const Completion& one : completions) {
      EXPECT_TRUE(one.status.is_ok()) << one.token;
      give_back(one.token);
    }
    ended += completions.size();
    backend_->wait(milliseconds(ended < 3 ? 20 : 0));
    return ended == 3;
  }));
  EXPECT_EQ(begun, (std::vector<std::uint64_t>{0, 1, 9, 0, 1}));
}

TEST_F(QueueMergeTest, WhatSomebodyLooksAtAndWhatIsWrittenGoesAlone) {
  struct Nobody final : Arrivals {
    void on_bytes(std::uint64_t, std::uint64_t) override {}
  } nobody;
  std::vector<Transfer> seen = {read(0), read(1)};
  for (Transfer& transfer : seen) transfer.arrivals = &nobody;
  push(seen);
  EXPECT_EQ(collect(2).size(), 2U);
  EXPECT_EQ(requests(), 2U);
  std::vector<Transfer> writes = {read(0), read(1)};
  for (Transfer& transfer : writes) transfer.op = IoOp::kWrite;
  push(writes);
  EXPECT_EQ(collect(2).size(), 2U);
  EXPECT_EQ(backend_->counters().done[static_cast<std::size_t>(IoOp::kWrite)].value(), 2U);
}

TEST_F(QueueMergeTest, ADeadlineThatPassesAfterAFailureIsTold) {
  backend_->aim(Fault::kError, IoOp::kRead, 1);
  std::vector<Transfer> two = {read(0), read(1)};
  two[1].deadline = clock_.now() + seconds(1);
  push(two);
  std::vector<Completion> none;
  queue_->poll(none);
  clock_.advance(seconds(2));
  const auto found = collect(2);
  EXPECT_TRUE(found.at(0).is_ok());
  EXPECT_EQ(found.at(1).code(), Code::kDeadline);
}

}  // namespace
}  // namespace terrace::transfer
