#include "terrace/index/block_index.h"

#include <algorithm>

#include "terrace/base/check.h"

namespace terrace::index {

namespace {

__extension__ using Wide = unsigned __int128;

// How many look-ups ahead a home is prefetched: enough to keep a core's 10 to 16 outstanding cache
// misses busy, few enough that a miss on the first block wastes little.
constexpr std::size_t kAhead = 16;

}  // namespace

Result<BlockIndex> BlockIndex::create(std::uint64_t capacity) {
  if (capacity == 0 || capacity >= kHidden) {
    return fail(Code::kInvalid, "index capacity " + std::to_string(capacity) +
                                    " is not between 1 and 2147483647 blocks");
  }
  // One bucket more than 5/4, so that a tiny full index still has the empty bucket that ends a
  // probe.
  TERRACE_ASSIGN_OR_RETURN(auto entries, ZeroedArray<Entry>::create(capacity + capacity / 4 + 1));
  return BlockIndex(std::move(entries), capacity);
}

BlockIndex::Entry BlockIndex::make_entry(const BlockKey& key, std::uint32_t place) {
  return {key.hash.high, key.hash.low, place, key.name_space.value(), key.group.value()};
}

bool BlockIndex::same_key(const Entry& a, const Entry& b) {
  return a.low == b.low && a.high == b.high && a.name_space == b.name_space && a.group == b.group;
}

// Sequence hashes are uniform already; the multiplication spreads equal hashes of several
// namespaces and groups, which would otherwise share one run. Scaling by the table's size instead
// of masking allows any size, so a table is never up to twice as large as asked for.
std::uint64_t BlockIndex::home(const Entry& entry) const {
  const std::uint64_t where = (std::uint64_t{entry.name_space} << 16U) | entry.group;
  const Wide mixed =
      Wide{entry.high ^ (where * 0x9E3779B97F4A7C15ULL)} * (entry.low ^ 0xD6E8FEB86659FD93ULL);
  const std::uint64_t folded =
      static_cast<std::uint64_t>(mixed >> 64U) ^ static_cast<std::uint64_t>(mixed);
  return static_cast<std::uint64_t>((Wide{folded} * entries_.size()) >> 64U);
}

std::uint64_t BlockIndex::seek(std::uint64_t from, const Entry& wanted) const {
  for (std::uint64_t bucket = from;; bucket = after(bucket)) {
    const Entry& entry = entries_[bucket];
    if (entry.place == 0) return bucket;
    if (same_key(entry, wanted) && (entry.place & kHidden) == 0) return bucket;
  }
}

std::uint64_t BlockIndex::seek_slot(Home home, SlotIndex slot) const {
  for (std::uint64_t bucket = home.value();; bucket = after(bucket)) {
    const Entry& entry = entries_[bucket];
    if (entry.place == 0 || (entry.place & ~kHidden) == slot.value() + 1) return bucket;
  }
}

void BlockIndex::put(std::uint64_t bucket, const Entry& entry) {
  TERRACE_CHECK(size_ < capacity_);
  entries_[bucket] = entry;
  ++size_;
}

// Closes the gap: each later entry of the run moves back into it unless that would put the entry
// before its home. No markers are left behind, so probes never get longer with age.
void BlockIndex::take(std::uint64_t bucket) {
  std::uint64_t gap = bucket;
  for (std::uint64_t next = after(gap);; next = after(next)) {
    const Entry& entry = entries_[next];
    if (entry.place == 0) break;
    const std::uint64_t at_home = home(entry);
    const bool stays =
        gap <= next ? (gap < at_home && at_home <= next) : (gap < at_home || at_home <= next);
    if (stays) continue;
    entries_[gap] = entry;
    gap = next;
  }
  entries_[gap] = Entry{};
  --size_;
}

bool BlockIndex::insert(const BlockKey& key, SlotIndex slot) {
  TERRACE_CHECK(slot.value() + 1 < kHidden);
  const Entry entry = make_entry(key, slot.value() + 1);
  const std::uint64_t bucket = seek(home(entry), entry);
  if (entries_[bucket].place != 0) return false;
  put(bucket, entry);
  return true;
}

bool BlockIndex::erase(const BlockKey& key) {
  const Entry wanted = make_entry(key, 0);
  const std::uint64_t bucket = seek(home(wanted), wanted);
  if (entries_[bucket].place == 0) return false;
  take(bucket);
  return true;
}

Home BlockIndex::insert_hidden(const BlockKey& key, SlotIndex slot) {
  TERRACE_CHECK(slot.value() + 1 < kHidden);
  const Entry entry = make_entry(key, (slot.value() + 1) | kHidden);
  const std::uint64_t at_home = home(entry);
  std::uint64_t bucket = at_home;
  while (entries_[bucket].place != 0) bucket = after(bucket);
  put(bucket, entry);
  return Home(static_cast<std::uint32_t>(at_home));
}

bool BlockIndex::publish(Home home, SlotIndex slot) {
  if (home.value() >= entries_.size()) return false;
  const std::uint64_t bucket = seek_slot(home, slot);
  Entry& entry = entries_[bucket];
  if ((entry.place & kHidden) == 0) return false;
  if (entries_[seek(home.value(), entry)].place != 0) return false;
  entry.place &= ~kHidden;
  return true;
}

bool BlockIndex::erase(Home home, SlotIndex slot) {
  if (home.value() >= entries_.size()) return false;
  const std::uint64_t bucket = seek_slot(home, slot);
  if (entries_[bucket].place == 0) return false;
  take(bucket);
  return true;
}

std::optional<BlockKey> BlockIndex::key_of(Home home, SlotIndex slot) const {
  if (home.value() >= entries_.size()) return std::nullopt;
  const Entry& entry = entries_[seek_slot(home, slot)];
  if (entry.place == 0) return std::nullopt;
  return BlockKey{NamespaceId(entry.name_space), GroupId(entry.group), {entry.high, entry.low}};
}

Home BlockIndex::home_of(const BlockKey& key) const {
  return Home(static_cast<std::uint32_t>(home(make_entry(key, 0))));
}

void BlockIndex::prefetch(Home home) const { __builtin_prefetch(entries_.data() + home.value()); }

std::optional<SlotIndex> BlockIndex::find(const BlockKey& key) const {
  const Entry wanted = make_entry(key, 0);
  const Entry& entry = entries_[seek(home(wanted), wanted)];
  if (entry.place == 0) return std::nullopt;
  return SlotIndex(entry.place - 1);
}

bool BlockIndex::has_hidden(const BlockKey& key) const {
  const Entry wanted = make_entry(key, 0);
  for (std::uint64_t bucket = home(wanted);; bucket = after(bucket)) {
    const Entry& entry = entries_[bucket];
    if (entry.place == 0) return false;
    if (same_key(entry, wanted) && (entry.place & kHidden) != 0) return true;
  }
}

std::size_t BlockIndex::match(NamespaceId name_space, GroupId group,
                              std::span<const SequenceHash> hashes,
                              std::span<SlotIndex> slots) const {
  TERRACE_CHECK(slots.empty() || slots.size() >= hashes.size());
  std::array<std::uint64_t, kAhead> homes{};
  const auto start = [&](std::size_t i) {
    homes[i % kAhead] = home(make_entry({name_space, group, hashes[i]}, 0));
    __builtin_prefetch(entries_.data() + homes[i % kAhead]);
  };
  for (std::size_t i = 0; i < std::min(kAhead, hashes.size()); ++i) start(i);
  for (std::size_t i = 0; i < hashes.size(); ++i) {
    const Entry wanted = make_entry({name_space, group, hashes[i]}, 0);
    const std::uint64_t from = homes[i % kAhead];
    if (i + kAhead < hashes.size()) start(i + kAhead);
    const Entry& entry = entries_[seek(from, wanted)];
    if (entry.place == 0) return i;
    if (!slots.empty()) slots[i] = SlotIndex(entry.place - 1);
  }
  return hashes.size();
}

}  // namespace terrace::index
