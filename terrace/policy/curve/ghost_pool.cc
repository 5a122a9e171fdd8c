#include <utility>

#include "terrace/base/check.h"
#include "terrace/policy/curve/ghost_pool_internal.h"

namespace terrace::policy {

namespace {
// All blocks are of one namespace.
BlockKey key_of(const SequenceHash& hash) { return {NamespaceId(1), GroupId(0), hash}; }
}  // namespace

Result<GhostPool> GhostPool::create(std::uint32_t slots, std::string_view eviction,
                                    std::shared_ptr<const ReturnModel> returns) {
  TERRACE_ASSIGN_OR_RETURN(auto policy, make_eviction(eviction, slots, std::move(returns)));
  TERRACE_ASSIGN_OR_RETURN(auto index, index::BlockIndex::create(slots));
  return GhostPool(std::move(index), std::move(policy), slots);
}

GhostPool::GhostPool(index::BlockIndex index, std::unique_ptr<EvictionPolicy> policy,
                     std::uint32_t slots)
    : index_(std::move(index)), policy_(std::move(policy)), homes_(slots) {
  held_.reserve(std::size_t{2} * slots + 1);  // Each held block may have a gap before it.
}

// The clock goes on before anybody is asked to leave.
void GhostPool::begin(Nanoseconds now, bool is_stored) {
  if (policy_->wants_uses()) policy_->note_use({}, {.at = now});
  leading_ = 0;
  is_leading_ = true;
  is_stored_ = is_stored;
}

void GhostPool::add(const SequenceHash& hash) {
  if (const auto here = index_.find(key_of(hash))) {
    if (is_leading_) ++leading_;
    policy_->remove(*here);
    held_.push_back(here);
    return;
  }
  is_leading_ = false;
  const auto slot = is_stored_ ? take() : std::nullopt;
  if (slot) {
    TERRACE_CHECK(index_.insert(key_of(hash), *slot));
    homes_[slot->value()] = index_.home_of(key_of(hash));
    held_.push_back(slot);
    return;
  }
  is_stored_ = false;  // Nothing is stored behind what is not.
  if (held_.empty() || held_.back()) held_.emplace_back();
}

std::optional<SlotIndex> GhostPool::take() {
  if (taken_ < homes_.size()) return SlotIndex(taken_++);
  const auto victim = policy_->victim();
  if (!victim) return std::nullopt;
  policy_->forget(*victim);
  TERRACE_CHECK(index_.erase(homes_[victim->value()], *victim));
  return victim;
}

std::uint32_t GhostPool::end(const Use& use) {
  if (policy_->wants_uses()) policy_->note_use(held_, use);
  for (auto slot = held_.rbegin(); slot != held_.rend(); ++slot) {
    if (*slot) policy_->touch(**slot);
  }
  held_.clear();
  return leading_;
}

Bytes GhostPool::memory() const {
  return index_.memory() + policy_->memory() +
         Bytes(homes_.capacity() * sizeof(index::Home) +
               held_.capacity() * sizeof(std::optional<SlotIndex>));
}

}  // namespace terrace::policy
