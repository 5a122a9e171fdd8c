#include "terrace/manager/ledger_ring.h"

#include <algorithm>

namespace terrace::manager {

std::uint64_t LedgerRing::add(const KeptLedger& kept) {
  const MutexLock lock(mutex_);
  ++last_;
  if (capacity_ == 0) return last_;
  KeptLedger& entry = entries_[last_ % capacity_];
  entry = kept;
  entry.number = last_;
  entry.ended_wall_seconds = clock_.wall_seconds();
  return last_;
}

void LedgerRing::amend(std::uint64_t number, const Ledger& ledger, LedgerState state) {
  const MutexLock lock(mutex_);
  if (capacity_ == 0) return;
  KeptLedger& entry = entries_[number % capacity_];
  if (entry.number != number) return;
  entry.ledger = ledger;
  entry.state = state;
}

std::uint64_t LedgerRing::last() const {
  const MutexLock lock(mutex_);
  return last_;
}

std::vector<KeptLedger> LedgerRing::read(std::uint64_t from, std::size_t most) const {
  std::vector<KeptLedger> found;
  if (capacity_ == 0) return found;
  most = std::min(most, capacity_);
  const std::uint64_t newest = last();
  const std::uint64_t oldest = newest > capacity_ ? newest - capacity_ + 1 : 1;
  std::uint64_t at = std::max<std::uint64_t>(from, oldest);
  if (at > newest) return found;
  found.reserve(std::min<std::uint64_t>(most, newest - at + 1));  // Not under the lock.
  while (at <= newest && found.size() < most) {
    const MutexLock lock(mutex_);
    for (std::size_t i = 0; i < kAtOnce && at <= newest && found.size() < most; ++i, ++at) {
      const KeptLedger& entry = entries_[at % capacity_];
      if (entry.number == at) found.push_back(entry);
    }
  }
  return found;
}

std::vector<KeptLedger> LedgerRing::newest(std::size_t most) const {
  most = std::min(most, capacity_);
  const std::uint64_t last = this->last();
  std::vector<KeptLedger> found = read(last > most ? last - most + 1 : 1, most);
  std::ranges::reverse(found);
  return found;
}

}  // namespace terrace::manager
