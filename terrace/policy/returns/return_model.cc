#include "terrace/policy/returns/return_model.h"

#include <algorithm>
#include <bit>
#include <cmath>

namespace terrace::policy {

namespace {

// What a class takes from its parent weighs as much as so many requests of its own, at least and
// at first. That guess weighs as much as a class of two hundred of which half returned.
constexpr double kLeastLean = 40;
constexpr double kGuessWhole = 10'000;
// The root before anything is known: a return in a thousand for each bucket, as if seen once in
// two. Buckets widen, so what was used longest ago is worth least.
constexpr float kFirstReturns = 0.0005F;
constexpr float kFirstAtRisk = 0.5F;
constexpr float kMostHazard = 0.999F;
constexpr std::size_t kMostLookedAt = 4096;
constexpr std::size_t kJudgedAtOnce = 4;

enum Level : std::uint32_t { kTurn = 1, kGap, kSize, kEnding, kAnswer, kPromise };
constexpr std::uint32_t kMostEnding = kEndingCount - 1;

constexpr std::uint32_t part(Level level, std::uint64_t value, std::uint32_t most) {
  return (level << 8U) | static_cast<std::uint32_t>(std::min<std::uint64_t>(value, most));
}

std::uint32_t seconds_of(Nanoseconds time) {
  return static_cast<std::uint32_t>(std::max<std::int64_t>(time.value(), 0) / 1'000'000'000);
}

// Steps of four.
std::uint64_t size_step(std::uint64_t blocks) {
  return static_cast<std::uint64_t>(std::bit_width(blocks + 1) - 1) / 2;
}

std::uint64_t gap_step(std::uint32_t seconds) { return size_step(seconds); }

// To 2^3 tokens, and from there in steps of 2^1.5.
std::uint64_t answer_step(std::uint64_t tokens) {
  if (tokens < 8) return 0;
  return static_cast<std::uint64_t>(std::log2(static_cast<double>(tokens)) / 1.5) - 1;
}

// Some time ahead: how likely the return is within it, and how much of it passes until then, on
// average.
struct Stretch {
  float time = 0;  // Seconds.
  float gain = 0;
  [[nodiscard]] bool is_better_than(const Stretch& other) const {
    return gain * other.time > other.gain * time;
  }
  [[nodiscard]] Stretch then(const Stretch& next) const {
    const float stays = 1 - gain;
    return {.time = time + stays * next.time, .gain = gain + stays * next.gain};
  }
};

// Where bucket `k` begins: ages in seconds.
double edge(std::size_t k) { return k == 0 ? 0 : std::exp2(static_cast<double>(k - 1) / 2); }

}  // namespace

Result<std::shared_ptr<ReturnModel>> ReturnModel::create() {
  TERRACE_ASSIGN_OR_RETURN(auto anchors, Anchors::create());
  return std::shared_ptr<ReturnModel>(new ReturnModel(std::make_unique<Class[]>(kMostClasses),
                                                      std::move(anchors),
                                                      std::vector<Left>(kMostRequests)));
}

ReturnModel::ReturnModel(std::unique_ptr<Class[]> classes, Anchors anchors, std::vector<Left> left)
    : classes_(std::move(classes)),
      children_(2 * kMostClasses),
      anchors_(std::move(anchors)),
      left_(std::move(left)) {
  judge(0);
  // Others must not take their room: who promises later would not be believed.
  for (Promise promise = kPromiseNothing + 1; promise < kPromiseCount; ++promise) {
    (void)class_of(0, part(kPromise, promise, kPromiseCount));
  }
}

// The parent itself when there is no room for more.
std::uint16_t ReturnModel::class_of(std::uint16_t parent, std::uint32_t part) {
  const std::size_t cells = children_.size();
  for (std::size_t at = (parent * 0x9E37U + part * 0x85EBU) % cells;; at = (at + 1) % cells) {
    const std::uint16_t child = children_[at];
    if (child != 0) {
      const Class& known = classes_[child - 1];
      if (known.parent == parent && known.name == part)
        return static_cast<std::uint16_t>(child - 1);
      continue;
    }
    const bool is_promised = classes_[parent].is_promised || part >> 8U == kPromise;
    // Whatever is promised, half of the classes are left for those who promise nothing.
    if (used_ == kMostClasses || (is_promised && promised_ == kMostPromised)) return parent;
    children_[at] = static_cast<std::uint16_t>(used_ + 1);
    Class& made = classes_[used_];
    made.name = part;
    made.parent = parent;
    made.is_promised = is_promised;
    if (is_promised) ++promised_;
    made.hazard = classes_[parent].hazard;
    for (std::size_t k = 0; k < kBuckets; ++k) {
      worths_[used_].of[k].store(worths_[parent].of[k].load(std::memory_order_relaxed),
                                 std::memory_order_relaxed);
    }
    return static_cast<std::uint16_t>(used_++);
  }
}

void ReturnModel::count(std::uint16_t of, std::size_t bucket,
                        std::array<float, kBuckets> Class::* where) {
  for (;; of = classes_[of].parent) {
    (classes_[of].*where)[bucket] += 1;
    if (of == 0) return;
  }
}

// Those that did not return meanwhile enter the next bucket.
void ReturnModel::advance(std::uint32_t now) {
  static const auto ages = [] {
    std::array<std::uint32_t, kBuckets> all{};
    for (std::size_t k = 0; k < kBuckets; ++k) {
      all[k] = static_cast<std::uint32_t>(std::ceil(edge(k)));
    }
    return all;
  }();
  for (std::size_t k = 0; k < kBuckets; ++k) {
    std::uint32_t& next = aged_[k];
    if (next_ - next > kMostRequests) next = next_ - kMostRequests;
    for (; next != next_ && now - left(next).at >= ages[k] && now >= left(next).at; ++next) {
      if (!left(next).has_returned) count(left(next).of, k, &Class::at_risk);
    }
  }
}

ReturnModel::Left* ReturnModel::recall(std::optional<std::uint32_t> number) {
  if (!number || next_ - *number > kMostRequests || next_ == *number) return nullptr;
  return &left(*number);
}

Visit ReturnModel::arrive(std::span<const SequenceHash> chain, Nanoseconds now,
                          const Hints& hints) {
  const std::uint32_t second = seconds_of(now);
  advance(second);
  const Left* before = nullptr;
  const auto age_of = [&](const Left& one) { return second - std::min(second, one.at); };
  const auto tail = chain.last(std::min(chain.size(), kMostLookedAt));
  for (std::size_t i = tail.size(); i-- > 0;) {
    Left* const found = recall(anchors_.find(tail[i]));
    if (found == nullptr) continue;
    if (found->has_returned) break;  // Somebody else went on there: this one begins anew.
    count(found->of, bucket_of(age_of(*found)), &Class::returns);
    found->has_returned = true;
    before = found;
    break;
  }
  // No return: what was kept for it is not asked for.
  if (before == nullptr && hints.session) before = recall(anchors_.find(*hints.session));
  Visit visit{.turn = 1};
  std::uint64_t gap = 0;
  if (before != nullptr) {
    visit.turn = before->turn + 1U;
    gap = 1 + std::min<std::uint64_t>(gap_step(age_of(*before)), 5);
  }
  visit.gap = static_cast<std::uint8_t>(gap);
  visit.size = static_cast<std::uint8_t>(std::min<std::uint64_t>(size_step(chain.size()), 6));
  visit.of = ReturnClass(arrived(0, visit));
  return visit;
}

std::uint16_t ReturnModel::arrived(std::uint16_t parent, const Visit& visit) {
  const std::uint16_t of =
      class_of(class_of(parent, part(kTurn, visit.turn, 5)), part(kGap, visit.gap, 6));
  return class_of(of, part(kSize, visit.size, 6));
}

ReturnClass ReturnModel::leave(const Visit& visit, std::span<const SequenceHash> chain,
                               std::size_t prompt, std::uint64_t answer_tokens, Ending ending,
                               Nanoseconds now, const Hints& hints) {
  const std::uint32_t second = seconds_of(now);
  const Promise promise = promise_of(hints);
  const std::uint32_t ended = part(kEnding, static_cast<std::uint32_t>(ending), kMostEnding);
  std::uint16_t of = visit.of.value();
  if (promise != kPromiseNothing) {
    of = arrived(class_of(0, part(kPromise, promise, kPromiseCount)), visit);
  }
  of = class_of(class_of(of, ended), part(kAnswer, answer_step(answer_tokens), 5));
  if (chain.empty()) return ReturnClass(of);
  advance(second);
  // Not at the last block, which the next turn may fill with other tokens; nor only in the answer,
  // which a chat template may leave out of it.
  const auto anchor = [&](std::size_t blocks) {
    if (blocks > 0) anchors_.set(chain[blocks - std::min<std::size_t>(blocks, 2)], next_);
  };
  anchor(std::min(prompt, chain.size()));
  anchor(chain.size());
  if (hints.session) anchors_.set(*hints.session, next_);
  left(next_) = {
      .at = second, .of = of, .turn = static_cast<std::uint8_t>(std::min(visit.turn, 255U))};
  ++next_;
  constexpr std::uint32_t kDecayEvery = kMostRequests / 8;
  if (next_ % kDecayEvery == 0) decay();
  judge_some(of);
  return ReturnClass(of);
}

// Half of what was counted one whole log of requests ago.
void ReturnModel::decay() {
  const float kept = std::exp2(-1.0F / 8);
  for (std::size_t of = 0; of < used_; ++of) {
    for (float& value : classes_[of].returns) value *= kept;
    for (float& value : classes_[of].at_risk) value *= kept;
  }
}

// The path of a class whose counts have just changed, and a few others in turn.
void ReturnModel::judge_some(std::uint16_t of) {
  std::array<std::uint16_t, 7> path{};
  std::size_t length = 0;
  for (; of != 0 && length < path.size(); of = classes_[of].parent) path[length++] = of;
  judge(0);
  while (length > 0) judge(path[--length]);
  for (std::size_t i = 0; i < kJudgedAtOnce; ++i) {
    turn_ = (turn_ + 1) % used_;
    judge(turn_);
  }
}

void ReturnModel::judge(std::size_t of) {
  Class& own = classes_[of];
  if (of == 0) {
    judge_root();
  } else {
    lean_on(classes_[own.parent], own);
  }
  weigh(of);
}

void ReturnModel::judge_root() {
  Class& root = classes_[0];
  for (std::size_t k = 0; k < kBuckets; ++k) {
    root.hazard[k] =
        std::min(kMostHazard, (root.returns[k] + kFirstReturns) / (root.at_risk[k] + kFirstAtRisk));
  }
}

// A variance among classes, in parts of the most there can be, is to chance within one as a request
// is to what leaning weighs. Where classes of a level do not differ, what they seem to know is
// noise, which would put blocks out of the order of their ages.
void ReturnModel::lean_on(const Class& parent, Class& own) {
  Spread& level = spreads_[std::min<std::size_t>(own.name >> 8U, kLevels - 1)];
  level.found -= own.spread.found;
  level.whole -= own.spread.whole;
  own.spread = {};
  std::array<float, kBuckets> found;
  std::array<float, kBuckets> whole;
  for (std::size_t k = 0; k < kBuckets; ++k) {
    const float expected = own.at_risk[k] * parent.hazard[k];
    const float chance = expected * (1 - parent.hazard[k]);
    const float off = own.returns[k] - expected;
    found[k] = off * off - chance;
    whole[k] = own.at_risk[k] * chance;
  }
  for (std::size_t k = 0; k < kBuckets; ++k) {
    own.spread.found += found[k];
    own.spread.whole += whole[k];
  }
  level.found += own.spread.found;
  level.whole += own.spread.whole;
  const double spread = std::max(0.0, level.found) + kGuessWhole / kLeastLean;
  const auto lean = static_cast<float>(std::max(kLeastLean, (level.whole + kGuessWhole) / spread));
  for (std::size_t k = 0; k < kBuckets; ++k) {
    own.hazard[k] =
        std::min(kMostHazard, (own.returns[k] + lean * parent.hazard[k]) / (own.at_risk[k] + lean));
  }
}

// From the last bucket to the first, in one pass: `ahead` holds what lies between a bucket's end
// and the last horizon as stretches, the nearest on top, each worth no more than the one before it.
// The best horizon lies at the end of a stretch: beyond it, waiting brings less than it has until
// then.
void ReturnModel::weigh(std::size_t of) {
  static const auto widths = [] {
    std::array<float, kBuckets> all{};
    for (std::size_t k = 0; k < kBuckets; ++k) all[k] = static_cast<float>(edge(k + 1) - edge(k));
    return all;
  }();
  const auto& hazard = classes_[of].hazard;
  // A block is half way through its bucket, on average. Four buckets at once, as roots take long.
  std::array<Stretch, kBuckets> halves;
  std::array<Stretch, kBuckets> wholes;
  for (std::size_t k = 0; k < kBuckets; ++k) {
    const float half = 1 - std::sqrt(1 - hazard[k]);
    halves[k] = {.time = widths[k] / 2 * (1 - half / 2), .gain = half};
    wholes[k] = {.time = widths[k] * (1 - hazard[k] / 2), .gain = hazard[k]};
  }
  std::array<Stretch, kBuckets> ahead;
  std::size_t height = 0;
  for (std::size_t k = kBuckets; k-- > 0;) {
    Stretch best = halves[k];
    for (std::size_t at = height; at > 0 && ahead[at - 1].is_better_than(best); --at) {
      best = best.then(ahead[at - 1]);
    }
    worths_[of].of[k].store(best.gain / best.time, std::memory_order_relaxed);
    Stretch whole = wholes[k];
    for (; height > 0 && ahead[height - 1].is_better_than(whole); --height) {
      whole = whole.then(ahead[height - 1]);
    }
    ahead[height++] = whole;
  }
}

Bytes ReturnModel::memory() const {
  return Bytes(kMostClasses * (sizeof(Class) + sizeof(Worths)) +
               children_.size() * sizeof(children_[0]) + left_.size() * sizeof(left_[0])) +
         anchors_.memory();
}

}  // namespace terrace::policy
