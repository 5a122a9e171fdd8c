#include "terrace/index/index_filler.h"

#include "terrace/base/check.h"

namespace terrace::index {

namespace {
// Enough to keep a core's outstanding cache misses busy.
constexpr std::size_t kAhead = 24;
}  // namespace

IndexFiller::IndexFiller(BlockIndex& index, NamespaceId name_space, GroupId group,
                         std::size_t parts)
    : index_(index),
      name_space_(name_space),
      group_(group),
      pair_(std::uint32_t{name_space.value()} << 16U | group.value()),
      domain_(index.domains_->find(pair_)),
      parts_(parts) {
  if (domain_ == 0) domain_ = index_.domains_->add(pair_);
  for (std::size_t i = 0; i < parts; ++i) parts_[i].end = index_.buckets_.size() * (i + 1) / parts;
}

Home IndexFiller::home_of(const SequenceHash& hash) const {
  return index_.home_of({name_space_, group_, hash});
}

std::size_t IndexFiller::part_of(Home home) const {
  std::size_t part = 0;
  for (std::size_t i = 0; i + 1 < parts_.size(); ++i)
    part += home.value() >= parts_[i].end ? 1U : 0U;
  return part;
}

IndexFiller::Outcome IndexFiller::try_bucket(std::uint64_t at, const Entry& entry,
                                             std::span<const std::uint64_t> precedence,
                                             std::vector<SlotIndex>& losers) {
  BlockIndex::Bucket& bucket = index_.buckets_[at];
  bool may_be_same = false;
  std::size_t used = 0;
  for (std::size_t way = 0; way < BlockIndex::kWays; ++way) {
    may_be_same |= bucket.low[way] == entry.hash.low;
    used += bucket.place[way] != 0 ? 1U : 0U;
  }
  if (may_be_same) {
    const std::size_t way = index_.way_of(bucket, {entry.hash, pair_, domain_}, false);
    if (way < BlockIndex::kWays) {
      const SlotIndex holder(bucket.place[way] - 1);
      const std::uint64_t held = precedence[holder.value()];
      const std::uint64_t ours = precedence[entry.slot.value()];
      const bool gives_way = held != 0 && (held < ours || (held == ours && entry.slot < holder));
      losers.push_back(gives_way ? holder : entry.slot);
      if (!gives_way) return Outcome::kSameKey;
      bucket.place[way] = entry.slot.value() + 1;
      if (domain_ == BlockIndex::kWideDomain) index_.wide_[entry.slot.value()] = pair_;
      return Outcome::kSameKey;
    }
  }
  if (used == BlockIndex::kWays) return Outcome::kFull;
  bucket.low[used] = entry.hash.low;
  bucket.high[used] = entry.hash.high;
  bucket.place[used] = entry.slot.value() + 1;
  bucket.domains |= domain_ << (BlockIndex::kDomainBits * used);
  if (domain_ == BlockIndex::kWideDomain) index_.wide_[entry.slot.value()] = pair_;
  return Outcome::kEntered;
}

void IndexFiller::enter(std::size_t part, std::span<const Entry> entries,
                        std::span<const std::uint64_t> precedence, std::vector<SlotIndex>& losers) {
  Part& own = parts_[part];
  for (std::size_t i = 0; i < entries.size(); ++i) {
    if (i + kAhead < entries.size()) {
      __builtin_prefetch(index_.buckets_.data() + entries[i + kAhead].home.value(), 1);
    }
    Outcome outcome = Outcome::kFull;
    std::uint64_t at = entries[i].home.value();
    for (; at < own.end && outcome == Outcome::kFull; ++at) {
      outcome = try_bucket(at, entries[i], precedence, losers);
    }
    if (outcome == Outcome::kEntered) ++own.entered;
    if (outcome == Outcome::kFull) own.across.push_back(entries[i]);
  }
}

void IndexFiller::finish(std::span<const std::uint64_t> precedence,
                         std::vector<SlotIndex>& losers) {
  for (Part& part : parts_) {
    for (const Entry& entry : part.across) {
      Outcome outcome = Outcome::kFull;
      for (std::uint64_t at = entry.home.value(); outcome == Outcome::kFull;
           at = index_.after(at)) {
        TERRACE_CHECK(index_.size_ <= index_.capacity_);  // Else there might be no end.
        outcome = try_bucket(at, entry, precedence, losers);
      }
      if (outcome == Outcome::kEntered) ++part.entered;
    }
    index_.size_ += part.entered;
    part = {.end = part.end, .entered = 0, .across = {}};
  }
  TERRACE_CHECK(index_.size_ <= index_.capacity_);
}

}  // namespace terrace::index
