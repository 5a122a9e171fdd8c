#include <fcntl.h>
#include <fmt/format.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <utility>

#include "terrace/tier/disk/learned_keeper_internal.h"

namespace terrace::tier::disk {

namespace {

constexpr std::uint32_t kVolume = 0;  // The first directory.

Result<std::size_t> read_at(int file, std::span<std::byte> target, std::size_t offset,
                            const std::string& path) {
  std::size_t done = 0;
  while (done < target.size()) {
    const ssize_t got = ::pread(file, target.data() + done, target.size() - done,
                                static_cast<off_t>(offset + done));
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return fail(Status::from_errno(errno, "pread", path));
    if (got == 0) break;
    done += static_cast<std::size_t>(got);
  }
  return done;
}

void add_damage(Learned& learned, std::size_t half, const char* what) {
  if (!learned.damage.empty()) learned.damage += "; ";
  learned.damage += fmt::format("half {}: {}", half, what);
}

// Takes it if it is whole and newer than what was taken before.
Status read_half(int file, std::size_t half, const std::string& path, Learned& learned) {
  const std::size_t offset = half * kLearnedHalfBytes;
  std::array<std::byte, kPageBytes> page{};
  TERRACE_ASSIGN_OR_RETURN(std::size_t got, read_at(file, page, offset, path));
  const auto header = decode_learned(page);
  if (!header) {
    const bool is_blank = std::ranges::all_of(page, [](std::byte b) { return b == std::byte{0}; });
    if (!is_blank) add_damage(learned, half, "its header is torn, damaged or of another version");
    return {};
  }
  if (header->number < learned.number) return {};
  std::string bytes(header->bytes, '\0');
  TERRACE_ASSIGN_OR_RETURN(
      got, read_at(file, std::as_writable_bytes(std::span(bytes)), offset + kPageBytes, path));
  if (got < bytes.size() || crc32c(std::as_bytes(std::span(bytes))) != header->payload) {
    add_damage(learned, half, "its bytes are torn, damaged or cut off");
    return {};
  }
  learned.number = header->number;
  learned.half = half;
  learned.bytes = std::move(bytes);
  return {};
}

}  // namespace

Result<Learned> read_learned(int file, const std::string& path) {
  Learned learned;
  for (std::size_t half = 0; half < kLearnedHalves; ++half) {
    TERRACE_RETURN_IF_ERROR(read_half(file, half, path, learned));
  }
  return learned;
}

Learned look_at_learned(const std::string& folder) {
  const std::string path = folder + "/learned.meta";
  const auto file = open_regular_file(path, O_RDONLY | O_NOFOLLOW);
  if (!file) return {};
  auto learned = read_learned(file->get(), path);
  return learned ? *std::move(learned) : Learned();
}

LearnedKeeper::LearnedKeeper(Context& context, BudgetKeeper& budget)
    : context_(context), budget_(budget), page_(kPageBytes) {
  if (context.options.returns == nullptr) return;
  const std::string meta = context.volumes.front()->meta_path();
  path_ = meta.substr(0, meta.rfind('/')) + "/learned.meta";
  if (const Status status = open(); !status.is_ok()) {
    file_.reset(-1);
    context_.log.write(
        LogLevel::kWarn,
        fmt::format("disk learned=off reason=\"{}\": all else is served, but eviction "
                    "learns anew at each start until that is put right",
                    status.message()));
  }
}

Status LearnedKeeper::open() {
  // Writing past this limit is a signal that would end the engine.
  struct rlimit limit{};
  if (::getrlimit(RLIMIT_FSIZE, &limit) == 0 &&
      limit.rlim_cur < kLearnedHalves * kLearnedHalfBytes) {
    return {Code::kRefused, path_ + ": files are limited to less than 512 KiB (ulimit -f)"};
  }
  TERRACE_ASSIGN_OR_RETURN(file_, open_regular_file(path_, O_RDWR | O_CREAT | O_NOFOLLOW));
  TERRACE_ASSIGN_OR_RETURN(Learned learned, read_learned(file_.get(), path_));
  if (!learned.damage.empty()) {
    context_.log.write(
        LogLevel::kWarn,
        fmt::format(
            "disk file={} learned=damaged reason=\"{}\": {}; nothing to do", path_, learned.damage,
            learned.number > 0 ? "what was kept before it is taken" : "eviction learns anew"));
  }
  context_.log.write(LogLevel::kInfo,
                     fmt::format("disk file={} learned={} bytes={}", path_,
                                 learned.number > 0 ? "found" : "none", learned.bytes.size()));
  if (learned.number == 0) return sync_directory(path_.substr(0, path_.rfind('/')));
  number_ = learned.number + 1;
  half_ = (learned.half + 1) % kLearnedHalves;
  found_ = std::move(learned.bytes);
  // A killed owner may have left it in the system's hands, and the other half goes next.
  if (::fdatasync(file_.get()) != 0) return Status::from_errno(errno, "fdatasync", path_);
  return {};
}

void LearnedKeeper::keep(std::string bytes) {
  if (!file_.is_open() || bytes.empty() || bytes.size() > kLearnedRoom) return;
  waiting_ = std::move(bytes);
  if (!is_saving_) push();
}

void LearnedKeeper::push() {
  payload_ = std::exchange(waiting_, {});
  if (payload_.empty() || !context_.health.may_write(kVolume)) return;
  const LearnedHeader header{number_, static_cast<std::uint32_t>(payload_.size()),
                             crc32c(std::as_bytes(std::span(payload_)))};
  encode(header, std::span<std::byte, kPageBytes>(page_.data(), kPageBytes));
  payload_.resize((payload_.size() + kPageBytes - 1) / kPageBytes * kPageBytes);
  transfer::Transfer transfer;
  transfer.token = Ticket{Purpose::kLearnedWrite, 0, kVolume}.token();
  transfer.op = transfer::IoOp::kWrite;
  transfer.file = file_.get();
  transfer.offset = half_ * kLearnedHalfBytes;
  transfer.pieces[0] = {page_.data(), page_.size()};
  transfer.pieces[1] = {reinterpret_cast<std::byte*>(payload_.data()), payload_.size()};
  transfer.piece_count = 2;
  is_saving_ = true;
  budget_.charge(page_.size() + payload_.size());
  context_.push(kVolume, transfer);
}

void LearnedKeeper::finish(Purpose purpose, const Status& status) {
  if (purpose == Purpose::kLearnedWrite && status.is_ok()) {
    transfer::Transfer transfer;
    transfer.token = Ticket{Purpose::kLearnedSync, 0, kVolume}.token();
    transfer.op = transfer::IoOp::kSync;
    transfer.file = file_.get();
    return context_.push(kVolume, transfer);
  }
  is_saving_ = false;
  if (status.is_ok()) {  // Else the same half again: the other one is whole.
    ++number_;
    half_ = (half_ + 1) % kLearnedHalves;
    has_told_ = false;
  } else if (!std::exchange(has_told_, true)) {
    context_.log.write(
        LogLevel::kWarn,
        fmt::format("disk file={} learned=not_kept reason=\"{}\": all else is served, "
                    "and it is tried again",
                    path_, status.message()));
  }
  push();
}

}  // namespace terrace::tier::disk
