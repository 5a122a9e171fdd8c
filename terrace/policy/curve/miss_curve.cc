#include "terrace/policy/curve/miss_curve.h"

#include <algorithm>
#include <bit>

namespace terrace::policy {

namespace {
constexpr double kLeastAge = 100'000;
}  // namespace

Result<MissCurve> MissCurve::create(const Options& options) {
  if (options.most_blocks == 0 || options.followed == 0) {
    return fail(Code::kInvalid, "a miss-ratio curve of no blocks");
  }
  Options own = options;
  own.followed =
      static_cast<std::uint32_t>(std::min<std::uint64_t>(options.followed, options.most_blocks));
  std::vector<UseOrder> levels;
  std::uint64_t reach = own.followed;
  do {
    TERRACE_ASSIGN_OR_RETURN(auto level, UseOrder::create(own.followed));
    levels.push_back(std::move(level));
    reach <<= kStepBits;
  } while (reach >> kStepBits < own.most_blocks);
  return MissCurve(own, std::move(levels));
}

MissCurve::MissCurve(const Options& options, std::vector<UseOrder> levels)
    : followed_(options.followed),
      ages_at_(std::max(kLeastAge,
                        2 * static_cast<double>(options.aging_blocks > 0 ? options.aging_blocks
                                                                         : options.most_blocks))),
      levels_(std::move(levels)),
      counts_(levels_.size()) {}

std::size_t MissCurve::levels_of(const SequenceHash& hash) const {
  const auto zeros = static_cast<std::size_t>(std::countl_zero(hash.high));
  return std::min(levels_.size(), 1 + zeros / kStepBits);
}

// All of a chain are looked for before any is used: its own blocks do not push each other out.
void MissCurve::look_for(std::span<const SequenceHash> blocks) {
  for (const SequenceHash& hash : blocks) note(hash);
  asked_ += static_cast<double>(blocks.size());
  if (asked_ >= ages_at_) age();
}

void MissCurve::use(std::span<const SequenceHash> blocks) {
  for (auto hash = blocks.rbegin(); hash != blocks.rend(); ++hash) {
    const std::size_t count = levels_of(*hash);
    for (std::size_t level = 0; level < count; ++level) levels_[level].use(*hash);
  }
}

void MissCurve::refresh(std::span<const SequenceHash> blocks) {
  for (auto hash = blocks.rbegin(); hash != blocks.rend(); ++hash) {
    const std::size_t count = levels_of(*hash);
    for (std::size_t level = 0; level < count; ++level) {
      if (levels_[level].newer_than(*hash)) levels_[level].use(*hash);
    }
  }
}

// By the nearest level that knows it: the next one knows it less exactly.
void MissCurve::note(const SequenceHash& hash) {
  const std::size_t count = levels_of(hash);
  std::uint64_t nearest = 1;  // A pool that would hold it is larger than the levels before reach.
  for (std::size_t level = 0; level < count; ++level) {
    const unsigned shift = kStepBits * static_cast<unsigned>(level);
    counts_[level].looked_for += 1;
    if (const auto newer = levels_[level].newer_than(hash)) {
      const std::uint64_t distance = (std::uint64_t{*newer} << shift) + 1;
      counts_[level].cells[cell_of(std::max(distance, nearest))] += 1;
      return;
    }
    nearest = (std::uint64_t{followed_} << shift) + 1;
  }
}

void MissCurve::age() {
  ++halvings_;
  asked_ /= 2;
  for (Counts& level : counts_) {
    level.looked_for /= 2;
    for (double& cell : level.cells) cell /= 2;
  }
}

double MissCurve::hit_ratio(std::uint64_t blocks) const {
  double hits = 0;
  double left = 1;  // Of all uses, those that lie in none of the levels before.
  std::uint64_t nearest = 1;
  for (std::size_t i = 0; i < counts_.size() && counts_[i].looked_for > 0; ++i) {
    const Counts& level = counts_[i];
    const std::uint64_t reach = std::uint64_t{followed_} << (kStepBits * i);
    double held = 0;
    double found = 0;
    for (unsigned cell = cell_of(nearest); cell <= cell_of(reach); ++cell) {
      found += level.cells[cell];
      const std::uint64_t first = first_of(cell);
      if (first > blocks) continue;
      const std::uint64_t width = first_of(cell + 1) - first;
      held += level.cells[cell] * static_cast<double>(std::min(width, blocks + 1 - first)) /
              static_cast<double>(width);
    }
    hits += left * held / level.looked_for;
    left *= 1 - std::min(1.0, found / level.looked_for);
    nearest = reach + 1;
  }
  return std::min(1.0, hits);
}

unsigned MissCurve::cell_of(std::uint64_t distance) {
  const auto octave = static_cast<unsigned>(std::bit_width(distance | 1));
  if (octave <= kFine + 1) return static_cast<unsigned>(distance);
  const unsigned shift = octave - kFine - 1;
  return std::min(static_cast<unsigned>(distance >> shift) + (shift << kFine), kCells - 1);
}

std::uint64_t MissCurve::first_of(unsigned cell) {
  if (cell < (2U << kFine)) return cell;
  const unsigned shift = (cell >> kFine) - 1;
  return static_cast<std::uint64_t>((cell & ((1U << kFine) - 1)) | (1U << kFine)) << shift;
}

Bytes MissCurve::memory() const {
  Bytes sum = Bytes(sizeof *this) + Bytes(counts_.capacity() * sizeof(Counts));
  for (const UseOrder& level : levels_) sum = sum + level.memory();
  return sum;
}

}  // namespace terrace::policy
