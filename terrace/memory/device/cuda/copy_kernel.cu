// The CUDA kernels of a copy: a warp for each 4 KiB page, eight warps a block. Compiled to
// copy_kernel.ptx by `./dev ptx`; Terrace itself is built without a CUDA compiler.
#include "terrace/memory/device/cuda/page_kernel_internal.h"

namespace terrace::memory::cuda {

struct KeyTable {
  ShareKeys of[kCrew];
};

constexpr KeyTable key_table() {
  KeyTable table{};
  for (std::uint32_t i = 0; i < kCrew; ++i) table.of[i] = share_keys(i);
  return table;
}

}  // namespace terrace::memory::cuda

// A plain name, which does not depend on where the file was compiled.
extern "C" {
__device__ terrace::memory::cuda::KeyTable terrace_page_keys = terrace::memory::cuda::key_table();
}

namespace terrace::memory::cuda {
namespace {

constexpr unsigned kAll = 0xFFFFFFFFU;

class Warp {
 public:
  __device__ Warp() : thread_(threadIdx.x % kCrew), keys_(terrace_page_keys.of[thread_]) {}
  __device__ std::uint32_t thread(std::uint32_t) const { return thread_; }
  __device__ const ShareKeys& keys(std::uint32_t) const { return keys_; }
  __device__ void add_pairs(Pair (&pairs)[1]) const {
    TERRACE_UNROLL for (std::uint32_t step = kPairs; step < kCrew; step *= 2) {
      pairs[0].even += __shfl_xor_sync(kAll, pairs[0].even, step);
      pairs[0].odd += __shfl_xor_sync(kAll, pairs[0].odd, step);
    }
  }
  __device__ void add_folds(std::uint64_t (&folds)[1]) const {
    TERRACE_UNROLL for (std::uint32_t step = 1; step < kPairs; step *= 2) {
      folds[0] += __shfl_xor_sync(kAll, folds[0], step);
    }
  }

 private:
  std::uint32_t thread_;
  ShareKeys keys_;
};

__device__ void add(std::uint64_t& target, std::uint64_t value) {
  static_assert(sizeof(unsigned long long) == sizeof(std::uint64_t));
  atomicAdd(reinterpret_cast<unsigned long long*>(&target), value);
}

template <bool kIsOut>
__device__ void copy(PartEntry* parts, std::uint32_t part_count, const PieceEntry* pieces,
                     std::uint32_t page_count) {
  const std::uint32_t page = (blockIdx.x * blockDim.x + threadIdx.x) / kCrew;
  if (page >= page_count) return;
  PartEntry& entry = parts[part_at(parts, part_count, page)];
  const PartEntry part = entry;
  const Warp warp;
  const std::uint64_t term = copy_page<kIsOut, 1>(part, pieces, page - part.first_page, warp);
  if (warp.thread(0) == 0) {
    add(entry.sum, term);
    add(entry.pages, 1);
  }
}

}  // namespace
}  // namespace terrace::memory::cuda

extern "C" __global__ void __launch_bounds__(256)
    terrace_copy_out(terrace::memory::cuda::PartEntry* parts, std::uint32_t part_count,
                     const terrace::memory::cuda::PieceEntry* pieces, std::uint32_t page_count) {
  terrace::memory::cuda::copy<true>(parts, part_count, pieces, page_count);
}

// `cancel` lies in host memory. A block that finds it set writes nothing: its copy was given up.
extern "C" __global__ void __launch_bounds__(256)
    terrace_copy_in(terrace::memory::cuda::PartEntry* parts, std::uint32_t part_count,
                    const terrace::memory::cuda::PieceEntry* pieces, std::uint32_t page_count,
                    const volatile std::uint32_t* cancel) {
  if (*cancel != 0) return;
  terrace::memory::cuda::copy<false>(parts, part_count, pieces, page_count);
}
