#include <fmt/format.h>

#include <algorithm>

#include "terrace/tier/disk/checker_internal.h"
#include "terrace/tier/disk/frame_check_internal.h"
#include "terrace/tier/disk/writer_internal.h"

namespace terrace::tier::disk {

namespace {
constexpr std::uint32_t kSlotsAtOnce = 8192;

std::size_t largest_read(const Volume& volume) {
  return std::max(kMetaHeaderCopies * kPageBytes, std::ranges::max(volume.geometry().frame_bytes));
}
}  // namespace

Checker::Checker(Context& context, Writer& writer, std::uint32_t volume)
    : context_(context),
      writer_(writer),
      volume_(volume),
      memory_bytes_(largest_read(*context.volumes[volume])),
      memory_(static_cast<std::byte*>(std::aligned_alloc(kPageBytes, memory_bytes_))) {
  TERRACE_CHECK(memory_ != nullptr);
  suspects_.reserve(kMostSuspects);
}

void Checker::advance() {
  if (is_stopped_ || is_flying_) return;
  if (step_ == Step::kFrames) return read_frame();
  if (step_ == Step::kIdle && context_.health.is_check_due(volume_)) begin();
  if (step_ == Step::kPlace) read_start();
}

void Checker::begin() {
  sample_ = good_ = bad_ = unread_ = 0;
  suspects_.clear();
  look_ = context_.lookers[volume_].ask(true);
  step_ = Step::kPlace;
}

void Checker::read_start() {
  Looker& looker = context_.lookers[volume_];
  looker.take();
  if (looker.number() < look_) return;
  step_ = Step::kIdle;
  // Else it went, or hung, meanwhile: it is checked when that is over.
  if (!context_.health.is_check_due(volume_)) return;
  if (!looker.sight().is_linked) return;  // Watch gives it up.
  if (!looker.sight().place.is_ok()) return give_up(looker.sight().place);
  const Volume& looked_at = *context_.volumes[volume_];
  step_ = Step::kExtents;
  read(looked_at.extents_file(), 0, kPageBytes);
}

void Checker::read(int file, std::uint64_t offset, std::size_t bytes) {
  transfer::Transfer transfer;
  transfer.token = Ticket{Purpose::kCheck, 0, volume_}.token();
  transfer.op = transfer::IoOp::kRead;
  transfer.io_class = transfer::IoClass::kPrefetch;
  transfer.file = file;
  transfer.offset = offset;
  transfer.pieces[0] = {memory_.get(), bytes};
  transfer.piece_count = 1;
  is_flying_ = true;
  context_.push(volume_, transfer);
}

// Blocks from all over the volume, each time another rank's.
bool Checker::find_sample() {
  const std::size_t groups = context_.options.layout.groups.size();
  const std::uint32_t slots = context_.slots.size();
  while (sample_ < kSamples) {
    group_ = sample_ % groups;
    auto slot = static_cast<std::uint32_t>(std::uint64_t{slots} * sample_ / kSamples);
    const std::uint32_t end = slots - slot > kSlotsAtOnce ? slot + kSlotsAtOnce : slots;
    rank_ = static_cast<std::uint16_t>(sample_ % context_.ranks());
    ++sample_;
    while (slot < end) {
      block_ = context_.slots.next_sealed(group_, slot, end - slot);
      if (!block_) break;
      if (block_->place.volume == volume_ && !is_suspect()) return true;
    }
  }
  return false;
}

bool Checker::is_suspect() const {
  return std::ranges::any_of(suspects_, [&](const Suspect& other) {
    return other.group == group_ && other.block.slot == block_->slot;
  });
}

void Checker::read_frame() {
  if (!find_sample()) return end();
  const Volume& volume = *context_.volumes[volume_];
  read(volume.data_file(), volume.geometry().offset(group_, block_->place.slot, rank_),
       volume.geometry().frame_bytes[group_]);
}

void Checker::finish(const Status& status) {
  is_flying_ = false;
  if (step_ == Step::kIdle) return;
  if (step_ == Step::kFrames && status.code() == Code::kIo) return suspect(status);
  if (!status.is_ok() && (step_ != Step::kFrames || status.code() != Code::kCorrupt)) {
    return give_up(status);
  }
  const Volume& volume = *context_.volumes[volume_];
  const std::span<const std::byte> bytes(memory_.get(), memory_bytes_);
  if (step_ == Step::kFrames) {
    if (status.is_ok()) return judge_frame();
    ++bad_;  // The file ends before the frame: it was cut.
    return;
  }
  if (step_ == Step::kExtents) {
    const auto header = decode_volume(bytes.first<kPageBytes>());
    if (!header || header->extent_bytes != volume.extent_bytes()) {
      return distrust("extents.meta begins otherwise than it did");
    }
    step_ = Step::kMeta;
    return read(volume.meta_file(), 0, kMetaHeaderCopies * kPageBytes);
  }
  MetaHeader newest;
  for (std::size_t copy = 0; copy < kMetaHeaderCopies; ++copy) {
    const auto header = decode_meta(bytes.subspan(copy * kPageBytes).first<kPageBytes>());
    if (header && header->epoch >= newest.epoch) newest = *header;
  }
  // A reset that this process knows of must not be undone by a copy from before it.
  const MetaHeader known = volume.meta_header();
  if (newest.epoch < known.epoch || newest.generation < known.generation) {
    return distrust("slots.meta begins otherwise than it did: it is of an earlier time");
  }
  step_ = Step::kFrames;
}

void Checker::judge_frame() {
  if (!context_.slots.is_same(group_, *block_)) return;  // Evicted or reset meanwhile.
  const Status status =
      check_frame({memory_.get(), memory_bytes_},
                  context_.header(volume_, group_, block_->hash, rank_,
                                  block_->slot.generation.value(), block_->epoch));
  if (status.is_ok()) {
    ++good_;
    return convict();
  }
  ++bad_;
  drop(group_, *block_, "corrupt", status);
}

// Not dropped before another frame is read: while the device fails it is no block's fault.
void Checker::suspect(const Status& why) {
  suspects_.push_back({group_, *block_, why});
  if (suspects_.size() == kMostSuspects) give_up(why);
}

void Checker::convict() {
  for (const Suspect& one : suspects_) drop(one.group, one.block, "unreadable", one.why);
  unread_ += static_cast<std::uint32_t>(suspects_.size());
  suspects_.clear();
}

void Checker::drop(std::size_t group, const Slots::Sight& block, std::string_view what,
                   const Status& why) {
  if (context_.slots.drop(group, block)) writer_.invalidate(group, block.place);
  context_.corrupt_log.write(LogLevel::kWarn, fmt::format("disk path={} {}=1 slot={} reason=\"{}\"",
                                                          context_.volumes[volume_]->directory(),
                                                          what, block.place.slot, why.message()));
}

void Checker::end() {
  step_ = Step::kIdle;
  convict();  // Too few to be the device: where it reads nothing else it is looked at once more.
  const std::uint32_t bad = bad_ + unread_;
  const std::uint32_t all = good_ + bad;
  if (bad_ > good_) {
    return distrust(
        fmt::format("{} of {} blocks that were looked at are not what they were", bad_, all));
  }
  if (bad > good_) {
    return give_up({Code::kIo, fmt::format("{} of {} blocks that were looked at cannot be read or "
                                           "are not what they were",
                                           bad, all)});
  }
  has_doubt_ = has_doubt_ || bad > 0;
  context_.health.returned(volume_, fmt::format("good_blocks={} bad_blocks={}", good_, bad));
}

void Checker::give_up(const Status& why) {
  step_ = Step::kIdle;
  suspects_.clear();
  context_.health.check_failed(volume_, why);
}

void Checker::distrust(const std::string& why) {
  step_ = Step::kIdle;
  context_.health.distrusted(volume_, why);
}

}  // namespace terrace::tier::disk
