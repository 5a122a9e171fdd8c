#include <fmt/format.h>

#include <algorithm>

#include "terrace/tier/disk/writer_internal.h"

namespace terrace::tier::disk {

namespace {
// Enough written to be worth a sync while more is being written. Without more to write a sync is
// started at once, so a lone block does not wait for company.
constexpr std::uint64_t kSyncBytes = 32ULL << 20U;
constexpr std::size_t kSyncBlocks = 64;
constexpr std::size_t kMostVoids = 1024;
}  // namespace

Writer::Writer(Context& context)
    : context_(context),
      budget_(context),
      allocator_(context, budget_),
      operations_(context.options.queue_blocks),
      streams_(context.volumes.size()),
      is_blocked_(context.volumes.size(), false),
      limits_(context.volumes.size(), UINT32_MAX) {
  for (auto i = static_cast<std::uint32_t>(operations_.size()); i > 0; --i) {
    operations_[i - 1].pages.resize(context.ranks());
    operations_[i - 1].headers.resize(context.crypt.is_on() ? context.ranks() : 0);
    operations_[i - 1].seals.resize(operations_[i - 1].headers.size());
    free_.push_back(i - 1);
  }
  for (std::uint32_t v = 0; v < streams_.size(); ++v) {
    streams_[v].is_recorded.assign(context.options.layout.groups.size(),
                                   std::vector<std::uint8_t>(context.volumes[v]->slots(), 0));
    streams_[v].first_header = context.volumes[v]->meta_header();
  }
}

Status Writer::begin(std::uint64_t token, std::size_t group, const SequenceHash& hash,
                     std::uint64_t alias, std::span<const ShardMemory> shards,
                     std::span<const Checksum> checksums,
                     std::optional<std::uint32_t> wanted_epoch) {
  if (is_stopped_) return {Code::kClosed, "the disk tier is closing"};
  TERRACE_RETURN_IF_ERROR(context_.check(group, shards));
  if (checksums.size() != shards.size()) {
    return {Code::kInvalid, "one checksum per rank is needed"};
  }
  TERRACE_RETURN_IF_ERROR(find_open());
  const std::uint64_t bytes = context_.volumes.front()->geometry().slot_bytes(group);
  if (!budget_.may_write(bytes)) {
    if (context_.slots.contains(group, hash))
      return {Code::kInvalid, "the block is on disk already"};
    if (budget_.is_unkept(bytes)) {
      context_.meters.dropped_unavailable.add();
      return {Code::kUnavailable, "the account of the write budget cannot be written"};
    }
    context_.meters.dropped_budget.add();
    return {Code::kRefused, "the write budget is used up for now"};
  }
  auto reserved = context_.slots.reserve(group, hash, is_blocked_, wanted_epoch);
  if (!reserved) {
    if (reserved.error().code() == Code::kExhausted) context_.meters.dropped_no_slot.add();
    return reserved.error();
  }
  budget_.charge_block(bytes);
  const std::uint32_t number = free_.back();
  free_.pop_back();
  ++streams_[reserved->place.volume].operations;
  Operation& operation = operations_[number];
  operation.token = token;
  operation.group = group;
  operation.hash = hash;
  operation.alias = alias;
  operation.epoch = reserved->epoch;
  operation.generation = reserved->slot.slot().generation.value();
  operation.slot = std::move(reserved->slot);
  operation.place = reserved->place;
  operation.shards.assign(shards.begin(), shards.end());
  operation.checksums.assign(checksums.begin(), checksums.end());
  operation.status = {};
  route(number);
  return {};
}

// Each volume has its share of the operations, so that one that hangs leaves the others theirs.
Status Writer::find_open() {
  const std::size_t share = std::max<std::size_t>(1, operations_.size() / streams_.size());
  bool is_any_open = false;
  bool is_any_full = false;
  for (std::uint32_t v = 0; v < streams_.size(); ++v) {
    const bool may_write = context_.health.may_write(v);
    const bool is_full = may_write && (free_.empty() || streams_[v].operations >= share);
    const bool is_open = may_write && !is_full;
    is_blocked_[v] = !is_open;
    limit(v);
    is_any_open = is_any_open || is_open;
    is_any_full = is_any_full || is_full;
  }
  if (is_any_open) return {};
  if (is_any_full) {
    context_.meters.dropped_full_queue.add();
    return {Code::kExhausted, "disk.queue is full"};
  }
  context_.meters.dropped_unavailable.add();
  return {Code::kUnavailable, "no disk path takes writes now"};
}

// A slot file that could not grow is used as far as it goes: slots behind that come with the space.
void Writer::limit(std::uint32_t v) {
  const std::uint32_t slots =
      allocator_.was_full(v) ? context_.volumes[v]->slots_with_room() : UINT32_MAX;
  if (slots == limits_[v]) return;
  limits_[v] = slots;
  context_.slots.limit_volume(v, slots);
}

// Puts the operation where it has to wait, or starts its frames.
void Writer::route(std::uint32_t number) {
  const Operation& operation = operations_[number];
  Stream& stream = streams_[operation.place.volume];
  Volume& volume = *context_.volumes[operation.place.volume];
  const std::uint32_t run = volume.run_of(operation.place.slot);
  if (!volume.has_room(run)) {
    stream.for_space.push_back(number);
  } else if (volume.run_state(run) != RunState::kOurs ||
             stream.is_recorded[operation.group][operation.place.slot] != 0) {
    if (volume.run_state(run) == RunState::kForeign) {
      context_.slots.drop_foreign(operation.place.volume, run * volume.geometry().run_slots,
                                  volume.geometry().run_slots);
      volume.set_run(run, RunState::kFree, 0);
    }
    stream.for_meta.push_back(number);
  } else {
    write_frames(number);
  }
}

void Writer::write_frames(std::uint32_t number) {
  Stream& stream = streams_[operations_[number].place.volume];
  ++stream.writing;
  if (!context_.crypt.is_on()) return push_frames(number);
  if (!stream.for_buffer.empty() || !seal_frames(number)) stream.for_buffer.push_back(number);
}

wire::FrameHeader Writer::header_of(const Operation& operation, std::uint16_t rank) const {
  auto header = context_.header(operation.place.volume, operation.group, operation.hash, rank,
                                operation.generation, operation.epoch);
  header.payload_checksum = operation.checksums[rank];
  return header;
}

bool Writer::seal_frames(std::uint32_t number) {
  Operation& operation = operations_[number];
  Stream& stream = streams_[operation.place.volume];
  // A share for each volume, so that one that hangs leaves the others theirs.
  if (stream.buffers >= context_.crypt.buffers() / streams_.size()) return false;
  operation.buffer = context_.crypt.take_buffer();
  if (operation.buffer == nullptr) return false;
  ++stream.buffers;
  operation.pending = operation.shards.size();
  const std::uint64_t padded =
      context_.volumes[operation.place.volume]->geometry().frame_bytes[operation.group] -
      kPageBytes;
  const auto ranks = static_cast<std::uint16_t>(operation.shards.size());
  for (std::uint16_t rank = 0; rank < ranks; ++rank) {
    const ShardMemory& shard = operation.shards[rank];
    wire::FrameHeader& header = operation.headers[rank];
    header = header_of(operation, rank);
    context_.crypt.post_seal(Ticket{Purpose::kSealFrame, rank, number}.token(),
                             {shard.payload, shard.payload_bytes}, operation.buffer + rank * padded,
                             padded, header, operation.seals[rank]);
  }
  return true;
}

void Writer::release_buffer(Operation& operation) {
  if (operation.buffer == nullptr) return;
  context_.crypt.give_buffer(std::exchange(operation.buffer, nullptr));
  --streams_[operation.place.volume].buffers;
}

void Writer::finish_seal(Ticket ticket, std::vector<DiskDone>& done) {
  Operation& operation = operations_[ticket.number];
  Status& sealed = operation.seals[ticket.rank];
  if (!sealed.is_ok() && operation.status.is_ok()) operation.status = std::move(sealed);
  sealed = {};
  TERRACE_CHECK(operation.pending > 0);
  if (--operation.pending > 0) return;
  if (operation.status.is_ok() && is_stopped_) {
    operation.status = {Code::kClosed, "the disk tier is closing"};
  }
  if (operation.status.is_ok()) return push_frames(ticket.number);
  --streams_[operation.place.volume].writing;
  end(ticket.number, operation.status, done);
}

void Writer::push_frames(std::uint32_t number) {
  Operation& operation = operations_[number];
  const Volume& volume = *context_.volumes[operation.place.volume];
  const std::uint64_t padded = volume.geometry().frame_bytes[operation.group] - kPageBytes;
  operation.pending = operation.shards.size();
  operation.failed_syncs = streams_[operation.place.volume].failed_syncs;
  const auto ranks = static_cast<std::uint16_t>(operation.shards.size());
  for (std::uint16_t rank = 0; rank < ranks; ++rank) {
    transfer::Transfer transfer;
    transfer.token = Ticket{Purpose::kWriteFrame, rank, number}.token();
    transfer.op = transfer::IoOp::kWrite;
    transfer.io_class = transfer::IoClass::kOffloadWrite;
    transfer.file = volume.data_file();
    transfer.offset = volume.geometry().offset(operation.group, operation.place.slot, rank);
    transfer.pieces[0] = {nullptr, kPageBytes};
    transfer.pieces[1] = {operation.buffer != nullptr ? operation.buffer + rank * padded
                                                      : operation.shards[rank].payload,
                          padded};
    transfer.piece_count = 2;
    context_.push(operation.place.volume, transfer);
  }
}

bool Writer::prepare(Ticket ticket, transfer::Transfer& transfer) {
  Operation& operation = operations_[ticket.number];
  std::byte*& page = operation.pages[ticket.rank];
  if (page == nullptr) {
    page = context_.pages.take();
    if (page == nullptr) return false;
    const std::span<std::byte, wire::kFrameHeaderBytes> target(page, kPageBytes);
    if (operation.buffer != nullptr) {
      wire::encode(operation.headers[ticket.rank], target);
    } else {
      wire::encode(header_of(operation, ticket.rank), target);
    }
  }
  transfer.pieces[0].data = page;
  return true;
}

void Writer::release(Ticket ticket) {
  std::byte*& page = operations_[ticket.number].pages[ticket.rank];
  if (page != nullptr) context_.pages.give(page);
  page = nullptr;
}

void Writer::finish_frame(Ticket ticket, Status status, std::vector<DiskDone>& done) {
  Operation& operation = operations_[ticket.number];
  const std::uint32_t v = operation.place.volume;
  Stream& stream = streams_[v];
  release(ticket);
  if (!status.is_ok() && operation.status.is_ok()) operation.status = std::move(status);
  TERRACE_CHECK(operation.pending > 0);
  if (--operation.pending > 0) return;
  --stream.writing;
  release_buffer(operation);
  if (operation.status.is_ok()) {
    context_.health.succeeded(v, true);
    // Found by nobody after this process, or not even by it: nothing need outlive a crash.
    if (operation.epoch != 0 || context_.slots.epoch() != 0) return end(ticket.number, {}, done);
    if (operation.failed_syncs != stream.failed_syncs) {
      return end(ticket.number, {Code::kIo, "a sync failed while the block was written"}, done);
    }
    stream.written.push_back(ticket.number);
    for (const ShardMemory& shard : operation.shards) stream.written_bytes += shard.payload_bytes;
    return;
  }
  context_.health.write_failed(v, operation.status);
  end(ticket.number, operation.status, done);
}

void Writer::start_data_sync(std::uint32_t v) {
  Stream& stream = streams_[v];
  if (!stream.syncing.empty() || stream.written.empty()) return;
  const bool has_more_coming = stream.writing > 0;
  if (has_more_coming && stream.written_bytes < kSyncBytes && stream.written.size() < kSyncBlocks) {
    return;
  }
  stream.syncing.swap(stream.written);
  stream.written_bytes = 0;
  transfer::Transfer transfer;
  transfer.token = Ticket{Purpose::kDataSync, 0, v}.token();
  transfer.op = transfer::IoOp::kSync;
  transfer.file = context_.volumes[v]->data_file();
  context_.push(v, transfer);
}

void Writer::finish_data_sync(std::uint32_t v, const Status& status, std::vector<DiskDone>& done) {
  Stream& stream = streams_[v];
  if (status.is_ok()) {
    stream.synced.insert(stream.synced.end(), stream.syncing.begin(), stream.syncing.end());
    stream.syncing.clear();
    return;
  }
  context_.health.write_failed(v, status);
  ++stream.failed_syncs;
  end_all(stream.syncing, status, done);
  // Decided before they were written, the sync may have begun after that.
  end_all(stream.written, status, done);
  stream.written_bytes = 0;
}

void Writer::advance(std::vector<DiskDone>& done) {
  allocator_.advance();
  budget_.advance();
  for (std::uint32_t v = 0; v < streams_.size(); ++v) {
    Stream& stream = streams_[v];
    if (!stream.for_space.empty()) {
      std::vector<std::uint32_t> waiting;
      waiting.swap(stream.for_space);
      if (allocator_.is_full(v)) {
        end_all(waiting, allocator_.reason(v), done);
      } else if (!context_.health.may_read(v)) {  // Nobody knows when it goes on.
        end_all(waiting, {Code::kUnavailable, "the block's disk path is left alone"}, done);
      } else {
        for (const std::uint32_t number : waiting) route(number);
      }
    }
    while (!stream.for_buffer.empty() && seal_frames(stream.for_buffer.front())) {
      stream.for_buffer.erase(stream.for_buffer.begin());
    }
    start_data_sync(v);
    if (stream.batch.phase == Phase::kIdle) start_batch(v, done);
  }
}

void Writer::end(std::uint32_t number, Status status, std::vector<DiskDone>& done) {
  Operation& operation = operations_[number];
  release_buffer(operation);
  DiskDone result;
  result.token = operation.token;
  result.alias = operation.alias;
  if (status.is_ok()) {
    const bool is_sealed = context_.slots.seal(std::move(operation.slot), operation.group,
                                               operation.alias, operation.epoch);
    if (!is_sealed) status = {Code::kNotFound, "the cache was reset meanwhile"};
  } else {
    context_.slots.abandon(std::move(operation.slot));
  }
  if (status.is_ok()) {
    context_.meters.written_blocks.add();
    for (const ShardMemory& shard : operation.shards) {
      context_.meters.written_bytes.add(shard.payload_bytes);
    }
  } else if (status.code() == Code::kExhausted) {
    context_.meters.dropped_full_medium.add();
  } else if (status.code() == Code::kRefused) {
    context_.meters.dropped_unavailable.add();
  }
  result.status = std::move(status);
  --streams_[operation.place.volume].operations;
  free_.push_back(number);
  done.push_back(std::move(result));
}

void Writer::end_all(std::vector<std::uint32_t>& numbers, const Status& status,
                     std::vector<DiskDone>& done) {
  for (const std::uint32_t number : numbers) end(number, status, done);
  numbers.clear();
}

void Writer::invalidate(std::size_t group, SlotMap::Place place) {
  Stream& stream = streams_[place.volume];
  if (stream.voids.size() < kMostVoids) {
    stream.voids.push_back({context_.volumes[place.volume]->record_offset(group, place.slot), group,
                            place.slot, kNone});
  }
}

void Writer::set_recorded(std::uint32_t volume, std::size_t group, std::uint32_t slot) {
  streams_[volume].is_recorded[group][slot] = 1;
}

void Writer::stop(std::vector<DiskDone>& done) {
  is_stopped_ = true;
  allocator_.stop();
  budget_.stop();
  const Status closed{Code::kClosed, "the disk tier is closing"};
  for (Stream& stream : streams_) {
    end_all(stream.for_space, closed, done);
    end_all(stream.for_meta, closed, done);
    stream.writing -= stream.for_buffer.size();
    end_all(stream.for_buffer, closed, done);
  }
}

bool Writer::is_idle() const {
  if (free_.size() != operations_.size()) return false;
  for (std::uint32_t v = 0; v < streams_.size(); ++v) {
    const Stream& stream = streams_[v];
    if (stream.batch.phase != Phase::kIdle) return false;
    // A volume that is left alone for now keeps nobody waiting.
    if (context_.health.may_read(v) && !stream.voids.empty()) return false;
  }
  return !is_drop_due();
}

bool Writer::is_drop_due() const {
  const std::uint32_t epoch = context_.slots.epoch();
  for (std::uint32_t v = 0; v < streams_.size(); ++v) {
    if (context_.health.may_read(v) && streams_[v].durable_epoch != epoch) return true;
  }
  return false;
}

}  // namespace terrace::tier::disk
