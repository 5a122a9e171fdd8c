// The `cpu` device: engines whose KV cache lies in ordinary memory. A real device, not a mock.
// Threading: immutable; copies of different blocks may run at once.  Owns: the list of regions.
// Waits: never.
#pragma once

#include <memory>

#include "terrace/memory/device/api/device.h"

namespace terrace::memory {

// Errors: those of validate().
[[nodiscard]] Result<std::unique_ptr<Device>> make_cpu_device(std::vector<GroupRegions> groups,
                                                              const Layout& layout);

}  // namespace terrace::memory
