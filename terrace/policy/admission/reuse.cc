// Admits a block at its second sighting, if the first one is not longer ago than a block stays in
// the tier: then writing it at once would have brought a hit, and a block that comes back later
// than that would have been written for nothing twice. How long a block stays is measured where it
// is known best, here: by LRU the tier holds what was admitted last, so the admission that lies
// `tier_blocks` admissions back is the one that leaves now. A tier that is not full keeps all.
// Sightings are kept in the order of their time, the oldest give way to new ones.
#include <algorithm>
#include <array>

#include "terrace/base/check.h"
#include "terrace/index/block_index.h"
#include "terrace/index/zeroed_array.h"
#include "terrace/policy/admission/admission.h"

namespace terrace::policy {

namespace {

class Reuse final : public AdmissionFilter {
 public:
  struct Node {
    std::int64_t at;         // Of the last sighting.
    std::uint32_t previous;  // Older; node + 1, as next: 0 = none.
    std::uint32_t next;
    index::Home home;
    bool is_again;  // The last sighting came in time after the one before.
  };

  Reuse(const ReuseOptions& options, index::BlockIndex index, index::ZeroedArray<Node> nodes)
      : options_(options),
        admissions_per_mark_(
            std::max<std::uint64_t>(1, (options.tier_blocks + kMarks - 1) / kMarks)),
        index_(std::move(index)),
        nodes_(std::move(nodes)) {}

  bool admit(const BlockKey& key, Nanoseconds now) override {
    if (!sight(key, now)) return false;
    note_admission(now);
    return true;
  }
  void on_hit(const BlockKey& key, Nanoseconds now) override { sight(key, now); }
  bool is_wanted(const BlockKey& key, Nanoseconds now) override {
    const auto found = index_.find(key);
    if (!found) return false;
    const Node& node = nodes_[found->value()];
    if (!node.is_again || now.value() - node.at > residence(now)) return false;
    note_admission(now);
    return true;
  }
  Bytes memory() const override { return index_.memory() + nodes_.memory(); }

 private:
  // Times kept of the last admissions: how exactly the residence time is known.
  static constexpr std::uint64_t kMarks = 64;

  // True when the block was sighted before and in time.
  bool sight(const BlockKey& key, Nanoseconds now) {
    const auto found = index_.find(key);
    if (!found) {
      add(key, now);
      return false;
    }
    const std::uint32_t number = found->value();
    Node& node = nodes_[number];
    node.is_again = now.value() - node.at <= residence(now);
    node.at = now.value();
    unlink(number);
    link(number);
    return node.is_again;
  }

  void add(const BlockKey& key, Nanoseconds now) {
    std::uint32_t number = 0;
    if (fresh_ < nodes_.size()) {
      number = static_cast<std::uint32_t>(fresh_++);
    } else {
      number = oldest_ - 1;
      TERRACE_CHECK(index_.erase(nodes_[number].home, SlotIndex(number)));
      unlink(number);
    }
    TERRACE_CHECK(index_.insert(key, SlotIndex(number)));
    nodes_[number].home = index_.home_of(key);
    nodes_[number].at = now.value();
    nodes_[number].is_again = false;
    link(number);
  }

  void link(std::uint32_t number) {
    Node& node = nodes_[number];
    node.previous = newest_;
    node.next = 0;
    (newest_ == 0 ? oldest_ : nodes_[newest_ - 1].next) = number + 1;
    newest_ = number + 1;
  }

  void unlink(std::uint32_t number) {
    const Node& node = nodes_[number];
    (node.previous == 0 ? oldest_ : nodes_[node.previous - 1].next) = node.next;
    (node.next == 0 ? newest_ : nodes_[node.next - 1].previous) = node.previous;
  }

  void note_admission(Nanoseconds now) {
    if (admissions_++ % admissions_per_mark_ == 0) marks_[next_mark_++ % kMarks] = now.value();
  }

  [[nodiscard]] std::int64_t residence(Nanoseconds now) const {
    if (options_.tier_blocks == 0 || admissions_ <= options_.tier_blocks) return INT64_MAX;
    const std::uint64_t back = options_.tier_blocks / admissions_per_mark_;
    return now.value() - marks_[(next_mark_ - back) % kMarks];
  }

  const ReuseOptions options_;
  const std::uint64_t admissions_per_mark_;
  index::BlockIndex index_;
  index::ZeroedArray<Node> nodes_;
  std::uint32_t oldest_ = 0;  // Node + 1; 0 = none.
  std::uint32_t newest_ = 0;
  std::uint64_t fresh_ = 0;  // Nodes from here on were never used.
  std::uint64_t admissions_ = 0;
  std::uint64_t next_mark_ = 0;
  std::array<std::int64_t, kMarks> marks_{};  // When each admissions_per_mark_-th one was.
};

}  // namespace

std::unique_ptr<AdmissionFilter> make_reuse(const ReuseOptions& options) {
  if (options.entries == 0 || options.entries > 2'000'000'000) return nullptr;
  auto index = index::BlockIndex::create(options.entries);
  auto nodes = index::ZeroedArray<Reuse::Node>::create(options.entries);
  if (!index || !nodes) return nullptr;
  return std::make_unique<Reuse>(options, std::move(*index), std::move(*nodes));
}

}  // namespace terrace::policy
