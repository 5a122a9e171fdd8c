#include <unistd.h>

#include <cerrno>
#include <string_view>

#include "terrace/tier/disk/volume_io_internal.h"

namespace terrace::tier::disk {

namespace {
Status failure(int error, std::string_view operation, const std::string& path) {
  Status status = Status::from_errno(error, operation, path);
  return error == ENOSPC ? Status(Code::kExhausted, status.message()) : status;
}
}  // namespace

Status write_at(int file, std::span<const std::byte> bytes, std::uint64_t offset,
                const std::string& path) {
  while (!bytes.empty()) {
    const ssize_t put = ::pwrite(file, bytes.data(), bytes.size(), static_cast<off_t>(offset));
    if (put < 0 && errno == EINTR) continue;
    if (put <= 0) return failure(put < 0 ? errno : EIO, "pwrite", path);
    bytes = bytes.subspan(static_cast<std::size_t>(put));
    offset += static_cast<std::uint64_t>(put);
  }
  return {};
}

Status sync_file(int file, const std::string& path) {
  if (::fdatasync(file) != 0) return failure(errno, "fdatasync", path);
  return {};
}

}  // namespace terrace::tier::disk
