#include "terrace/transfer/backend.h"

#include <fmt/format.h>

#include <cerrno>

namespace terrace::transfer {

namespace {
constexpr std::size_t kSectorBytes = 512;

// The system call's name, for error messages.
std::string_view call_of(IoOp op) {
  switch (op) {
    case IoOp::kRead:
      return "pread";
    case IoOp::kWrite:
      return "pwrite";
    case IoOp::kSync:
      return "fdatasync";
    case IoOp::kAllocate:
      return "fallocate";
  }
  return "unknown";
}

Code code_of(int error) {
  if (error == ENOSPC || error == EDQUOT || error == EFBIG) return Code::kExhausted;
  if (error == EOPNOTSUPP || error == ENOSYS) return Code::kUnavailable;
  if (error == EROFS) return Code::kRefused;
  return Code::kIo;
}
}  // namespace

std::string_view to_string(IoClass io_class) {
  switch (io_class) {
    case IoClass::kTtftRead:
      return "ttft_read";
    case IoClass::kPrefetch:
      return "prefetch";
    case IoClass::kOffloadWrite:
      return "offload_write";
    case IoClass::kScrub:
      return "scrub";
  }
  return "unknown";
}

std::string_view to_string(IoOp op) {
  switch (op) {
    case IoOp::kRead:
      return "read";
    case IoOp::kWrite:
      return "write";
    case IoOp::kSync:
      return "sync";
    case IoOp::kAllocate:
      return "allocate";
  }
  return "unknown";
}

std::size_t Transfer::bytes() const {
  std::size_t sum = 0;
  for (std::size_t i = 0; i < piece_count; ++i) sum += pieces[i].bytes;
  return sum;
}

void Backend::name_file(int file, const std::string& path) {
  if (path.empty()) {
    paths_.erase(file);
  } else {
    paths_[file] = path;
  }
}

Status Backend::submit(const Transfer& transfer) {
  const bool moves_bytes = transfer.op == IoOp::kRead || transfer.op == IoOp::kWrite;
  if (transfer.piece_count > most_pieces() || (moves_bytes && transfer.bytes() == 0)) {
    return {Code::kInvalid,
            fmt::format("{} {}: {} pieces, {} bytes", call_of(transfer.op), path_of(transfer.file),
                        transfer.piece_count, transfer.bytes())};
  }
  if (in_flight() >= depth_) return {Code::kExhausted, "transfer queue depth reached"};
  Transfer started = transfer;
  started.token = in_flight_.add(transfer.token);
  Status status = start(started);
  if (!status.is_ok()) (void)in_flight_.take(started.token);
  return status;
}

void Backend::poll(std::vector<Completion>& completions) {
  finished_.clear();
  collect(finished_);
  for (Finished& item : finished_) {
    const auto token = in_flight_.take(item.transfer.token);
    if (!token) {
      counters_.stray.add();
      continue;
    }
    const auto op = static_cast<std::size_t>(item.transfer.op);
    counters_.done[op].add();
    if (item.status.is_ok()) {
      counters_.bytes[op].add(item.transfer.bytes());
    } else {
      counters_.errors[op].add();
    }
    completions.push_back({*token, std::move(item.status)});
  }
}

const std::string& Backend::path_of(int file) const {
  static const auto* const unnamed = new std::string("(unnamed file)");
  const auto found = paths_.find(file);
  return found == paths_.end() ? *unnamed : found->second;
}

Status Backend::io_error(int error, const Transfer& transfer) const {
  const Status status =
      Status::from_errno(error, call_of(transfer.op), path_of(transfer.file), Scope::kBackend);
  return {code_of(error), status.message(), Scope::kBackend};
}

Status Backend::end_of_file(const Transfer& transfer) const {
  return {transfer.op == IoOp::kRead ? Code::kCorrupt : Code::kIo,
          fmt::format("{} {}: the file ends inside {} bytes at {}", call_of(transfer.op),
                      path_of(transfer.file), transfer.bytes(), transfer.offset)};
}

Progress::Progress(const Transfer& transfer)
    : transfer_(&transfer),
      total_(transfer.bytes()),
      is_in_sectors_(transfer.offset % kSectorBytes == 0 && total_ % kSectorBytes == 0) {
  build();
}

std::uint64_t Progress::offset() const { return transfer_->offset + done_; }

bool Progress::advance(std::size_t moved) {
  std::size_t done = done_ + moved;
  if (done > total_) done = total_;
  if (is_in_sectors_) done -= done % kSectorBytes;
  if (done <= done_) return false;
  done_ = done;
  build();
  return true;
}

void Progress::build() {
  count_ = 0;
  std::size_t skip = done_;
  for (std::size_t i = 0; i < transfer_->piece_count; ++i) {
    const MemoryPiece& piece = transfer_->pieces[i];
    if (skip >= piece.bytes) {
      skip -= piece.bytes;
      continue;
    }
    vectors_[count_++] = {piece.data + skip, piece.bytes - skip};
    skip = 0;
  }
}

}  // namespace terrace::transfer
