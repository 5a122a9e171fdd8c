#include <algorithm>

#include "terrace/base/check.h"
#include "terrace/tier/object/known_packs_internal.h"

namespace terrace::tier::object {

KnownPacks::KnownPacks(const Options& options)
    : options_(options),
      absent_(options.blocks / options.pack_blocks),
      damaged_(options.blocks / options.pack_blocks),
      touched_(options.blocks) {
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
  const auto known = named(hashes.back());
  const bool is_sure = !is_guess || !known;
  if (is_sure && is_damaged({hashes.back(), variant}, now)) return;
  absent_.remove({hashes.back()});
  const Nanoseconds until = now + options_.present_for;
  if (known) {
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
  touched_.remove({pack});  // Should it come again, it is another.
  absent_.add({pack}, now + options_.absent_for);
}

void KnownPacks::add_damaged(const PackName& name, Nanoseconds now) {
  const auto known = named(name.pack);
  if (known && (*known)->variant == name.variant) forget(*known);
  damaged_.add(name, now + options_.damaged_for);
}

void KnownPacks::remove(const SequenceHash& pack, Nanoseconds now) {
  if (const auto known = named(pack)) forget(*known);
  add_absent(pack, now);
}

void KnownPacks::clear() {
  packs_.clear();
  blocks_.clear();
  absent_.clear();
  damaged_.clear();
  touched_.clear();
}

bool KnownPacks::take_touch(const SequenceHash& pack, Nanoseconds now, Nanoseconds every) {
  if (!is_touch_due(pack, now)) return false;
  touched_.add({pack}, now + every);
  return true;
}

bool KnownPacks::is_touch_due(const SequenceHash& pack, Nanoseconds now) const {
  return blocks_.contains(pack) && !touched_.holds({pack}, now);
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
  if (absent_.holds({pack}, now)) return true;
  for (std::size_t variant = 0; variant < options_.variants; ++variant) {
    if (!is_damaged({pack, static_cast<std::uint8_t>(variant)}, now)) return false;
  }
  return true;
}

}  // namespace terrace::tier::object
