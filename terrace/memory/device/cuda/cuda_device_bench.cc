// Checked copies between GPU memory and registered host memory, against one DMA of the same bytes
// between contiguous GPU memory and the same host memory. Ours end with all checksums known, and
// these are compared with the CPU's.
//   cuda_device_bench [--runs N] [--half-mib N]
#include <sys/mman.h>

#include <cstdio>
#include <cstdlib>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "terrace/base/rng.h"
#include "terrace/memory/device/cuda/gpu_place_fixture.h"
#include "terrace/testing/bench_json.h"

namespace terrace::memory {
namespace {

struct Case {
  std::size_t piece;
  std::size_t layers;
  std::uint32_t blocks;  // Of one call.
};
constexpr Case kCases[] = {
    {48U << 10U, 32, 64},   // 1.5 MiB a shard.
    {48U << 10U, 16, 128},  // 768 KiB
    {96U << 10U, 32, 32},   // 3 MiB
    {48U << 10U, 16, 1},   {48U << 10U, 32, 1}, {96U << 10U, 32, 1},
};

enum class Way { kOut, kIn };

void stop(const char* why) {
  std::fprintf(stderr, "cuda_device_bench: %s\n", why);
  std::exit(1);
}

// Shared memory as a lane's, known to the driver.
class Host {
 public:
  Host(const Device& device, std::size_t bytes)
      : device_(device),
        bytes_(bytes),
        memory_(static_cast<std::byte*>(::mmap(nullptr, bytes, PROT_READ | PROT_WRITE,
                                               MAP_SHARED | MAP_ANONYMOUS | MAP_POPULATE, -1, 0))) {
    if (memory_ == MAP_FAILED || !device.register_host({memory_, bytes}).is_ok()) {
      stop("host memory cannot be registered");
    }
  }
  Host(const Host&) = delete;
  Host& operator=(const Host&) = delete;
  ~Host() {
    (void)device_.unregister_host(memory_);
    (void)::munmap(memory_, bytes_);
  }
  [[nodiscard]] std::byte* at(std::size_t offset) const { return memory_ + offset; }

 private:
  const Device& device_;
  const std::size_t bytes_;
  std::byte* const memory_;
};

class Rig {
 public:
  Rig(GpuPlace& place, const Case& which)
      : place_(place),
        shard_(which.piece * which.layers),
        total_(shard_ * which.blocks),
        engine_(place, {std::vector<std::size_t>(which.layers, which.piece)},
                std::uint64_t{2} * which.blocks, false, 0, rng_),
        device_(place.make(engine_.groups, engine_.layout).value()),
        host_(*device_, total_),
        plain_(place.allocate(total_)) {
    for (std::uint32_t i = 0; i < which.blocks; ++i) {
      copies_.push_back({0, i, host_.at(i * shard_), {}});
    }
    // Right before it is fast: out of the first blocks, into the others, all compared.
    if (!device_->copy_out(copies_).is_ok()) stop("copy_out failed");
    for (const ShardCopy& copy : copies_) {
      if (copy.checksum != checksum_of(engine_.gathered(0, copy.block))) stop("wrong checksum");
      if (copy.checksum != checksum_of({copy.host, shard_})) stop("wrong bytes");
      wanted_.push_back(copy.checksum);
    }
  }

  double dma(Way way) {
    return rate([&] {
      way == Way::kOut ? place_.copy_to_host(host_.at(0), plain_, total_)
                       : place_.copy_to_device(plain_, host_.at(0), total_);
    });
  }
  // Out of blocks chosen anew each time is what a cache would notice; the GPU's is smaller.
  double ours(Way way) {
    if (way == Way::kIn) {
      for (std::uint32_t i = 0; i < copies_.size(); ++i) {
        copies_[i].block = static_cast<std::uint32_t>(copies_.size()) + i;
      }
    }
    Status status;
    const double speed = rate([&] {
      status = way == Way::kOut ? device_->copy_out(copies_) : device_->copy_in(copies_);
    });
    if (!status.is_ok()) stop(status.text().c_str());
    return speed;
  }
  // Fills the host with the shards, which the DMAs have overwritten.
  void refill() {
    for (std::uint32_t i = 0; i < copies_.size(); ++i) copies_[i].block = i;
    if (!device_->copy_out(copies_).is_ok()) stop("copy_out failed");
    check();
  }
  void check() const {
    for (std::size_t i = 0; i < copies_.size(); ++i) {
      if (copies_[i].checksum != wanted_[i]) stop("wrong checksum");
    }
  }

 private:
  [[nodiscard]] double rate(const std::function<void()>& body) const {
    return static_cast<double>(total_) / testing::seconds_of(clock_, body);
  }

  Rng rng_{61};
  SystemClock clock_;
  GpuPlace& place_;
  const std::size_t shard_;
  const std::size_t total_;
  PlacedEngine engine_;
  std::unique_ptr<Device> device_;
  Host host_;
  std::byte* const plain_;
  std::vector<ShardCopy> copies_;
  std::vector<Checksum> wanted_;
};

void bench(GpuPlace& place, const Case& which, int runs, const testing::Machine& machine) {
  {
    Rig rig(place, which);
    for (const Way way : {Way::kOut, Way::kIn}) {
      rig.refill();
      const auto samples = testing::alternate(runs, {[&] { return rig.dma(way); },
                                                     [&] {
                                                       if (way == Way::kIn) rig.refill();
                                                       const double speed = rig.ours(way);
                                                       rig.check();
                                                       return speed;
                                                     }});
      testing::BenchResult result;
      result.name = way == Way::kOut ? "copy.gpu.out" : "copy.gpu.in";
      result.samples = samples[1];
      result.limit_name = "one DMA of the same bytes, contiguous, registered";
      result.limit_samples = samples[0];
      result.param("piece_bytes", static_cast<std::int64_t>(which.piece))
          .param("pieces", static_cast<std::int64_t>(which.layers))
          .param("blocks", std::int64_t{which.blocks})
          .param("half_bytes", static_cast<std::int64_t>(place.half_bytes()));
      testing::print(result, machine);
    }
  }
  place.free_all();
}

}  // namespace
}  // namespace terrace::memory

int main(int count, char** arguments) {
  using namespace terrace;
  int runs = 21;
  std::uint64_t half_bytes = memory::cuda::StagedCopier::Options().half_bytes;
  for (int i = 1; i + 1 < count; i += 2) {
    const std::string_view name = arguments[i];
    const int value = std::atoi(arguments[i + 1]);
    if (name == "--runs") runs = value;
    if (name == "--half-mib") half_bytes = static_cast<std::uint64_t>(value) << 20U;
  }
  if (const std::string why = memory::gpu_missing(); !why.empty()) {
    std::fprintf(stderr, "copy.gpu: nothing measured: %s\n", why.c_str());
    return 0;
  }
  memory::GpuPlace place(half_bytes);
  testing::Machine machine = testing::machine_facts();
  machine.gpu = place.gpu();
  for (const memory::Case& which : memory::kCases) memory::bench(place, which, runs, machine);
  return 0;
}
