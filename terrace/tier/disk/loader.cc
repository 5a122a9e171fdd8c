#include <algorithm>
#include <tuple>

#include "terrace/tier/disk/load_order_internal.h"
#include "terrace/tier/disk/loader_internal.h"

namespace terrace::tier::disk {

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
  if (record.state != RecordState::kSealed || record.stamp != volume.run_stamp(run) ||
      record.epoch != volume.meta_header().epoch || record.name_space != volume.name_space() ||
      record.group != group) {
    return;
  }
  writer_.set_recorded(v, group, slot);
  const std::uint32_t index = context_.slots.map().index({v, slot});
  if (index >= context_.slots.size()) return;
  if (!volume.is_allocated(run)) {  // The slot file was cut: the frame is gone.
    ++hand.damaged;
    return;
  }
  Slots::Loading& target = groups_[group];
  const auto entry = target.pool.take(
      {record.hash, SlotIndex(index), Generation(record.generation), record.sequence});
  if (!entry) return;
  target.aliases[index] = record.alias;
  hand.found[group * crew_.size + target.pool.part_of(*entry)].push_back(*entry);
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
  for (Slots::Loading& group : groups_) {
    TERRACE_ASSIGN_OR_RETURN(const LoadOrder order,
                             order_by_sequence(group.pool.sequences(), crew_));
    context_.meters.adopted_blocks.add(group.pool.finish(order.slots()));
  }
  groups_.clear();
  return {};
}

}  // namespace terrace::tier::disk
