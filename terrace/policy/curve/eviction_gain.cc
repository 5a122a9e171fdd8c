#include "terrace/policy/curve/eviction_gain.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>

namespace terrace::policy {

namespace {

// Two standard errors, squared.
constexpr double kSure = 4;
constexpr unsigned kMostFirstBits = 3;
constexpr std::uint64_t kLeastSlots = 16;

}  // namespace

// An eighth of the blocks of the smallest size are chosen, or as many as sixteen slots hold. From
// there on slots double with every second size, up to the most there are: small pools need few, and
// all sizes together cost no more than four times the smallest.
Result<EvictionGain> EvictionGain::create(const Options& options) {
  if (options.most_blocks == 0 || options.least_blocks < 2 || options.slots == 0) {
    return fail(Code::kInvalid, "eviction gain of no blocks");
  }
  std::vector<Size> sizes;
  const std::uint64_t least = std::bit_floor(options.least_blocks);
  unsigned bits = 0;
  while (bits < kMostFirstBits && least >> bits > kLeastSlots) ++bits;
  for (std::uint64_t blocks = least;; blocks *= 2) {
    const bool is_third = !sizes.empty() && sizes.size() % 2 == 0;
    if (is_third) ++bits;
    while (blocks >> bits > options.slots) ++bits;
    const auto slots = static_cast<std::uint32_t>(blocks >> bits);
    TERRACE_ASSIGN_OR_RETURN(auto reference, GhostPool::create(slots, "lru", nullptr));
    TERRACE_ASSIGN_OR_RETURN(auto policy,
                             GhostPool::create(slots, options.eviction, options.returns));
    sizes.push_back({.blocks = blocks,
                     .bits = bits,
                     .reference = std::move(reference),
                     .policy = std::move(policy)});
    if (blocks >= options.most_blocks) break;
  }
  return EvictionGain(std::move(sizes));
}

void EvictionGain::begin(const Coming& coming) {
  coming_ = coming;
  met_ = 0;
}

void EvictionGain::add(std::span<const SequenceHash> blocks) {
  for (const SequenceHash& hash : blocks) {
    const auto zeros = static_cast<unsigned>(std::countr_zero(hash.low));
    for (std::size_t i = 0; i < sizes_.size() && sizes_[i].bits <= zeros; ++i) {
      for (GhostPool* pool : {&sizes_[i].reference, &sizes_[i].policy}) {
        if (i >= met_) pool->begin(coming_.at, coming_.is_stored);
        pool->add(hash);
      }
      met_ = std::max(met_, i + 1);
    }
  }
  if (coming_.is_asked) asked_ += static_cast<double>(blocks.size());
}

void EvictionGain::end(const Use& use) {
  for (std::size_t i = 0; i < met_; ++i) {
    Size& size = sizes_[i];
    const double held = size.reference.end(use);
    const double gained = size.policy.end(use) - held;
    if (!coming_.is_asked) continue;
    size.gained += gained;
    size.apart += std::abs(gained);
  }
  met_ = 0;
}

void EvictionGain::age() {
  asked_ /= 2;
  for (Size& size : sizes_) {
    size.gained /= 2;
    size.apart /= 2;
  }
}

// Of all that was asked for, not of the chosen blocks: whether those that all ask for are among
// them is chance, and both pools hit them. Chance in which blocks are chosen adds up as that of so
// many throws.
double EvictionGain::of(const Size& size) const {
  const double square = size.gained * size.gained;
  if (asked_ <= 0 || square <= kSure * size.apart) return 0;
  const double sure = 1 - kSure * size.apart / square;
  return sure * std::ldexp(size.gained, static_cast<int>(size.bits)) / asked_;
}

double EvictionGain::of(std::uint64_t blocks) const {
  const auto next = std::ranges::lower_bound(sizes_, blocks, {}, &Size::blocks);
  if (next == sizes_.end()) return of(sizes_.back());
  if (next == sizes_.begin()) {
    return of(*next) * static_cast<double>(blocks) / static_cast<double>(next->blocks);
  }
  const Size& before = *std::prev(next);
  const double part = std::log2(static_cast<double>(blocks) / static_cast<double>(before.blocks));
  return of(before) + part * (of(*next) - of(before));
}

Bytes EvictionGain::memory() const {
  Bytes sum = Bytes(sizeof *this) + Bytes(sizes_.capacity() * sizeof(Size));
  for (const Size& size : sizes_) sum = sum + size.reference.memory() + size.policy.memory();
  return sum;
}

HitRatio::HitRatio(const MissCurve& curve, const EvictionGain* gain)
    : curve_(curve),
      gain_(gain),
      most_(curve.hit_ratio(std::numeric_limits<std::uint64_t>::max())) {}

double HitRatio::operator()(std::uint64_t blocks) const {
  const double reference = curve_.hit_ratio(blocks);
  if (gain_ == nullptr) return reference;
  return std::clamp(reference + gain_->of(blocks), 0.0, most_);
}

}  // namespace terrace::policy
