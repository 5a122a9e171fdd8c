#include <algorithm>

#include "terrace/manager/survey_internal.h"

namespace terrace::manager {

namespace {

void trim(std::vector<policy::SourceRun>& runs, std::uint64_t blocks) {
  for (policy::SourceRun& run : runs) {
    run.blocks = std::min(run.blocks, blocks);
    blocks -= run.blocks;
  }
  std::erase_if(runs, [](const policy::SourceRun& run) { return run.blocks == 0; });
}

}  // namespace

bool Survey::is_condemned(SlotRef slot) const { return condemned_.contains(slot); }

bool Survey::is_in_doubt(const BlockKey& key) {
  if (condemned_.empty()) return false;
  const auto pin = context_.pool().pin(key);
  return pin && is_condemned(pin->slot());
}

bool Survey::hold_leading(Strand& strand, std::span<const SequenceHash> hashes) {
  catalog::PinRun& run = strand.run_;
  run = context_.pool().pin_run(context_.name_space, strand.group(), hashes);
  for (std::size_t i = 0; !condemned_.empty() && i < run.size(); ++i) {
    if (!is_condemned(run.slot(i))) continue;
    run.shrink(i);
    return false;
  }
  return true;
}

Survey::Hold Survey::hold(Strand& strand, std::uint64_t block, const SequenceHash& hash) {
  auto pin = context_.pool().pin(context_.key_of(strand.group(), hash));
  if (!pin) return Hold::kGone;
  if (is_condemned(pin->slot())) return Hold::kInDoubt;
  strand.tail_[block - strand.tail_from()] = std::move(*pin);
  --strand.missing_;
  return Hold::kHeld;
}

std::uint64_t Survey::leading_in(Tier tier, GroupId group,
                                 std::span<const SequenceHash> hashes) const {
  switch (tier) {
    case Tier::kHost:
      return context_.pool().match(context_.name_space, group, hashes);
    case Tier::kDisk:
      return can_read_disk() ? context_.lower->match(group, hashes) : 0;
    case Tier::kObject:
      return context_.objects != nullptr ? context_.objects->match(group, hashes) : 0;
    case Tier::kDevice:
    case Tier::kPeer:
      return 0;
  }
  return 0;
}

std::uint64_t Survey::leading(GroupId group, std::span<const SequenceHash> hashes,
                              std::uint64_t in_host, bool may_read,
                              std::vector<policy::SourceRun>& runs) const {
  std::uint64_t found = in_host;
  if (in_host > 0) runs.push_back({Tier::kHost, in_host});
  if (!may_read || !can_read()) return found;
  for (bool has_grown = true; has_grown;) {
    has_grown = false;
    // Within a run below host blocks may be in host as well; those need no read, but the plan is
    // about what it costs at most.
    for (const Tier tier : {Tier::kDisk, Tier::kObject, Tier::kHost}) {
      if (found >= hashes.size() || runs.size() >= kMaxRuns) return found;
      const std::uint64_t more = leading_in(tier, group, hashes.subspan(found));
      if (more == 0) continue;
      runs.push_back({tier, more});
      found += more;
      has_grown = true;
    }
  }
  return found;
}

Tier Survey::slowest(bool may_read) const {
  if (!may_read || !can_read()) return Tier::kHost;
  return context_.objects != nullptr ? Tier::kObject : Tier::kDisk;
}

std::uint64_t Survey::in_host(GroupId group, std::span<const SequenceHash> hashes) {
  const std::uint64_t found = context_.pool().match(context_.name_space, group, hashes);
  for (std::uint64_t i = 0; !condemned_.empty() && i < found; ++i) {
    if (is_in_doubt(context_.key_of(group, hashes[i]))) return i;
  }
  return found;
}

bool Survey::is_offered(GroupId group, const SequenceHash& hash, bool may_read) {
  const BlockKey key = context_.key_of(group, hash);
  if (context_.pool().contains(key)) return !is_in_doubt(key);
  return may_read && context_.source_of(group, hash).has_value();
}

std::uint64_t Survey::windowed(GroupId group, std::span<const SequenceHash> hashes,
                               std::uint64_t first, std::uint64_t end, bool may_read) {
  std::uint64_t at = end;
  std::uint64_t block = end;  // Those in [block, at) are there.
  while (at > first && block > std::max(first, context_.groups.first_needed(group, at))) {
    --block;
    if (!is_offered(group, hashes[block], may_read)) at = block;
  }
  return at;
}

std::uint64_t Survey::resume_at(std::span<const SequenceHash> hashes, std::uint64_t first,
                                std::uint64_t end, bool may_read,
                                std::vector<policy::SourceRun>& runs) {
  const Groups& groups = context_.groups;
  std::uint64_t at = end;
  runs.clear();
  for (std::uint16_t number = 0; number < groups.count(); ++number) {
    const GroupId group(number);
    if (!groups.needs_all(group)) continue;
    const auto wanted = hashes.subspan(first, at - first);
    std::vector<policy::SourceRun> own;
    at = first + leading(group, wanted, in_host(group, wanted), may_read, own);
    if (runs.empty()) runs = std::move(own);
  }
  // One group's end moves another's window, until all agree.
  for (std::uint64_t before = end + 1; before != at && at > first;) {
    before = at;
    for (std::uint16_t number = 0; number < groups.count(); ++number) {
      if (!groups.needs_all(GroupId(number))) {
        at = windowed(GroupId(number), hashes, first, at, may_read);
      }
    }
  }
  trim(runs, at - first);
  // Windows alone: as dear as the slowest tier makes a whole run.
  if (runs.empty() && at > first) runs.push_back({slowest(may_read), at - first});
  return at;
}

}  // namespace terrace::manager
