#include <algorithm>

#include "terrace/base/check.h"
#include "terrace/tier/object/known_packs_internal.h"

namespace terrace::tier::object {

KnownPacks::KnownPacks(const Options& options) : options_(options) {
  TERRACE_CHECK(options.pack_blocks >= 1 && options.blocks >= options.pack_blocks);
}

void KnownPacks::forget(Order::iterator pack) {
  for (std::size_t block = 0; block < pack->hashes.size(); ++block) {
    const auto known = blocks_.find(pack->hashes[block]);
    known->second.erase(pack->places[block]);
    if (known->second.empty()) blocks_.erase(known);
  }
  packs_.erase(pack);
}

void KnownPacks::renew(Order::iterator pack, Nanoseconds until) {
  pack->until = until;
  packs_.splice(packs_.end(), packs_, pack);
  for (std::size_t block = 0; block < pack->hashes.size(); ++block) {
    Places& places = blocks_.at(pack->hashes[block]);
    places.splice(places.end(), places, pack->places[block]);
  }
}

std::optional<KnownPacks::Order::iterator> KnownPacks::named(const SequenceHash& pack) const {
  const auto known = blocks_.find(pack);
  if (known == blocks_.end()) return std::nullopt;
  return known->second.back().pack;
}

void KnownPacks::add(std::span<const SequenceHash> hashes, Nanoseconds now, std::uint8_t variant,
                     bool is_guess) {
  TERRACE_CHECK(hashes.size() == options_.pack_blocks);
  absent_.erase(hashes.back());
  const Nanoseconds until = now + options_.present_for;
  if (const auto known = named(hashes.back())) {
    renew(*known, until);
    if (!is_guess) (*known)->variant = variant;
    return;
  }
  while (!packs_.empty() && (packs_.size() + 1) * options_.pack_blocks > options_.blocks) {
    forget(packs_.begin());
  }
  const auto pack = packs_.insert(packs_.end(), Pack{.hashes = {hashes.begin(), hashes.end()},
                                                     .places = {},
                                                     .until = until,
                                                     .touch_at = {},
                                                     .variant = variant});
  for (std::uint32_t block = 0; block < options_.pack_blocks; ++block) {
    Places& places = blocks_[hashes[block]];
    pack->places.push_back(places.insert(places.end(), {.pack = pack, .block = block}));
  }
}

void KnownPacks::set_variant(const SequenceHash& pack, std::uint8_t variant) {
  if (const auto known = named(pack)) (*known)->variant = variant;
}

void KnownPacks::add_absent(const SequenceHash& pack, Nanoseconds now) {
  const auto [place, is_new] = absent_.insert_or_assign(pack, now + options_.absent_for);
  if (!is_new) return;
  absent_order_.push_back(pack);
  while (absent_order_.size() > options_.blocks / options_.pack_blocks) {
    absent_.erase(absent_order_.front());
    absent_order_.pop_front();
  }
}

void KnownPacks::remove(const SequenceHash& pack, Nanoseconds now) {
  if (const auto known = named(pack)) forget(*known);
  add_absent(pack, now);
}

void KnownPacks::clear() {
  packs_.clear();
  blocks_.clear();
  absent_.clear();
  absent_order_.clear();
}

bool KnownPacks::take_touch(const SequenceHash& pack, Nanoseconds now, Nanoseconds every) {
  if (!is_touch_due(pack, now)) return false;
  (*named(pack))->touch_at = now + every;
  return true;
}

bool KnownPacks::is_touch_due(const SequenceHash& pack, Nanoseconds now) const {
  const auto known = named(pack);
  return known && now >= (*known)->touch_at;
}

std::optional<PackPlace> KnownPacks::find(const SequenceHash& hash, Nanoseconds now) const {
  const auto found = blocks_.find(hash);
  if (found == blocks_.end()) return std::nullopt;
  const Place& place = found->second.back();  // No other one is known for longer.
  if (place.pack->until <= now) return std::nullopt;
  return PackPlace{
      .pack = place.pack->hashes.back(), .block = place.block, .variant = place.pack->variant};
}

std::size_t KnownPacks::match(std::span<const SequenceHash> hashes, Nanoseconds now) const {
  const auto unknown = std::ranges::find_if(
      hashes, [&](const SequenceHash& hash) { return !find(hash, now).has_value(); });
  return static_cast<std::size_t>(unknown - hashes.begin());
}

bool KnownPacks::is_absent(const SequenceHash& pack, Nanoseconds now) const {
  const auto found = absent_.find(pack);
  return found != absent_.end() && now < found->second;
}

}  // namespace terrace::tier::object
