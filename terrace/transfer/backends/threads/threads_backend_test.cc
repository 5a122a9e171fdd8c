#include "terrace/transfer/backends/threads/threads_backend.h"

#include <atomic>
#include <chrono>
#include <cstdlib>
#include <future>
#include <new>

#include "contract/backend_contract.h"
#include "terrace/base/sync_point.h"
#include "terrace/testing/eventually.h"
#include "terrace/transfer/backends/fault/fault_backend.h"

namespace {
thread_local bool has_no_memory = false;  // This thread.
}  // namespace

// Not inlined: the compiler would see free() meet another operator new than this one.
[[gnu::noinline]] void* operator new(std::size_t bytes) {
  void* const memory = has_no_memory ? nullptr : std::malloc(bytes == 0 ? 1 : bytes);
  if (memory == nullptr) throw std::bad_alloc();
  return memory;
}
[[gnu::noinline]] void operator delete(void* memory) noexcept { std::free(memory); }
[[gnu::noinline]] void operator delete(void* memory, std::size_t) noexcept { std::free(memory); }

namespace terrace::transfer {
namespace {

std::unique_ptr<Backend> plain(const Backend::Options& options) {
  auto backend = make_threads_backend(options);
  if (!backend) ADD_FAILURE() << backend.error().message();
  return backend ? *std::move(backend) : nullptr;
}
std::unique_ptr<Backend> decorated(const Backend::Options& options) {
  auto inner = plain(options);
  return inner ? std::make_unique<FaultBackend>(std::move(inner), 1) : nullptr;
}

INSTANTIATE_TEST_SUITE_P(Threads, BackendContract,
                         ::testing::Values(BackendMaker{"Plain", plain},
                                           BackendMaker{"UnderFaultDecorator", decorated}),
                         backend_name);

TEST(ThreadsBackendTest, NoThreadsOrNoDepthIsRefused) {
  EXPECT_EQ(make_threads_backend({0, 1}).error().code(), Code::kInvalid);
  EXPECT_EQ(make_threads_backend({1, 0}).error().code(), Code::kInvalid);
}

TEST(ThreadsBackendTest, AThreadThatGetsNoMemoryTellsWhatItDid) {
  const testing::ScratchDirectory scratch;
  const auto file = open_file(scratch.path() + "/file", O_RDWR | O_CREAT);
  ASSERT_TRUE(file.has_value());
  ASSERT_EQ(::ftruncate(file->get(), 4096), 0);
  base::set_sync_point("threads.first_volume", [] { has_no_memory = true; });
  std::array<std::byte, 4096> memory{};
  auto backend = make_threads_backend({1, 1}).value();
  Transfer read;
  read.token = 7;
  read.file = file->get();
  read.pieces[0] = {memory.data(), memory.size()};
  read.piece_count = 1;
  ASSERT_TRUE(backend->submit(read).is_ok());
  std::vector<Completion> done;
  EXPECT_TRUE(testing::eventually([&] {
    backend->poll(done);
    return done.size() == 1;
  }));
  base::set_sync_point("threads.first_volume", {});
}

struct Shown final : Arrivals {
  void on_bytes(std::uint64_t from, std::uint64_t to) override { parts.emplace_back(from, to); }
  std::vector<std::pair<std::uint64_t, std::uint64_t>> parts;
};

TEST(ThreadsBackendTest, AReadThatSomebodyLooksAtComesInPartsOfACachesSize) {
  const testing::ScratchDirectory scratch;
  const auto file = open_file(scratch.path() + "/file", O_RDWR | O_CREAT);
  ASSERT_TRUE(file.has_value());
  constexpr std::size_t kBytes = 600'064;
  std::vector<std::byte> content(kBytes);
  for (std::size_t i = 0; i < kBytes; ++i) content[i] = static_cast<std::byte>(i * 7 + i / 256);
  ASSERT_EQ(::pwrite(file->get(), content.data(), kBytes, 0), static_cast<ssize_t>(kBytes));
  auto backend = make_threads_backend({8, 1}).value();
  std::vector<std::byte> memory(kBytes);
  Shown shown;
  Transfer read;
  read.file = file->get();
  read.pieces[0] = {memory.data(), 4096};
  read.pieces[1] = {memory.data() + 4096, kBytes - 4096};
  read.piece_count = 2;
  read.arrivals = &shown;
  ASSERT_TRUE(backend->submit(read).is_ok());
  std::vector<Completion> done;
  const SystemClock clock;
  const Nanoseconds limit = clock.now() + seconds(60);
  while (done.empty() && clock.now() < limit) {
    backend->wait(seconds(1));
    backend->poll(done);
  }
  ASSERT_EQ(done.size(), 1U);
  EXPECT_TRUE(done[0].status.is_ok());
  EXPECT_EQ(memory, content);
  EXPECT_EQ(shown.parts, (std::vector<std::pair<std::uint64_t, std::uint64_t>>{
                             {0, 262'144}, {262'144, 524'288}, {524'288, kBytes}}));
  EXPECT_EQ(backend->counters().resumed.value(), 0U);  // Parts are no short reads.
}

// One thread, which is always wanted for what is more urgent.
TEST(ThreadsBackendTest, AReadOfTheLowestClassIsNotPassedOverForEver) {
  const testing::ScratchDirectory scratch;
  const auto file = open_file(scratch.path() + "/file", O_RDWR | O_CREAT);
  ASSERT_TRUE(file.has_value());
  ASSERT_EQ(::ftruncate(file->get(), 4096), 0);
  std::promise<void> held;
  std::promise<void> go;
  std::shared_future<void> may_go = go.get_future().share();
  std::atomic<int> calls = 0;
  base::set_sync_point("threads.first_volume", [&] {
    if (++calls == 1) held.set_value();
    may_go.wait_for(std::chrono::seconds(60));
  });
  constexpr std::uint64_t kOthers = 100;
  auto backend = make_threads_backend({kOthers + 1, 1}).value();
  std::vector<std::byte> memory((kOthers + 1) * 512);
  // The first one has the thread, the second one is passed over.
  for (std::uint64_t n = 0; n <= kOthers; ++n) {
    Transfer read;
    read.token = n;
    read.io_class = n == 1 ? IoClass::kScrub : IoClass::kTtftRead;
    read.file = file->get();
    read.pieces[0] = {memory.data() + n * 512, 512};
    read.piece_count = 1;
    ASSERT_TRUE(backend->submit(read).is_ok());
    if (n == 0) held.get_future().wait_for(std::chrono::seconds(60));
  }
  go.set_value();
  std::vector<Completion> done;
  ASSERT_TRUE(testing::eventually([&] {
    backend->poll(done);
    return done.size() == kOthers + 1;
  }));
  base::set_sync_point("threads.first_volume", {});
  std::size_t place = 0;
  while (done[place].token != 1) ++place;
  EXPECT_LE(place, 34U);
}

// The medium may take its time for a sync; reads do not stand behind it, even with one thread.
TEST(ThreadsBackendTest, ASyncKeepsNoReadWaiting) {
  const testing::ScratchDirectory scratch;
  const auto file = open_file(scratch.path() + "/file", O_RDWR | O_CREAT);
  ASSERT_TRUE(file.has_value());
  ASSERT_EQ(::ftruncate(file->get(), 4096), 0);
  std::promise<void> read_came;
  std::shared_future<void> is_read = read_came.get_future().share();
  base::set_sync_point("threads.sync", [is_read] {
    EXPECT_EQ(is_read.wait_for(std::chrono::seconds(20)), std::future_status::ready);
  });
  auto backend = make_threads_backend({8, 1}).value();
  Transfer sync;
  sync.token = 1;
  sync.op = IoOp::kSync;
  sync.file = file->get();
  std::array<std::byte, 4096> memory{};
  Transfer read;
  read.token = 2;
  read.file = file->get();
  read.pieces[0] = {memory.data(), memory.size()};
  read.piece_count = 1;
  ASSERT_TRUE(backend->submit(sync).is_ok());
  ASSERT_TRUE(backend->submit(read).is_ok());
  std::vector<Completion> done;
  const SystemClock clock;
  const Nanoseconds limit = clock.now() + seconds(60);
  while (done.size() < 2 && clock.now() < limit) {
    backend->wait(seconds(1));
    backend->poll(done);
    if (done.size() == 1 && done[0].token == 2) {
      base::set_sync_point("threads.sync", {});
      read_came.set_value();
      read_came = {};
    }
  }
  base::set_sync_point("threads.sync", {});
  ASSERT_EQ(done.size(), 2U);
  EXPECT_EQ(done[0].token, 2U);
  EXPECT_TRUE(done[1].status.is_ok());
}

// Everything of one volume sits in system calls that do not end, more of it than there are threads.
TEST(ThreadsBackendTest, AVolumeThatHangsHoldsNoThreadOfAnother) {
  const testing::ScratchDirectory scratch;
  const auto file = open_file(scratch.path() + "/file", O_RDWR | O_CREAT);
  ASSERT_TRUE(file.has_value());
  ASSERT_EQ(::ftruncate(file->get(), 4096), 0);
  std::promise<void> answer;
  std::shared_future<void> is_answered = answer.get_future().share();
  std::atomic<unsigned> held = 0;
  base::set_sync_point("threads.other_volume", [is_answered, &held] {
    ++held;
    EXPECT_EQ(is_answered.wait_for(std::chrono::seconds(60)), std::future_status::ready);
  });
  auto backend = make_threads_backend({.depth = 32, .threads = 4, .volumes = 2}).value();
  std::array<std::array<std::byte, 4096>, 32> memory{};
  std::uint64_t begun = 0;
  const auto begin = [&](IoOp op, std::uint32_t volume) {
    Transfer transfer;
    transfer.token = begun;
    transfer.op = op;
    transfer.io_class = IoClass::kTtftRead;
    transfer.volume = volume;
    transfer.file = file->get();
    if (op != IoOp::kSync) {
      transfer.pieces[0] = {memory[begun].data(), memory[begun].size()};
      transfer.piece_count = 1;
    }
    ASSERT_TRUE(backend->submit(transfer).is_ok());
    ++begun;
  };
  for (int i = 0; i < 8; ++i) begin(IoOp::kRead, 1);
  for (int i = 0; i < 8; ++i) begin(IoOp::kSync, 1);
  // No fewer than it may have: its own two of each kind.
  EXPECT_TRUE(testing::eventually([&] { return held == 4; }));
  for (const IoOp op : {IoOp::kRead, IoOp::kWrite, IoOp::kSync}) begin(op, 0);
  std::vector<Completion> done;
  const auto collect = [&](std::size_t count) {
    return testing::eventually([&] {
      backend->poll(done);
      backend->wait(milliseconds(done.size() < count ? 20 : 0));
      return done.size() >= count;
    });
  };
  EXPECT_TRUE(collect(3));
  for (const Completion& one : done) {
    EXPECT_TRUE(one.status.is_ok());
    EXPECT_GE(one.token, 16U) << "the other volume's hang";
  }
  EXPECT_EQ(held, 4U);
  base::set_sync_point("threads.other_volume", {});
  answer.set_value();
  EXPECT_TRUE(collect(begun));
}

}  // namespace
}  // namespace terrace::transfer
