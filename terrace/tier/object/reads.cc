#include <algorithm>
#include <tuple>

#include "terrace/base/check.h"
#include "terrace/tier/object/reads_internal.h"

namespace terrace::tier::object {

Status Reads::begin(std::uint64_t token, GroupId group, const SequenceHash& hash,
                    std::span<const ShardMemory> ranks, transfer::IoClass io_class,
                    Nanoseconds deadline) {
  TERRACE_RETURN_IF_ERROR(context_.check(group, ranks));
  if (count_ >= context_.options.most_reads) {
    return {Code::kExhausted, "too many reads from the store under way"};
  }
  std::optional<PackPlace> place;
  {
    const MutexLock lock(context_.mutex);
    place = context_.known.find(hash, context_.clock.now());
  }
  if (!place) return {Code::kNotFound, "the block is not known to be in the store"};
  waiting_.push_back({.token = token,
                      .group = group,
                      .hash = hash,
                      .place = *place,
                      .ranks = {ranks.begin(), ranks.end()},
                      .io_class = io_class,
                      .deadline = deadline,
                      .range = context_.geometry.shard_group(place->block, group)});
  ++count_;
  return {};
}

std::size_t Reads::together(std::size_t first) const {
  std::uint64_t bytes = waiting_[first].range.bytes;
  std::size_t end = first + 1;
  for (; end < waiting_.size(); ++end) {
    const Read& last = waiting_[end - 1];
    const Read& next = waiting_[end];
    bytes += next.range.bytes;
    const bool is_neighbour = next.place.pack == last.place.pack &&
                              next.io_class == last.io_class &&
                              next.range.offset == last.range.offset + last.range.bytes;
    if (!is_neighbour || bytes > context_.options.get_bytes) break;
  }
  return end - first;
}

Status Reads::start(std::span<Read> reads) {
  Get get;
  transfer::ObjectRequest request;
  request.op = transfer::ObjectOp::kGet;
  request.name = context_.name_of(reads.front().place.pack);
  request.offset = reads.front().range.offset;
  request.deadline = kNoDeadline;
  for (const Read& read : reads) {
    request.deadline = std::min(request.deadline, read.deadline);
    const std::uint64_t padded =
        context_.geometry.frame_bytes(read.group) - wire::kFrameHeaderBytes;
    for (const ShardMemory& shard : read.ranks) {
      get.pages.push_back(std::make_unique<Page>());
      request.pieces.push_back({get.pages.back()->data(), wire::kFrameHeaderBytes});
      request.pieces.push_back({shard.payload, padded});
    }
  }
  const std::uint64_t number = last_number_ + 1;
  request.token = context_.token(Part::kRead, number);
  TERRACE_RETURN_IF_ERROR(context_.queue.push(reads.front().io_class, std::move(request)));
  last_number_ = number;
  context_.counters.gets.add();
  get.reads.assign(std::make_move_iterator(reads.begin()), std::make_move_iterator(reads.end()));
  gets_.emplace(number, std::move(get));
  return {};
}

void Reads::advance(std::vector<ObjectDone>& done) {
  if (waiting_.empty()) return;
  std::ranges::sort(waiting_, {}, [](const Read& read) {
    return std::tuple(read.io_class, read.place.pack, read.range.offset);
  });
  std::size_t first = 0;
  while (first < waiting_.size()) {
    const std::size_t count = together(first);
    const std::span<Read> reads(waiting_.data() + first, count);
    const Status status = start(reads);
    if (status.code() == Code::kExhausted) break;  // Next round.
    for (const Read& read : reads) {
      if (!status.is_ok()) finish(read, status, {}, done);
    }
    first += count;
  }
  waiting_.erase(waiting_.begin(), waiting_.begin() + static_cast<std::ptrdiff_t>(first));
}

Status Reads::verify(const Read& read, std::span<const std::unique_ptr<Page>> pages,
                     std::vector<Checksum>& checksums) const {
  for (std::uint16_t rank = 0; rank < context_.geometry.ranks(); ++rank) {
    auto header = wire::decode_frame(std::span<const std::byte, 4096>(*pages[rank]));
    if (!header) return {Code::kCorrupt, header.error().message()};
    auto wanted = context_.header(read.group, read.hash, rank);
    wanted.payload_checksum = header->payload_checksum;
    if (*header != wanted) return {Code::kCorrupt, "the frame is another block's"};
    const ShardMemory& shard = read.ranks[rank];
    const Checksum found = checksum_of({shard.payload, shard.payload_bytes});
    if (found != header->payload_checksum) {
      return {Code::kCorrupt, "the payload's checksum does not match"};
    }
    checksums.push_back(found);
  }
  return {};
}

void Reads::take(const transfer::ObjectAnswer& answer, std::uint64_t number,
                 std::vector<ObjectDone>& done) {
  auto node = gets_.extract(number);
  TERRACE_CHECK(!node.empty());
  const Get& get = node.mapped();
  const std::size_t ranks = context_.geometry.ranks();
  const SequenceHash& pack = get.reads.front().place.pack;
  Status damage;
  for (std::size_t i = 0; i < get.reads.size(); ++i) {
    Status status = answer.status;
    std::vector<Checksum> checksums;
    if (context_.is_reset.load()) status = {Code::kNotFound, "reset meanwhile"};
    if (status.is_ok()) {
      const auto pages = std::span(get.pages).subspan(i * ranks, ranks);
      status = verify(get.reads[i], pages, checksums);
    }
    if (status.code() == Code::kCorrupt) damage = status;
    finish(get.reads[i], status, std::move(checksums), done);
  }
  if (!damage.is_ok()) {
    context_.note_damage(pack, damage.message());
    context_.forget(pack);
  } else if (answer.status.code() == Code::kNotFound) {
    context_.counters.lost_packs.add();
    context_.forget(pack);
  }
}

void Reads::finish(const Read& read, const Status& status, std::vector<Checksum> checksums,
                   std::vector<ObjectDone>& done) {
  --count_;
  if (status.is_ok()) {
    context_.counters.read_blocks.add();
    context_.counters.read_bytes.add(context_.geometry.payload_bytes(read.group) *
                                     context_.geometry.ranks());
  } else if (status.code() == Code::kCorrupt) {
    context_.counters.corrupt.add();
  }
  ObjectDone result;
  result.kind = ObjectDone::Kind::kRead;
  result.token = read.token;
  result.status = status;
  if (status.is_ok()) result.checksums = std::move(checksums);
  done.push_back(std::move(result));
}

}  // namespace terrace::tier::object
