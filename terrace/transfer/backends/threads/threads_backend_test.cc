#include "terrace/transfer/backends/threads/threads_backend.h"

#include "contract/backend_contract.h"
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

}  // namespace
}  // namespace terrace::transfer
