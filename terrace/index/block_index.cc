#include "terrace/index/block_index.h"

#include <algorithm>
#include <utility>

#include "terrace/base/check.h"

namespace terrace::index {

namespace {

__extension__ using Wide = unsigned __int128;

// How many hashes ahead a home is prefetched: enough to keep a core's outstanding cache misses
// busy. Too few cost more than too many: with 20 a look-up took a third longer than with 48.
constexpr std::size_t kAhead = 64;
// Hashes whose misses are taken together. The first window is small: most misses of a look-up show
// early, and what was prefetched behind the first one is wasted.
constexpr std::size_t kFirstWindow = 64;
constexpr std::size_t kWindow = 1024;
// Buckets behind the home that are searched without a branch. Each pass leaves about a quarter for
// the next, so that a few in a thousand are left for the search that tells every case apart, which
// guesses wrong for each of them.
constexpr unsigned kGlances = 4;

constexpr std::uint64_t kGolden = 0x9E3779B97F4A7C15ULL;  // 2^64 / golden ratio, odd.

// Keeps the compiler from turning arithmetic on `value` into a branch. One block in eight is not in
// its home bucket; a branch on that would be mispredicted just as often, each time throwing away
// the cache misses that the core had started ahead.
std::uint64_t opaque(std::uint64_t value) {
  asm("" : "+r"(value));
  return value;
}

std::uint32_t pair_of(NamespaceId name_space, GroupId group) {
  return (std::uint32_t{name_space.value()} << 16U) | group.value();
}
std::uint32_t pair_of(const BlockKey& key) { return pair_of(key.name_space, key.group); }

}  // namespace

std::uint32_t BlockIndex::Domains::find(std::uint32_t pair) const {
  const std::uint32_t mask = static_cast<std::uint32_t>(pairs.size()) - 1;
  for (auto at = static_cast<std::uint32_t>((pair * kGolden) >> 40U) & mask;;
       at = (at + 1) & mask) {
    if (numbers[at] == 0) return count + 1 == kWideDomain ? kWideDomain : 0;
    if (pairs[at] == pair) return numbers[at];
  }
}

std::uint32_t BlockIndex::Domains::add(std::uint32_t pair) {
  const std::uint32_t mask = static_cast<std::uint32_t>(pairs.size()) - 1;
  auto at = static_cast<std::uint32_t>((pair * kGolden) >> 40U) & mask;
  while (numbers[at] != 0) at = (at + 1) & mask;
  pairs[at] = pair;
  numbers[at] = static_cast<std::uint16_t>(++count);
  pair_of[count] = pair;
  return count;
}

Result<BlockIndex> BlockIndex::create(std::uint64_t capacity) {
  if (capacity == 0 || capacity >= kHidden) {
    return fail(Code::kInvalid, "index capacity " + std::to_string(capacity) +
                                    " is not between 1 and 2147483647 blocks");
  }
  // Two thirds full at most, and never full: a probe ends at a bucket with room.
  TERRACE_ASSIGN_OR_RETURN(auto buckets, ZeroedArray<Bucket>::create(capacity / 2 + 1));
  TERRACE_ASSIGN_OR_RETURN(auto wide, ZeroedArray<std::uint32_t>::create(capacity));
  return BlockIndex(std::move(buckets), std::move(wide), capacity);
}

BlockIndex::BlockIndex(ZeroedArray<Bucket> buckets, ZeroedArray<std::uint32_t> wide,
                       std::uint64_t capacity)
    : buckets_(std::move(buckets)),
      wide_(std::move(wide)),
      domains_(std::make_unique<Domains>()),
      capacity_(capacity) {}

Bytes BlockIndex::memory() const {
  const bool uses_wide = domains_->count + 1 == kWideDomain;
  return buckets_.memory() + (uses_wide ? wide_.memory() : Bytes(0)) + Bytes(sizeof(Domains));
}

// Sequence hashes are uniform already; the product spreads equal hashes of several namespaces and
// groups, and any others. Scaling by the number of buckets instead of masking allows any size, so a
// table is never up to twice as large as asked for.
inline std::uint64_t BlockIndex::home(const SequenceHash& hash, std::uint32_t pair) const {
  const std::uint64_t mixed =
      ((hash.high + (hash.low << 32U | hash.low >> 32U)) ^ (pair * kGolden)) * kGolden;
  return static_cast<std::uint64_t>((Wide{mixed} * buckets_.size()) >> 64U);
}

Home BlockIndex::home_of(const BlockKey& key) const {
  return Home(static_cast<std::uint32_t>(home(key.hash, pair_of(key))));
}

void BlockIndex::prefetch(Home home) const { __builtin_prefetch(buckets_.data() + home.value()); }

std::optional<BlockIndex::Entry> BlockIndex::wanted(const BlockKey& key) const {
  const std::uint32_t pair = pair_of(key);
  const std::uint32_t domain = domains_->find(pair);
  if (domain == 0) return std::nullopt;
  return Entry{key.hash, pair, domain};
}

std::uint32_t BlockIndex::pair_at(const Bucket& bucket, std::size_t way) const {
  const std::uint32_t domain = bucket.domain(way);
  return domain == kWideDomain ? wide_[(bucket.place[way] & ~kHidden) - 1]
                               : domains_->pair_of[domain];
}

bool BlockIndex::is_at(const Bucket& bucket, std::size_t way, const Entry& wanted) const {
  return bucket.low[way] == wanted.hash.low && bucket.high[way] == wanted.hash.high &&
         bucket.domain(way) == wanted.domain &&
         (wanted.domain != kWideDomain || pair_at(bucket, way) == wanted.pair);
}

std::size_t BlockIndex::way_of(const Bucket& bucket, const Entry& wanted, bool is_hidden) const {
  for (std::size_t way = 0; way < kWays && bucket.place[way] != 0; ++way) {
    if (is_at(bucket, way, wanted) && ((bucket.place[way] & kHidden) != 0) == is_hidden) return way;
  }
  return kWays;
}

BlockIndex::Position BlockIndex::seek(std::uint64_t from, const Entry& wanted,
                                      bool is_hidden) const {
  for (std::uint64_t bucket = from;; bucket = after(bucket)) {
    const std::size_t way = way_of(buckets_[bucket], wanted, is_hidden);
    if (way < kWays || !buckets_[bucket].is_full()) return {bucket, way};
  }
}

BlockIndex::Position BlockIndex::seek_slot(Home home, SlotIndex slot) const {
  if (home.value() >= buckets_.size()) return {0, kWays};
  for (std::uint64_t bucket = home.value();; bucket = after(bucket)) {
    for (std::size_t way = 0; way < kWays; ++way) {
      if ((buckets_[bucket].place[way] & ~kHidden) == slot.value() + 1) return {bucket, way};
    }
    if (!buckets_[bucket].is_full()) return {bucket, kWays};
  }
}

void BlockIndex::put(std::uint64_t home, const BlockKey& key, std::uint32_t place) {
  TERRACE_CHECK(size_ < capacity_);
  const std::uint32_t pair = pair_of(key);
  std::uint32_t domain = domains_->find(pair);
  if (domain == 0) domain = domains_->add(pair);
  if (domain == kWideDomain) wide_[(place & ~kHidden) - 1] = pair;
  while (buckets_[home].is_full()) home = after(home);
  Bucket& bucket = buckets_[home];
  std::size_t way = 0;
  while (bucket.place[way] != 0) ++way;
  bucket.low[way] = key.hash.low;
  bucket.high[way] = key.hash.high;
  bucket.place[way] = place;
  bucket.domains |= domain << (kDomainBits * way);
  ++size_;
}

void BlockIndex::copy(Position from, Position to) {
  const Bucket& source = buckets_[from.bucket];
  Bucket& target = buckets_[to.bucket];
  target.low[to.way] = source.low[from.way];
  target.high[to.way] = source.high[from.way];
  target.place[to.way] = source.place[from.way];
  const unsigned shift = kDomainBits * static_cast<unsigned>(to.way);
  const std::uint32_t domain = source.domain(from.way);
  target.domains = (target.domains & ~(kWideDomain << shift)) | domain << shift;
}

// Empties one entry of a bucket; the used ways stay in front.
void BlockIndex::vacate(Position at) {
  Bucket& bucket = buckets_[at.bucket];
  std::size_t last = kWays - 1;
  while (bucket.place[last] == 0) --last;
  if (last != at.way) copy({at.bucket, last}, at);
  bucket.low[last] = 0;
  bucket.high[last] = 0;
  bucket.place[last] = 0;
  bucket.domains &= ~(kWideDomain << (kDomainBits * last));
}

// Closes the gap. If the bucket was full, entries may lie behind it only because it was: one of
// them moves in, and leaves a gap of its own. No markers are left, so probes never get longer with
// age.
void BlockIndex::take(Position at) {
  --size_;
  bool was_full = buckets_[at.bucket].is_full();
  vacate(at);
  std::uint64_t gap = at.bucket;
  for (std::uint64_t next = after(gap); was_full; next = after(next)) {
    const Bucket& bucket = buckets_[next];
    was_full = bucket.is_full();
    for (std::size_t way = 0; way < kWays && bucket.place[way] != 0; ++way) {
      const std::uint64_t at_home = home({bucket.high[way], bucket.low[way]}, pair_at(bucket, way));
      const bool stays =
          gap <= next ? (gap < at_home && at_home <= next) : (gap < at_home || at_home <= next);
      if (stays) continue;
      copy({next, way}, {gap, kWays - 1});
      vacate({next, way});
      gap = next;
      break;
    }
  }
}

bool BlockIndex::insert(const BlockKey& key, SlotIndex slot) {
  TERRACE_CHECK(slot.value() < capacity_);
  const std::uint64_t at_home = home(key.hash, pair_of(key));
  const auto entry = wanted(key);
  if (entry && seek(at_home, *entry, false).way < kWays) return false;
  put(at_home, key, slot.value() + 1);
  return true;
}

bool BlockIndex::erase(const BlockKey& key) {
  const auto entry = wanted(key);
  if (!entry) return false;
  const Position at = seek(home(key.hash, entry->pair), *entry, false);
  if (at.way == kWays) return false;
  take(at);
  return true;
}

Home BlockIndex::insert_hidden(const BlockKey& key, SlotIndex slot) {
  TERRACE_CHECK(slot.value() < capacity_);
  const Home at_home = home_of(key);
  put(at_home.value(), key, (slot.value() + 1) | kHidden);
  return at_home;
}

bool BlockIndex::publish(Home home, SlotIndex slot) {
  const Position at = seek_slot(home, slot);
  if (at.way == kWays) return false;
  Bucket& bucket = buckets_[at.bucket];
  if ((bucket.place[at.way] & kHidden) == 0) return false;
  const Entry entry{
      {bucket.high[at.way], bucket.low[at.way]}, pair_at(bucket, at.way), bucket.domain(at.way)};
  if (seek(home.value(), entry, false).way < kWays) return false;
  bucket.place[at.way] &= ~kHidden;
  return true;
}

bool BlockIndex::erase(Home home, SlotIndex slot) {
  const Position at = seek_slot(home, slot);
  if (at.way == kWays) return false;
  take(at);
  return true;
}

std::optional<BlockKey> BlockIndex::key_of(Home home, SlotIndex slot) const {
  const Position at = seek_slot(home, slot);
  if (at.way == kWays) return std::nullopt;
  const Bucket& bucket = buckets_[at.bucket];
  const std::uint32_t pair = pair_at(bucket, at.way);
  return BlockKey{NamespaceId(static_cast<std::uint16_t>(pair >> 16U)),
                  GroupId(static_cast<std::uint16_t>(pair)),
                  {bucket.high[at.way], bucket.low[at.way]}};
}

std::optional<SlotIndex> BlockIndex::find(const BlockKey& key) const {
  const auto entry = wanted(key);
  if (!entry) return std::nullopt;
  const Position at = seek(home(key.hash, entry->pair), *entry, false);
  if (at.way == kWays) return std::nullopt;
  return SlotIndex(buckets_[at.bucket].place[at.way] - 1);
}

bool BlockIndex::has_hidden(const BlockKey& key) const {
  const auto entry = wanted(key);
  return entry && seek(home(key.hash, entry->pair), *entry, true).way < kWays;
}

// One bucket without a branch: the place if a visible entry of a numbered pair is plain to see; 0 =
// look closer.
inline std::uint32_t BlockIndex::glance(const Bucket& bucket, const SequenceHash& hash,
                                        std::uint32_t domain) {
  const std::uint64_t way = static_cast<std::uint64_t>(bucket.low[1] == hash.low) |
                            static_cast<std::uint64_t>(bucket.low[2] == hash.low) << 1U;
  const std::uint64_t safe = opaque(way - (way >> 1U & way));  // 3 = two are equal: the second.
  const std::uint32_t place = bucket.place[safe];
  const std::uint64_t differs = (bucket.low[safe] ^ hash.low) | (bucket.high[safe] ^ hash.high) |
                                ((bucket.domains >> (kDomainBits * safe) ^ domain) & kWideDomain) |
                                (place & kHidden) |
                                static_cast<std::uint64_t>(domain == kWideDomain);
  const std::uint64_t equals = opaque(static_cast<std::uint64_t>(differs == 0));
  return place & (0U - static_cast<std::uint32_t>(equals));
}

// Looks for the `pending` hashes in the buckets behind their homes; keeps those that it does not
// find in front of `pending` and returns how many.
std::size_t BlockIndex::glance_behind(std::span<const SequenceHash> hashes, std::uint32_t domain,
                                      std::span<const std::uint32_t> homes,
                                      std::span<std::uint16_t> pending,
                                      std::span<std::uint32_t> places) const {
  std::size_t left = pending.size();
  for (unsigned behind = 1; behind <= kGlances; ++behind) {
    const std::size_t pendings = std::exchange(left, 0);
    for (std::size_t p = 0; p < pendings; ++p) {
      const std::size_t i = pending[p];
      std::uint64_t bucket = homes[i] + std::uint64_t{behind};
      if (bucket >= buckets_.size()) bucket %= buckets_.size();
      places[i] = glance(buckets_[bucket], hashes[i], domain);
      pending[left] = pending[p];
      const std::uint64_t is_pending = opaque(static_cast<std::uint64_t>(places[i] == 0));
      __builtin_prefetch(buckets_.data() + bucket + is_pending);
      left += is_pending;
    }
  }
  return left;
}

std::size_t BlockIndex::match_window(std::span<const SequenceHash> hashes,
                                     std::span<const SequenceHash> next, std::uint32_t pair,
                                     std::uint32_t domain, std::span<std::uint32_t> places) const {
  std::array<std::uint32_t, kWindow> probes;
  std::array<std::uint16_t, kWindow> pending;
  std::size_t started = 0;
  const auto start = [&] {
    probes[started] = static_cast<std::uint32_t>(home(hashes[started], pair));
    __builtin_prefetch(buckets_.data() + probes[started]);
    ++started;
  };
  while (started < std::min(kAhead, hashes.size())) start();
  std::size_t pendings = 0;
  for (std::size_t i = 0; i < hashes.size(); ++i) {
    if (started < hashes.size()) start();
    places[i] = glance(buckets_[probes[i]], hashes[i], domain);
    pending[pendings] = static_cast<std::uint16_t>(i);
    const std::uint64_t is_pending = opaque(static_cast<std::uint64_t>(places[i] == 0));
    pendings += is_pending;
    __builtin_prefetch(buckets_.data() + probes[i] + is_pending);
  }
  // The first homes of the next window are on their way while the stragglers of this one are looked
  // for, if the run may well get there.
  if (pendings <= hashes.size() / 2) {
    for (const SequenceHash& hash : next.first(std::min(kAhead, next.size()))) {
      __builtin_prefetch(buckets_.data() + home(hash, pair));
    }
  }
  pendings = glance_behind(hashes, domain, probes, std::span(pending).first(pendings), places);
  // Each round looks closer at what is left and asks for the bucket after it.
  std::size_t length = hashes.size();
  while (pendings > 0) {
    std::size_t left = 0;
    for (std::size_t p = 0; p < pendings && pending[p] < length; ++p) {
      const std::size_t i = pending[p];
      const Bucket& bucket = buckets_[probes[i]];
      const std::size_t way = way_of(bucket, {hashes[i], pair, domain}, false);
      if (way < kWays) {
        places[i] = bucket.place[way];
      } else if (!bucket.is_full()) {
        length = i;
      } else {
        probes[i] = static_cast<std::uint32_t>(after(probes[i]));
        __builtin_prefetch(buckets_.data() + probes[i]);
        pending[left++] = pending[p];
      }
    }
    pendings = left;
  }
  return length;
}

void BlockIndex::find_each(NamespaceId name_space, GroupId group,
                           std::span<const SequenceHash> hashes,
                           std::span<std::optional<SlotIndex>> slots) const {
  TERRACE_CHECK(slots.size() == hashes.size());
  const std::uint32_t pair = pair_of(name_space, group);
  const std::uint32_t domain = domains_->find(pair);
  std::ranges::fill(slots, std::nullopt);
  if (domain == 0) return;
  const auto prefetch_home = [&](std::size_t i) {
    if (i < hashes.size()) __builtin_prefetch(buckets_.data() + home(hashes[i], pair));
  };
  for (std::size_t i = 0; i < kAhead; ++i) prefetch_home(i);
  for (std::size_t i = 0; i < hashes.size(); ++i) {
    prefetch_home(i + kAhead);
    const Position at = seek(home(hashes[i], pair), {hashes[i], pair, domain}, false);
    if (at.way < kWays) slots[i] = SlotIndex(buckets_[at.bucket].place[at.way] - 1);
  }
}

std::size_t BlockIndex::match(NamespaceId name_space, GroupId group,
                              std::span<const SequenceHash> hashes,
                              std::span<SlotIndex> slots) const {
  TERRACE_CHECK(slots.empty() || slots.size() >= hashes.size());
  const std::uint32_t pair = pair_of(name_space, group);
  const std::uint32_t domain = domains_->find(pair);
  if (domain == 0) return 0;
  std::array<std::uint32_t, kWindow> places;
  std::size_t done = 0;
  for (std::size_t window = kFirstWindow; done < hashes.size(); window = kWindow) {
    const auto part = hashes.subspan(done, std::min(window, hashes.size() - done));
    const auto next = hashes.subspan(done + part.size());
    const std::size_t length = match_window(part, next, pair, domain, places);
    for (std::size_t i = 0; i < length && !slots.empty(); ++i) {
      slots[done + i] = SlotIndex(places[i] - 1);
    }
    done += length;
    if (length < part.size()) break;
  }
  return done;
}

}  // namespace terrace::index
