// KVBM's filter against wearing out an SSD with blocks that are seen once, exactly:
// asked for an unknown key: count 1; for a known one: count doubles; admitted at >= threshold. Each
// interval every count loses 1, and what reaches 0 is forgotten. Over `entries` known keys, that
// repeats until they fit, and the interval starts anew. Hits count as sightings, as KVBM documents.
//
// One decay over all counts would stall its caller for milliseconds, so nothing is ever
// decremented: an entry stores count + decays so far, and is alive while that exceeds decays_.
// Entries of equal stored value form a list, lists are ordered by value: a decay is one increment,
// the dead are at the front, and a few of them are reclaimed at each call.
#include <algorithm>
#include <map>

#include "terrace/base/check.h"
#include "terrace/index/block_index.h"
#include "terrace/index/zeroed_array.h"
#include "terrace/policy/admission/admission.h"

namespace terrace::policy {

namespace {

class Frequency final : public AdmissionFilter {
 public:
  struct Node {
    std::uint64_t value;
    std::uint32_t previous;  // Node + 1, as next and List::first; 0 = none.
    std::uint32_t next;
    index::Home home;
  };

  Frequency(const FrequencyOptions& options, index::BlockIndex index,
            index::ZeroedArray<Node> nodes)
      : options_(options), index_(std::move(index)), nodes_(std::move(nodes)) {}

  bool admit(const BlockKey& key, Nanoseconds now) override {
    return sight(key, now) >= options_.threshold;
  }
  void on_hit(const BlockKey& key, Nanoseconds now) override { sight(key, now); }
  bool is_wanted(const BlockKey& key, Nanoseconds now) override {
    tick(now);
    const auto found = index_.find(key);
    if (!found) return false;
    const std::uint64_t value = nodes_[found->value()].value;
    return value > decays_ && value - decays_ >= options_.threshold;
  }
  Bytes memory() const override { return index_.memory() + nodes_.memory(); }

 private:
  struct List {
    std::uint32_t first = 0;
    std::uint64_t count = 0;
  };
  // Doubling stops here; KVBM's counter would overflow 64 further sightings later.
  static constexpr std::uint64_t kMaxCount = std::uint64_t{1} << 62U;
  // More than one entry can die per call only by a decay, so this keeps up with any steady load.
  static constexpr int kReclaimsPerCall = 4;

  std::uint64_t sight(const BlockKey& key, Nanoseconds now) {
    tick(now);
    for (int i = 0; i < kReclaimsPerCall && reclaim_one(); ++i) {
    }
    const auto found = index_.find(key);
    if (!found) return add(key, now);
    const std::uint32_t node = found->value();
    const std::uint64_t value = nodes_[node].value;
    const bool is_alive = value > decays_;
    const std::uint64_t count = is_alive ? std::min(2 * (value - decays_), kMaxCount) : 1;
    unlink(node);
    link(node, decays_ + count);
    if (!is_alive) trim(now);
    return count;  // As it was before the decay that its own arrival may have caused.
  }

  std::uint64_t add(const BlockKey& key, Nanoseconds now) {
    if (free_ == 0 && fresh_ == nodes_.size()) TERRACE_CHECK(reclaim_one());
    std::uint32_t node = 0;
    if (free_ != 0) {
      node = free_ - 1;
      free_ = nodes_[node].next;
    } else {
      node = static_cast<std::uint32_t>(fresh_++);
    }
    TERRACE_CHECK(index_.insert(key, SlotIndex(node)));
    nodes_[node].home = index_.home_of(key);
    link(node, decays_ + 1);
    trim(now);
    return 1;
  }

  void tick(Nanoseconds now) {
    if (!is_started_) {
      is_started_ = true;
      next_decay_ = now + options_.decay_interval;
    }
    if (now < next_decay_) return;
    const std::int64_t missed = (now - next_decay_) / options_.decay_interval + 1;
    decay(static_cast<std::uint64_t>(missed));
    next_decay_ += options_.decay_interval * missed;
  }

  void decay(std::uint64_t times) {
    const std::uint64_t until = decays_ + times;
    for (auto list = lists_.upper_bound(decays_); list != lists_.end() && list->first <= until;
         ++list) {
      alive_ -= list->second.count;
    }
    decays_ = until;
  }

  void trim(Nanoseconds now) {
    while (alive_ > options_.entries) {
      decay(lists_.upper_bound(decays_)->first - decays_);
      next_decay_ = now + options_.decay_interval;
    }
  }

  void link(std::uint32_t node, std::uint64_t value) {
    List& list = lists_[value];
    nodes_[node].value = value;
    nodes_[node].previous = 0;
    nodes_[node].next = list.first;
    if (list.first != 0) nodes_[list.first - 1].previous = node + 1;
    list.first = node + 1;
    ++list.count;
    ++alive_;
  }

  void unlink(std::uint32_t node) {
    const Node& gone = nodes_[node];
    const auto found = lists_.find(gone.value);
    if (gone.previous == 0)
      found->second.first = gone.next;
    else
      nodes_[gone.previous - 1].next = gone.next;
    if (gone.next != 0) nodes_[gone.next - 1].previous = gone.previous;
    if (gone.value > decays_) --alive_;
    if (--found->second.count == 0) lists_.erase(found);
  }

  bool reclaim_one() {
    if (lists_.empty() || lists_.begin()->first > decays_) return false;
    const std::uint32_t node = lists_.begin()->second.first - 1;
    TERRACE_CHECK(index_.erase(nodes_[node].home, SlotIndex(node)));
    unlink(node);
    nodes_[node].next = free_;
    free_ = node + 1;
    return true;
  }

  const FrequencyOptions options_;
  index::BlockIndex index_;
  index::ZeroedArray<Node> nodes_;
  std::map<std::uint64_t, List> lists_;  // By stored value.
  std::uint64_t decays_ = 0;
  std::uint64_t alive_ = 0;  // Entries with value > decays_.
  std::uint64_t fresh_ = 0;  // Nodes from here on were never used.
  std::uint32_t free_ = 0;   // Node + 1.
  bool is_started_ = false;
  Nanoseconds next_decay_{0};
};

}  // namespace

std::unique_ptr<AdmissionFilter> make_frequency(const FrequencyOptions& options) {
  if (options.threshold == 0 || options.decay_interval <= Nanoseconds(0) || options.entries == 0) {
    return nullptr;
  }
  // One more than `entries`: the newcomer that makes them too many is counted before the decay.
  auto index = index::BlockIndex::create(options.entries + 1);
  auto nodes = index::ZeroedArray<Frequency::Node>::create(options.entries + 1);
  if (!index || !nodes) return nullptr;
  return std::make_unique<Frequency>(options, std::move(*index), std::move(*nodes));
}

}  // namespace terrace::policy
