// The return hazard: how likely a conversation is to come back, by how long ago it was served last
// and by what a server sees of it: its turn, the gap before, the prompt's size, how the answer
// ended and how long it was, and what its client promises. Learned from the requests alone, the
// worth of promises too: those that are not kept tell nothing.
//
// A request that goes on where one before ended is that one's return. Each class of requests counts
// its returns in half-octaves of age, beside those that were still to return at that age; requests
// not yet old enough, or forgotten, count as neither. A class is one more thing known than its
// parent, and leans on it: the more, the less it has seen itself, and the less that one thing was
// found to tell requests apart. What may be chance is not believed: classes are worth what their
// parent is until one thing known surely tells requests apart, and of all requests, the root, those
// that have waited longer return no sooner until they surely do. What keeping a block is worth is
// the best, over all horizons, of the chance that it is asked for by then, per second that it is
// likely to stay.
// Classes come and go with the traffic (ClassTree). Requests that left with one that has gone since
// count for the root alone, as any that nobody sees to its end; blocks that bear it are older than
// the class that has its place, and at such ages that place is worth what the parent of the one
// before is: but for those about as old as the class, which half an octave does not tell apart.
// Threading: worth() by any thread, in any pool; the rest thread-compatible.  Waits: never.
// Memory: memory(), below 1 MiB, from create().
// Source: Kaplan and Meier, Nonparametric estimation from incomplete observations, 1958 (what was
// not seen to its end); Robbins, An empirical Bayes approach to statistics, 1956 (how much to lean,
// from how much all differ); Ayer and others, An empirical distribution function for sampling with
// incomplete information, 1955 (a curve that falls); Gittins, Bandit processes and dynamic
// allocation indices, 1979 (the best ratio of gain to time).
#pragma once

#include <algorithm>
#include <array>
#include <atomic>
#include <bit>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "terrace/base/clock.h"
#include "terrace/base/status.h"
#include "terrace/base/strong.h"
#include "terrace/block/sequence_hash.h"
#include "terrace/policy/returns/anchors_internal.h"
#include "terrace/policy/returns/class_tree_internal.h"
#include "terrace/policy/returns/hints.h"
#include "terrace/policy/returns/use.h"

namespace terrace::policy {

// What is known of a request when it arrives.
struct Visit {
  std::uint32_t turn = 0;  // From 1 on; 0 = has not arrived.
  ReturnClass of{0};       // By what is known by then.
  std::uint8_t gap = 0;    // Steps, of the class's path.
  std::uint8_t size = 0;
  // Number of the request that it goes on from. Not known after that is forgotten.
  std::optional<std::uint32_t> before = {};
};

class ReturnModel {
 public:
  static constexpr std::size_t kMostClasses = ClassTree::kMost;

  // Errors: kExhausted if memory is refused.
  static Result<std::shared_ptr<ReturnModel>> create();
  ReturnModel(const ReturnModel&) = delete;
  ReturnModel& operator=(const ReturnModel&) = delete;

  // A request asks for `chain`: notes whose return it is. O(chain), 4,096 blocks at most. Where its
  // blocks do not tell whose it is, as its history was rewritten, its session tells the turn.
  Visit arrive(std::span<const SequenceHash> chain, Nanoseconds now, const Hints& hints = {});
  // It ended, and may return from now on. `prompt` of the chain's blocks are its prompt.
  ReturnClass leave(const Visit& visit, std::span<const SequenceHash> chain, std::size_t prompt,
                    std::uint64_t answer_tokens, Ending ending, Nanoseconds now,
                    const Hints& hints = {});
  // Per tick; of two blocks the one with less goes first. Ages in ticks.
  [[nodiscard]] float worth(ReturnClass of, std::uint32_t age) const {
    return worth_at(of, bucket_of(age));
  }
  // The same of many, for whom the steps of age are found several at once.
  template <std::size_t kCount>
  void worths(const std::array<ReturnClass, kCount>& of,
              const std::array<std::uint32_t, kCount>& ages,
              std::array<float, kCount>& worths) const {
    std::array<std::uint32_t, kCount> buckets;  // NOLINT: filled in below.
    for (std::size_t i = 0; i < kCount; ++i) buckets[i] = bucket_of(ages[i]);
    for (std::size_t i = 0; i < kCount; ++i) worths[i] = worth_at(of[i], buckets[i]);
  }
  // The class itself, or that of all requests if it has gone since: for uses that are told later.
  [[nodiscard]] ReturnClass present(ReturnClass of) const {
    return tree_.class_at(tree_.place_of(of));
  }

  // The counts, without the requests that are still to return. For the next start.
  [[nodiscard]] std::string save() const;
  // In place of all counts. Errors: kInvalid = not written by save(), or by another version of it;
  // nothing has changed then.
  [[nodiscard]] Status load(std::string_view bytes);

  [[nodiscard]] std::size_t classes() const { return tree_.size(); }
  // That have ended, in this process. Wraps around.
  [[nodiscard]] std::uint32_t requests() const { return next_; }
  [[nodiscard]] Bytes memory() const;

 private:
  static constexpr std::size_t kBuckets = 46;  // To 2^24 ticks, three days, and all beyond.
  // The first one ends at a sixteenth of a second, 2^2 ticks.
  static constexpr std::uint32_t kOctavesOfFirst = 2;
  static constexpr std::uint32_t kMostRequests = 1U << 14U;
  static_assert(kMostRequests < 128 * ClassTree::kLeastLife);
  using Place = ClassTree::Place;
  using ByAge = std::array<float, kBuckets>;

  // How much classes of one level differ from their parents, beyond what chance does. Sums over
  // ages and classes.
  struct Spread {
    double found = 0;   // Squares of returns less those expected, without chance's share of them.
    double chance = 0;  // What chance adds to that or takes from it: its variance.
    double whole = 0;   // What `found` would be if each class were all returns or none.
  };
  using Spreads = std::array<Spread, kLevelCount>;
  // What was counted of one class.
  struct Class {
    ByAge returns{};
    ByAge at_risk{};
    ByAge hazard{};
  };
  // What worth() tells of a class. Apart from the rest, as each choice of a victim asks for many.
  struct Worths {
    std::array<std::atomic<float>, kBuckets> of{};  // By bucket.
  };
  // A request that ended.
  struct Left {
    std::uint64_t at : 40 = 0;  // Ticks.
    std::uint64_t class_bits : 16 = 0;
    std::uint64_t turn : 7 = 0;
    std::uint64_t has_returned : 1 = 0;
    [[nodiscard]] ReturnClass of() const {
      return ReturnClass(static_cast<std::uint16_t>(class_bits));
    }
  };
  static_assert(sizeof(Left) == 8);

  ReturnModel(std::unique_ptr<Class[]> classes, Anchors anchors, std::vector<Left> left);
  [[nodiscard]] float worth_at(ReturnClass of, std::uint32_t bucket) const {
    const Place as = told_as(static_cast<Place>(of.value() % kMostClasses));
    return worths_[as].of[bucket].load(std::memory_order_relaxed);
  }
  // Of an age in ticks. Two to an octave: the exponent of the age as a float, and that of the age
  // times the square root of two. Inline and without a branch, as each choice of a victim asks 64
  // times.
  [[nodiscard]] static std::uint32_t bucket_of(std::uint32_t age) {
    constexpr std::uint32_t kFraction = 23;  // Bits of it in a float: what it can be is exact.
    constexpr std::uint32_t kToUpper = 0x4A'FB0C;  // 2^24 - 2^23.5: from there on it carries.
    constexpr std::uint32_t kFirst =
        253 + 2 * kOctavesOfFirst;  // The sum of both exponents, less one.
    constexpr std::uint32_t kOldest = 1U << (kBuckets / 2 - 1 + kOctavesOfFirst);
    const auto capped = static_cast<float>(static_cast<std::int32_t>(std::min(age, kOldest)));
    const auto bits = std::bit_cast<std::uint32_t>(capped);
    const std::uint32_t sum = (bits >> kFraction) + ((bits + kToUpper) >> kFraction);
    return std::max(sum, kFirst) - kFirst;
  }
  // Below `parent`; the parent itself where there is no place for it. Others end for one that
  // `may_replace` them.
  Place class_of(Place parent, Trait trait, bool may_replace);
  // What a request that arrives is known to be, below `parent`.
  Place arrived(Place parent, const Visit& visit, bool may_replace);
  // Of the request that left as `number`; null if it is forgotten.
  [[nodiscard]] Left* recall(std::optional<std::uint32_t> number);
  void count(ReturnClass of, std::size_t bucket, ByAge Class::* where);
  void set_anchor(const Visit& visit, std::span<const SequenceHash> chain);
  void advance(std::uint64_t now);
  void judge(Place place);
  [[nodiscard]] ByAge hazard_of_all() const;
  void note_spread(Place place);
  // How much the level's classes surely differ.
  [[nodiscard]] double sure_spread(Level of) const;
  void lean_on(const ByAge& expected, Level of, Class& own) const;
  // As which class worth() tells it: where its level tells nobody apart, as its parent.
  [[nodiscard]] Place told_as(Place place) const {
    return told_as_[place].load(std::memory_order_relaxed);
  }
  void tell(Place place);
  void weigh(Place place);
  void judge_some(Place of);
  void decay();
  [[nodiscard]] Left& left(std::uint32_t number) { return left_[number % kMostRequests]; }

  std::unique_ptr<Class[]> classes_;
  std::unique_ptr<Worths[]> worths_ = std::make_unique<Worths[]>(kMostClasses);
  std::array<std::atomic<Place>, kMostClasses> told_as_{};
  ClassTree tree_;
  Spreads spreads_{};  // Of the last round of all classes.
  Spreads noted_{};    // Of this one.
  Anchors anchors_;
  std::vector<Left> left_;                      // By number.
  std::uint32_t next_ = 0;                      // Number of the next request that ends.
  std::array<std::uint32_t, kBuckets> aged_{};  // [bucket] the next to become so old.
  std::uint64_t now_ = 0;                       // Ticks, of the last request.
  std::size_t turn_ = 0;                        // The next class to be judged.
};

}  // namespace terrace::policy
