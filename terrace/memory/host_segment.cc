#include "terrace/memory/host_segment.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <linux/magic.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <utility>

#include "terrace/base/check.h"
#include "terrace/base/sync_point.h"
#include "terrace/memory/memory_room.h"

namespace terrace::memory {
namespace {

constexpr std::uint64_t kMaxLaneBytes = std::uint64_t{1} << 47U;  // User address space of x86-64.
constexpr std::uint16_t kMaxLanes = 64;
constexpr int kPopulateWrite = 23;  // MADV_POPULATE_WRITE, Linux 5.14; older headers lack it.
constexpr unsigned kHugeFlags =
    MFD_HUGETLB | (21U << 26U);  // 2 MiB pages, whatever the default is.
constexpr int kSeals = F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL;
constexpr int kNeededSeals = F_SEAL_SHRINK | F_SEAL_GROW;

std::uint32_t divide_up(std::uint64_t a, std::uint64_t b) {
  return static_cast<std::uint32_t>((a + b - 1) / b);
}

Status refused_memory(int error, std::string_view operation, std::string_view way_out) {
  const Status cause = Status::from_errno(error, operation, "host segment");
  const bool is_limit = error == ENOMEM || error == EFAULT || error == EMFILE || error == ENFILE ||
                        error == EFBIG || error == ENOSPC || error == EAGAIN;
  return {is_limit ? Code::kExhausted : Code::kIo,
          fmt::format("host.size: {}; {}", cause.message(), way_out), Scope::kNode};
}

}  // namespace

Status SegmentGeometry::validate() const {
  if (slot_bytes == Bytes(0) || slot_bytes % kPageBytes != 0) {
    return {Code::kInvalid,
            fmt::format("geometry: slot_bytes {} is no multiple of 4096", slot_bytes.value())};
  }
  if (slots == 0) return {Code::kInvalid, "geometry: slots is 0"};
  if (lanes == 0 || lanes > kMaxLanes) {
    return {Code::kInvalid,
            fmt::format("geometry: {} lanes, allowed are 1 to {}", lanes, kMaxLanes)};
  }
  if (slot_bytes.value() > kMaxLaneBytes / slots) {
    return {Code::kInvalid, fmt::format("geometry: {} slots of {} bytes are more than 2^47 bytes",
                                        slots, slot_bytes.value())};
  }
  return {};
}

std::uint32_t SegmentGeometry::slots_per_extent() const {
  return static_cast<std::uint32_t>(std::max<std::uint64_t>(1, kExtentBytes / slot_bytes));
}
Bytes SegmentGeometry::extent_bytes() const { return slot_bytes * slots_per_extent(); }
std::uint32_t SegmentGeometry::extents() const { return divide_up(slots, slots_per_extent()); }
std::uint32_t SegmentGeometry::extents_per_file() const {
  return divide_up(std::uint64_t{extents()} * lanes, kSegmentFiles);
}
std::uint32_t SegmentGeometry::files() const { return divide_up(extents(), extents_per_file()); }
Bytes SegmentGeometry::lane_bytes() const { return slot_bytes * slots; }
Bytes SegmentGeometry::file_bytes(std::uint32_t file) const {
  const Bytes whole = extent_bytes() * extents_per_file();
  return std::min(whole, lane_bytes() - whole * file);
}

// Files lie one after the other in one reserved range, each at a multiple of `file_step`.
struct Lane::State {
  SegmentGeometry geometry;
  std::uint32_t slots_per_file = 0;
  std::uint64_t file_step = 0;
  std::byte* reserved = nullptr;  // What munmap gets.
  std::size_t reserved_bytes = 0;
  std::byte* base = nullptr;
  std::byte* lost = nullptr;  // A part of the range that may be somebody else's by now.
  std::size_t lost_bytes = 0;
  bool is_huge = false;
  bool is_owner = false;
  pid_t process = 0;
  std::vector<UniqueFd> files;
  std::atomic<std::uint32_t> populated{0};

  State() = default;
  State(const State&) = delete;
  State& operator=(const State&) = delete;
  ~State() {
    // A forked child has no such mapping (MADV_DONTFORK); by now something else may lie there.
    if (reserved == nullptr || process != ::getpid()) return;
    std::byte* const end = reserved + reserved_bytes;
    if (lost_bytes == 0) {
      ::munmap(reserved, reserved_bytes);
      return;
    }
    if (lost != reserved) ::munmap(reserved, static_cast<std::size_t>(lost - reserved));
    if (lost + lost_bytes != end) {
      ::munmap(lost + lost_bytes, static_cast<std::size_t>(end - lost - lost_bytes));
    }
  }

  [[nodiscard]] std::uint64_t mapped_bytes(std::uint32_t file) const {
    const Bytes exact = geometry.file_bytes(file);
    return is_huge ? round_up(exact, kHugePageBytes).value() : exact.value();
  }
  [[nodiscard]] Status reserve(const SegmentGeometry& wanted);
  [[nodiscard]] Status make_file(std::uint32_t file, const std::string& name);
  [[nodiscard]] Status map_file(std::uint32_t file);
  void give_up(std::byte* address, std::uint64_t bytes);
  [[nodiscard]] Status touch(std::byte* address, std::uint64_t bytes) const;
};

Status Lane::State::reserve(const SegmentGeometry& wanted) {
  geometry = wanted;
  slots_per_file = geometry.slots_per_extent() * geometry.extents_per_file();
  const Bytes whole = geometry.extent_bytes() * geometry.extents_per_file();
  file_step = round_up(whole, kHugePageBytes).value();
  reserved_bytes = file_step * geometry.files() + kHugePageBytes.value();
  void* const got = ::mmap(nullptr, reserved_bytes, PROT_NONE,
                           MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (got == MAP_FAILED) {
    return refused_memory(errno, "mmap",
                          fmt::format("{} bytes of address space are needed for one lane: raise "
                                      "RLIMIT_AS (ulimit -v) or lower host.size",
                                      reserved_bytes));
  }
  process = ::getpid();
  reserved = static_cast<std::byte*>(got);
  const auto past = reinterpret_cast<std::uintptr_t>(reserved) % kHugePageBytes.value();
  base = reserved + (past == 0 ? 0 : kHugePageBytes.value() - past);
  return {};
}

Status Lane::State::make_file(std::uint32_t file, const std::string& name) {
  const std::uint64_t bytes = mapped_bytes(file);
  rlimit limit{};
  // Asked first: growing a file beyond this limit raises SIGXFSZ, which would end the engine.
  if (::getrlimit(RLIMIT_FSIZE, &limit) == 0 && limit.rlim_cur != RLIM_INFINITY &&
      bytes > limit.rlim_cur) {
    return refused_memory(
        EFBIG, "ftruncate",
        fmt::format("{} bytes are needed: raise RLIMIT_FSIZE (ulimit -f) or lower "
                    "host.size",
                    bytes));
  }
  const unsigned flags = MFD_CLOEXEC | MFD_ALLOW_SEALING | (is_huge ? kHugeFlags : 0U);
  UniqueFd fd(::memfd_create(name.c_str(), flags));
  if (!fd.is_open()) {
    return refused_memory(errno, "memfd_create",
                          fmt::format("{} descriptors are needed for one lane: raise RLIMIT_NOFILE "
                                      "(ulimit -n)",
                                      geometry.files()));
  }
  if (::ftruncate(fd.get(), static_cast<off_t>(bytes)) != 0) {
    return refused_memory(errno, "ftruncate", "lower host.size");
  }
  if (::fcntl(fd.get(), F_ADD_SEALS, kSeals) != 0) {
    return refused_memory(errno, "fcntl F_ADD_SEALS", "memfd sealing is needed (Linux 3.17)");
  }
  files.push_back(std::move(fd));
  return {};
}

Status Lane::State::map_file(std::uint32_t file) {
  std::byte* const address = base + file_step * file;
  const std::uint64_t bytes = mapped_bytes(file);
  if (::mmap(address, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, files[file].get(),
             0) == MAP_FAILED) {
    const int error = errno;
    TERRACE_SYNC_POINT("memory.lane.refused");
    give_up(address, bytes);
    return refused_memory(error, "mmap", "raise RLIMIT_AS (ulimit -v) or lower host.size");
  }
  // KV bytes are users' conversations, and gigabytes: neither in core dumps nor in children.
  if (::madvise(address, bytes, MADV_DONTDUMP) != 0 ||
      ::madvise(address, bytes, MADV_DONTFORK) != 0) {
    return refused_memory(errno, "madvise", "lower host.size");
  }
  // Takes effect only where /sys/kernel/mm/transparent_hugepage/shmem_enabled allows it.
  if (!is_huge) (void)::madvise(address, bytes, MADV_HUGEPAGE);
  return {};
}

// A refused MAP_FIXED may have unmapped what was there before (for want of huge pages it does). In
// that hole another thread's stack or memory may lie by now, which must not be unmapped: it is
// taken back only if it is still free, else left for good. It is address space, no memory.
void Lane::State::give_up(std::byte* address, std::uint64_t bytes) {
  void* const again =
      ::mmap(address, bytes, PROT_NONE,
             MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED_NOREPLACE, -1, 0);
  if (again == address) return;
  if (again != MAP_FAILED) ::munmap(again, bytes);  // Before Linux 4.17.
  lost = address;
  lost_bytes = bytes;
}

Status Lane::State::touch(std::byte* address, std::uint64_t bytes) const {
  constexpr int kTries = 1000;
  for (int i = 0; i < kTries; ++i) {
    if (::madvise(address, bytes, kPopulateWrite) == 0) return {};
    if (errno != EAGAIN && errno != EINTR) break;
  }
  if (errno != EINVAL) {  // EFAULT: a touch would have been a SIGBUS (huge page or group limit).
    return refused_memory(errno, "madvise MADV_POPULATE_WRITE",
                          "memory was refused: lower host.size or raise the container's limit");
  }
  // Before Linux 5.14. A read makes a page of shared memory present and changes nothing in it.
  for (std::uint64_t at = 0; at < bytes; at += kPageBytes.value()) {
    (void)std::atomic_ref<std::byte>(address[at]).load(std::memory_order_relaxed);
  }
  return {};
}

Lane::Lane(std::unique_ptr<State> state) : state_(std::move(state)) {}
Lane::Lane(Lane&&) noexcept = default;
Lane& Lane::operator=(Lane&&) noexcept = default;
Lane::~Lane() = default;

Result<Lane> Lane::create(const SegmentGeometry& geometry, bool huge_pages,
                          const std::string& name) {
  TERRACE_RETURN_IF_ERROR(geometry.validate());
  // Mapping reserves huge pages, so a lane either gets all it needs now or none.
  for (const bool is_huge : {true, false}) {
    if (is_huge && !huge_pages) continue;
    auto state = std::make_unique<State>();
    state->is_huge = is_huge;
    state->is_owner = true;
    TERRACE_RETURN_IF_ERROR(state->reserve(geometry));
    Status status;
    for (std::uint32_t file = 0; file < geometry.files() && status.is_ok(); ++file) {
      status = state->make_file(file, name);
      if (status.is_ok()) status = state->map_file(file);
    }
    if (status.is_ok()) return Lane(std::move(state));
    if (!is_huge) return fail(std::move(status));
  }
  return fail(Code::kInternal, "unreachable");
}

Result<Lane> Lane::map(const SegmentGeometry& geometry, std::vector<UniqueFd> files) {
  TERRACE_RETURN_IF_ERROR(geometry.validate());
  if (files.size() != geometry.files()) {
    return fail(Code::kRefused, fmt::format("lane: {} descriptors came, its geometry needs {}",
                                            files.size(), geometry.files()));
  }
  auto state = std::make_unique<State>();
  TERRACE_RETURN_IF_ERROR(state->reserve(geometry));
  state->files = std::move(files);
  for (std::uint32_t file = 0; file < geometry.files(); ++file) {
    const int fd = state->files[file].get();
    const int seals = ::fcntl(fd, F_GET_SEALS);
    // Without these seals the other side could shrink the file, and a copy would die of SIGBUS.
    if (seals < 0 || (seals & kNeededSeals) != kNeededSeals) {
      return fail(Code::kRefused, fmt::format("lane: file {} is no sealed memfd", file));
    }
    struct stat facts{};
    if (::fstat(fd, &facts) != 0) return fail(Status::from_errno(errno, "fstat", "lane file"));
    const auto bytes = static_cast<std::uint64_t>(facts.st_size);
    struct statfs system{};
    if (file == 0 && ::fstatfs(fd, &system) == 0) state->is_huge = system.f_type == HUGETLBFS_MAGIC;
    if (bytes != state->mapped_bytes(file)) {
      return fail(Code::kRefused, fmt::format("lane: file {} has {} bytes, its geometry needs {}",
                                              file, bytes, state->mapped_bytes(file)));
    }
    TERRACE_RETURN_IF_ERROR(state->map_file(file));
  }
  state->files.clear();
  return Lane(std::move(state));
}

std::span<std::byte> Lane::slot(SlotIndex slot) const {
  const State& state = *state_;
  const std::uint32_t index = slot.value();
  TERRACE_CHECK(index < state.geometry.slots);
  const std::uint64_t slot_bytes = state.geometry.slot_bytes.value();
  std::byte* const file = state.base + state.file_step * (index / state.slots_per_file);
  return {file + slot_bytes * (index % state.slots_per_file), slot_bytes};
}

const SegmentGeometry& Lane::geometry() const { return state_->geometry; }
std::span<const UniqueFd> Lane::files() const { return state_->files; }
bool Lane::uses_huge_pages() const { return state_->is_huge; }

Status Lane::populate(std::uint32_t extent) const {
  const State& state = *state_;
  const SegmentGeometry& geometry = state.geometry;
  if (extent >= geometry.extents()) {
    return {Code::kInvalid, fmt::format("populate: extent {} of {}", extent, geometry.extents())};
  }
  const std::uint32_t first = extent * geometry.slots_per_extent();
  const std::uint32_t last = std::min(first + geometry.slots_per_extent(), geometry.slots) - 1;
  std::byte* const begin = slot(SlotIndex(first)).data();
  const auto bytes = static_cast<std::uint64_t>(slot(SlotIndex(last)).data() - begin) +
                     geometry.slot_bytes.value();
  for (std::uint64_t at = 0; at < bytes; at += kExtentBytes.value()) {
    const std::uint64_t step = std::min(bytes - at, kExtentBytes.value());
    // Who maps a lane finds most pages there already; only its owner, or a huge page, is counted.
    if (state.is_owner && !state.is_huge) {
      if (const MemoryRoom room = memory_room(); room.bytes < Bytes(step)) {
        return {Code::kExhausted,
                fmt::format("host.size: extent {} of {} does not fit, {} leaves {} bytes; lower "
                            "host.size or raise that limit",
                            extent, geometry.extents(), room.limit, room.bytes.value()),
                Scope::kNode};
      }
    }
    TERRACE_RETURN_IF_ERROR(state.touch(begin + at, step));
  }
  std::uint32_t expected = extent;
  state_->populated.compare_exchange_strong(expected, extent + 1, std::memory_order_release);
  return {};
}

std::uint32_t Lane::populated_extents() const {
  return state_->populated.load(std::memory_order_acquire);
}

bool Lane::is_populated(SlotIndex slot) const {
  return slot.value() / state_->geometry.slots_per_extent() < populated_extents();
}

}  // namespace terrace::memory
