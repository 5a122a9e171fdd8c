#include "terrace/transfer/backends/fault/fault_backend.h"

#include <algorithm>
#include <cstring>

#include "terrace/base/check.h"

namespace terrace::transfer {

namespace {
constexpr std::size_t kSectorBytes = 512;
constexpr std::size_t kPageBytes = 4096;  // O_DIRECT wants its memory aligned.
constexpr std::size_t kPlacesKept = 64;
constexpr std::size_t kMostWritten = 4096;

// Faults that need no inner backend; 0 = another one.
int errno_of(Fault fault) {
  if (fault == Fault::kError) return EIO;
  if (fault == Fault::kNoSpace) return ENOSPC;
  if (fault == Fault::kInterrupt) return EINTR;
  if (fault == Fault::kAgain) return EAGAIN;
  if (fault == Fault::kReadOnly) return EROFS;
  return fault == Fault::kUnsupported ? EOPNOTSUPP : 0;
}

// Cuts a transfer after `bytes`, a multiple of a sector.
void cut(Transfer& transfer, std::size_t bytes) {
  std::size_t left = bytes;
  std::size_t count = 0;
  while (count < transfer.piece_count && left > 0) {
    MemoryPiece& piece = transfer.pieces[count++];
    piece.bytes = std::min(piece.bytes, left);
    left -= piece.bytes;
  }
  transfer.piece_count = count;
}
}  // namespace

std::string_view to_string(Fault fault) {
  switch (fault) {
    case Fault::kNone:
      return "none";
    case Fault::kError:
      return "error";
    case Fault::kNoSpace:
      return "no_space";
    case Fault::kUnsupported:
      return "unsupported";
    case Fault::kFlip:
      return "flip";
    case Fault::kCut:
      return "cut";
    case Fault::kMisplace:
      return "misplace";
    case Fault::kDelay:
      return "delay";
    case Fault::kLose:
      return "lose";
    case Fault::kInterrupt:
      return "interrupt";
    case Fault::kAgain:
      return "again";
    case Fault::kReplay:
      return "replay";
    case Fault::kDuplicate:
      return "duplicate";
    case Fault::kReorder:
      return "reorder";
    case Fault::kReadOnly:
      return "read_only";
  }
  return "unknown";
}

FaultBackend::FaultBackend(std::unique_ptr<Backend> inner, std::uint64_t seed)
    : Backend(inner->depth()), inner_(std::move(inner)), rng_(seed), order_rng_(~seed) {}

FaultBackend::~FaultBackend() {
  // A copy that a write still uses must outlive it.
  while (inner_->in_flight() > 0) {
    scratch_.clear();
    inner_->wait(seconds(1));
    inner_->poll(scratch_);
  }
}

void FaultBackend::set_rates(const FaultRates& rates) {
  rates_ = rates;
  keeps_written_ = rates.replayed_read > 0;
}

void FaultBackend::aim(Fault fault, IoOp op, unsigned count, std::string path_end) {
  aimed_ = fault;
  aimed_op_ = op;
  aimed_count_ = count;
  aimed_path_ = std::move(path_end);
}

void FaultBackend::release_lost() {
  for (Finished& finished : lost_) ready_.push_back(std::move(finished));
  lost_.clear();
  inner_->wake();
}

void FaultBackend::set_throttle(const Throttle& throttle, const Clock& clock) {
  clock_ = &clock;
  bucket_.set(throttle, clock.now());
  inner_->wake();
}

std::uint64_t FaultBackend::injected() const {
  std::uint64_t sum = 0;
  for (const std::uint64_t count : injected_) sum += count;
  return sum;
}

void FaultBackend::name_file(int file, const std::string& path) {
  Backend::name_file(file, path);
  inner_->name_file(file, path);
}

Fault FaultBackend::roll(const Transfer& transfer) {
  const auto hit = [this](unsigned percent) { return percent > 0 && rng_.chance(percent); };
  switch (transfer.op) {
    case IoOp::kRead:
      if (hit(rates_.read_error)) return Fault::kError;
      if (hit(rates_.flipped_read)) return Fault::kFlip;
      if (hit(rates_.short_read)) return Fault::kCut;
      if (hit(rates_.misplaced_read)) return Fault::kMisplace;
      if (hit(rates_.replayed_read)) return Fault::kReplay;
      break;
    case IoOp::kWrite:
      if (hit(rates_.write_error)) return Fault::kError;
      if (hit(rates_.no_space)) return Fault::kNoSpace;
      if (hit(rates_.read_only)) return Fault::kReadOnly;
      if (hit(rates_.flipped_write)) return Fault::kFlip;
      if (hit(rates_.torn_write)) return Fault::kCut;
      break;
    case IoOp::kSync:
      if (hit(rates_.sync_error)) return Fault::kError;
      break;
    case IoOp::kAllocate:
      if (hit(rates_.no_space)) return Fault::kNoSpace;
      break;
  }
  if (hit(rates_.interrupted)) return Fault::kInterrupt;
  if (hit(rates_.again)) return Fault::kAgain;
  if (hit(rates_.delayed)) return Fault::kDelay;
  if (hit(rates_.duplicated)) return Fault::kDuplicate;
  if (hit(rates_.reordered)) return Fault::kReorder;
  return hit(rates_.lost) ? Fault::kLose : Fault::kNone;
}

Fault FaultBackend::choose(const Transfer& transfer) {
  if (!hanging_.empty() && path_of(transfer.file).contains(hanging_) &&
      (!hanging_op_ || *hanging_op_ == transfer.op)) {
    return Fault::kLose;
  }
  if (aimed_count_ > 0 && aimed_op_ == transfer.op &&
      path_of(transfer.file).ends_with(aimed_path_)) {
    --aimed_count_;
    return aimed_;
  }
  const auto covers = [&](const auto& bad) {
    return path_of(transfer.file).ends_with(bad.first) && bad.second >= transfer.offset &&
           bad.second - transfer.offset < transfer.bytes();
  };
  if (transfer.op == IoOp::kRead && std::ranges::any_of(bad_, covers)) return Fault::kError;
  return roll(transfer);
}

// What the inner backend is told instead of the flight's transfer.
Transfer FaultBackend::bend(Flight& flight) {
  Transfer bent = flight.transfer;
  bent.arrivals = nullptr;  // What it sees may be spoiled afterwards.
  const std::size_t bytes = bent.bytes();
  if (flight.fault == Fault::kCut && bent.op == IoOp::kWrite) {
    cut(bent, rng_.below(std::max<std::size_t>(bytes / kSectorBytes, 1)) * kSectorBytes);
  } else if (flight.fault == Fault::kFlip && bent.op == IoOp::kWrite) {
    flight.copy.resize(bytes + kPageBytes);
    const auto address = reinterpret_cast<std::uintptr_t>(flight.copy.data());
    std::byte* target = flight.copy.data() + (kPageBytes - address % kPageBytes) % kPageBytes;
    bent.pieces[0] = {target, bytes};
    for (std::size_t i = 0; i < bent.piece_count; ++i) {
      const MemoryPiece& piece = flight.transfer.pieces[i];
      std::memcpy(target, piece.data, piece.bytes);
      target += piece.bytes;
    }
    bent.piece_count = 1;
    flip_bit(bent);
  } else if (flight.fault == Fault::kMisplace && bent.op == IoOp::kRead) {
    for (const Transfer& place : places_) {
      if (place.file == bent.file && place.offset != bent.offset && place.bytes() == bytes) {
        bent.offset = place.offset;
        break;
      }
    }
  }
  return bent;
}

Status FaultBackend::start(const Transfer& transfer) {
  Flight flight{transfer, choose(transfer), {}};
  if (flight.fault != Fault::kNone) ++injected_[static_cast<std::size_t>(flight.fault)];
  if (const int error = errno_of(flight.fault); error != 0) {
    ready_.push_back({transfer, io_error(error, transfer)});
    return {};
  }
  if (transfer.op == IoOp::kRead || transfer.op == IoOp::kWrite) {
    places_.push_back(transfer);
    if (places_.size() > kPlacesKept) places_.pop_front();
  }
  if (keeps_written_ && transfer.op == IoOp::kWrite) keep_for_replays(transfer);
  Transfer bent = bend(flight);
  if (bent.piece_count == 0 && transfer.piece_count > 0) {  // Torn before its first sector.
    ready_.push_back({transfer, {}});
    return {};
  }
  bent.token = next_token_++;
  TERRACE_RETURN_IF_ERROR(inner_->submit(bent));
  flights_.emplace(bent.token, std::move(flight));
  return {};
}

void FaultBackend::flip_bit(const Transfer& transfer) {
  std::size_t at = rng_.below(transfer.bytes());
  for (std::size_t i = 0; i < transfer.piece_count; ++i) {
    const MemoryPiece& piece = transfer.pieces[i];
    if (at < piece.bytes) {
      piece.data[at] ^= std::byte{static_cast<unsigned char>(1U << rng_.below(8))};
      return;
    }
    at -= piece.bytes;
  }
}

void FaultBackend::keep_for_replays(const Transfer& write) {
  const std::pair place(write.file, write.offset);
  if (written_.size() >= kMostWritten && !written_.contains(place)) return;
  Written& kept = written_[place];
  kept.before = std::move(kept.last);
  kept.last.clear();
  for (std::size_t i = 0; i < write.piece_count; ++i) {
    const MemoryPiece& piece = write.pieces[i];
    kept.last.insert(kept.last.end(), piece.data, piece.data + piece.bytes);
  }
}

void FaultBackend::replay(const Transfer& read) {
  const auto found = written_.find({read.file, read.offset});
  if (found == written_.end() || found->second.before.size() != read.bytes()) return;
  const std::byte* from = found->second.before.data();
  for (std::size_t i = 0; i < read.piece_count; ++i) {
    std::memcpy(read.pieces[i].data, from, read.pieces[i].bytes);
    from += read.pieces[i].bytes;
  }
}

void FaultBackend::spoil_read(const Flight& flight) {
  if (flight.fault == Fault::kFlip) return flip_bit(flight.transfer);
  if (flight.fault == Fault::kReplay) return replay(flight.transfer);
  if (flight.fault != Fault::kCut) return;
  const std::size_t sectors = flight.transfer.bytes() / kSectorBytes;
  std::size_t keep = rng_.below(std::max<std::size_t>(sectors, 1)) * kSectorBytes;
  for (std::size_t i = 0; i < flight.transfer.piece_count; ++i) {
    const MemoryPiece& piece = flight.transfer.pieces[i];
    const std::size_t kept = std::min(keep, piece.bytes);
    std::memset(piece.data + kept, 0, piece.bytes - kept);
    keep -= kept;
  }
}

void FaultBackend::pass_on(const Flight& flight, Status status, std::vector<Finished>& finished) {
  if (flight.transfer.op == IoOp::kRead && status.is_ok()) spoil_read(flight);
  Finished item{flight.transfer, std::move(status)};
  if (flight.fault == Fault::kLose) {
    lost_.push_back(std::move(item));
  } else if (flight.fault == Fault::kDelay) {
    late_.push_back({std::move(item), static_cast<unsigned>(1 + rng_.below(8))});
  } else {
    if (flight.fault == Fault::kDuplicate) {
      late_.push_back({item, static_cast<unsigned>(1 + rng_.below(8))});
    }
    is_shuffled_ = is_shuffled_ || flight.fault == Fault::kReorder;
    finished.push_back(std::move(item));
  }
}

void FaultBackend::shuffle(std::vector<Finished>& finished, std::size_t first) {
  for (std::size_t i = finished.size(); i > first + 1; --i) {
    std::swap(finished[i - 1], finished[first + order_rng_.below(i - first)]);
  }
}

void FaultBackend::slow_down(std::vector<Finished>& finished, std::size_t first) {
  for (std::size_t i = first; i < finished.size(); ++i) slow_.push_back(std::move(finished[i]));
  finished.erase(finished.begin() + static_cast<std::ptrdiff_t>(first), finished.end());
  const Nanoseconds now = clock_->now();
  while (!slow_.empty() && bucket_.take(slow_.front().transfer.bytes(), now)) {
    finished.push_back(std::move(slow_.front()));
    slow_.pop_front();
  }
}

void FaultBackend::collect(std::vector<Finished>& finished) {
  if (is_held_) return;
  const std::size_t first = finished.size();
  is_shuffled_ = false;
  for (Finished& item : ready_) finished.push_back(std::move(item));
  ready_.clear();
  for (Late& late : late_) {
    if (--late.polls == 0) finished.push_back(std::move(late.finished));
  }
  std::erase_if(late_, [](const Late& late) { return late.polls == 0; });
  scratch_.clear();
  inner_->poll(scratch_);
  for (Completion& completion : scratch_) {
    const auto found = flights_.find(completion.token);
    TERRACE_CHECK(found != flights_.end());
    pass_on(found->second, std::move(completion.status), finished);
    flights_.erase(found);
  }
  if (is_shuffled_) shuffle(finished, first);
  if (clock_ != nullptr) slow_down(finished, first);
}

void FaultBackend::pause(Nanoseconds limit) {
  const bool is_due = !is_held_ && (!ready_.empty() || !late_.empty());
  if (!is_held_ && !slow_.empty()) {
    limit = std::min(limit, bucket_.wait_for(slow_.front().transfer.bytes(), clock_->now()));
  }
  inner_->wait(is_due ? Nanoseconds(0) : limit);
}

}  // namespace terrace::transfer
