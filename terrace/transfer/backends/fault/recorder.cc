#include "terrace/transfer/backends/fault/recorder.h"

#include <algorithm>

namespace terrace::transfer {

namespace {
constexpr std::size_t kSectorBytes = 512;
}

bool Recorder::is_durable(const Event& write, std::size_t moment) const {
  return std::any_of(events_.begin(), events_.end(), [&](const Event& sync) {
    return sync.op == IoOp::kSync && sync.path == write.path && sync.finished <= moment &&
           write.finished < sync.begun;
  });
}

std::vector<Recorder::LandedBytes> Recorder::survivors(std::size_t moment, Rng& rng,
                                                       unsigned percent) const {
  std::vector<LandedBytes> landed;
  for (const Event& write : events_) {
    if (write.op != IoOp::kWrite || write.begun > moment) continue;
    if (is_durable(write, moment)) {
      landed.push_back({write.path, write.offset, write.bytes});
      continue;
    }
    for (std::size_t at = 0; at < write.bytes.size();) {
      // Cut where the medium's sectors end, not where the write's do.
      const std::size_t sector_end = kSectorBytes - (write.offset + at) % kSectorBytes;
      const std::size_t bytes = std::min(sector_end, write.bytes.size() - at);
      if (rng.chance(percent)) {
        landed.push_back(
            {write.path, write.offset + at, std::span(write.bytes).subspan(at, bytes)});
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
  if (transfer.op == IoOp::kWrite || transfer.op == IoOp::kSync) {
    flight.event = recorder_.events_.size();
    Recorder::Event event{
        transfer.op, path_of(transfer.file), transfer.offset, {}, ++recorder_.now_};
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
    if (flight.event != Recorder::kNever && completion.status.is_ok()) {
      recorder_.events_[flight.event].finished = ++recorder_.now_;
    }
    finished.push_back({flight.transfer, std::move(completion.status)});
  }
}

}  // namespace terrace::transfer
