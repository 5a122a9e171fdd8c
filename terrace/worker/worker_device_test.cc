#include "contract/device_worker_contract.h"
#include "terrace/memory/device/cuda/fake_place_fixture.h"

namespace terrace::memory {

// Its own tests lie beside the devices.
GTEST_ALLOW_UNINSTANTIATED_PARAMETERIZED_TEST(DeviceContract);

}  // namespace terrace::memory

namespace terrace::worker {
namespace {

using memory::DevicePlaceMaker;

INSTANTIATE_TEST_SUITE_P(CudaOnAFakeDriver, DeviceWorkerContract,
                         ::testing::Values(DevicePlaceMaker{
                             "cuda", [] { return std::make_unique<memory::FakePlace>(); }}),
                         memory::device_place_name);

}  // namespace
}  // namespace terrace::worker
