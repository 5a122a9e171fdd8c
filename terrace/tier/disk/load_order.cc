#include <algorithm>
#include <bit>
#include <vector>

#include "terrace/tier/disk/load_order_internal.h"

namespace terrace::tier::disk {

namespace {
struct alignas(64) Spread {
  std::uint64_t low = UINT64_MAX;
  std::uint64_t high = 0;
  std::size_t count = 0;
};

Spread spread_of(std::span<const std::uint64_t> sequences, const Crew& crew) {
  std::vector<Spread> parts(crew.size);
  crew.run([&](std::size_t part) {
    Spread found;
    const std::size_t end = sequences.size() * (part + 1) / crew.size;
    for (std::size_t slot = sequences.size() * part / crew.size; slot < end; ++slot) {
      if (sequences[slot] == 0) continue;
      found.low = std::min(found.low, sequences[slot]);
      found.high = std::max(found.high, sequences[slot]);
      ++found.count;
    }
    parts[part] = found;
  });
  Spread all;
  for (const Spread& part : parts) {
    all.low = std::min(all.low, part.low);
    all.high = std::max(all.high, part.high);
    all.count += part.count;
  }
  return all;
}

// Sorts by buckets of equal width, about as many as there are blocks, so that a bucket holds few;
// each is then sorted by itself. Every part of the crew reads all sequences and has the buckets of
// its own.
class Buckets {
 public:
  Buckets(std::span<const std::uint64_t> sequences, const Spread& spread)
      : sequences_(sequences), low_(spread.low) {
    const auto wanted = std::bit_width(static_cast<std::uint64_t>(spread.count));
    const auto have = std::bit_width(spread.high - spread.low);
    shift_ = have > wanted ? static_cast<unsigned>(have - wanted) : 0;
    buckets_ = ((spread.high - spread.low) >> shift_) + 1;
  }
  [[nodiscard]] std::uint64_t size() const { return buckets_; }

  // ends[b] = blocks in bucket b. Returns how many there are in all of the part's.
  std::size_t count(std::size_t part, std::size_t parts, std::span<std::uint32_t> ends) const {
    std::size_t counted = 0;
    each_of(part, parts, [&](std::uint64_t bucket, std::uint32_t) {
      ++ends[bucket];
      ++counted;
    });
    return counted;
  }

  // The part's slots begin at order[start].
  void place(std::size_t part, std::size_t parts, std::size_t start, std::span<std::uint32_t> ends,
             std::span<SlotIndex> order) const {
    const auto own = ends.subspan(first(part, parts), first(part + 1, parts) - first(part, parts));
    auto at = static_cast<std::uint32_t>(start);
    for (std::uint32_t& end : own) at += std::exchange(end, at);
    // From here on ends[bucket] is where its next slot goes, and in the end where it ends.
    each_of(part, parts, [&](std::uint64_t bucket, std::uint32_t slot) {
      order[ends[bucket]++] = SlotIndex(slot);
    });
    auto begin = static_cast<std::uint32_t>(start);
    for (const std::uint32_t end : own) {
      if (end - begin > 1) {
        std::sort(order.begin() + begin, order.begin() + end, [&](SlotIndex a, SlotIndex b) {
          return std::pair(sequences_[a.value()], a) < std::pair(sequences_[b.value()], b);
        });
      }
      begin = end;
    }
  }

 private:
  [[nodiscard]] std::uint64_t first(std::size_t part, std::size_t parts) const {
    return buckets_ * part / parts;
  }
  template <typename Visit>
  void each_of(std::size_t part, std::size_t parts, const Visit& visit) const {
    const std::uint64_t begin = first(part, parts);
    const std::uint64_t width = first(part + 1, parts) - begin;
    for (std::uint32_t slot = 0; slot < sequences_.size(); ++slot) {
      if (sequences_[slot] == 0) continue;
      const std::uint64_t bucket = (sequences_[slot] - low_) >> shift_;
      if (bucket - begin < width) visit(bucket, slot);
    }
  }

  std::span<const std::uint64_t> sequences_;
  std::uint64_t low_;
  std::uint64_t buckets_ = 0;
  unsigned shift_ = 0;
};
}  // namespace

Result<LoadOrder> order_by_sequence(std::span<const std::uint64_t> sequences, const Crew& crew) {
  const Spread spread = spread_of(sequences, crew);
  TERRACE_ASSIGN_OR_RETURN(
      auto memory, index::ZeroedArray<SlotIndex>::create(std::max<std::size_t>(spread.count, 1)));
  LoadOrder order{std::move(memory), spread.count};
  if (spread.count == 0) return order;
  const Buckets buckets(sequences, spread);
  TERRACE_ASSIGN_OR_RETURN(auto ends, index::ZeroedArray<std::uint32_t>::create(buckets.size()));
  std::vector<std::size_t> counts(crew.size);
  crew.run([&](std::size_t part) { counts[part] = buckets.count(part, crew.size, ends.all()); });
  crew.run([&](std::size_t part) {
    std::size_t start = 0;
    for (std::size_t i = 0; i < part; ++i) start += counts[i];
    buckets.place(part, crew.size, start, ends.all(), order.memory.all());
  });
  return order;
}

}  // namespace terrace::tier::disk
