#include <fmt/format.h>

#include <algorithm>

#include "terrace/tier/disk/reader_internal.h"
#include "terrace/tier/disk/writer_internal.h"

namespace terrace::tier::disk {

namespace {
// No device that works keeps all it has for so long.
constexpr Nanoseconds kSilence = milliseconds(250);
}  // namespace

Status Context::check(std::size_t group, std::span<const ShardMemory> shards) const {
  if (group >= options.layout.groups.size() || shards.size() != ranks()) {
    return {Code::kInvalid,
            fmt::format("no such shard group: group {}, {} ranks", group, shards.size())};
  }
  const std::uint64_t payload = options.layout.groups[group].shard_bytes().value();
  const std::uint64_t padded = round_up(Bytes(payload), Bytes(kPageBytes)).value();
  for (const ShardMemory& shard : shards) {
    const bool is_aligned = reinterpret_cast<std::uintptr_t>(shard.payload) % kPageBytes == 0;
    if (shard.payload_bytes != payload || shard.padded_bytes < padded || !is_aligned) {
      return {Code::kInvalid,
              fmt::format("shard memory of {} bytes, aligned: {}; the layout wants {}",
                          shard.payload_bytes, is_aligned, payload)};
    }
  }
  return {};
}

wire::FrameHeader Context::header(std::uint32_t volume, std::size_t group, const SequenceHash& hash,
                                  std::size_t rank, std::uint32_t generation,
                                  std::uint32_t epoch) const {
  wire::FrameHeader header;
  header.content_digest = content_digest;
  if (epoch != 0) {
    header.content_digest = session_digest;
    for (unsigned i = 0; i < 4; ++i) {
      header.content_digest[i] ^= static_cast<std::uint8_t>(epoch >> (8 * i));
    }
  }
  header.layout_digest = layout_digest;
  header.hash = hash;
  header.group = GroupId(static_cast<std::uint16_t>(group));
  header.rank = RankId(static_cast<std::uint16_t>(rank));
  header.generation = Generation(generation);
  header.era = volumes[volume]->era();
  header.payload_bytes = options.layout.groups[group].shard_bytes().value();
  return header;
}

Reader::Reader(Context& context, Writer& writer)
    : context_(context),
      writer_(writer),
      operations_(kMostReads),
      under_way_(context.volumes.size()) {
  doubts_.reserve(kMostDoubts);
  for (std::uint32_t i = kMostReads; i > 0; --i) {
    operations_[i - 1].pages.resize(context.ranks());
    operations_[i - 1].headers.resize(context.ranks());
    operations_[i - 1].opened.resize(context.ranks());
    operations_[i - 1].sums.resize(context.ranks());
    free_.push_back(i - 1);
  }
}

Status Reader::begin(std::uint64_t token, std::size_t group, const SequenceHash& hash,
                     std::span<const ShardMemory> shards, transfer::IoClass io_class,
                     Nanoseconds deadline) {
  TERRACE_RETURN_IF_ERROR(context_.check(group, shards));
  if (free_.empty()) {
    return {Code::kExhausted, "too many disk reads under way"};
  }
  auto pinned = context_.slots.pin(group, hash);
  if (!pinned) return {Code::kNotFound, "the block is not on disk"};
  const SlotMap::Place place = pinned->place;
  if (!context_.health.may_read(place.volume)) {
    (void)context_.slots.unpin(group, *std::move(pinned), false);
    return {Code::kUnavailable, "the block's disk path is failing"};
  }
  if (Status room = find_room(place.volume); !room.is_ok()) {
    (void)context_.slots.unpin(group, *std::move(pinned), false);
    return room;
  }
  const std::uint32_t number = free_.back();
  free_.pop_back();
  Operation& operation = operations_[number];
  operation.token = token;
  operation.group = group;
  operation.hash = hash;
  operation.pinned = *std::move(pinned);
  operation.shards.assign(shards.begin(), shards.end());
  operation.is_urgent = io_class == transfer::IoClass::kTtftRead;
  operation.pending = shards.size();
  operation.status = {};
  const Volume& volume = *context_.volumes[place.volume];
  const auto ranks = static_cast<std::uint16_t>(shards.size());
  for (std::uint16_t rank = 0; rank < ranks; ++rank) {
    transfer::Transfer transfer;
    transfer.token = Ticket{Purpose::kReadFrame, rank, number}.token();
    transfer.op = transfer::IoOp::kRead;
    transfer.io_class = io_class;
    transfer.file = volume.data_file();
    transfer.offset = volume.geometry().offset(group, place.slot, rank);
    // The page's size now, its place in prepare(): the queue counts bytes.
    transfer.pieces[0] = {nullptr, kPageBytes};
    transfer.pieces[1] = {shards[rank].payload, volume.geometry().frame_bytes[group] - kPageBytes};
    transfer.piece_count = 2;
    transfer.deadline = deadline;
    FrameSums& sums = operation.sums[rank];
    sums.clear();
    // What the device puts into memory by itself is looked at when all of it is there: a part at a
    // time would take the device's width away. Encrypted bytes are the cipher's to check.
    if (!volume.is_direct() && !context_.crypt.is_on()) {
      sums.add({shards[rank].payload, shards[rank].payload_bytes, transfer.pieces[1].bytes});
      transfer.arrivals = &sums;
    }
    context_.push(place.volume, transfer);
  }
  return {};
}

// Each volume has its share of the operations, so that one that hangs leaves the others theirs. Who
// asks for more has to wait, and what he wants of other volumes with it: not for one that is
// silent.
Status Reader::find_room(std::uint32_t volume) {
  UnderWay& under_way = under_way_[volume];
  const Nanoseconds now = context_.clock.now();
  if (under_way.count == 0) under_way.answered = now;
  if (under_way.count < kMostReads / under_way_.size()) {
    ++under_way.count;
    return {};
  }
  if (under_way_.size() > 1 && now - under_way.answered > kSilence) {
    return {Code::kUnavailable, "the block's disk path does not answer"};
  }
  return {Code::kExhausted, "too many disk reads under way"};
}

bool Reader::prepare(Ticket ticket, transfer::Transfer& transfer) {
  std::byte*& page = operations_[ticket.number].pages[ticket.rank];
  if (page == nullptr) page = context_.pages.take();
  transfer.pieces[0].data = page;
  return page != nullptr;
}

Status Reader::examine(Operation& operation, std::size_t rank) const {
  const std::span<const std::byte, wire::kFrameHeaderBytes> page(operation.pages[rank],
                                                                 wire::kFrameHeaderBytes);
  auto header = wire::decode_frame(page);
  if (!header) return {Code::kCorrupt, header.error().message()};
  const Slots::Pinned& pinned = operation.pinned;
  auto wanted = context_.header(pinned.place.volume, operation.group, operation.hash, rank,
                                pinned.generation, pinned.epoch);
  wanted.payload_checksum = header->payload_checksum;
  wanted.codec = header->codec;
  wanted.seal = header->seal;
  if (*header != wanted) return {Code::kCorrupt, "the frame is another block's"};
  operation.headers[rank] = wanted;
  TERRACE_RETURN_IF_ERROR(context_.crypt.check(wanted));
  if (wanted.codec == wire::FrameCodec::kAes256Gcm) return {};
  const ShardMemory& shard = operation.shards[rank];
  auto sum = operation.sums[rank].sum(0);
  if (!sum) sum = checksum_of({shard.payload, shard.payload_bytes});
  if (*sum != wanted.payload_checksum) {
    return {Code::kCorrupt, "the payload's checksum does not match"};
  }
  return {};
}

void Reader::release(Ticket ticket) {
  std::byte*& page = operations_[ticket.number].pages[ticket.rank];
  if (page != nullptr) context_.pages.give(page);
  page = nullptr;
}

bool Reader::Operation::has_begun() const {
  return pending < shards.size() ||
         std::ranges::any_of(pages, [](const std::byte* page) { return page != nullptr; });
}

void Reader::cancel(std::span<const std::uint64_t> tokens,
                    std::vector<transfer::Completion>& cancelled) {
  std::vector<std::uint64_t> wanted(tokens.begin(), tokens.end());
  std::ranges::sort(wanted);
  context_.queue.cancel_if(
      [&](std::uint64_t of_transfer) {
        const Ticket ticket = Ticket::of(of_transfer);
        if (ticket.purpose != Purpose::kReadFrame) return false;
        const Operation& operation = operations_[ticket.number];
        return !operation.has_begun() && std::ranges::binary_search(wanted, operation.token);
      },
      {Code::kClosed, "nobody waits for it any more"}, cancelled);
}

void Reader::finish(Ticket ticket, Status status, std::vector<DiskDone>& done) {
  Operation& operation = operations_[ticket.number];
  TERRACE_CHECK(operation.pending > 0);
  // Those that ended in the queue are no answers.
  if (status.code() != Code::kDeadline && status.code() != Code::kClosed) {
    under_way_[operation.pinned.place.volume].answered = context_.clock.now();
  }
  // Of what is read only the cipher refuses anything: whatever else did is a failing device.
  if (status.code() == Code::kRefused) status = {Code::kIo, status.message()};
  // The first real error says what happened; a deadline says least.
  if (!status.is_ok() && (operation.status.is_ok() || operation.status.code() == Code::kDeadline)) {
    operation.status = std::move(status);
  } else if (status.is_ok() && operation.status.is_ok()) {
    operation.status = examine(operation, ticket.rank);  // While others are still on their way.
  }
  release(ticket);
  if (--operation.pending == 0) complete(ticket.number, done);
}

void Reader::complete(std::uint32_t number, std::vector<DiskDone>& done) {
  if (operations_[number].status.is_ok() && open_frames(number)) return;
  conclude(number, done);
}

bool Reader::open_frames(std::uint32_t number) {
  Operation& operation = operations_[number];
  const auto is_encrypted = [](const wire::FrameHeader& header) {
    return header.codec == wire::FrameCodec::kAes256Gcm;
  };
  operation.pending =
      static_cast<std::size_t>(std::ranges::count_if(operation.headers, is_encrypted));
  if (operation.pending == 0) return false;
  const auto ranks = static_cast<std::uint16_t>(operation.headers.size());
  for (std::uint16_t rank = 0; rank < ranks; ++rank) {
    if (!is_encrypted(operation.headers[rank])) continue;
    const ShardMemory& shard = operation.shards[rank];
    context_.crypt.post_open(Ticket{Purpose::kOpenFrame, rank, number}.token(),
                             operation.headers[rank], {shard.payload, shard.payload_bytes},
                             operation.is_urgent, operation.opened[rank]);
  }
  return true;
}

void Reader::finish_open(Ticket ticket, std::vector<DiskDone>& done) {
  Operation& operation = operations_[ticket.number];
  TERRACE_CHECK(operation.pending > 0);
  Status& opened = operation.opened[ticket.rank];
  if (!opened.is_ok() && operation.status.is_ok()) operation.status = std::move(opened);
  opened = {};
  if (--operation.pending == 0) conclude(ticket.number, done);
}

void Reader::tell_unreadable(const Operation& operation, SlotMap::Place place,
                             const Status& status) {
  const bool is_locked = status.code() == Code::kRefused;
  (is_locked ? context_.meters.locked_blocks : context_.meters.corrupt_blocks).add();
  context_.corrupt_log.write(
      LogLevel::kWarn, fmt::format("disk path={} {}=1 slot={} reason=\"{}\"",
                                   context_.volumes[place.volume]->directory(),
                                   is_locked ? "locked" : "corrupt", place.slot, status.message()));
  // What needs another key is not damaged: who has that key finds it by its record.
  if (!is_locked) writer_.invalidate(operation.group, place);
}

bool Reader::is_given_up(const Operation& operation) {
  // One that was shut is looked at before anything of it is read again.
  if (!context_.health.may_read(operation.pinned.place.volume)) return false;
  const SlotRef slot = operation.pinned.pin.slot();
  const auto is_same = [&](const Doubt& doubt) {
    return doubt.group == operation.group && doubt.slot == slot;
  };
  const bool is_doubted = std::ranges::any_of(doubts_, is_same);
  forget_doubt(operation);
  if (is_doubted) return true;
  if (doubts_.size() < kMostDoubts) {
    doubts_.push_back({operation.group, slot});
  } else {
    doubts_[oldest_doubt_++ % kMostDoubts] = {operation.group, slot};
  }
  return false;
}

void Reader::forget_doubt(const Operation& operation) {
  const SlotIndex index = operation.pinned.pin.slot().index;
  std::erase_if(doubts_, [&](const Doubt& doubt) {
    return doubt.group == operation.group && doubt.slot.index == index;
  });
}

void Reader::conclude(std::uint32_t number, std::vector<DiskDone>& done) {
  Operation& operation = operations_[number];
  const SlotMap::Place place = operation.pinned.place;
  DiskDone result;
  result.token = operation.token;
  result.is_read = true;
  result.status = std::move(operation.status);
  result.alias = operation.pinned.alias;
  const Code code = result.status.code();
  const bool is_unreadable = code == Code::kCorrupt || code == Code::kRefused;
  bool is_removed = is_unreadable;
  if (code == Code::kIo) {
    context_.health.failed(place.volume, result.status);
    is_removed = is_given_up(operation);
  } else if (result.status.is_ok()) {
    forget_doubt(operation);
  }
  const bool is_current =
      context_.slots.unpin(operation.group, std::move(operation.pinned), is_removed);
  if (is_unreadable) {
    tell_unreadable(operation, place, result.status);
    if (code == Code::kRefused) result.status = {Code::kNotFound, result.status.message()};
  } else if (code == Code::kDeadline) {
    context_.meters.late_reads.add();
  } else if (result.status.is_ok()) {
    context_.health.succeeded(place.volume, false);
    if (!is_current) result.status = {Code::kNotFound, "the cache was reset meanwhile"};
  }
  if (result.status.is_ok()) {
    context_.meters.read_blocks.add();
    for (std::size_t rank = 0; rank < operation.shards.size(); ++rank) {
      context_.meters.read_bytes.add(operation.shards[rank].payload_bytes);
      result.checksums.push_back(operation.headers[rank].payload_checksum);
    }
  }
  --under_way_[place.volume].count;
  free_.push_back(number);
  done.push_back(std::move(result));
}

}  // namespace terrace::tier::disk
