#include <gtest/gtest.h>

#include "terrace/memory/device/cuda/cuda_driver_internal.h"

namespace terrace::memory::cuda {
namespace {

bool has(const Status& status, const char* part) {
  return status.message().find(part) != std::string::npos;
}

TEST(CudaDriverTest, AMissingLibrarySaysSoAndTheWayOut) {
  const auto opened = open_driver("libcuda-not-there.so.1");
  ASSERT_FALSE(opened.has_value());
  EXPECT_EQ(opened.error().code(), Code::kUnavailable);
  EXPECT_TRUE(has(opened.error(), "libcuda-not-there.so.1")) << opened.error().text();
  EXPECT_TRUE(has(opened.error(), "NVIDIA's driver")) << opened.error().text();
}

TEST(CudaDriverTest, ALibraryWithoutTheFunctionsNamesTheFirstThatIsMissing) {
  const auto opened = open_driver("libm.so.6");
  ASSERT_FALSE(opened.has_value());
  EXPECT_EQ(opened.error().code(), Code::kUnavailable);
  EXPECT_TRUE(has(opened.error(), "libm.so.6 has no cuInit")) << opened.error().text();
}

TEST(CudaDriverTest, AnErrorIsNamedByTheDriverOrByItsNumber) {
  Driver driver;
  EXPECT_EQ(describe(driver, 700, "cuEventQuery"), "cuEventQuery: ? (700)");
  driver.error_name = [](Answer, const char** name) {
    *name = "CUDA_ERROR_ILLEGAL_ADDRESS";
    return kSuccess;
  };
  EXPECT_EQ(describe(driver, 700, "cuEventQuery"),
            "cuEventQuery: CUDA_ERROR_ILLEGAL_ADDRESS (700)");
}

}  // namespace
}  // namespace terrace::memory::cuda
