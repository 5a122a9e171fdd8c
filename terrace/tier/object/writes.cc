#include <fmt/format.h>

#include "terrace/base/check.h"
#include "terrace/tier/object/writes_internal.h"

namespace terrace::tier::object {

Status Writes::check(std::span<const SequenceHash> hashes,
                     const std::vector<PackShards>& shards) const {
  const wire::PackGeometry& pack = context_.geometry;
  if (hashes.size() != pack.blocks() || shards.size() != hashes.size() * pack.groups()) {
    return {Code::kInvalid,
            fmt::format("a pack of {} blocks and {} shard groups", hashes.size(), shards.size())};
  }
  for (std::size_t i = 0; i < shards.size(); ++i) {
    const GroupId group(static_cast<std::uint16_t>(i % pack.groups()));
    TERRACE_RETURN_IF_ERROR(context_.check(group, shards[i].ranks));
    if (shards[i].checksums.size() != shards[i].ranks.size()) {
      return {Code::kInvalid, "a shard without its checksum"};
    }
  }
  return {};
}

Status Writes::refusal() const {
  if (context_.is_stopped) return {Code::kClosed, "shutting down"};
  if (context_.is_reset.load()) return {Code::kUnavailable, "the cache was reset"};
  return {};
}

Status Writes::begin(std::uint64_t token, std::span<const SequenceHash> hashes,
                     std::vector<PackShards> shards) {
  TERRACE_RETURN_IF_ERROR(check(hashes, shards));
  TERRACE_RETURN_IF_ERROR(refusal());
  if (writes_.size() >= context_.options.most_writes) {
    return {Code::kExhausted, "too many packs under way"};
  }
  {
    const MutexLock lock(context_.mutex);
    const auto known = context_.known.find(hashes.back(), context_.clock.now());
    if (known && known->variant == 0) {  // What an older key wrote is written anew.
      return {Code::kInvalid, "the pack is there already"};
    }
  }
  Write write{.token = token,
              .hashes = {hashes.begin(), hashes.end()},
              .shards = std::move(shards),
              .headers = {},
              .footer = {},
              .deadline = context_.clock.now() + context_.options.write_time,
              .sealed = {},
              .seals = {}};
  const std::uint64_t number = last_number_ + 1;
  TERRACE_RETURN_IF_ERROR(ask(number, write));
  last_number_ = number;
  writes_.emplace(number, std::move(write));
  return {};
}

Status Writes::ask(std::uint64_t number, const Write& write) {
  transfer::ObjectRequest request;
  request.op = transfer::ObjectOp::kHead;
  request.name = context_.name_of(write.hashes.back());
  request.deadline = write.deadline;
  request.token = context_.token(Part::kWrite, number);
  return context_.queue.push(transfer::IoClass::kOffloadWrite, std::move(request));
}

void Writes::encode(Write& write) const {
  const wire::PackGeometry& pack = context_.geometry;
  write.headers.resize(write.shards.size() * pack.ranks() * wire::kFrameHeaderBytes);
  auto* page = reinterpret_cast<std::byte*>(write.headers.data());
  wire::PackFooter footer{.content_digest = context_.content_digest,
                          .layout_digest = context_.layout_digest,
                          .block_tokens = pack.block_tokens(),
                          .ranks = pack.ranks(),
                          .payload_bytes = {},
                          .hashes = write.hashes};
  for (std::uint16_t group = 0; group < pack.groups(); ++group) {
    footer.payload_bytes.push_back(pack.payload_bytes(GroupId(group)));
  }
  for (std::size_t i = 0; i < write.shards.size(); ++i) {
    const GroupId group(static_cast<std::uint16_t>(i % pack.groups()));
    for (std::uint16_t rank = 0; rank < pack.ranks(); ++rank) {
      const std::span<std::byte, wire::kFrameHeaderBytes> target(page, wire::kFrameHeaderBytes);
      if (write.buffer != nullptr) {
        wire::encode(write.sealed[i * pack.ranks() + rank], target);
      } else {
        auto header = context_.header(group, write.hashes[i / pack.groups()], rank);
        header.payload_checksum = write.shards[i].checksums[rank];
        wire::encode(header, target);
      }
      page += wire::kFrameHeaderBytes;
    }
  }
  write.footer = wire::encode(footer);
}

bool Writes::seal(std::uint64_t number, Write& write) {
  write.buffer = context_.crypt->take_buffer();
  if (write.buffer == nullptr) return false;
  const wire::PackGeometry& pack = context_.geometry;
  write.sealed.resize(write.shards.size() * pack.ranks());
  write.seals.resize(write.sealed.size());
  write.pending = write.sealed.size();
  std::byte* stored = write.buffer;
  for (std::size_t frame = 0; frame < write.sealed.size(); ++frame) {
    const std::size_t i = frame / pack.ranks();
    const auto rank = static_cast<std::uint16_t>(frame % pack.ranks());
    const GroupId group(static_cast<std::uint16_t>(i % pack.groups()));
    const std::uint64_t padded = pack.frame_bytes(group) - wire::kFrameHeaderBytes;
    const ShardMemory& shard = write.shards[i].ranks[rank];
    write.sealed[frame] = context_.header(group, write.hashes[i / pack.groups()], rank);
    write.sealed[frame].payload_checksum = write.shards[i].checksums[rank];
    context_.crypt->post_seal(context_.token(Part::kSealed, number),
                              {shard.payload, shard.payload_bytes}, stored, padded,
                              write.sealed[frame], write.seals[frame]);
    stored += padded;
  }
  return true;
}

void Writes::take_sealed(std::uint64_t number, std::vector<ObjectDone>& done) {
  const auto found = writes_.find(number);
  TERRACE_CHECK(found != writes_.end() && found->second.pending > 0);
  Write& write = found->second;
  if (--write.pending > 0) return;
  Status status = refusal();
  for (const Status& sealed : write.seals) {
    if (status.is_ok()) status = sealed;
  }
  if (status.is_ok()) status = put(number, write);
  if (!status.is_ok()) end(number, std::move(status), done);
}

void Writes::advance(std::vector<ObjectDone>& done) {
  while (!for_buffer_.empty()) {
    const std::uint64_t number = for_buffer_.front();
    if (Status status = refusal(); !status.is_ok()) {
      end(number, std::move(status), done);
    } else if (!seal(number, writes_.at(number))) {
      return;
    }
    for_buffer_.pop_front();
  }
}

void Writes::end(std::uint64_t number, Status status, std::vector<ObjectDone>& done) {
  context_.counters.failed_writes.add();
  finish(writes_.at(number), std::move(status), done);
  writes_.erase(number);
}

Status Writes::put(std::uint64_t number, Write& write) {
  encode(write);
  transfer::ObjectRequest request;
  request.op = transfer::ObjectOp::kPut;
  request.is_lasting = false;  // A pack that is lost is a miss.
  request.name = context_.name_of(write.hashes.back());
  request.deadline = write.deadline;
  request.token = context_.token(Part::kWrite, number);
  auto* page = reinterpret_cast<std::byte*>(write.headers.data());
  std::byte* stored = write.buffer;
  for (std::size_t i = 0; i < write.shards.size(); ++i) {
    const GroupId group(static_cast<std::uint16_t>(i % context_.geometry.groups()));
    const std::uint64_t padded = context_.geometry.frame_bytes(group) - wire::kFrameHeaderBytes;
    for (const ShardMemory& shard : write.shards[i].ranks) {
      request.pieces.push_back({page, wire::kFrameHeaderBytes});
      page += wire::kFrameHeaderBytes;
      if (stored != nullptr) {
        request.pieces.push_back({stored, padded});
        stored += padded;
        continue;
      }
      request.pieces.push_back({shard.payload, shard.payload_bytes});
      if (padded > shard.payload_bytes) {
        request.pieces.push_back({zeros_.data(), padded - shard.payload_bytes});
      }
    }
  }
  request.pieces.push_back(
      {reinterpret_cast<std::byte*>(write.footer.data()), write.footer.size()});
  write.is_put = true;
  return context_.queue.push(transfer::IoClass::kOffloadWrite, std::move(request));
}

void Writes::take(const transfer::ObjectAnswer& answer, std::uint64_t number,
                  std::vector<ObjectDone>& done) {
  const auto found = writes_.find(number);
  TERRACE_CHECK(found != writes_.end());
  Write& write = found->second;
  Status status = answer.status;
  bool was_there = status.is_ok() && (!write.is_put || answer.was_there);
  // One that is damaged stays where it is until somebody removes it: it was told.
  if (was_there && !write.is_put && answer.info.bytes != context_.geometry.bytes()) {
    context_.note_damage({.name = {write.hashes.back()}, .bytes = answer.info.bytes},
                         fmt::format("it has {} bytes", answer.info.bytes));
    was_there = false;
    status = {Code::kCorrupt, "a damaged pack has its name"};
  }
  if (!write.is_put && status.code() == Code::kNotFound) {
    status = refusal();
    if (status.is_ok() && context_.crypt->is_on()) {
      for_buffer_.push_back(number);  // advance() follows.
      return;
    }
    if (status.is_ok()) status = put(number, write);
    if (status.is_ok()) return;
  }
  if (was_there) {
    context_.counters.needless_packs.add();
    status = {Code::kInvalid, "the pack is there already"};
  } else if (status.is_ok()) {
    context_.counters.written_packs.add();
    context_.counters.written_bytes.add(context_.geometry.bytes());
  } else {
    context_.counters.failed_writes.add();
  }
  if ((status.is_ok() || was_there) && !context_.is_reset.load()) {
    if (status.is_ok()) context_.mend({write.hashes.back()});
    {
      const MutexLock lock(context_.mutex);
      const Nanoseconds now = context_.clock.now();
      context_.known.add(write.hashes, now);
      // What we have just put is young.
      if (status.is_ok()) {
        (void)context_.known.take_touch(write.hashes.back(), now, context_.touch_every());
      }
    }
    if (was_there) touches_.note(write.hashes, 1);
  }
  finish(write, std::move(status), done);
  writes_.erase(found);
}

void Writes::finish(const Write& write, Status status, std::vector<ObjectDone>& done) {
  if (write.buffer != nullptr) context_.crypt->give_buffer(write.buffer);
  ObjectDone result;
  result.kind = ObjectDone::Kind::kWrite;
  result.token = write.token;
  result.status = std::move(status);
  done.push_back(std::move(result));
}

}  // namespace terrace::tier::object
