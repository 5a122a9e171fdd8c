// Opening, so that what this owner builds on is on the medium. Source: docs/formats/disk.md,
// Opening.
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>

#include "terrace/tier/disk/volume_internal.h"
#include "terrace/tier/disk/volume_io_internal.h"

namespace terrace::tier::disk {

// Header, claims and, if need be, records, as they were found too: a killed owner may have left
// them in the system's hands, where a crash would take them from under the blocks that go by them.
// Written anew, as a sync that had failed leaves nothing for a later one to do.
Status Volume::make_durable() {
  if (meta_.is_in_doubt) {
    log_.write(
        LogLevel::kWarn,
        fmt::format("disk file={} sync=failed_before: its records are written anew; see what "
                    "the system says of the device",
                    meta_path()));
    TERRACE_RETURN_IF_ERROR(write_records());
  }
  meta_.is_in_doubt = false;
  TERRACE_RETURN_IF_ERROR(write_meta_header());
  TERRACE_RETURN_IF_ERROR(sync_meta());
  return write_claims();
}

Status Volume::write_meta_header() {
  std::array<std::byte, kPageBytes> page{};
  encode(meta_, page);
  for (std::size_t copy = 0; copy < kMetaHeaderCopies; ++copy) {
    TERRACE_RETURN_IF_ERROR(write_at(meta_file_.get(), page, copy * kPageBytes, meta_path()));
  }
  return {};
}

Status Volume::sync_meta() {
  TERRACE_RETURN_IF_ERROR(sync_file(meta_file_.get(), meta_path()));
  const std::string path = meta_path();
  return sync_directory(path.substr(0, path.rfind('/')));
}

// Those of our runs, as the system shows them. A page that cannot be read is not in the system's
// hands, so not in doubt: its blocks are lost when it is loaded.
Status Volume::write_records() {
  constexpr std::uint64_t kPieceBytes = 2U << 20U;
  std::vector<std::byte> piece;
  for (std::uint32_t run = 0; run < run_count(); ++run) {
    if (run_state(run) != RunState::kOurs) continue;
    const std::uint64_t end = records_end(run);
    std::uint64_t most = kPieceBytes;
    for (std::uint64_t at = record_offset(0, run * geometry_.run_slots); at < end;) {
      const std::uint64_t to_page = kPageBytes - at % kPageBytes;
      piece.resize(std::min(most, end - at));
      const ssize_t got =
          ::pread(meta_file_.get(), piece.data(), piece.size(), static_cast<off_t>(at));
      if (got == 0) break;  // The file was cut: there are no records.
      if (got < 0) {
        if (most == kPieceBytes) {
          most = to_page;
        } else {
          at += to_page;
          most = kPageBytes;
        }
        continue;
      }
      piece.resize(static_cast<std::size_t>(got));
      TERRACE_RETURN_IF_ERROR(write_at(meta_file_.get(), piece, at, meta_path()));
      at += piece.size();
      most = kPieceBytes;
    }
  }
  return {};
}

// Those of our runs, as they are.
Status Volume::write_claims() {
  std::vector<std::byte> bytes;
  for (std::uint32_t run = 0; run < run_count(); ++run) {
    if (run_state(run) == RunState::kOurs) encode_claim(run, run_stamp(run), bytes);
    const bool goes_on = run + 1 < run_count() && run_state(run + 1) == RunState::kOurs;
    if (bytes.empty() || goes_on) continue;
    const std::uint64_t end = claim_offset(run + 1);
    TERRACE_RETURN_IF_ERROR(
        write_at(extents_file_.get(), bytes, end - bytes.size(), extents_path()));
    bytes.clear();
  }
  return sync_file(extents_file_.get(), extents_path());
}

}  // namespace terrace::tier::disk
