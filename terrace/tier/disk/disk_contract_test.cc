#include "contract/tier_contract.h"
#include "terrace/transfer/backends/fault/fault_backend.h"

namespace terrace::tier {
namespace {

TierMaker maker(const std::string& name, const std::string& backend, bool is_decorated,
                bool is_direct = true) {
  return {name, [=](DiskTier::Options& options) {
            options.backend = backend;
            options.io.library = TERRACE_PLUGIN_EXAMPLE;  // Of "library" alone.
            options.is_direct = is_direct;
            if (is_decorated) {
              options.decorate = [](std::unique_ptr<transfer::Backend> inner) {
                return std::make_unique<transfer::FaultBackend>(std::move(inner), 1);
              };
            }
          }};
}

INSTANTIATE_TEST_SUITE_P(Disk, TierContract,
                         ::testing::Values(maker("IoUring", "io_uring", false),
                                           maker("Threads", "threads", false),
                                           maker("Library", "library", false),
                                           maker("IoUringUnderFaultDecorator", "io_uring", true),
                                           maker("ThreadsUnderFaultDecorator", "threads", true),
                                           maker("ThroughThePageCache", "io_uring", false, false),
                                           maker("ThreadsThroughIt", "threads", false, false)),
                         tier_name);

}  // namespace
}  // namespace terrace::tier
