// The `cuda` device: engines whose KV cache lies in the memory of an NVIDIA GPU.
//   copy out: a kernel gathers the pieces of many shards into staging in GPU memory and sums them
//             in the same pass; DMA carries each shard to its place on the host.
//   copy in:  DMA into staging; a kernel scatters and sums what it scatters.
// The caller has synchronised: whatever the engine's own work does to these blocks has ended before
// a copy is called, or is ordered behind it. Copies run on streams of our own that wait for none
// of the engine's, and have ended when the call returns.
// Threading: thread-safe; copies of several threads take turns: give all of a step in one call.
// Owns: 2 x 32 MiB of GPU memory for staging and less than 1 MiB besides, from the start; two
// streams; a hold on the GPU's primary context, which is current only inside calls. A forked
// child's calls are kClosed, its destructor does nothing.
// Waits: for the copies, 30 s at most for 32 MiB: a GPU that takes longer hangs. After that, and
// after every failure that breaks a CUDA context (an illegal address, say), every further call is
// kIo and says since when; to go on, restart the process.
// Source: docs/adr/0038-gpu-copies-by-the-driver-alone.md
#pragma once

#include <memory>

#include "terrace/memory/device/api/device.h"

namespace terrace::memory {

// Needs NVIDIA's driver, found at run time (libcuda.so.1), of CUDA 11 or newer, and nothing of the
// CUDA toolkit. Errors: those of validate(); kInvalid = a region is not in GPU memory, or they are
// on several GPUs; kUnavailable = no driver, or it finds no GPU: the text says what is missing and
// the way out; kExhausted = no GPU memory for the staging; kIo.
[[nodiscard]] Result<std::unique_ptr<Device>> make_cuda_device(std::vector<GroupRegions> groups,
                                                               const Layout& layout);

}  // namespace terrace::memory
