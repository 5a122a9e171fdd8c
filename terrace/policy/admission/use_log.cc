#include <algorithm>
#include <utility>

#include "terrace/base/check.h"
#include "terrace/policy/admission/use_log_internal.h"

namespace terrace::policy {

Result<UseLog> UseLog::create(std::uint64_t entries, std::uint64_t near) {
  TERRACE_ASSIGN_OR_RETURN(auto index, index::BlockIndex::create(entries));
  TERRACE_ASSIGN_OR_RETURN(auto table, index::ZeroedArray<Entry>::create(entries));
  const std::uint64_t most_near = near == 0 ? entries : std::min(entries, near);
  return UseLog(most_near, std::move(index), std::move(table));
}

std::optional<std::uint32_t> UseLog::find(const BlockKey& key) const {
  const auto found = index_.find(key);
  if (!found) return std::nullopt;
  return found->value();
}

std::uint32_t UseLog::add(const BlockKey& key) {
  if (free_ == 0 && fresh_ == entries_.size()) remove(oldest_ - 1);
  const std::uint32_t number = free_ != 0 ? free_ - 1 : static_cast<std::uint32_t>(fresh_++);
  if (free_ != 0) free_ = std::exchange(entries_[number].next, 0);
  TERRACE_CHECK(index_.insert(key, SlotIndex(number)));
  entries_[number].home = index_.home_of(key);
  link(number);
  return number;
}

void UseLog::remove(std::uint32_t number) {
  Entry& gone = entries_[number];
  TERRACE_CHECK(index_.erase(gone.home, SlotIndex(number)));
  if (gone.is_near != 0) {
    if (last_near_ == number + 1) last_near_ = gone.next;
    --near_;
  }
  unlink(number);
  gone = {};
  gone.next = std::exchange(free_, number + 1);
}

std::optional<std::uint32_t> UseLog::use(std::uint32_t number, std::uint32_t at) {
  Entry& entry = entries_[number];
  if (entry.is_near == 0) entry.since = at;
  entry.at = at;
  if (newest_ != number + 1) {
    if (last_near_ == number + 1) last_near_ = entry.next;
    unlink(number);
    link(number);
  }
  if (entry.is_near != 0) {
    if (last_near_ == 0) last_near_ = number + 1;
    return std::nullopt;
  }
  entry.is_near = 1;
  if (last_near_ == 0) last_near_ = number + 1;
  if (++near_ <= most_near_) return std::nullopt;
  const std::uint32_t left = last_near_ - 1;
  entries_[left].is_near = 0;
  last_near_ = entries_[left].next;
  --near_;
  return left;
}

std::optional<std::uint32_t> UseLog::residence(std::uint32_t now) const {
  if (near_ < most_near_ || last_near_ == 0) return std::nullopt;
  return now - std::min(now, entries_[last_near_ - 1].at);
}

void UseLog::link(std::uint32_t number) {
  Entry& entry = entries_[number];
  entry.previous = newest_;
  entry.next = 0;
  (newest_ == 0 ? oldest_ : entries_[newest_ - 1].next) = number + 1;
  newest_ = number + 1;
}

void UseLog::unlink(std::uint32_t number) {
  const Entry& entry = entries_[number];
  (entry.previous == 0 ? oldest_ : entries_[entry.previous - 1].next) = entry.next;
  (entry.next == 0 ? newest_ : entries_[entry.next - 1].previous) = entry.previous;
}

}  // namespace terrace::policy
