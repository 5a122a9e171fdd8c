#include "terrace/transfer/backends/io_uring/io_uring_backend.h"

#include "contract/backend_contract.h"
#include "terrace/transfer/backends/fault/fault_backend.h"

namespace terrace::transfer {
namespace {

std::unique_ptr<Backend> plain(const Backend::Options& options) {
  auto backend = make_io_uring_backend(options);
  if (!backend) ADD_FAILURE() << backend.error().message();
  return backend ? *std::move(backend) : nullptr;
}
std::unique_ptr<Backend> decorated(const Backend::Options& options) {
  auto inner = plain(options);
  return inner ? std::make_unique<FaultBackend>(std::move(inner), 1) : nullptr;
}

INSTANTIATE_TEST_SUITE_P(IoUring, BackendContract,
                         ::testing::Values(BackendMaker{"Plain", plain},
                                           BackendMaker{"UnderFaultDecorator", decorated}),
                         backend_name);

TEST(IoUringBackendTest, ServesThreadsOneAfterTheOther) {
  const auto backend = plain({});
  ASSERT_NE(backend, nullptr);
  const testing::ScratchDirectory scratch;
  const auto file = open_file(scratch.path() + "/x", O_RDWR | O_CREAT);
  ASSERT_TRUE(file.has_value());
  for (int i = 0; i < 3; ++i) {
    std::jthread([&] {
      std::byte bytes[64] = {};
      Transfer write;
      write.op = IoOp::kWrite;
      write.file = file->get();
      write.pieces[0] = {bytes, sizeof bytes};
      write.piece_count = 1;
      ASSERT_TRUE(backend->submit(write).is_ok());
      std::vector<Completion> completions;
      ASSERT_TRUE(testing::eventually([&] {
        backend->wait(milliseconds(50));
        backend->poll(completions);
        return !completions.empty();
      }));
      EXPECT_TRUE(completions[0].status.is_ok());
    }).join();
  }
}

TEST(IoUringBackendTest, ADepthOfZeroIsRefused) {
  EXPECT_EQ(make_io_uring_backend({0, 1}).error().code(), Code::kInvalid);
}

}  // namespace
}  // namespace terrace::transfer
