#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <utility>

#include "terrace/memory/device/cuda/staged_copier_internal.h"

namespace terrace::memory::cuda {
namespace {

constexpr unsigned kBlockThreads = 256;
constexpr unsigned kPagesPerBlock = kBlockThreads / kCrew;
constexpr std::uint64_t kControlBytes = kMaxParts * sizeof(PartEntry);
constexpr int kPoison = 0xA5;
// A batch takes tens of microseconds to a millisecond: looked after without sleeping at first.
constexpr Nanoseconds kSpin = Nanoseconds(200'000);
constexpr Nanoseconds kNap = Nanoseconds(20'000);

// Every failed call is taken to have broken the context, as an illegal address does, but for these
// two, which are about the call alone.
bool is_sticky(Answer answer) { return answer != kInvalidValue && answer != kOutOfMemory; }

// No entry, and none of another launch, starts like this one.
std::uint64_t start_value(std::uint64_t launch, std::uint64_t index) {
  return checksum_kernel::avalanche(launch * checksum_kernel::kPrime64A + index + 1);
}

std::uint64_t part_bytes(const Part& part) { return part.to - part.from; }

}  // namespace

// While this lives the GPU's primary context is the thread's current one, and a graph that another
// thread of the engine captures is no reason to refuse the thread's calls, nor broken by them.
class StagedCopier::Current {
 public:
  Current(const Driver& driver, Context context)
      : driver_(driver), answer_(driver.context_push(context)) {
    if (answer_ == kSuccess) has_mode_ = driver.capture_mode(&mode_) == kSuccess;
  }
  Current(const Current&) = delete;
  Current& operator=(const Current&) = delete;
  ~Current() {
    if (has_mode_) (void)driver_.capture_mode(&mode_);
    Context popped = nullptr;
    if (answer_ == kSuccess) (void)driver_.context_pop(&popped);
  }
  [[nodiscard]] Answer answer() const { return answer_; }

 private:
  const Driver& driver_;
  const Answer answer_;
  int mode_ = kCaptureRelaxed;  // Afterwards the thread's own.
  bool has_mode_ = false;
};

class StagedCopier::Turn {
 public:
  explicit Turn(StagedCopier& copier) : copier_(copier) {
    const Nanoseconds deadline = copier.clock_.now() + copier.options_.patience;
    const MutexLock lock(copier.mutex_);
    while (copier.is_taken_) {
      const Nanoseconds left = deadline - copier.clock_.now();
      if (left <= Nanoseconds(0)) return;
      (void)copier.freed_.wait_for(copier.mutex_, left);
    }
    copier.is_taken_ = true;
    is_ours_ = true;
  }
  Turn(const Turn&) = delete;
  Turn& operator=(const Turn&) = delete;
  ~Turn() {
    if (!is_ours_) return;
    const MutexLock lock(copier_.mutex_);
    copier_.is_taken_ = false;
    copier_.freed_.notify_one();
  }
  [[nodiscard]] bool is_ours() const { return is_ours_; }

 private:
  StagedCopier& copier_;
  bool is_ours_ = false;
};

StagedCopier::StagedCopier(const Driver& driver, DeviceNumber device, PieceTable table,
                           const Clock& clock, Options options)
    : driver_(driver),
      device_(device),
      table_(std::move(table)),
      clock_(clock),
      options_(options),
      process_(::getpid()) {}

Result<std::unique_ptr<StagedCopier>> StagedCopier::create(const Driver& driver,
                                                           DeviceNumber device, PieceTable table,
                                                           const Clock& clock, Options options) {
  std::unique_ptr<StagedCopier> copier(
      new StagedCopier(driver, device, std::move(table), clock, options));
  TERRACE_RETURN_IF_ERROR(copier->set_up());
  return copier;
}

StagedCopier::~StagedCopier() {
  // In a forked child nothing is its own. What hangs may still use all of it.
  if (process_ == ::getpid() && !is_hanging_) tear_down();
}

std::string StagedCopier::where() const {
  return fmt::format("cuda ({})", gpu_.empty() ? "?" : gpu_);
}

Status StagedCopier::set_up() {
  char name[128] = {};
  if (driver_.device_name(name, sizeof name - 1, device_) == kSuccess) gpu_ = name;
  if (const Answer answer = driver_.context_retain(&context_, device_); answer != kSuccess) {
    context_ = nullptr;
    return tell({answer, "cuDevicePrimaryCtxRetain"});
  }
  const Current current(driver_, context_);
  if (current.answer() != kSuccess) return tell({current.answer(), "cuCtxPushCurrent"});
  TERRACE_RETURN_IF_ERROR(load_kernels());
  void* cancel = nullptr;
  if (const Answer answer = driver_.allocate_host(&cancel, sizeof *cancel_, kHostAllocMapped);
      answer != kSuccess) {
    return tell({answer, "cuMemHostAlloc"});
  }
  cancel_ = static_cast<std::uint32_t*>(cancel);
  *cancel_ = 0;
  for (Half& half : halves_) {
    half.parts.reserve(kMaxParts);
    const Trouble trouble = make_half(half);
    if (trouble.answer == kOutOfMemory) {
      return {Code::kExhausted,
              fmt::format("{}: {} MiB of GPU memory for staging: {}; leave the engine's KV cache a "
                          "little less of it (vLLM: --gpu-memory-utilization)",
                          where(), (2 * options_.half_bytes) >> 20U,
                          describe(driver_, trouble.answer, trouble.operation)),
              Scope::kBackend};
    }
    if (trouble.is_there()) return tell(trouble);
  }
  const Trouble trouble = upload_table();
  return trouble.is_there() ? tell(trouble) : Status();
}

Status StagedCopier::load_kernels() {
  char log[1024] = {};
  int options[] = {kJitErrorLog, kJitErrorLogBytes};
  // The driver takes the size as a pointer's value.
  void* values[] = {static_cast<void*>(log), at<void>(sizeof log - 1)};
  const Answer answer = driver_.module_load(&module_, kKernels, 2, options, values);
  if (answer != kSuccess) {
    module_ = nullptr;
    Status status = tell({answer, "cuModuleLoadDataEx"});
    if (log[0] == '\0') return status;
    return {status.code(), fmt::format("{}: {}", status.message(), log), status.scope()};
  }
  for (const auto& [function, name] :
       {std::pair(&out_, "terrace_copy_out"), std::pair(&in_, "terrace_copy_in")}) {
    const Answer found = driver_.module_function(function, module_, name);
    if (found != kSuccess) return tell({found, "cuModuleGetFunction"});
  }
  return {};
}

StagedCopier::Trouble StagedCopier::make_half(Half& half) const {
  if (const Answer a = driver_.stream_create(&half.stream, kStreamNonBlocking); a != kSuccess) {
    half.stream = nullptr;
    return {a, "cuStreamCreate"};
  }
  if (const Answer a = driver_.event_create(&half.done, kEventDisableTiming); a != kSuccess) {
    half.done = nullptr;
    return {a, "cuEventCreate"};
  }
  if (const Answer a = driver_.allocate(&half.staging, options_.half_bytes); a != kSuccess) {
    half.staging = 0;
    return {a, "cuMemAlloc"};
  }
  if (const Answer a = driver_.allocate(&half.control, kControlBytes); a != kSuccess) {
    half.control = 0;
    return {a, "cuMemAlloc"};
  }
  for (PartEntry** const entries : {&half.sent, &half.back}) {
    void* memory = nullptr;
    if (const Answer a = driver_.allocate_host(&memory, kControlBytes, 0); a != kSuccess) {
      return {a, "cuMemHostAlloc"};
    }
    *entries = static_cast<PartEntry*>(memory);
  }
  return {};
}

StagedCopier::Trouble StagedCopier::upload_table() {
  const std::size_t bytes = table_.pieces.size() * sizeof(PieceEntry);
  if (const Answer a = driver_.allocate(&pieces_, bytes); a != kSuccess) {
    pieces_ = 0;
    return {a, "cuMemAlloc"};
  }
  Half& half = halves_[0];
  half.is_busy = true;
  Answer a = driver_.copy_to_device(pieces_, table_.pieces.data(), bytes, half.stream);
  if (a != kSuccess) return {a, "cuMemcpyHtoDAsync"};
  a = driver_.event_record(half.done, half.stream);
  if (a != kSuccess) return {a, "cuEventRecord"};
  const Trouble trouble = wait(half.done);
  half.is_busy = trouble.is_there();
  return trouble;
}

// What fails here cannot be helped: the context is broken or gone, and takes it along.
void StagedCopier::tear_down() {
  if (context_ == nullptr) return;
  {
    const Current current(driver_, context_);
    if (current.answer() == kSuccess) {
      drain();
      if (is_hanging_) return;  // It may still use all of this.
      for (const Half& half : halves_) {
        if (half.done != nullptr) (void)driver_.event_destroy(half.done);
        if (half.stream != nullptr) (void)driver_.stream_destroy(half.stream);
        if (half.staging != 0) (void)driver_.free(half.staging);
        if (half.control != 0) (void)driver_.free(half.control);
        if (half.sent != nullptr) (void)driver_.free_host(half.sent);
        if (half.back != nullptr) (void)driver_.free_host(half.back);
      }
      if (pieces_ != 0) (void)driver_.free(pieces_);
      if (cancel_ != nullptr) (void)driver_.free_host(cancel_);
      if (module_ != nullptr) (void)driver_.module_unload(module_);
    }
  }
  (void)driver_.context_release(device_);
}

Status StagedCopier::refusal() const {
  return {Code::kIo, fmt::format("{}: not used any more: {}", where(), broken_), Scope::kBackend};
}

std::string StagedCopier::words_of(const Trouble& trouble) const {
  if (trouble.is_late) {
    return fmt::format("{} has not ended after {} s: the GPU hangs", trouble.operation,
                       options_.patience.value() / 1'000'000'000);
  }
  if (trouble.answer == kSuccess) return trouble.operation;
  return describe(driver_, trouble.answer, trouble.operation);
}

Status StagedCopier::tell(const Trouble& trouble) {
  const std::string words = words_of(trouble);
  if (trouble.is_late || is_sticky(trouble.answer)) broken_ = words;
  return {Code::kIo, fmt::format("{}: {}", where(), words), Scope::kBackend};
}

Status StagedCopier::copy(std::span<ShardCopy> copies, Way way) {
  if (process_ != ::getpid()) {
    return {Code::kClosed, "cuda: in a forked child of the process that made the device"};
  }
  if (copies.empty()) return {};
  std::vector<std::uint64_t> sums(copies.size());
  const Turn turn(*this);
  if (!turn.is_ours()) {
    return {Code::kIo, where() + ": another thread's copy does not end", Scope::kBackend};
  }
  if (!broken_.empty()) return refusal();
  const Current current(driver_, context_);
  if (current.answer() != kSuccess) return tell({current.answer(), "cuCtxPushCurrent"});
  const Trouble trouble = run(copies, way, sums);
  if (trouble.is_there()) {
    // Nothing may be under way any more when the caller hears that it failed.
    if (!trouble.is_late) drain();
    return tell(trouble);
  }
  for (std::size_t i = 0; i < copies.size(); ++i) {
    const std::uint64_t bytes = table_.groups[copies[i].group].shard_bytes;
    copies[i].checksum = Checksum{checksum_kernel::finish_payload(sums[i], bytes)};
  }
  return {};
}

StagedCopier::Trouble StagedCopier::run(std::span<ShardCopy> copies, Way way,
                                        std::vector<std::uint64_t>& sums) {
  std::uint64_t total = 0;
  for (const ShardCopy& copy : copies) total += table_.groups[copy.group].shard_bytes;
  const std::uint64_t batch = batch_bytes(total, options_.half_bytes);
  Position at;
  std::size_t next = 0;
  while (at.copy < copies.size()) {
    Half& half = halves_[next];
    next = 1 - next;
    if (const Trouble trouble = collect(half, sums); trouble.is_there()) return trouble;
    plan_batch(table_, copies, batch, at, half.parts);
    if (const Trouble trouble = submit(half, copies, way); trouble.is_there()) return trouble;
  }
  for (std::size_t i = 0; i < halves_.size(); ++i, next = 1 - next) {
    if (const Trouble trouble = collect(halves_[next], sums); trouble.is_there()) return trouble;
  }
  return {};
}

// Answers come back into poisoned memory, in entries that begin at values of this launch alone: a
// kernel or a copy that did not happen cannot look like one that did.
void StagedCopier::describe_parts(Half& half, std::span<const ShardCopy> copies) {
  const std::uint64_t launch = ++launches_;
  for (std::size_t i = 0; i < half.parts.size(); ++i) {
    const Part& part = half.parts[i];
    const PieceTable::Group& group = table_.groups[copies[part.copy].group];
    half.sent[i] = {half.staging + part.staging,
                    part.from,
                    part.to,
                    group.first_piece,
                    group.piece_count,
                    copies[part.copy].block,
                    part.first_page,
                    launch,
                    start_value(launch, 2 * i),
                    start_value(launch, 2 * i + 1)};
  }
  std::memset(half.back, kPoison, half.parts.size() * sizeof(PartEntry));
}

StagedCopier::Trouble StagedCopier::submit(Half& half, std::span<const ShardCopy> copies, Way way) {
  describe_parts(half, copies);
  half.is_busy = true;
  const std::size_t control = half.parts.size() * sizeof(PartEntry);
  if (way == Way::kIn) {
    if (const Trouble trouble = carry(half, copies, way); trouble.is_there()) return trouble;
  }
  Answer a = driver_.copy_to_device(half.control, half.sent, control, half.stream);
  if (a != kSuccess) return {a, "cuMemcpyHtoDAsync"};
  if (const Trouble trouble = launch(half, way); trouble.is_there()) return trouble;
  if (way == Way::kOut) {
    if (const Trouble trouble = carry(half, copies, way); trouble.is_there()) return trouble;
  }
  a = driver_.copy_to_host(half.back, half.control, control, half.stream);
  if (a != kSuccess) return {a, "cuMemcpyDtoHAsync"};
  a = driver_.event_record(half.done, half.stream);
  if (a != kSuccess) return {a, "cuEventRecord"};
  return {};
}

StagedCopier::Trouble StagedCopier::launch(const Half& half, Way way) {
  Address parts = half.control;
  auto count = static_cast<std::uint32_t>(half.parts.size());
  Address pieces = pieces_;
  std::uint32_t pages = half.parts.back().first_page + half.parts.back().pages();
  std::uint32_t* cancel = cancel_;
  void* arguments[] = {&parts, &count, &pieces, &pages, static_cast<void*>(&cancel)};
  const unsigned blocks = (pages + kPagesPerBlock - 1) / kPagesPerBlock;
  const Answer a = driver_.launch(way == Way::kOut ? out_ : in_, blocks, 1, 1, kBlockThreads, 1, 1,
                                  0, half.stream, arguments, nullptr);
  if (a != kSuccess) return {a, "cuLaunchKernel"};
  return {};
}

// One DMA for each part, never one over two shards: their host memory may have been registered in
// two steps, which no DMA may cross.
StagedCopier::Trouble StagedCopier::carry(const Half& half, std::span<const ShardCopy> copies,
                                          Way way) const {
  for (const Part& part : half.parts) {
    std::byte* const host = copies[part.copy].host + part.from;
    const Address staging = half.staging + part.staging;
    const Answer a = way == Way::kOut
                         ? driver_.copy_to_host(host, staging, part_bytes(part), half.stream)
                         : driver_.copy_to_device(staging, host, part_bytes(part), half.stream);
    if (a != kSuccess) return {a, way == Way::kOut ? "cuMemcpyDtoHAsync" : "cuMemcpyHtoDAsync"};
  }
  return {};
}

StagedCopier::Trouble StagedCopier::collect(Half& half, std::vector<std::uint64_t>& sums) {
  if (!half.is_busy) return {};
  if (const Trouble trouble = wait(half.done); trouble.is_there()) return trouble;
  half.is_busy = false;
  for (std::size_t i = 0; i < half.parts.size(); ++i) {
    PartEntry wanted = half.sent[i];
    const PartEntry& back = half.back[i];
    const std::uint64_t sum = back.sum - wanted.sum;
    wanted.pages += half.parts[i].pages();
    wanted.sum = back.sum;
    if (std::memcmp(&wanted, &back, sizeof back) != 0) {
      return {kSuccess, "the kernel's answer is not that of this launch"};
    }
    sums[half.parts[i].copy] += sum;
  }
  return {};
}

StagedCopier::Trouble StagedCopier::wait(Event event) {
  const Nanoseconds begin = clock_.now();
  for (;;) {
    const Answer a = driver_.event_query(event);
    if (a == kSuccess) return {};
    if (a != kNotReady) return {a, "cuEventQuery"};
    const Nanoseconds waited = clock_.now() - begin;
    if (waited >= options_.patience) {
      __atomic_store_n(cancel_, 1U, __ATOMIC_SEQ_CST);
      is_hanging_ = true;
      return {kNotReady, "a copy", true};
    }
    if (waited < kSpin) continue;
    Mutex mutex;
    CondVar nobody;
    const MutexLock lock(mutex);
    (void)nobody.wait_for(mutex, kNap);
  }
}

// Until nothing is under way any more. Where that cannot be seen the context is broken, and runs
// nothing, or the GPU hangs.
void StagedCopier::drain() {
  for (Half& half : halves_) {
    if (!half.is_busy) continue;
    const Answer a = driver_.event_record(half.done, half.stream);
    const Trouble trouble = a == kSuccess ? wait(half.done) : Trouble{a, "cuEventRecord"};
    half.is_busy = trouble.is_there();
    if (trouble.is_there()) broken_ = words_of(trouble);
  }
}

Status StagedCopier::register_host(std::span<std::byte> memory) {
  if (process_ != ::getpid()) {
    return {Code::kClosed, "cuda: in a forked child of the process that made the device"};
  }
  const Current current(driver_, context_);
  Answer a = current.answer();
  if (a == kSuccess) a = driver_.register_host(memory.data(), memory.size(), 0);
  if (a == kSuccess) return {};
  return {Code::kIo,
          fmt::format("{}: {}; copies of this memory are slower", where(),
                      describe(driver_, a, "cuMemHostRegister")),
          Scope::kRegion};
}

Status StagedCopier::unregister_host(std::byte* memory) {
  if (process_ != ::getpid()) {
    return {Code::kClosed, "cuda: in a forked child of the process that made the device"};
  }
  const Current current(driver_, context_);
  Answer a = current.answer();
  if (a == kSuccess) a = driver_.unregister_host(memory);
  if (a == kSuccess) return {};
  return {Code::kIo, fmt::format("{}: {}", where(), describe(driver_, a, "cuMemHostUnregister")),
          Scope::kRegion};
}

}  // namespace terrace::memory::cuda
