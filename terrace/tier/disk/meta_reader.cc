#include <fcntl.h>
#include <fmt/format.h>

#include <algorithm>

#include "terrace/tier/disk/meta_reader_internal.h"

namespace terrace::tier::disk {

namespace {
constexpr std::size_t kPieceBytes = 2U << 20U;  // A huge page.
constexpr std::size_t kMostPieces = 8;
constexpr Nanoseconds kLoadLimit = seconds(60);
constexpr Nanoseconds kWaitStep = milliseconds(200);
}  // namespace

Result<MetaReader> MetaReader::create(Context& context, transfer::Backend& backend) {
  TERRACE_ASSIGN_OR_RETURN(auto memory,
                           index::ZeroedArray<std::byte>::create(2 * kMostPieces * kPieceBytes));
  return MetaReader(context, backend, std::move(memory));
}

MetaReader::MetaReader(Context& context, transfer::Backend& backend,
                       index::ZeroedArray<std::byte> memory)
    : context_(&context),
      backend_(&backend),
      memory_(std::move(memory)),
      most_pieces_(std::min<std::size_t>(kMostPieces, backend.depth())) {
  waves_[0].memory = memory_.all().data();
  waves_[1].memory = waves_[0].memory + kMostPieces * kPieceBytes;
  list_ranges();
  start(waves_[under_way_]);
}

MetaReader::~MetaReader() {
  if (memory_.size() == 0) return;  // Moved from.
  finish(waves_[under_way_]);
  for (const UniqueFd& file : direct_) backend_->name_file(file.get(), {});
}

void MetaReader::list_ranges() {
  for (std::uint32_t v = 0; v < context_->volumes.size(); ++v) {
    const Volume& volume = *context_->volumes[v];
    int file = volume.meta_file();
    if (volume.is_direct()) {
      if (auto direct = open_regular_file(volume.meta_path(), O_RDONLY | O_DIRECT | O_NOFOLLOW)) {
        file = direct->get();
        direct_.push_back(*std::move(direct));
        backend_->name_file(file, volume.meta_path());
      }
    }
    const std::uint32_t slots = volume.geometry().run_slots;
    for (std::uint32_t run = 0; run < volume.run_count();) {
      std::uint32_t end = run;
      while (end < volume.run_count() && volume.run_state(end) == RunState::kOurs) ++end;
      if (end > run) {
        ranges_.push_back(
            {v, file, volume.record_offset(0, run * slots), volume.record_offset(0, end * slots)});
      }
      run = std::max(end, run + 1);
    }
  }
}

// Whole pages; the file is at least a page longer than its last record.
void MetaReader::start(Wave& wave) {
  wave.reads.clear();
  while (wave.reads.size() < most_pieces_ && range_ < ranges_.size()) {
    const Range& range = ranges_[range_];
    if (limited_ != range.volume) {
      limited_ = range.volume;
      limit_ = context_->clock.now() + kLoadLimit;
    }
    at_ = std::max(at_, range.begin - range.begin % kPageBytes);
    const std::uint64_t last = round_up(Bytes(range.end), Bytes(kPageBytes)).value();
    if (at_ < last && context_->clock.now() < limit_) {
      submit(wave, {range, at_, std::min<std::uint64_t>(kPieceBytes, last - at_), {}});
      at_ += kPieceBytes;
    }
    if (at_ >= last || context_->clock.now() >= limit_) {  // Late: the rest is not adopted.
      ++range_;
      at_ = 0;
    }
  }
}

void MetaReader::submit(Wave& wave, Read read) {
  transfer::Transfer transfer;
  transfer.token = Ticket{Purpose::kLoad, 0, static_cast<std::uint32_t>(wave.reads.size())}.token();
  transfer.volume = read.range.volume;
  transfer.file = read.range.file;
  transfer.offset = read.offset;
  transfer.pieces[0] = {wave.memory + wave.reads.size() * kPieceBytes, read.bytes};
  transfer.piece_count = 1;
  read.status = backend_->submit(transfer);
  if (read.status.is_ok()) ++wave.pending;
  wave.reads.push_back(std::move(read));
}

void MetaReader::finish(Wave& wave) {
  std::vector<transfer::Completion> completions;
  while (wave.pending > 0) {
    completions.clear();
    backend_->poll(completions);
    for (transfer::Completion& completion : completions) {
      wave.reads[Ticket::of(completion.token).number].status = std::move(completion.status);
      --wave.pending;
    }
    if (completions.empty()) backend_->wait(kWaitStep);
  }
}

bool MetaReader::next(std::vector<Piece>& pieces) {
  Wave& wave = waves_[under_way_];
  finish(wave);
  under_way_ = 1 - under_way_;
  start(waves_[under_way_]);
  pieces.clear();
  for (std::size_t i = 0; i < wave.reads.size(); ++i) {
    const Read& read = wave.reads[i];
    const std::uint64_t from = std::max(read.offset, read.range.begin);
    const std::uint64_t to = std::min(read.offset + read.bytes, read.range.end);
    if (read.status.is_ok()) {
      const std::byte* const data = wave.memory + i * kPieceBytes + (from - read.offset);
      pieces.push_back({read.range.volume, from, {data, to - from}});
    } else {
      context_->meters.damaged_records.add((to - from) / kSlotRecordBytes);
      context_->log.write(LogLevel::kError, fmt::format("disk {}: the blocks listed there are lost",
                                                        read.status.message()));
    }
  }
  return !wave.reads.empty();
}

}  // namespace terrace::tier::disk
