// The writer's group part: claims, void records and records of many blocks, and the two syncs that
// make them durable.
#include <algorithm>

#include "terrace/tier/disk/writer_internal.h"

namespace terrace::tier::disk {

namespace {
// A reset that could not be written is tried again until it is.
constexpr Nanoseconds kEpochRetryTime = milliseconds(100);
}  // namespace

void Writer::start_batch(std::uint32_t v, std::vector<DiskDone>& done) {
  Stream& stream = streams_[v];
  Batch& batch = stream.batch;
  const std::uint32_t epoch = context_.slots.epoch();
  const bool is_epoch_due =
      stream.durable_epoch != epoch && context_.clock.now() >= stream.epoch_retry_at;
  // Preparing blocks is worth a sync of its own only when the device would run dry; else it goes
  // with the next blocks' records.
  const bool is_dry = stream.writing < context_.queue.depth();
  const bool has_work = (!stream.for_meta.empty() && is_dry) || !stream.synced.empty() ||
                        !stream.voids.empty() || is_epoch_due;
  if (!has_work) return;
  if (!context_.health.may_read(v)) {
    const Status unavailable{Code::kUnavailable, "the block's disk path is failing"};
    end_all(stream.for_meta, unavailable, done);
    end_all(stream.synced, unavailable, done);
    return;
  }
  batch.prepared.swap(stream.for_meta);
  batch.recorded.swap(stream.synced);
  batch.claims.clear();
  batch.entries.clear();
  batch.record_bytes.clear();
  batch.claim_bytes.clear();
  batch.header_bytes.clear();
  batch.pending = 0;
  batch.status = {};
  batch.has_failed_sync = false;
  batch.epoch = epoch;
  batch.phase = Phase::kWriting;
  context_.meters.batches.add();
  add_claims(v);
  add_entries(v);
  encode_batch(v);
  if (is_epoch_due) push_header(v);
  push_records(v);
  if (batch.pending == 0) {  // All that was asked for has become void meanwhile.
    finish_batch(v, done);
  }
}

void Writer::push_header(std::uint32_t v) {
  Stream& stream = streams_[v];
  Batch& batch = stream.batch;
  batch.header = stream.first_header;
  batch.header.epoch += batch.epoch;
  // By the wall clock, so that it is newer than what other owners wrote before.
  const auto now = static_cast<std::uint64_t>(std::max(context_.clock.wall_seconds(), INT64_C(0)));
  batch.header.generation = std::max(batch.header.generation + batch.epoch, now);
  batch.header.era = draw_era();
  push_header_pages(v, batch.header, batch.header_bytes);
}

// What the system shows of a file whose sync failed need not be on the medium, and no later sync
// brings it there. Should this owner be killed, the next one has to know, while the system goes on:
// so this is not synced. The batch ends when it is written.
void Writer::push_doubt(std::uint32_t v, std::vector<DiskDone>& done) {
  Stream& stream = streams_[v];
  Batch& batch = stream.batch;
  Volume& volume = *context_.volumes[v];
  if (volume.meta_header().is_in_doubt) return fail_batch(v, done);
  stream.first_header.is_in_doubt = true;
  MetaHeader header = volume.meta_header();
  header.is_in_doubt = true;
  volume.set_meta_header(header);
  if (!batch.header_bytes.empty()) header = batch.header;  // A reset that is to be durable yet.
  header.is_in_doubt = true;
  batch.phase = Phase::kDoubting;
  push_header_pages(v, header, batch.doubt_bytes);
}

void Writer::push_header_pages(std::uint32_t v, const MetaHeader& header,
                               std::vector<std::byte>& bytes) {
  bytes.resize(kPageBytes);
  encode(header, std::span<std::byte, kPageBytes>(bytes.data(), kPageBytes));
  const int file = context_.volumes[v]->meta_file();
  for (std::size_t copy = 0; copy < kMetaHeaderCopies; ++copy) {
    push_meta_write(v, file, copy * kPageBytes, bytes);
  }
}

void Writer::add_claims(std::uint32_t v) {
  Batch& batch = streams_[v].batch;
  Volume& volume = *context_.volumes[v];
  for (const std::uint32_t number : batch.prepared) {
    const std::uint32_t run = volume.run_of(operations_[number].place.slot);
    if (volume.run_state(run) == RunState::kOurs || volume.run_state(run) == RunState::kClaiming) {
      continue;
    }
    const std::uint64_t stamp = context_.next_sequence++;
    volume.set_run(run, RunState::kClaiming, stamp);
    batch.claims.push_back(run);
    volume.encode_claim(run, stamp, batch.claim_bytes);
  }
}

void Writer::add_entries(std::uint32_t v) {
  Stream& stream = streams_[v];
  Batch& batch = stream.batch;
  const Volume& volume = *context_.volumes[v];
  for (const std::uint32_t number : batch.prepared) {
    const Operation& operation = operations_[number];
    // Under a new claim the old record counts no more anyway.
    const bool is_claimed_now =
        volume.run_state(volume.run_of(operation.place.slot)) == RunState::kClaiming;
    if (is_claimed_now || stream.is_recorded[operation.group][operation.place.slot] == 0) continue;
    batch.entries.push_back({volume.record_offset(operation.group, operation.place.slot),
                             operation.group, operation.place.slot, kNone});
  }
  for (const Entry& entry : stream.voids) {
    // A slot that was given away again is its new block's business.
    const std::uint32_t index = context_.slots.map().index({v, entry.slot});
    if (stream.is_recorded[entry.group][entry.slot] != 0 &&
        context_.slots.is_free(entry.group, index)) {
      batch.entries.push_back(entry);
    }
  }
  stream.voids.clear();
  for (const std::uint32_t number : batch.recorded) {
    const Operation& operation = operations_[number];
    batch.entries.push_back({volume.record_offset(operation.group, operation.place.slot),
                             operation.group, operation.place.slot, number});
    stream.is_recorded[operation.group][operation.place.slot] = 1;
  }
  std::sort(batch.entries.begin(), batch.entries.end(),
            [](const Entry& a, const Entry& b) { return a.offset < b.offset; });
  const auto is_same = [](const Entry& a, const Entry& b) { return a.offset == b.offset; };
  batch.entries.erase(std::unique(batch.entries.begin(), batch.entries.end(), is_same),
                      batch.entries.end());
}

SlotRecord Writer::record_of(std::uint32_t v, const Entry& entry) {
  const Volume& volume = *context_.volumes[v];
  SlotRecord record;
  record.sequence = context_.next_sequence++;
  record.stamp = volume.run_stamp(volume.run_of(entry.slot));
  record.name_space = volume.name_space();
  record.group = static_cast<std::uint16_t>(entry.group);
  // Only what was begun before a reset gets a record, and it ends with that: under an epoch of
  // before.
  record.epoch = streams_[v].first_header.epoch;
  if (entry.operation == kNone) {
    record.state = RecordState::kVoid;
    return record;
  }
  const Operation& operation = operations_[entry.operation];
  record.hash = operation.hash;
  record.alias = operation.alias;
  record.generation = operation.generation;
  record.state = RecordState::kSealed;
  if (context_.crypt.is_on()) record.key_tag = context_.crypt.current().id.tag();
  return record;
}

void Writer::encode_batch(std::uint32_t v) {
  Batch& batch = streams_[v].batch;
  batch.record_bytes.resize(batch.entries.size() * kSlotRecordBytes);
  for (std::size_t i = 0; i < batch.entries.size(); ++i) {
    encode(record_of(v, batch.entries[i]), batch.entries[i].slot,
           std::span(batch.record_bytes).subspan(i * kSlotRecordBytes).first<kSlotRecordBytes>());
  }
}

// Neighbouring records go out in one write.
void Writer::push_records(std::uint32_t v) {
  Batch& batch = streams_[v].batch;
  const Volume& volume = *context_.volumes[v];
  for (std::size_t i = 0; i < batch.entries.size();) {
    std::size_t end = i + 1;
    while (end < batch.entries.size() &&
           batch.entries[end].offset == batch.entries[end - 1].offset + kSlotRecordBytes) {
      ++end;
    }
    push_meta_write(
        v, volume.meta_file(), batch.entries[i].offset,
        std::span(batch.record_bytes).subspan(i * kSlotRecordBytes, (end - i) * kSlotRecordBytes));
    i = end;
  }
  const std::size_t claim_bytes = volume.geometry().run_extents * kExtentRecordBytes;
  for (std::size_t i = 0; i < batch.claims.size(); ++i) {
    push_meta_write(v, volume.extents_file(), volume.claim_offset(batch.claims[i]),
                    std::span(batch.claim_bytes).subspan(i * claim_bytes, claim_bytes));
  }
}

void Writer::push_meta_write(std::uint32_t v, int file, std::uint64_t offset,
                             std::span<std::byte> bytes) {
  transfer::Transfer transfer;
  transfer.token = Ticket{Purpose::kMetaWrite, 0, v}.token();
  transfer.op = transfer::IoOp::kWrite;
  transfer.file = file;
  transfer.offset = offset;
  transfer.pieces[0] = {bytes.data(), bytes.size()};
  transfer.piece_count = 1;
  ++streams_[v].batch.pending;
  context_.push(v, transfer);
}

void Writer::push_meta_sync(std::uint32_t v, int file) {
  transfer::Transfer transfer;
  transfer.token = Ticket{Purpose::kMetaSync, 0, v}.token();
  transfer.op = transfer::IoOp::kSync;
  transfer.file = file;
  ++streams_[v].batch.pending;
  context_.push(v, transfer);
}

void Writer::finish_meta_write(std::uint32_t v, const Status& status, std::vector<DiskDone>& done) {
  Batch& batch = streams_[v].batch;
  if (!status.is_ok() && batch.status.is_ok()) batch.status = status;
  if (--batch.pending > 0) return;
  if (!batch.status.is_ok()) return fail_batch(v, done);  // As it must after kDoubting.
  batch.phase = Phase::kSyncing;
  const Volume& volume = *context_.volumes[v];
  if (!batch.entries.empty() || !batch.header_bytes.empty()) push_meta_sync(v, volume.meta_file());
  if (!batch.claims.empty()) push_meta_sync(v, volume.extents_file());
}

void Writer::finish_meta_sync(std::uint32_t v, const Status& status, std::vector<DiskDone>& done) {
  Batch& batch = streams_[v].batch;
  if (!status.is_ok()) {
    if (batch.status.is_ok()) batch.status = status;
    batch.has_failed_sync = true;
  }
  if (--batch.pending > 0) return;
  if (batch.has_failed_sync) return push_doubt(v, done);
  finish_batch(v, done);
}

void Writer::finish_batch(std::uint32_t v, std::vector<DiskDone>& done) {
  Stream& stream = streams_[v];
  Batch& batch = stream.batch;
  Volume& volume = *context_.volumes[v];
  batch.phase = Phase::kIdle;
  for (const std::uint32_t run : batch.claims) {
    volume.set_run(run, RunState::kOurs, volume.run_stamp(run));
    const std::uint32_t slots = volume.geometry().run_slots;
    for (auto& is_recorded : stream.is_recorded) {
      std::fill_n(is_recorded.begin() + std::ptrdiff_t{run} * slots, slots, std::uint8_t{0});
    }
  }
  for (const Entry& entry : batch.entries) {
    if (entry.operation == kNone) stream.is_recorded[entry.group][entry.slot] = 0;
  }
  if (!batch.header_bytes.empty()) {
    stream.durable_epoch = batch.epoch;
    volume.set_meta_header(batch.header);
    for (auto& is_recorded : stream.is_recorded) {
      std::fill(is_recorded.begin(), is_recorded.end(), std::uint8_t{0});
    }
    context_.health.succeeded(v, false);
    context_.slots.note_dropped(v, batch.epoch);
  }
  end_all(batch.recorded, {}, done);
  for (const std::uint32_t number : batch.prepared) {
    if (is_stopped_) {
      end(number, {Code::kClosed, "the disk tier is closing"}, done);
    } else {
      route(number);
    }
  }
  batch.prepared.clear();
}

// What of the batch is on the medium is not known: the slots stay marked as recorded, so that their
// next blocks write void records first, and the runs are claimed anew.
void Writer::fail_batch(std::uint32_t v, std::vector<DiskDone>& done) {
  Batch& batch = streams_[v].batch;
  Volume& volume = *context_.volumes[v];
  batch.phase = Phase::kIdle;
  for (const std::uint32_t run : batch.claims) volume.set_run(run, RunState::kFree, 0);
  if (!batch.header_bytes.empty()) {
    streams_[v].epoch_retry_at = context_.clock.now() + kEpochRetryTime;
  }
  context_.health.write_failed(v, batch.status);
  end_all(batch.recorded, batch.status, done);
  end_all(batch.prepared, batch.status, done);
}

}  // namespace terrace::tier::disk
