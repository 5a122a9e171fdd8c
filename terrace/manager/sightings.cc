#include <algorithm>

#include "terrace/manager/sightings_internal.h"

namespace terrace::manager {

void Sightings::note(std::span<const SequenceHash> hit, std::span<const Tier> sources) {
  if (hit.empty() || context_.lower == nullptr || !context_.admission->counts() ||
      chains_.size() >= kMostChains) {
    return;
  }
  Chain chain;
  chain.hashes.reserve(hit.size());
  for (std::size_t i = 0; i < hit.size(); ++i) {
    if (i < sources.size() && sources[i] == Tier::kObject) continue;
    chain.hashes.push_back(hit[i]);
  }
  chains_.push_back(std::move(chain));
}

bool Sightings::work(Nanoseconds now) {
  if (chains_.empty() || context_.lower == nullptr) return false;
  Chain& chain = chains_.front();
  const std::size_t slice = std::max<std::size_t>(1, kAtOnce / context_.groups.count());
  const std::size_t end = std::min(chain.hashes.size(), chain.done + slice);
  for (; chain.done < end; ++chain.done) {
    for (std::uint16_t group = 0; group < context_.groups.count(); ++group) {
      const BlockKey key = context_.key_of(GroupId(group), chain.hashes[chain.done]);
      if (context_.lower->contains(key.group, key.hash) || context_.is_left_to_store(key)) continue;
      context_.admission->on_hit(key, now);
      if (!context_.pool().contains(key) || !context_.admission->is_wanted(key, now)) continue;
      chain.wanted.push_back(key);
    }
  }
  if (chain.done == chain.hashes.size()) {
    writes_.offer_wanted(chain.wanted);
    chains_.pop_front();
  }
  return !chains_.empty();
}

}  // namespace terrace::manager
