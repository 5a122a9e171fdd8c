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
    : context_(context), budget_(budget) {
  if (context.options.returns == nullptr) return;
  copies_.resize(context.volumes.size());
  for (std::uint32_t v = 0; v < copies_.size(); ++v) {
    const Status status = open_copy(v);
    if (status.is_ok()) continue;
    copies_[v].file.reset(-1);
    context_.log.write(
        LogLevel::kWarn,
        fmt::format("disk learned=off reason=\"{}\": all else is served, but {} until that is put "
                    "right",
                    status.message(),
                    copies_.size() == 1
                        ? "eviction learns anew at each start"
                        : "what eviction learns is kept in other directories alone"));
  }
  context_.log.write(LogLevel::kInfo, fmt::format("disk file={} learned={} bytes={}",
                                                  number_ > 0 ? found_in_ : copies_.front().path,
                                                  number_ > 0 ? "found" : "none", found_.size()));
}

Status LearnedKeeper::open_copy(std::uint32_t v) {
  Copy& copy = copies_[v];
  const std::string meta = context_.volumes[v]->meta_path();
  const std::string folder = meta.substr(0, meta.rfind('/'));
  copy.path = folder + "/learned.meta";
  copy.page.resize(kPageBytes);
  // Writing past this limit is a signal that would end the engine.
  struct rlimit limit{};
  if (::getrlimit(RLIMIT_FSIZE, &limit) == 0 &&
      limit.rlim_cur < kLearnedHalves * kLearnedHalfBytes) {
    return {Code::kRefused, copy.path + ": files are limited to less than 512 KiB (ulimit -f)"};
  }
  TERRACE_ASSIGN_OR_RETURN(copy.file, open_regular_file(copy.path, O_RDWR | O_CREAT | O_NOFOLLOW));
  TERRACE_ASSIGN_OR_RETURN(Learned learned, read_learned(copy.file.get(), copy.path));
  if (!learned.damage.empty()) {
    context_.log.write(LogLevel::kWarn,
                       fmt::format("disk file={} learned=damaged reason=\"{}\": {}; nothing to do",
                                   copy.path, learned.damage,
                                   learned.number > 0 ? "what was kept before it is taken"
                                                      : "eviction learns anew"));
  }
  if (learned.number == 0) return sync_directory(folder);
  copy.half = (learned.half + 1) % kLearnedHalves;
  if (learned.number > number_) {
    number_ = learned.number;
    found_ = std::move(learned.bytes);
    found_in_ = copy.path;
  }
  // A killed owner may have left it in the system's hands, and the other half goes next.
  if (::fdatasync(copy.file.get()) != 0) return Status::from_errno(errno, "fdatasync", copy.path);
  return {};
}

void LearnedKeeper::keep(std::string bytes) {
  if (copies_.empty() || bytes.empty() || bytes.size() > kLearnedRoom) return;
  latest_ = std::move(bytes);
  ++number_;
  for (std::uint32_t v = 0; v < copies_.size(); ++v) push(v);
}

void LearnedKeeper::push(std::uint32_t v) {
  Copy& copy = copies_[v];
  if (!copy.file.is_open() || copy.is_flying || copy.tried == number_ || latest_.empty() ||
      !context_.health.may_write(v)) {
    return;
  }
  copy.tried = number_;
  copy.payload = latest_;
  const LearnedHeader header{number_, static_cast<std::uint32_t>(copy.payload.size()),
                             crc32c(std::as_bytes(std::span(copy.payload)))};
  encode(header, std::span<std::byte, kPageBytes>(copy.page.data(), kPageBytes));
  copy.payload.resize((copy.payload.size() + kPageBytes - 1) / kPageBytes * kPageBytes);
  transfer::Transfer transfer;
  transfer.token = Ticket{Purpose::kLearnedWrite, 0, v}.token();
  transfer.op = transfer::IoOp::kWrite;
  transfer.file = copy.file.get();
  transfer.offset = copy.half * kLearnedHalfBytes;
  transfer.pieces[0] = {copy.page.data(), copy.page.size()};
  transfer.pieces[1] = {reinterpret_cast<std::byte*>(copy.payload.data()), copy.payload.size()};
  transfer.piece_count = 2;
  copy.is_flying = true;
  budget_.charge(copy.page.size() + copy.payload.size());
  context_.push(v, transfer);
}

void LearnedKeeper::finish(Purpose purpose, std::uint32_t v, const Status& status) {
  Copy& copy = copies_[v];
  if (purpose == Purpose::kLearnedWrite && status.is_ok()) {
    transfer::Transfer transfer;
    transfer.token = Ticket{Purpose::kLearnedSync, 0, v}.token();
    transfer.op = transfer::IoOp::kSync;
    transfer.file = copy.file.get();
    return context_.push(v, transfer);
  }
  copy.is_flying = false;
  if (status.is_ok()) {  // Else the same half again: the other one is whole.
    copy.half = (copy.half + 1) % kLearnedHalves;
    copy.has_told = false;
  } else if (!std::exchange(copy.has_told, true)) {
    context_.log.write(
        LogLevel::kWarn,
        fmt::format("disk file={} learned=not_kept reason=\"{}\": all else is served, "
                    "and it is tried again",
                    copy.path, status.message()));
  }
  push(v);
}

bool LearnedKeeper::is_saving() const {
  for (std::uint32_t v = 0; v < copies_.size(); ++v) {
    if (copies_[v].is_flying && context_.health.may_read(v)) return true;
  }
  return false;
}

void LearnedKeeper::name_files(transfer::Backend& backend) const {
  for (const Copy& copy : copies_) {
    if (copy.file.is_open()) backend.name_file(copy.file.get(), copy.path);
  }
}

}  // namespace terrace::tier::disk
