// What every transfer backend must do. A backend's test instantiates it, plain and under a fault
// decorator that injects nothing:
//   INSTANTIATE_TEST_SUITE_P(Threads, BackendContract, ::testing::Values(...), backend_name);
// Threading: tests only.
#pragma once

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdlib>
#include <cstring>
#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "terrace/base/file.h"
#include "terrace/base/rng.h"
#include "terrace/testing/eventually.h"
#include "terrace/testing/scratch_directory.h"
#include "terrace/transfer/backend.h"

namespace terrace::transfer {

struct BackendMaker {
  std::string name;
  std::function<std::unique_ptr<Backend>(const Backend::Options&)> make;
};

inline void PrintTo(const BackendMaker& maker, std::ostream* out) { *out << maker.name; }

inline std::string backend_name(const ::testing::TestParamInfo<BackendMaker>& info) {
  return info.param.name;
}

class BackendContract : public ::testing::TestWithParam<BackendMaker> {
 protected:
  static constexpr std::size_t kPage = 4096;
  struct Free {
    void operator()(std::byte* memory) const { std::free(memory); }
  };
  using Memory = std::unique_ptr<std::byte, Free>;

  void SetUp() override { start({}); }
  void start(const Backend::Options& options) {
    backend_ = GetParam().make(options);
    ASSERT_NE(backend_, nullptr);
  }

  static Memory pages(std::size_t count) {
    return Memory(static_cast<std::byte*>(std::aligned_alloc(kPage, count * kPage)));
  }
  static void fill(std::byte* data, std::size_t bytes, std::uint64_t seed) {
    Rng rng(seed);
    for (std::size_t i = 0; i < bytes; ++i) data[i] = static_cast<std::byte>(rng.next());
  }
  // O_DIRECT where the file system has it.
  UniqueFd open_scratch(const std::string& name, int flags = O_RDWR | O_CREAT) {
    path_ = scratch_.path() + "/" + name;
    auto file = open_file(path_, flags | O_DIRECT);
    if (!file) file = open_file(path_, flags);
    EXPECT_TRUE(file.has_value());
    backend_->name_file(file->get(), path_);
    return *std::move(file);
  }
  static Transfer transfer(IoOp op, int file, std::uint64_t offset, std::byte* data,
                           std::size_t bytes) {
    Transfer transfer;
    transfer.op = op;
    transfer.file = file;
    transfer.offset = offset;
    if (bytes > 0) transfer.pieces[transfer.piece_count++] = {data, bytes};
    return transfer;
  }
  // Submits one transfer and waits for its completion.
  Status run(Transfer transfer) {
    transfer.token = ++token_;
    TERRACE_RETURN_IF_ERROR(backend_->submit(transfer));
    Status status{Code::kInternal, "no completion came"};
    EXPECT_TRUE(testing::eventually([&] {
      for (const Completion& completion : drain()) {
        EXPECT_EQ(completion.token, token_);
        status = completion.status;
        return true;
      }
      return false;
    }));
    return status;
  }
  std::vector<Completion> drain() {
    std::vector<Completion> completions;
    backend_->wait(milliseconds(50));
    backend_->poll(completions);
    return completions;
  }
  std::size_t drain(std::size_t count) {
    std::size_t got = 0;
    EXPECT_TRUE(testing::eventually([&] { return (got += drain().size()) >= count; }));
    return got;
  }

  testing::ScratchDirectory scratch_;
  std::string path_;
  std::unique_ptr<Backend> backend_;
  std::uint64_t token_ = 0;
};

TEST_P(BackendContract, ReadsBackWhatWasWrittenThroughSeveralPieces) {
  const UniqueFd file = open_scratch("pieces");
  const Memory out = pages(8);
  const Memory in = pages(8);
  fill(out.get(), 8 * kPage, 1);
  Transfer write = transfer(IoOp::kWrite, file.get(), 3 * kPage, out.get(), kPage);
  write.pieces[1] = {out.get() + kPage, 5 * kPage};
  write.pieces[2] = {out.get() + 6 * kPage, 2 * kPage};
  write.piece_count = 3;
  ASSERT_EQ(run(write).text(), Status().text());
  Transfer read = transfer(IoOp::kRead, file.get(), 3 * kPage, in.get(), 2 * kPage);
  read.pieces[1] = {in.get() + 2 * kPage, 6 * kPage};
  read.piece_count = 2;
  ASSERT_EQ(run(read).text(), Status().text());
  EXPECT_EQ(std::memcmp(in.get(), out.get(), 8 * kPage), 0);
}

TEST_P(BackendContract, EveryTransferCompletesOnceWithItsOwnToken) {
  const UniqueFd file = open_scratch("tokens");
  const Memory memory = pages(32);
  fill(memory.get(), 32 * kPage, 2);
  for (std::uint64_t i = 0; i < 32; ++i) {
    Transfer write = transfer(IoOp::kWrite, file.get(), i * kPage, memory.get() + i * kPage, kPage);
    write.token = 1000 + i;
    ASSERT_TRUE(backend_->submit(write).is_ok());
  }
  std::vector<int> seen(32, 0);
  std::size_t count = 0;
  ASSERT_TRUE(testing::eventually([&] {
    for (const Completion& completion : drain()) {
      EXPECT_TRUE(completion.status.is_ok());
      ++seen.at(completion.token - 1000);
      ++count;
    }
    return count >= 32;
  }));
  for (const int times : seen) EXPECT_EQ(times, 1);
  EXPECT_EQ(backend_->in_flight(), 0U);
  EXPECT_TRUE(drain().empty());
}

TEST_P(BackendContract, RefusesMoreThanItsDepth) {
  start({4, 2});
  const UniqueFd file = open_scratch("depth");
  const Memory memory = pages(1);
  const Transfer write = transfer(IoOp::kWrite, file.get(), 0, memory.get(), kPage);
  for (int i = 0; i < 4; ++i) ASSERT_TRUE(backend_->submit(write).is_ok());
  EXPECT_EQ(backend_->in_flight(), 4U);
  EXPECT_EQ(backend_->submit(write).code(), Code::kExhausted);
  EXPECT_EQ(drain(4), 4U);
  EXPECT_TRUE(backend_->submit(write).is_ok());
  EXPECT_EQ(drain(1), 1U);
}

TEST_P(BackendContract, ReadingPastTheEndIsCorruptNotOk) {
  const UniqueFd file = open_scratch("end");
  const Memory memory = pages(4);
  fill(memory.get(), 4 * kPage, 3);
  ASSERT_TRUE(run(transfer(IoOp::kWrite, file.get(), 0, memory.get(), 2 * kPage)).is_ok());
  const Status status = run(transfer(IoOp::kRead, file.get(), kPage, memory.get(), 3 * kPage));
  EXPECT_EQ(status.code(), Code::kCorrupt);
  EXPECT_NE(status.message().find(path_), std::string::npos);
  EXPECT_EQ(run(transfer(IoOp::kRead, file.get(), 8 * kPage, memory.get(), kPage)).code(),
            Code::kCorrupt);
}

TEST_P(BackendContract, AFileThatEndsInsideASectorIsCorrupt) {
  const UniqueFd file = open_scratch("ragged");
  ASSERT_EQ(::ftruncate(file.get(), static_cast<off_t>(kPage + 100)), 0);
  const Memory memory = pages(2);
  EXPECT_EQ(run(transfer(IoOp::kRead, file.get(), 0, memory.get(), 2 * kPage)).code(),
            Code::kCorrupt);
}

TEST_P(BackendContract, AnErrorNamesOperationAndFile) {
  const UniqueFd file = open_scratch("readonly", O_RDONLY | O_CREAT);
  const Memory memory = pages(1);
  const Status status = run(transfer(IoOp::kWrite, file.get(), 0, memory.get(), kPage));
  EXPECT_EQ(status.code(), Code::kIo);
  EXPECT_NE(status.message().find("pwrite " + path_ + ": EBADF"), std::string::npos)
      << status.message();
}

TEST_P(BackendContract, ASyncFollowsAndSmallUnalignedWritesWork) {
  path_ = scratch_.path() + "/records";
  auto file = open_file(path_, O_RDWR | O_CREAT);
  ASSERT_TRUE(file.has_value());
  std::byte record[64];
  fill(record, sizeof record, 4);
  ASSERT_TRUE(run(transfer(IoOp::kWrite, file->get(), 192, record, sizeof record)).is_ok());
  EXPECT_TRUE(run(transfer(IoOp::kSync, file->get(), 0, nullptr, 0)).is_ok());
  std::byte back[64];
  ASSERT_TRUE(run(transfer(IoOp::kRead, file->get(), 192, back, sizeof back)).is_ok());
  EXPECT_EQ(std::memcmp(back, record, sizeof record), 0);
}

TEST_P(BackendContract, AllocatingGrowsTheFile) {
  const UniqueFd file = open_scratch("allocate");
  Transfer allocate = transfer(IoOp::kAllocate, file.get(), 0, nullptr, 0);
  allocate.length = 1 << 20;
  ASSERT_EQ(run(allocate).text(), Status().text());
  struct stat facts{};
  ASSERT_EQ(::fstat(file.get(), &facts), 0);
  EXPECT_EQ(facts.st_size, 1 << 20);
  EXPECT_GE(facts.st_blocks * 512, 1 << 20);
}

TEST_P(BackendContract, WakeEndsAWaitFromAnotherThread) {
  const SystemClock clock;
  const Nanoseconds before = clock.now();
  std::jthread other([&] { backend_->wake(); });
  backend_->wait(seconds(30));
  EXPECT_LT(clock.now() - before, seconds(25));
}

TEST_P(BackendContract, AWaitWithNothingToDoEndsAtItsLimit) {
  const SystemClock clock;
  const Nanoseconds before = clock.now();
  backend_->wait(milliseconds(5));
  EXPECT_LT(clock.now() - before, seconds(25));
}

TEST_P(BackendContract, NothingToMoveIsRefused) {
  const UniqueFd file = open_scratch("nothing");
  EXPECT_EQ(backend_->submit(transfer(IoOp::kRead, file.get(), 0, nullptr, 0)).code(),
            Code::kInvalid);
}

TEST_P(BackendContract, RandomTrafficEqualsAnArray) {
  constexpr std::size_t kFilePages = 64;
  const UniqueFd file = open_scratch("model");
  const Memory model = pages(kFilePages);
  fill(model.get(), kFilePages * kPage, 5);
  ASSERT_TRUE(run(transfer(IoOp::kWrite, file.get(), 0, model.get(), kFilePages * kPage)).is_ok());
  const std::uint64_t seed = random_u64();
  SCOPED_TRACE("seed " + std::to_string(seed));
  Rng rng(seed);
  const Memory memory = pages(8);
  for (int i = 0; i < 200; ++i) {
    const std::size_t count = 1 + rng.below(8);
    const std::uint64_t page = rng.below(kFilePages - count + 1);
    if (rng.chance(50)) {
      fill(memory.get(), count * kPage, rng.next());
      std::memcpy(model.get() + page * kPage, memory.get(), count * kPage);
      ASSERT_TRUE(run(transfer(IoOp::kWrite, file.get(), page * kPage, memory.get(), count * kPage))
                      .is_ok());
    } else {
      ASSERT_TRUE(run(transfer(IoOp::kRead, file.get(), page * kPage, memory.get(), count * kPage))
                      .is_ok());
      ASSERT_EQ(std::memcmp(memory.get(), model.get() + page * kPage, count * kPage), 0);
    }
  }
  EXPECT_EQ(backend_->counters().errors[0].value(), 0U);
  EXPECT_GT(backend_->counters().bytes[0].value(), 0U);
}

}  // namespace terrace::transfer
