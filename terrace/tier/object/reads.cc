#include <fmt/format.h>

#include <algorithm>
#include <iterator>
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
  for (const Read& read : reads) {
    for (std::size_t rank = 0; rank < read.ranks.size(); ++rank) {
      get.pages.push_back(std::make_unique<Page>());
    }
  }
  get.reads.assign(reads.begin(), reads.end());
  const std::uint64_t number = last_number_ + 1;
  TERRACE_RETURN_IF_ERROR(ask(number, get));
  last_number_ = number;
  context_.counters.gets.add();
  gets_.emplace(number, std::move(get));
  return {};
}

Status Reads::ask(std::uint64_t number, Get& get) {
  transfer::ObjectRequest request;
  request.op = transfer::ObjectOp::kGet;
  request.name = context_.name_of(get.reads.front().place.pack, variant_of(get));
  request.offset = get.reads.front().range.offset;
  request.deadline = kNoDeadline;
  request.token = context_.token(Part::kRead, number);
  get.sums = context_.crypt->is_on() ? nullptr : std::make_unique<FrameSums>();
  request.arrivals = get.sums.get();
  std::size_t page = 0;
  for (const Read& read : get.reads) {
    request.deadline = std::min(request.deadline, read.deadline);
    const std::uint64_t padded =
        context_.geometry.frame_bytes(read.group) - wire::kFrameHeaderBytes;
    for (const ShardMemory& shard : read.ranks) {
      request.pieces.push_back({get.pages[page++]->data(), wire::kFrameHeaderBytes});
      request.pieces.push_back({shard.payload, padded});
      if (get.sums != nullptr) get.sums->add({shard.payload, shard.payload_bytes, padded});
    }
  }
  return context_.queue.push(get.reads.front().io_class, std::move(request));
}

Status Reads::ask_next(std::uint64_t number, Get& get) {
  while (++get.attempt < context_.variants.size()) {
    const auto variant = static_cast<std::uint8_t>(variant_of(get));
    bool is_damaged = false;
    {
      const MutexLock lock(context_.mutex);
      is_damaged =
          context_.known.is_damaged({get.reads.front().place.pack, variant}, context_.clock.now());
    }
    if (!is_damaged) return ask(number, get);
  }
  return {Code::kNotFound, "under none of its names"};
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

Status Reads::examine(const Get& get, std::size_t frame, wire::FrameHeader& found) const {
  const std::size_t ranks = context_.geometry.ranks();
  const Read& read = get.reads[frame / ranks];
  const auto rank = static_cast<std::uint16_t>(frame % ranks);
  auto header = wire::decode_frame(std::span<const std::byte, 4096>(*get.pages[frame]));
  if (!header) return {Code::kCorrupt, header.error().message()};
  auto wanted = context_.header(read.group, read.hash, rank);
  wanted.payload_checksum = header->payload_checksum;
  wanted.codec = header->codec;
  wanted.seal = header->seal;
  if (*header != wanted) return {Code::kCorrupt, "the frame is another block's"};
  found = wanted;
  // Its name told which key it needs.
  if (const Status locked = context_.crypt->check(wanted); !locked.is_ok()) {
    return {Code::kCorrupt, locked.message()};
  }
  if (wanted.codec == wire::FrameCodec::kAes256Gcm) return {};
  const ShardMemory& shard = read.ranks[rank];
  std::optional<Checksum> sum;
  if (get.sums != nullptr) sum = get.sums->sum(frame);
  if (!sum) sum = checksum_of({shard.payload, shard.payload_bytes});
  if (*sum != wanted.payload_checksum) {
    return {Code::kCorrupt, "the payload's checksum does not match"};
  }
  return {};
}

void Reads::take(const transfer::ObjectAnswer& answer, std::uint64_t number,
                 std::vector<ObjectDone>& done) {
  const auto place = gets_.find(number);
  TERRACE_CHECK(place != gets_.end());
  Get& get = place->second;
  get.answer =
      context_.is_reset.load() ? Status(Code::kNotFound, "reset meanwhile") : answer.status;
  // Written with an older key, perhaps.
  if (get.answer.code() == Code::kNotFound && !context_.is_reset.load()) {
    const Status next = ask_next(number, get);
    if (next.is_ok()) return;
    if (next.code() != Code::kNotFound) get.answer = next;  // It may well be there.
  }
  const std::size_t ranks = context_.geometry.ranks();
  get.statuses.assign(get.reads.size(), get.answer);
  get.headers.assign(get.pages.size(), {});
  get.opened.assign(get.pages.size(), {});
  for (std::size_t i = 0; i < get.reads.size(); ++i) {
    for (std::uint16_t rank = 0; rank < ranks && get.statuses[i].is_ok(); ++rank) {
      const std::size_t frame = i * ranks + rank;
      get.statuses[i] = examine(get, frame, get.headers[frame]);
    }
  }
  open_frames(number, get);
  if (get.pending == 0) conclude(number, done);
}

void Reads::open_frames(std::uint64_t number, Get& get) {
  const std::size_t ranks = context_.geometry.ranks();
  for (std::size_t frame = 0; frame < get.pages.size(); ++frame) {
    const bool is_encrypted = get.headers[frame].codec == wire::FrameCodec::kAes256Gcm;
    if (!get.statuses[frame / ranks].is_ok() || !is_encrypted) continue;
    ++get.pending;
    const Read& read = get.reads[frame / ranks];
    const ShardMemory& shard = read.ranks[frame % ranks];
    context_.crypt->post_open(context_.token(Part::kOpened, number), get.headers[frame],
                              {shard.payload, shard.payload_bytes},
                              read.io_class == transfer::IoClass::kTtftRead, get.opened[frame]);
  }
}

void Reads::take_opened(std::uint64_t number, std::vector<ObjectDone>& done) {
  const auto place = gets_.find(number);
  TERRACE_CHECK(place != gets_.end() && place->second.pending > 0);
  if (--place->second.pending == 0) conclude(number, done);
}

std::vector<bool> Reads::read_again(Get& get) {
  const std::size_t reads = get.reads.size();
  std::vector<bool> is_again(reads, false);
  if (get.is_second || context_.is_reset.load()) return is_again;
  const auto is_bad = [&](std::size_t i) { return get.statuses[i].code() == Code::kCorrupt; };
  for (std::size_t first = 0, end = 0; first < reads; first = end) {
    for (end = first + 1; end < reads && is_bad(end) == is_bad(first);) ++end;
    if (is_bad(first) && ask_again(get, first, end)) {
      std::fill_n(is_again.begin() + static_cast<std::ptrdiff_t>(first), end - first, true);
    }
  }
  return is_again;
}

bool Reads::ask_again(Get& get, std::size_t first, std::size_t end) {
  const std::size_t ranks = context_.geometry.ranks();
  const auto at = [](std::size_t i) { return static_cast<std::ptrdiff_t>(i); };
  Get again;
  again.attempt = get.attempt;
  again.is_second = true;
  again.reads.assign(get.reads.begin() + at(first), get.reads.begin() + at(end));
  again.pages.assign(std::make_move_iterator(get.pages.begin() + at(first * ranks)),
                     std::make_move_iterator(get.pages.begin() + at(end * ranks)));
  const std::uint64_t number = last_number_ + 1;
  if (!ask(number, again).is_ok()) return false;
  last_number_ = number;
  const std::string name = context_.name_of(again.reads.front().place.pack, variant_of(again));
  gets_.emplace(number, std::move(again));
  context_.damage_log.write(
      LogLevel::kWarn, fmt::format("event=object_read_again place=\"{}\" name={} reason=\"{}\"",
                                   context_.store->place(), name, get.statuses[first].message()));
  return true;
}

void Reads::conclude(std::uint64_t number, std::vector<ObjectDone>& done) {
  const std::size_t ranks = context_.geometry.ranks();
  auto node = gets_.extract(number);
  Get& get = node.mapped();
  for (std::size_t frame = 0; frame < get.opened.size(); ++frame) {
    Status& status = get.statuses[frame / ranks];
    if (status.is_ok()) status = get.opened[frame];
  }
  const std::vector<bool> is_again = read_again(get);
  const SequenceHash& pack = get.reads.front().place.pack;
  const PackName name{pack, static_cast<std::uint8_t>(variant_of(get))};
  Status damage;
  std::uint64_t damaged_at = 0;
  for (std::size_t i = 0; i < get.reads.size(); ++i) {
    if (is_again[i]) continue;
    Status status = get.statuses[i];
    std::vector<Checksum> checksums;
    for (std::size_t frame = i * ranks; frame < (i + 1) * ranks; ++frame) {
      checksums.push_back(get.headers[frame].payload_checksum);
    }
    if (status.is_ok() && context_.is_reset.load()) status = {Code::kNotFound, "reset meanwhile"};
    if (status.code() == Code::kCorrupt && get.is_second) {
      damage = status;
      damaged_at = get.reads[i].range.offset;
    }
    finish(get.reads[i], status, std::move(checksums), done);
  }
  if (!damage.is_ok()) {
    context_.note_damage({.name = name, .offset = damaged_at}, damage.message());
    context_.forget(pack);
  } else if (get.answer.code() == Code::kNotFound) {
    context_.counters.lost_packs.add();
    context_.forget(pack);
  } else {
    note_well(get, name);
  }
}

void Reads::note_well(const Get& get, const PackName& name) {
  const MutexLock lock(context_.mutex);
  for (std::size_t i = 0; i < get.reads.size(); ++i) {
    if (!get.statuses[i].is_ok()) continue;
    if (get.attempt > 0) context_.known.set_variant(name.pack, name.variant);
    const wire::PackRange& range = get.reads[i].range;
    context_.damaged.note_well(name, range.offset, range.bytes);
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
