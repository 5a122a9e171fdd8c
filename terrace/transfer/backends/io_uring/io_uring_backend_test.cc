#include "terrace/transfer/backends/io_uring/io_uring_backend.h"

#include <fcntl.h>
#include <unistd.h>

#include <filesystem>

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

// The file of wake() of the only ring that this process has.
int wake_file() {
  for (const auto& entry : std::filesystem::directory_iterator("/proc/self/fd")) {
    std::error_code gone;
    const auto target = std::filesystem::read_symlink(entry.path(), gone);
    if (target == "anon_inode:[eventfd]") return std::stoi(entry.path().filename());
  }
  return -1;
}

// As of a kernel that does not wait on it: what fails at once must not be asked for again for ever.
TEST(IoUringBackendTest, AWakeUpThatFailsHoldsUpNothing) {
  const auto backend = plain({});
  ASSERT_NE(backend, nullptr);
  const int wake = wake_file();
  ASSERT_GE(wake, 0);
  const UniqueFd armed(::dup(wake));
  const UniqueFd broken(::open("/dev/null", O_WRONLY | O_CLOEXEC));
  ASSERT_EQ(::dup2(broken.get(), wake), wake);
  const std::uint64_t one = 1;
  ASSERT_EQ(::write(armed.get(), &one, sizeof one), 8);
  const testing::ScratchDirectory scratch;
  const auto file = open_file(scratch.path() + "/x", O_RDWR | O_CREAT);
  ASSERT_TRUE(file.has_value());
  std::byte bytes[64] = {};
  Transfer write;
  write.op = IoOp::kWrite;
  write.file = file->get();
  write.pieces[0] = {bytes, sizeof bytes};
  write.piece_count = 1;
  for (int i = 0; i < 100; ++i) {
    std::vector<Completion> completions;
    ASSERT_TRUE(backend->submit(write).is_ok());
    ASSERT_TRUE(testing::eventually([&] {
      backend->wait(milliseconds(50));
      backend->poll(completions);
      return !completions.empty();
    }));
    EXPECT_TRUE(completions[0].status.is_ok());
  }
}

TEST(IoUringBackendTest, ADepthOfZeroIsRefused) {
  EXPECT_EQ(make_io_uring_backend({0, 1}).error().code(), Code::kInvalid);
}

}  // namespace
}  // namespace terrace::transfer
