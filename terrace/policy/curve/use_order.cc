#include <algorithm>

#include "terrace/base/check.h"
#include "terrace/policy/curve/use_order_internal.h"

namespace terrace::policy {

namespace {
// The order is one namespace's.
BlockKey key_of(const SequenceHash& hash) { return {NamespaceId(1), GroupId(0), hash}; }
}  // namespace

Result<UseOrder> UseOrder::create(std::uint32_t capacity) {
  TERRACE_ASSIGN_OR_RETURN(auto index, index::BlockIndex::create(capacity));
  return UseOrder(capacity, std::move(index));
}

UseOrder::UseOrder(std::uint32_t capacity, index::BlockIndex index)
    : index_(std::move(index)),
      positions_(capacity, kNone),
      homes_(capacity),
      at_(std::size_t{2} * capacity, kNone),
      held_(std::size_t{2} * capacity + 1, 0) {
  free_.reserve(capacity);
  for (std::uint32_t i = capacity; i > 0; --i) free_.push_back(i - 1);
}

std::optional<std::uint32_t> UseOrder::newer_than(const SequenceHash& hash) const {
  const auto found = index_.find(key_of(hash));
  if (!found) return std::nullopt;
  return count_ - held_up_to(positions_[found->value()]);
}

void UseOrder::use(const SequenceHash& hash) {
  if (const auto found = index_.find(key_of(hash))) {
    const std::uint32_t block = found->value();
    add(positions_[block], -1);
    at_[positions_[block]] = kNone;
    return place(block);
  }
  if (free_.empty()) forget_oldest();
  const std::uint32_t block = free_.back();
  free_.pop_back();
  TERRACE_CHECK(index_.insert(key_of(hash), SlotIndex(block)));
  homes_[block] = index_.home_of(key_of(hash));
  ++count_;
  place(block);
}

void UseOrder::forget_oldest() {
  while (at_[oldest_] == kNone) ++oldest_;
  const std::uint32_t block = at_[oldest_];
  TERRACE_CHECK(index_.erase(homes_[block], SlotIndex(block)));
  add(oldest_, -1);
  at_[oldest_] = kNone;
  positions_[block] = kNone;
  free_.push_back(block);
  --count_;
}

void UseOrder::place(std::uint32_t block) {
  if (next_ == at_.size()) close_gaps();
  at_[next_] = block;
  positions_[block] = next_;
  add(next_, 1);
  ++next_;
}

// Half of the positions are gaps by then, or more: constant time for each place, amortised.
void UseOrder::close_gaps() {
  std::uint32_t to = 0;
  for (std::uint32_t from = oldest_; from < next_; ++from) {
    const std::uint32_t block = at_[from];
    if (block == kNone) continue;
    at_[from] = kNone;
    at_[to] = block;
    positions_[block] = to++;
  }
  next_ = to;
  oldest_ = 0;
  std::ranges::fill(held_, 0);
  for (std::uint32_t position = 0; position < next_; ++position) add(position, 1);
}

std::uint32_t UseOrder::held_up_to(std::uint32_t position) const {
  std::uint32_t sum = 0;
  for (std::uint32_t i = position + 1; i > 0; i &= i - 1) sum += held_[i];
  return sum;
}

void UseOrder::add(std::uint32_t position, std::int32_t change) {
  for (std::uint32_t i = position + 1; i < held_.size(); i += i & (~i + 1)) {
    held_[i] += static_cast<std::uint32_t>(change);
  }
}

Bytes UseOrder::memory() const {
  const std::size_t words = positions_.capacity() + homes_.capacity() + at_.capacity() +
                            held_.capacity() + free_.capacity();
  return index_.memory() + Bytes(words * sizeof(std::uint32_t));
}

}  // namespace terrace::policy
