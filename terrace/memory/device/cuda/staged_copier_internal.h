// Moves shards between GPU memory and the host through two halves of staging: a kernel gathers or
// scatters and sums, DMA carries; while one half is carried the other one is gathered.
// Threading: thread-safe; copies take turns.  Owns: its streams, staging and module, and a hold on
// the GPU's primary context, which is current only inside calls.
// Waits: for the copy, and for other threads' copies; each wait ends after Options::patience.
#pragma once

#include <sys/types.h>

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "terrace/base/clock.h"
#include "terrace/base/mutex.h"
#include "terrace/base/status.h"
#include "terrace/memory/device/api/device.h"
#include "terrace/memory/device/cuda/copy_plan_internal.h"
#include "terrace/memory/device/cuda/cuda_driver_internal.h"

namespace terrace::memory::cuda {

enum class Way : std::uint8_t { kOut, kIn };

// The kernels, as copy_kernel.ptx says them; any driver since CUDA 10 finishes them for its card.
extern const char* const kKernels;

class StagedCopier {
 public:
  struct Options {
    std::uint64_t half_bytes = std::uint64_t{32} << 20U;  // A multiple of 4096.
    // For one batch, and for one's turn. A GPU that takes longer hangs.
    Nanoseconds patience = seconds(30);
  };
  // `driver` and `clock` outlive it. Errors: kExhausted = no GPU memory for the staging; kIo.
  static Result<std::unique_ptr<StagedCopier>> create(const Driver& driver, DeviceNumber device,
                                                      PieceTable table, const Clock& clock,
                                                      Options options);
  ~StagedCopier();
  StagedCopier(const StagedCopier&) = delete;
  StagedCopier& operator=(const StagedCopier&) = delete;

  // Checked copies. Sets the checksums only if all went well. Errors: kIo, kClosed = in a forked
  // child.
  [[nodiscard]] Status copy(std::span<ShardCopy> copies, Way way);
  [[nodiscard]] Status register_host(std::span<std::byte> memory);
  [[nodiscard]] Status unregister_host(std::byte* memory);

 private:
  // What went wrong in a call, told in words once nothing is under way any more.
  struct Trouble {
    Answer answer = kSuccess;
    const char* operation = nullptr;  // Null = nothing.
    bool is_late = false;
    [[nodiscard]] bool is_there() const { return operation != nullptr; }
  };
  struct Half {
    Stream stream = nullptr;
    Event done = nullptr;
    Address staging = 0;
    Address control = 0;        // kMaxParts entries.
    PartEntry* sent = nullptr;  // The same on the host, pinned.
    PartEntry* back = nullptr;
    std::vector<Part> parts;
    bool is_busy = false;
  };
  class Current;
  class Turn;

  StagedCopier(const Driver& driver, DeviceNumber device, PieceTable table, const Clock& clock,
               Options options);
  [[nodiscard]] Status set_up();
  [[nodiscard]] Status load_kernels();
  [[nodiscard]] Trouble make_half(Half& half) const;
  [[nodiscard]] Trouble upload_table();
  void tear_down();
  [[nodiscard]] Trouble run(std::span<ShardCopy> copies, Way way, std::vector<std::uint64_t>& sums);
  void describe_parts(Half& half, std::span<const ShardCopy> copies);
  [[nodiscard]] Trouble submit(Half& half, std::span<const ShardCopy> copies, Way way);
  [[nodiscard]] Trouble launch(const Half& half, Way way);
  [[nodiscard]] Trouble carry(const Half& half, std::span<const ShardCopy> copies, Way way) const;
  [[nodiscard]] Trouble collect(Half& half, std::vector<std::uint64_t>& sums);
  [[nodiscard]] Trouble wait(Event event);
  void drain();
  [[nodiscard]] Status refusal() const;
  [[nodiscard]] std::string words_of(const Trouble& trouble) const;
  [[nodiscard]] Status tell(const Trouble& trouble);
  [[nodiscard]] std::string where() const;

  const Driver& driver_;
  const DeviceNumber device_;
  const PieceTable table_;
  const Clock& clock_;
  const Options options_;
  const pid_t process_;
  std::string gpu_;
  Context context_ = nullptr;
  Module module_ = nullptr;
  Function out_ = nullptr;
  Function in_ = nullptr;
  Address pieces_ = 0;
  // In host memory, read by kernels that write into blocks: what was given up must not be written
  // once the engine has gone on.
  std::uint32_t* cancel_ = nullptr;

  Mutex mutex_;
  CondVar freed_;
  bool is_taken_ TERRACE_GUARDED_BY(mutex_) = false;
  // Of whoever has the turn.
  std::array<Half, 2> halves_;
  std::uint64_t launches_ = 0;
  std::string broken_;  // Why nothing is copied any more.
  bool is_hanging_ = false;
};

}  // namespace terrace::memory::cuda
