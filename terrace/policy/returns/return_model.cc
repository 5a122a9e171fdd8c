#include "terrace/policy/returns/return_model.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <utility>

namespace terrace::policy {

namespace {

// What a class takes from its parent weighs as much as so many requests of its own, at least.
constexpr double kLeastLean = 40;
// The root before anything is known: a return in a thousand for each bucket, as if seen once in
// two. Buckets widen, so what was used longest ago is worth least.
constexpr double kFirstReturns = 0.0005;
constexpr double kFirstAtRisk = 0.5;
constexpr float kMostHazard = 0.999F;
constexpr float kLeastAtRisk = 1e-9F;
// What is not chance's: more than so many of its standard errors, as it is looked at again with
// each request, at many ages and levels. A few counts go further, as theirs is no bell: so much is
// added to their variance.
constexpr double kSureErrors = 3.5;
constexpr double kOfFewCounts = 9;
constexpr std::size_t kMostLookedAt = 4096;
constexpr std::size_t kJudgedAtOnce = ClassTree::kMost / ClassTree::kFadeEvery;
constexpr std::uint32_t kRootEvery = 4;
constexpr std::uint32_t kMostNew = 256;
// Where places are few, what has seen fewer itself is not told apart further.
constexpr float kLeastToPart = 8;

constexpr std::uint64_t kMostTick = (std::uint64_t{1} << 40U) - 1;  // 500 years.
constexpr std::uint32_t kMostTurn = 127;
constexpr std::uint32_t kMostEnding = kEndingCount - 1;

constexpr Trait trait(Level level, std::uint64_t value, std::uint32_t most) {
  return {level, static_cast<std::uint8_t>(std::min<std::uint64_t>(value, most))};
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
  float time = 0;  // Ticks.
  float gain = 0;
  [[nodiscard]] bool is_better_than(const Stretch& other) const {
    return gain * other.time > other.gain * time;
  }
  [[nodiscard]] Stretch then(const Stretch& next) const {
    const float stays = 1 - gain;
    return {.time = time + stays * next.time, .gain = gain + stays * next.gain};
  }
};

// Where bucket `k` begins: ages in ticks.
double edge(std::size_t k, unsigned octaves_of_first) {
  return k == 0 ? 0 : std::exp2(static_cast<double>(k - 1) / 2 + octaves_of_first);
}

template <std::size_t kCount, unsigned kOctavesOfFirst>
std::array<float, kCount> widths_of() {
  const auto at = [](std::size_t k) { return edge(k, kOctavesOfFirst); };
  std::array<float, kCount> all{};
  for (std::size_t k = 0; k < kCount; ++k) all[k] = static_cast<float>(at(k + 1) - at(k));
  return all;
}

// How much of what is `off` from what was expected is to be believed: none where it may be
// chance's, of that variance, and all where chance is far from it. Source: James and Stein,
// Estimation with quadratic loss, 1961 (the form).
double sure_part(double off, double variance) {
  if (off <= 0) return 0;
  return std::max(0.0, 1 - kSureErrors * kSureErrors * (variance + kOfFewCounts) / (off * off));
}

// Returns seen in so many ticks of waiting, of all that waited.
struct Rate {
  double returns = 0;
  double waited = 0;
  std::size_t first = 0;  // Bucket.
  [[nodiscard]] double value() const { return returns / waited; }
  // By which more of both returns than chance lets expect came in this part of the time.
  [[nodiscard]] bool is_surely_above(const Rate& before) const {
    const double all = returns + before.returns;
    const double share = waited / (waited + before.waited);
    return sure_part(returns - all * share, all * share * (1 - share)) > 0;
  }
};

}  // namespace

Result<std::shared_ptr<ReturnModel>> ReturnModel::create() {
  TERRACE_ASSIGN_OR_RETURN(auto anchors, Anchors::create());
  return std::shared_ptr<ReturnModel>(new ReturnModel(std::make_unique<Class[]>(kMostClasses),
                                                      std::move(anchors),
                                                      std::vector<Left>(kMostRequests)));
}

ReturnModel::ReturnModel(std::unique_ptr<Class[]> classes, Anchors anchors, std::vector<Left> left)
    : classes_(std::move(classes)), anchors_(std::move(anchors)), left_(std::move(left)) {
  judge(ClassTree::kRoot);
  // Others must not take their room: who promises later would not be believed.
  for (Promise promise = kPromiseNothing + 1; promise < kPromiseCount; ++promise) {
    (void)class_of(ClassTree::kRoot, trait(Level::kPromise, promise, kPromiseCount), false);
  }
}

ReturnModel::Place ReturnModel::class_of(Place parent, Trait trait, bool may_replace) {
  if (const auto known = tree_.find(parent, trait)) return *known;
  const ClassTree::Moment moment{.request = next_,
                                 .second = static_cast<std::uint32_t>(now_ / kTicksPerSecond)};
  auto place = tree_.vacant(parent, trait);
  if (!place && may_replace && classes_[parent].at_risk[0] >= kLeastToPart) {
    place = tree_.least_used(parent, trait, moment);
    if (place) classes_[*place] = {};
  }
  if (!place) return parent;
  tree_.begin(*place, parent, trait, moment);
  classes_[*place].hazard = classes_[parent].hazard;
  tell(*place);
  return *place;
}

void ReturnModel::count(ReturnClass of, std::size_t bucket, ByAge Class::* where) {
  for (Place place = tree_.place_of(of);; place = tree_.parent(place)) {
    (classes_[place].*where)[bucket] += 1;
    if (place == ClassTree::kRoot) return;
  }
}

// Those that did not return meanwhile enter the next bucket. Within one tick only the youngest do:
// all others had their turn in it, unless the clock stepped back, and have it in the next.
void ReturnModel::advance(std::uint64_t now) {
  const std::size_t end = now == now_ ? 1 : kBuckets;
  now_ = now;
  static const auto first = [] {
    std::array<std::uint32_t, kBuckets> all{};
    for (std::size_t k = 0; k < kBuckets; ++k) {
      all[k] = static_cast<std::uint32_t>(std::ceil(edge(k, kOctavesOfFirst)));
    }
    return all;
  }();
  for (std::size_t k = 0; k < end; ++k) {
    std::uint32_t& next = aged_[k];
    if (next_ - next > kMostRequests) next = next_ - kMostRequests;
    for (; next != next_ && now - left(next).at >= first[k] && now >= left(next).at; ++next) {
      if (left(next).has_returned == 0) count(left(next).of(), k, &Class::at_risk);
    }
  }
}

ReturnModel::Left* ReturnModel::recall(std::optional<std::uint32_t> number) {
  if (!number || next_ - *number > kMostRequests || next_ == *number) return nullptr;
  return &left(*number);
}

Visit ReturnModel::arrive(std::span<const SequenceHash> chain, Nanoseconds now,
                          const Hints& hints) {
  const std::uint64_t tick = ticks_of(now);
  advance(tick);
  Visit visit{.turn = 1};
  const auto age_of = [&](const Left& one) {
    const std::uint64_t age = tick - std::min<std::uint64_t>(tick, one.at);
    return static_cast<std::uint32_t>(std::min<std::uint64_t>(age, UINT32_MAX));
  };
  const auto tail = chain.last(std::min(chain.size(), kMostLookedAt));
  for (std::size_t i = tail.size(); i-- > 0;) {
    const auto number = anchors_.find(tail[i]);
    Left* const found = recall(number);
    if (found == nullptr) continue;
    if (found->has_returned != 0) break;  // Somebody else went on there: this one begins anew.
    count(found->of(), bucket_of(age_of(*found)), &Class::returns);
    found->has_returned = 1;
    visit.before = number;
    break;
  }
  // No return: what was kept for it is not asked for.
  if (!visit.before && hints.session) visit.before = anchors_.find(*hints.session);
  std::uint64_t gap = 0;
  if (const Left* const before = recall(visit.before)) {
    visit.turn = before->turn + 1U;
    gap = 1 + std::min<std::uint64_t>(gap_step(age_of(*before) / kTicksPerSecond), 5);
  }
  visit.gap = static_cast<std::uint8_t>(gap);
  visit.size = static_cast<std::uint8_t>(std::min<std::uint64_t>(size_step(chain.size()), 6));
  visit.of = tree_.class_at(arrived(ClassTree::kRoot, visit, false));
  return visit;
}

ReturnModel::Place ReturnModel::arrived(Place parent, const Visit& visit, bool may_replace) {
  Place place = class_of(parent, trait(Level::kTurn, visit.turn, 5), may_replace);
  place = class_of(place, trait(Level::kGap, visit.gap, 6), may_replace);
  return class_of(place, trait(Level::kSize, visit.size, 6), may_replace);
}

ReturnClass ReturnModel::leave(const Visit& visit, std::span<const SequenceHash> chain,
                               std::size_t prompt, std::uint64_t answer_tokens, Ending ending,
                               Nanoseconds now, const Hints& hints) {
  const std::uint64_t tick = ticks_of(now);
  advance(tick);
  const Promise promise = promise_of(hints);
  // Not from what it arrived as: that may have gone meanwhile.
  Place place = ClassTree::kRoot;
  if (promise != kPromiseNothing) {
    place = class_of(place, trait(Level::kPromise, promise, kPromiseCount), true);
  }
  place = arrived(place, visit, true);
  place =
      class_of(place, trait(Level::kEnding, static_cast<std::uint64_t>(ending), kMostEnding), true);
  place = class_of(place, trait(Level::kAnswer, answer_step(answer_tokens), 5), true);
  const ReturnClass of = tree_.class_at(place);
  if (chain.empty()) return of;
  set_anchor(visit, chain.first(std::min(prompt, chain.size())));
  set_anchor(visit, chain);
  if (hints.session) anchors_.set(*hints.session, next_);
  left(next_) = {.at = tick & kMostTick,
                 .class_bits = of.value(),
                 .turn = std::min(visit.turn, kMostTurn) & kMostTurn};
  ++next_;
  constexpr std::uint32_t kDecayEvery = kMostRequests / 8;
  if (next_ % kDecayEvery == 0) decay();
  judge_some(place);
  return of;
}

// Not at the last block, which the next turn may fill with other tokens; nor only in the answer,
// which a chat template may leave out of it. But where another begins alike and has ended at the
// block before the last, whoever goes on from there need not be this one's: it is what all share.
void ReturnModel::set_anchor(const Visit& visit, std::span<const SequenceHash> chain) {
  if (chain.empty()) return;
  const SequenceHash& last_but_one = chain[chain.size() - std::min<std::size_t>(chain.size(), 2)];
  const auto there = anchors_.find(last_but_one);
  const bool is_shared = recall(there) != nullptr && there != visit.before && there != next_;
  anchors_.set(is_shared ? chain.back() : last_but_one, next_);
}

// Half of what was counted one whole log of requests ago.
void ReturnModel::decay() {
  const float kept = std::exp2(-1.0F / 8);
  for (std::size_t of = 0; of < tree_.size(); ++of) {
    for (float& value : classes_[of].returns) value *= kept;
    for (float& value : classes_[of].at_risk) value *= kept;
  }
}

// The path of a class whose counts have just changed, and a few others in turn.
void ReturnModel::judge_some(Place of) {
  std::array<Place, kLevelCount> path{};
  std::size_t length = 0;
  for (; of != ClassTree::kRoot && length < path.size(); of = tree_.parent(of)) {
    path[length++] = of;
    tree_.note_use(of);
  }
  // One request changes little of all.
  if (next_ % kRootEvery == 0 || next_ < kMostNew) judge(ClassTree::kRoot);
  while (length > 0) judge(path[--length]);
  for (std::size_t i = 0; i < kJudgedAtOnce; ++i) {
    turn_ = (turn_ + 1) % tree_.size();
    const auto place = static_cast<Place>(turn_);
    if (place == ClassTree::kRoot) spreads_ = std::exchange(noted_, {});
    note_spread(place);
    tree_.fade(place);
    judge(place);
  }
}

void ReturnModel::judge(Place place) {
  Class& own = classes_[place];
  if (place == ClassTree::kRoot) {
    own.hazard = hazard_of_all();
  } else {
    lean_on(classes_[tree_.parent(place)].hazard, tree_.trait(place).level, own);
  }
  tell(place);
}

// By age, and where it seems to rise with age, only as far as that is sure: neighbouring ages are
// taken for one until it falls. Else blocks would go in the order of noise where that of their ages
// is right: whoever has not come back for long may have gone for good.
ReturnModel::ByAge ReturnModel::hazard_of_all() const {
  static const ByAge widths = widths_of<kBuckets, kOctavesOfFirst>();
  const Class& root = classes_[ClassTree::kRoot];
  std::array<Rate, kBuckets> rates;
  std::size_t count = 0;
  for (std::size_t k = 0; k < kBuckets; ++k) {
    // Those that return have waited for half of it, even where the clock stepped back meanwhile.
    const float waited = std::max(root.at_risk[k] - root.returns[k] / 2, root.returns[k] / 2);
    Rate last{.returns = root.returns[k] + kFirstReturns,
              .waited = (waited + kFirstAtRisk) * widths[k],
              .first = k};
    for (; count > 0; --count) {
      const Rate& before = rates[count - 1];
      if (last.value() <= before.value() || last.is_surely_above(before)) break;
      last = {.returns = before.returns + last.returns,
              .waited = before.waited + last.waited,
              .first = before.first};
    }
    rates[count++] = last;
  }
  ByAge hazard;
  for (std::size_t i = 0, k = 0; i < count; ++i) {
    const std::size_t end = i + 1 < count ? rates[i + 1].first : kBuckets;
    for (; k < end; ++k) {
      const double returned = 1 - std::exp(-rates[i].value() * widths[k]);
      hazard[k] = std::min(kMostHazard, static_cast<float>(returned));
    }
  }
  return hazard;
}

// Against what was seen of all in its parent, of which the class is a part: the rest of them is
// what it can differ from.
void ReturnModel::note_spread(Place place) {
  if (place == ClassTree::kRoot) return;
  const Class& own = classes_[place];
  const Class& parent = classes_[tree_.parent(place)];
  Spread& level = noted_[static_cast<std::size_t>(tree_.trait(place).level)];
  for (std::size_t k = 0; k < kBuckets; ++k) {
    const float at_risk = std::max(parent.at_risk[k], kLeastAtRisk);
    const float seen = std::min(kMostHazard, parent.returns[k] / at_risk);
    const float apart = 1 - std::min(1.0F, own.at_risk[k] / at_risk);
    const float expected = own.at_risk[k] * seen;
    const float chance = expected * (1 - seen) * apart;
    const float off = own.returns[k] - expected;
    level.found += off * off - chance;
    level.chance += 2 * chance * chance + chance;
    level.whole += own.at_risk[k] * chance * apart;
  }
}

// A variance among classes, in parts of the most there can be, is to chance within one as a request
// is to what leaning weighs. Where it may be chance that classes of a level seem to differ, what
// they seem to know is noise, which would put blocks out of the order of their ages.
void ReturnModel::lean_on(const ByAge& expected, Level of, Class& own) const {
  const double sure = sure_spread(of);
  if (sure == 0) {
    own.hazard = expected;
    return;
  }
  const double whole = spreads_[static_cast<std::size_t>(of)].whole;
  const auto lean = static_cast<float>(std::max(kLeastLean, whole / sure));
  for (std::size_t k = 0; k < kBuckets; ++k) {
    own.hazard[k] =
        std::min(kMostHazard, (own.returns[k] + lean * expected[k]) / (own.at_risk[k] + lean));
  }
}

double ReturnModel::sure_spread(Level of) const {
  const Spread& level = spreads_[static_cast<std::size_t>(of)];
  return level.found * sure_part(level.found, level.chance);
}

// A copy of what another is worth would be older than that, and so put blocks in another order.
void ReturnModel::tell(Place place) {
  const bool is_as_parent = place != ClassTree::kRoot && tree_.tenancy(place).heir == place &&
                            sure_spread(tree_.trait(place).level) == 0;
  if (!is_as_parent) weigh(place);
  told_as_[place].store(is_as_parent ? told_as(tree_.parent(place)) : place,
                        std::memory_order_relaxed);
}

// From the last bucket to the first, in one pass: `ahead` holds what lies between a bucket's end
// and the last horizon as stretches, the nearest on top, each worth no more than the one before it.
// The best horizon lies at the end of a stretch: beyond it, waiting brings less than it has until
// then.
void ReturnModel::weigh(Place place) {
  static const ByAge widths = widths_of<kBuckets, kOctavesOfFirst>();
  const ByAge& hazard = classes_[place].hazard;
  // A block is half way through its bucket, on average. Four buckets at once, as roots take long.
  std::array<Stretch, kBuckets> halves;
  std::array<Stretch, kBuckets> wholes;
  for (std::size_t k = 0; k < kBuckets; ++k) {
    const float half = 1 - std::sqrt(1 - hazard[k]);
    halves[k] = {.time = widths[k] / 2 * (1 - half / 2), .gain = half};
    wholes[k] = {.time = widths[k] * (1 - hazard[k] / 2), .gain = hazard[k]};
  }
  auto& worths = worths_[place].of;
  std::array<Stretch, kBuckets> ahead;
  std::size_t height = 0;
  for (std::size_t k = kBuckets; k-- > 0;) {
    Stretch best = halves[k];
    for (std::size_t at = height; at > 0 && ahead[at - 1].is_better_than(best); --at) {
      best = best.then(ahead[at - 1]);
    }
    worths[k].store(best.gain / best.time, std::memory_order_relaxed);
    Stretch whole = wholes[k];
    for (; height > 0 && ahead[height - 1].is_better_than(whole); --height) {
      whole = whole.then(ahead[height - 1]);
    }
    ahead[height++] = whole;
  }
  // What is older than the class is another's, of before.
  const ClassTree::Tenancy tenancy = tree_.tenancy(place);
  if (tenancy.heir == place) return;
  const auto& others = worths_[told_as(tenancy.heir)].of;
  const std::uint64_t second = now_ / kTicksPerSecond;
  const std::uint64_t age =
      (second - std::min<std::uint64_t>(second, tenancy.since)) * kTicksPerSecond;
  const std::size_t oldest =
      bucket_of(static_cast<std::uint32_t>(std::min<std::uint64_t>(age, UINT32_MAX)));
  for (std::size_t k = oldest + 1; k < kBuckets; ++k) {
    worths[k].store(others[k].load(std::memory_order_relaxed), std::memory_order_relaxed);
  }
}

Bytes ReturnModel::memory() const {
  return Bytes(kMostClasses * (sizeof(Class) + sizeof(Worths)) + sizeof(ReturnModel) +
               left_.size() * sizeof(left_[0])) +
         anchors_.memory();
}

}  // namespace terrace::policy
