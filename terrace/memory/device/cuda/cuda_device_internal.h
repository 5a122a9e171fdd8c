// The `cuda` device over a driver that is given: for tests.
// Threading: as the device.
#pragma once

#include "terrace/base/clock.h"
#include "terrace/memory/device/cuda/cuda_device.h"
#include "terrace/memory/device/cuda/staged_copier_internal.h"

namespace terrace::memory::cuda {

// `driver` and `clock` outlive the device.
[[nodiscard]] Result<std::unique_ptr<Device>> make_device(std::vector<GroupRegions> groups,
                                                          const Layout& layout,
                                                          const Driver& driver, const Clock& clock,
                                                          StagedCopier::Options options);

}  // namespace terrace::memory::cuda
