#include <fcntl.h>
#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <tuple>

#include "terrace/tier/disk/loader_internal.h"

namespace terrace::tier::disk {

namespace {
constexpr std::size_t kBufferBytes = 1U << 20U;
constexpr std::size_t kBuffers = 8;
constexpr std::size_t kBatch = 1U << 18U;
constexpr Nanoseconds kLoadLimit = seconds(60);
constexpr Nanoseconds kWaitStep = milliseconds(200);
}  // namespace

Loader::Loader(Context& context, transfer::Backend& backend, Writer& writer)
    : context_(context),
      backend_(backend),
      writer_(writer),
      groups_(context.options.layout.groups.size()) {
  for (Group& group : groups_) {
    group.batch.reserve(std::min<std::size_t>(kBatch, context.slots.size()));
    group.sequences.resize(context.slots.size());
  }
}

void Loader::load() {
  for (std::uint32_t v = 0; v < context_.volumes.size(); ++v) {
    context_.meters.damaged_records.add(context_.volumes[v]->damaged_extents());
    context_.next_sequence =
        std::max(context_.next_sequence, context_.volumes[v]->highest_stamp() + 1);
  }
  adopt_foreign();
  for (std::uint32_t v = 0; v < context_.volumes.size(); ++v) load_volume(v);
  for (std::size_t group = 0; group < groups_.size(); ++group) adopt_batch(group);
  order();
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

void Loader::load_volume(std::uint32_t v) {
  const Volume& volume = *context_.volumes[v];
  UniqueFd direct;
  if (volume.is_direct()) {
    if (auto file = open_file(volume.meta_path(), O_RDONLY | O_DIRECT)) direct = *std::move(file);
  }
  const int file = direct.is_open() ? direct.get() : volume.meta_file();
  backend_.name_file(file, volume.meta_path());
  const std::uint32_t slots = volume.geometry().run_slots;
  for (std::uint32_t run = 0; run < volume.run_count();) {
    if (volume.run_state(run) != RunState::kOurs) {
      ++run;
      continue;
    }
    std::uint32_t end = run + 1;
    while (end < volume.run_count() && volume.run_state(end) == RunState::kOurs) ++end;
    read_range(v, file, volume.record_offset(0, run * slots), volume.record_offset(0, end * slots));
    run = end;
  }
  if (direct.is_open()) backend_.name_file(file, {});
}

// Whole pages, several reads under way; the file is at least a page longer than its last record.
void Loader::read_range(std::uint32_t v, int file, std::uint64_t begin, std::uint64_t end) {
  const std::size_t count = std::min<std::size_t>(kBuffers, backend_.depth());
  std::vector<std::byte> memory(kBufferBytes * count + kPageBytes);
  const auto address = reinterpret_cast<std::uintptr_t>(memory.data());
  std::byte* const aligned = memory.data() + (kPageBytes - address % kPageBytes) % kPageBytes;
  std::vector<Buffer> buffers(count);
  std::vector<std::size_t> free;
  for (std::size_t i = 0; i < count; ++i) {
    buffers[i].data = aligned + i * kBufferBytes;
    free.push_back(i);
  }
  std::uint64_t next = begin - begin % kPageBytes;
  const std::uint64_t last = round_up(Bytes(end), Bytes(kPageBytes)).value();
  const Nanoseconds limit = context_.clock.now() + kLoadLimit;
  std::vector<transfer::Completion> completions;
  while (next < last || free.size() < count) {
    while (next < last && !free.empty() && context_.clock.now() < limit) {
      Buffer& buffer = buffers[free.back()];
      buffer.offset = next;
      buffer.bytes = std::min<std::uint64_t>(kBufferBytes, last - next);
      transfer::Transfer transfer;
      transfer.token = Ticket{Purpose::kLoad, 0, static_cast<std::uint32_t>(free.back())}.token();
      transfer.file = file;
      transfer.offset = buffer.offset;
      transfer.pieces[0] = {buffer.data, buffer.bytes};
      transfer.piece_count = 1;
      if (!backend_.submit(transfer).is_ok()) break;
      free.pop_back();
      next += buffer.bytes;
    }
    if (free.size() == count && context_.clock.now() >= limit) break;  // The rest is not adopted.
    backend_.wait(kWaitStep);
    completions.clear();
    backend_.poll(completions);
    for (const transfer::Completion& completion : completions) {
      const std::uint32_t number = Ticket::of(completion.token).number;
      Buffer& buffer = buffers[number];
      const std::uint64_t from = std::max(buffer.offset, begin);
      const std::uint64_t to = std::min(buffer.offset + buffer.bytes, end);
      if (completion.status.is_ok()) {
        take_records(v, from, {buffer.data + (from - buffer.offset), to - from});
      } else {
        context_.meters.damaged_records.add((to - from) / kSlotRecordBytes);
        context_.log.write(
            LogLevel::kError,
            fmt::format("disk {}: the blocks listed there are lost", completion.status.message()));
      }
      free.push_back(number);
    }
  }
}

void Loader::take_records(std::uint32_t v, std::uint64_t offset, std::span<const std::byte> bytes) {
  const std::size_t groups = groups_.size();
  std::uint64_t index = (offset - kRecordsOffset) / kSlotRecordBytes;
  for (std::size_t at = 0; at + kSlotRecordBytes <= bytes.size(); at += kSlotRecordBytes, ++index) {
    const auto slot = static_cast<std::uint32_t>(index / groups);
    take_record(v, slot, index % groups,
                decode_slot(bytes.subspan(at).first<kSlotRecordBytes>(), slot));
  }
}

void Loader::take_record(std::uint32_t v, std::uint32_t slot, std::size_t group,
                         const DecodedSlot& decoded) {
  if (decoded.check == RecordCheck::kAbsent) return;
  if (decoded.check == RecordCheck::kDamaged) {
    context_.meters.damaged_records.add();
    return;
  }
  const Volume& volume = *context_.volumes[v];
  const SlotRecord& record = decoded.record;
  context_.next_sequence = std::max(context_.next_sequence, record.sequence + 1);
  const std::uint32_t run = volume.run_of(slot);
  if (record.state != RecordState::kSealed || record.stamp != volume.run_stamp(run) ||
      record.epoch != volume.meta_header().epoch || record.name_space != volume.name_space() ||
      record.group != group) {
    return;
  }
  writer_.set_recorded(v, group, slot, true);
  const std::uint32_t index = context_.slots.map().index({v, slot});
  if (index >= context_.slots.size()) return;
  if (!volume.is_allocated(run)) {  // The slot file was cut: the frame is gone.
    context_.meters.damaged_records.add();
    return;
  }
  Group& target = groups_[group];
  target.sequences[index] = record.sequence;
  target.batch.push_back({record.hash, record.alias, index, record.generation});
  if (target.batch.size() == kBatch) adopt_batch(group);
}

void Loader::adopt_batch(std::size_t group) {
  context_.meters.adopted_blocks.add(context_.slots.adopt(group, groups_[group].batch));
  groups_[group].batch.clear();
}

void Loader::order() {
  for (std::size_t group = 0; group < groups_.size(); ++group) {
    context_.slots.order(group, order_by_sequence(groups_[group].sequences));
    groups_[group] = {};
  }
}

std::vector<SlotIndex> order_by_sequence(std::span<const std::uint64_t> sequences) {
  std::uint64_t low = UINT64_MAX;
  std::uint64_t high = 0;
  std::size_t count = 0;
  for (const std::uint64_t sequence : sequences) {
    if (sequence == 0) continue;
    low = std::min(low, sequence);
    high = std::max(high, sequence);
    ++count;
  }
  std::vector<SlotIndex> order(count);
  if (count == 0) return order;
  // About as many buckets as blocks, so that a bucket holds few; each is then sorted by itself.
  const auto wanted = std::bit_width(static_cast<std::uint64_t>(count));
  const auto have = std::bit_width(high - low);
  const unsigned shift = have > wanted ? static_cast<unsigned>(have - wanted) : 0;
  std::vector<std::uint32_t> ends(((high - low) >> shift) + 2);
  for (const std::uint64_t sequence : sequences) {
    if (sequence != 0) ++ends[((sequence - low) >> shift) + 1];
  }
  for (std::size_t i = 1; i < ends.size(); ++i) ends[i] += ends[i - 1];
  // From here on ends[bucket] is where its next slot goes, and in the end where it ends.
  for (std::uint32_t slot = 0; slot < sequences.size(); ++slot) {
    if (sequences[slot] != 0) order[ends[(sequences[slot] - low) >> shift]++] = SlotIndex(slot);
  }
  std::uint32_t start = 0;
  for (std::size_t bucket = 0; bucket + 1 < ends.size(); ++bucket) {
    if (ends[bucket] - start > 1 && shift > 0) {
      std::sort(order.begin() + start, order.begin() + ends[bucket], [&](SlotIndex a, SlotIndex b) {
        return sequences[a.value()] < sequences[b.value()];
      });
    }
    start = ends[bucket];
  }
  return order;
}

}  // namespace terrace::tier::disk
