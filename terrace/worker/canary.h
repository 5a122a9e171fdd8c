// Proves the whole way device -> host -> device before the first real block takes it, on a block
// that the engine never uses, whose bytes are saved and put back. Threading: engine thread.  Owns:
// nothing.  Waits: for four copies of one block. Source: docs/architecture.md.
#pragma once

#include <cstddef>
#include <span>

#include "terrace/base/status.h"
#include "terrace/block/layout.h"
#include "terrace/memory/device/api/device.h"

namespace terrace::worker {

// Runs every group's null block through `slot`; a group without one is tried on memory of its own,
// which proves all but the engine's addresses. Afterwards the slot holds the last group's pattern.
// Errors: kCorrupt says which group and which leg differs; kIo = the device failed.
[[nodiscard]] Status run_canary(const memory::Device& device, const Layout& layout, RankId rank,
                                std::span<std::byte> slot);

}  // namespace terrace::worker
