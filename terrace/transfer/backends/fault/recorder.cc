#include "terrace/transfer/backends/fault/recorder.h"

#include <algorithm>

namespace terrace::transfer {

namespace {
constexpr std::size_t kSectorBytes = 512;
}

bool Recorder::is_durable(const Event& write, std::size_t moment) const {
  if (!trusts_syncs_ || write.finished == kNever) return false;
  // Events stand in the order of their beginning. What a failed sync did not bring to the medium
  // the kernel believes to be there, or has thrown away: the next sync is of other writes.
  for (const Event& sync : events_) {
    if (sync.op != IoOp::kSync || sync.path != write.path || sync.begun < write.finished) continue;
    if (sync.finished <= moment) return true;
    if (sync.failed <= moment) return false;
  }
  return false;
}

std::vector<Recorder::LandedBytes> Recorder::survivors(std::size_t moment, Rng& rng,
                                                       unsigned percent) const {
  std::vector<LandedBytes> landed;
  for (const Event& write : events_) {
    if (write.op == IoOp::kSync || write.begun > moment) continue;
    if (write.op == IoOp::kAllocate) {
      if (is_durable(write, moment) || rng.chance(percent)) {
        landed.push_back({write.path, write.offset, {}, write.offset + write.length});
      }
      continue;
    }
    if (is_durable(write, moment)) {
      landed.push_back({write.path, write.offset, write.bytes, 0});
      continue;
    }
    for (std::size_t at = 0; at < write.bytes.size();) {
      // Cut where the medium's sectors end, not where the write's do.
      const std::size_t sector_end = kSectorBytes - (write.offset + at) % kSectorBytes;
      const std::size_t bytes = std::min(sector_end, write.bytes.size() - at);
      if (rng.chance(percent)) {
        landed.push_back(
            {write.path, write.offset + at, std::span(write.bytes).subspan(at, bytes), 0});
      }
      at += bytes;
    }
  }
  return landed;
}

void RecordingBackend::name_file(int file, const std::string& path) {
  Backend::name_file(file, path);
  inner_->name_file(file, path);
}

Status RecordingBackend::start(const Transfer& transfer) {
  Transfer inner = transfer;
  inner.token = flights_.size();
  Flight flight{transfer, Recorder::kNever};
  if (transfer.op != IoOp::kRead) {
    flight.event = recorder_.events_.size();
    Recorder::Event event;
    event.op = transfer.op;
    event.path = path_of(transfer.file);
    event.offset = transfer.offset;
    event.length = transfer.length;
    event.begun = ++recorder_.now_;
    for (std::size_t i = 0; i < transfer.piece_count; ++i) {
      const MemoryPiece& piece = transfer.pieces[i];
      event.bytes.insert(event.bytes.end(), piece.data, piece.data + piece.bytes);
    }
    recorder_.events_.push_back(std::move(event));
  }
  flights_.push_back(flight);
  return inner_->submit(inner);
}

void RecordingBackend::collect(std::vector<Finished>& finished) {
  scratch_.clear();
  inner_->poll(scratch_);
  for (Completion& completion : scratch_) {
    const Flight& flight = flights_[completion.token];
    if (flight.event != Recorder::kNever) {
      Recorder::Event& event = recorder_.events_[flight.event];
      (completion.status.is_ok() ? event.finished : event.failed) = ++recorder_.now_;
    }
    finished.push_back({flight.transfer, std::move(completion.status)});
  }
}

}  // namespace terrace::transfer
