#include <fmt/format.h>

#include <algorithm>

#include "terrace/tier/object/context_internal.h"

namespace terrace::tier::object {

namespace {
std::vector<std::string> variants_of(const CryptOptions& crypt) {
  std::vector<std::string> variants;
  if (crypt.ring != nullptr) {
    for (const KeyRing::Key& key : crypt.ring->keys()) variants.push_back(key.id.hex());
  }
  if (variants.empty() || crypt.accepts_plain) variants.emplace_back();
  return variants;
}
}  // namespace

Context::Context(ObjectTier::Options given, std::unique_ptr<transfer::ObjectStore> given_store,
                 std::unique_ptr<FrameCrypt> given_crypt, const Clock& given_clock,
                 LogSink& given_log)
    : options(std::move(given)),
      geometry(options.layout, options.pack_blocks),
      content_digest(options.fingerprint.content_digest_bytes()),
      layout_digest(options.fingerprint.layout_digest_bytes()),
      names(content_digest, layout_digest),
      clock(given_clock),
      log(given_log),
      damage_log(given_clock, given_log, "event=object_damaged"),
      store(std::move(given_store)),
      crypt(std::move(given_crypt)),
      variants(variants_of(options.crypt)),
      queue(*store, clock, options.queue),
      known({.pack_blocks = options.pack_blocks,
             .blocks = options.known_blocks,
             .present_for = options.present_for,
             .absent_for = options.absent_for,
             .variants = variants.size()}) {}

wire::FrameHeader Context::header(GroupId group, const SequenceHash& hash,
                                  std::uint16_t rank) const {
  wire::FrameHeader header;
  header.content_digest = content_digest;
  header.layout_digest = layout_digest;
  header.hash = hash;
  header.group = group;
  header.rank = RankId(rank);
  header.era = generation.value_or(0);  // As the pack's name.
  header.payload_bytes = geometry.payload_bytes(group);
  return header;
}

Status Context::check(GroupId group, std::span<const ShardMemory> shards) const {
  if (group.value() >= geometry.groups() || shards.size() != geometry.ranks()) {
    return {Code::kInvalid,
            fmt::format("no such shard group: group {}, {} ranks", group.value(), shards.size())};
  }
  const std::uint64_t padded = geometry.frame_bytes(group) - wire::kFrameHeaderBytes;
  for (const ShardMemory& shard : shards) {
    if (shard.payload_bytes != geometry.payload_bytes(group) || shard.padded_bytes < padded) {
      return {Code::kInvalid, fmt::format("shard memory of {} bytes; the layout wants {}",
                                          shard.payload_bytes, geometry.payload_bytes(group))};
    }
  }
  return {};
}

Nanoseconds Context::touch_every() const {
  const Nanoseconds every = options.collect.touch_every;
  const Nanoseconds age = options.collect.bounds.max_age;
  // Four chances to be seen in use before it is too old.
  return age == Nanoseconds(0) ? every : std::min(every, Nanoseconds(age.value() / 4));
}

void Context::note_damage(DamagedPack pack, const std::string& what) {
  pack.text = fmt::format("{}: {} is damaged: {}; remove it, then it is written anew",
                          store->place(), name_of(pack.name.pack, pack.name.variant), what);
  damage_log.write(LogLevel::kError, fmt::format("event=object_damaged reason=\"{}\"", pack.text));
  const MutexLock lock(mutex);
  pack.look_at = clock.now();
  known.add_damaged(pack.name, pack.look_at);
  damaged.add(std::move(pack));
}

void Context::mend(const PackName& name) {
  const MutexLock lock(mutex);
  known.repair(name);
  damaged.remove(name);
}

void Context::forget(const SequenceHash& pack) {
  const MutexLock lock(mutex);
  known.remove(pack, clock.now());
}

}  // namespace terrace::tier::object
