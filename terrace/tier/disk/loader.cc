#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <map>
#include <tuple>

#include "terrace/base/file.h"
#include "terrace/tier/disk/load_order_internal.h"
#include "terrace/tier/disk/loader_internal.h"

namespace terrace::tier::disk {

namespace {
// Somebody who rotates keys has two or three.
constexpr std::size_t kMostKeysTold = 8;

// What the slot's first frame says it needs.
std::optional<KeyId> key_of_frame(const Volume& volume, std::size_t group, std::uint32_t slot) {
  const auto file = open_regular_file(volume.data_path(), O_RDONLY | O_NOFOLLOW);
  if (!file) return std::nullopt;
  std::array<std::byte, wire::kFrameHeaderBytes> page{};
  const auto offset = static_cast<off_t>(volume.geometry().offset(group, slot, 0));
  if (::pread(file->get(), page.data(), page.size(), offset) != static_cast<ssize_t>(page.size())) {
    return std::nullopt;
  }
  const auto frame = wire::decode_frame(page);
  if (!frame || frame->codec != wire::FrameCodec::kAes256Gcm) return std::nullopt;
  return frame->seal.key;
}
}  // namespace

Loader::Loader(Context& context, transfer::Backend& backend, Writer& writer)
    : context_(context),
      backend_(backend),
      writer_(writer),
      crew_(context.options.crew),
      hands_(crew_.size) {
  for (Hand& hand : hands_) hand.found.resize(context.options.layout.groups.size() * crew_.size);
}

Status Loader::load() {
  for (const auto& volume : context_.volumes) {
    context_.meters.damaged_records.add(volume->damaged_extents());
    context_.meters.damaged_texts.add(volume->damaged_texts());
    context_.next_sequence = std::max(context_.next_sequence, volume->highest_stamp() + 1);
  }
  adopt_foreign();
  for (std::size_t group = 0; group < context_.options.layout.groups.size(); ++group) {
    TERRACE_ASSIGN_OR_RETURN(auto loading, context_.slots.begin_load(group, crew_.size));
    groups_.push_back(std::move(loading));
  }
  TERRACE_ASSIGN_OR_RETURN(MetaReader reader, MetaReader::create(context_, backend_));
  std::vector<Piece> pieces;
  while (reader.next(pieces)) {
    take_wave(pieces);
    enter_wave();
  }
  return order();
}

// Least recently used namespace first: it goes first.
void Loader::adopt_foreign() {
  std::vector<std::tuple<std::int64_t, std::uint32_t, std::uint32_t>> runs;
  for (std::uint32_t v = 0; v < context_.volumes.size(); ++v) {
    const Volume& volume = *context_.volumes[v];
    for (std::uint32_t run = 0; run < volume.run_count(); ++run) {
      if (volume.run_state(run) == RunState::kForeign) {
        runs.emplace_back(volume.run_used_seconds(run), v, run);
      }
    }
  }
  std::sort(runs.begin(), runs.end());
  for (const auto& [used, v, run] : runs) {
    const std::uint32_t slots = context_.volumes[v]->geometry().run_slots;
    context_.slots.adopt_foreign(v, run * slots, slots);
  }
}

void Loader::take_wave(std::span<const Piece> pieces) {
  crew_.run([&](std::size_t number) {
    for (std::size_t i = number; i < pieces.size(); i += crew_.size) {
      take_records(hands_[number], pieces[i]);
    }
  });
  for (Hand& hand : hands_) {
    context_.meters.damaged_records.add(std::exchange(hand.damaged, 0));
    context_.next_sequence = std::max(context_.next_sequence, hand.next_sequence);
  }
}

void Loader::take_records(Hand& hand, const Piece& piece) {
  const std::size_t groups = groups_.size();
  std::uint64_t index = (piece.offset - kRecordsOffset) / kSlotRecordBytes;
  for (std::size_t at = 0; at + kSlotRecordBytes <= piece.bytes.size(); at += kSlotRecordBytes) {
    const auto slot = static_cast<std::uint32_t>(index / groups);
    take_record(hand, piece.volume, slot, index % groups,
                decode_slot(piece.bytes.subspan(at).first<kSlotRecordBytes>(), slot));
    ++index;
  }
}

void Loader::take_record(Hand& hand, std::uint32_t v, std::uint32_t slot, std::size_t group,
                         const DecodedSlot& decoded) {
  if (decoded.check == RecordCheck::kAbsent) return;
  if (decoded.check == RecordCheck::kDamaged) {
    ++hand.damaged;
    return;
  }
  const Volume& volume = *context_.volumes[v];
  const SlotRecord& record = decoded.record;
  hand.next_sequence = std::max(hand.next_sequence, record.sequence + 1);
  const std::uint32_t run = volume.run_of(slot);
  if (record.stamp != volume.run_stamp(run) || record.epoch != volume.meta_header().epoch ||
      record.name_space != volume.name_space() || record.group != group) {
    return;
  }
  // A void one, too, so that it is written again before the slot is used: its owner may have been
  // killed when the sync of it had failed, and then the medium has what it was to make void.
  writer_.set_recorded(v, group, slot);
  if (record.state != RecordState::kSealed) return;
  const std::uint32_t index = context_.slots.map().index({v, slot});
  if (index >= context_.slots.size()) return;
  if (!volume.is_allocated(run)) {  // The slot file was cut: the frame is gone.
    ++hand.damaged;
    return;
  }
  Slots::Loading& target = groups_[group];
  const bool is_locked = !context_.crypt.can_read(record.key_tag);
  const auto entry =
      target.pool.take({is_locked ? Slots::locked(record.hash) : record.hash, SlotIndex(index),
                        Generation(record.generation), record.sequence});
  if (!entry) return;
  set_alias(target.aliases[index], is_locked ? Slots::kLockedAlias : record.alias);
  if (is_locked) note_locked(hand, {record.key_tag, v, slot, group});
  hand.found[group * crew_.size + target.pool.part_of(*entry)].push_back(*entry);
}

void Loader::note_locked(Hand& hand, const Locked& block) {
  ++hand.locked_blocks;
  if (hand.locked.size() < kMostKeysTold &&
      std::ranges::find(hand.locked, block.key_tag, &Locked::key_tag) == hand.locked.end()) {
    hand.locked.push_back(block);
  }
}

std::uint64_t Loader::tell_locked() {
  std::uint64_t count = 0;
  std::map<std::optional<std::uint16_t>, Locked> examples;
  for (const Hand& hand : hands_) {
    count += hand.locked_blocks;
    for (const Locked& block : hand.locked) examples.emplace(block.key_tag, block);
  }
  if (count == 0) return 0;
  context_.slots.add_locked(count);
  for (const auto& [tag, block] : examples) {
    if (!tag) {
      context_.log.write(LogLevel::kInfo,
                         "disk plain=1 reason=\"there are blocks that are not encrypted: they are "
                         "not served and make room in time; encryption.accept_plain serves them\"");
    } else if (const auto id =
                   key_of_frame(*context_.volumes[block.volume], block.group, block.slot);
               id && context_.missing_keys.size() < kMostKeysTold) {
      context_.missing_keys.push_back(id->hex());
    }
  }
  return count;
}

void Loader::enter_wave() {
  crew_.run([&](std::size_t part) {
    for (std::size_t group = 0; group < groups_.size(); ++group) {
      for (Hand& hand : hands_) {
        auto& found = hand.found[group * crew_.size + part];
        groups_[group].pool.enter(part, found);
        found.clear();
      }
    }
  });
}

Status Loader::order() {
  std::uint64_t adopted = 0;
  for (Slots::Loading& group : groups_) {
    TERRACE_ASSIGN_OR_RETURN(const LoadOrder order,
                             order_by_sequence(group.pool.sequences(), crew_));
    adopted += group.pool.finish(order.slots());
  }
  groups_.clear();
  context_.meters.adopted_blocks.add(adopted - std::min(adopted, tell_locked()));
  return {};
}

}  // namespace terrace::tier::disk
