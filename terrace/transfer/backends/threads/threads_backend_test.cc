#include "terrace/transfer/backends/threads/threads_backend.h"

#include <chrono>
#include <future>

#include "contract/backend_contract.h"
#include "terrace/base/sync_point.h"
#include "terrace/transfer/backends/fault/fault_backend.h"

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

}  // namespace
}  // namespace terrace::transfer
