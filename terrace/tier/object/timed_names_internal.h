// Names of packs, each with the time until which something is so of it.
// Threading: thread-compatible.  Waits: never.  Bounds: `most`; of more the first told go.
#pragma once

#include <cstddef>
#include <cstdint>
#include <list>
#include <unordered_map>

#include "terrace/base/clock.h"
#include "terrace/block/sequence_hash.h"

namespace terrace::tier::object {

// Its high half is as good as random already: it is a digest.
struct HashOfSequenceHash {
  std::size_t operator()(const SequenceHash& hash) const { return hash.high; }
};

struct PackName {
  SequenceHash pack;         // The hash of the pack's last block.
  std::uint8_t variant = 0;  // Of Context::variants.
  friend bool operator==(const PackName&, const PackName&) = default;
};

class TimedNames {
 public:
  explicit TimedNames(std::size_t most) : most_(most) {}

  void add(const PackName& name, Nanoseconds until) {
    if (const auto known = names_.find(name); known != names_.end()) {
      known->second.until = until;
      return;
    }
    names_.emplace(name, Item{until, order_.insert(order_.end(), name)});
    if (order_.size() > most_) remove(PackName(order_.front()));
  }
  void remove(const PackName& name) {
    const auto known = names_.find(name);
    if (known == names_.end()) return;
    order_.erase(known->second.place);
    names_.erase(known);
  }
  [[nodiscard]] bool holds(const PackName& name, Nanoseconds now) const {
    const auto known = names_.find(name);
    return known != names_.end() && now < known->second.until;
  }
  void clear() {
    names_.clear();
    order_.clear();
  }

 private:
  using Order = std::list<PackName>;
  struct Item {
    Nanoseconds until;
    Order::iterator place;
  };
  struct Hash {
    std::size_t operator()(const PackName& name) const { return name.pack.high ^ name.variant; }
  };
  const std::size_t most_;
  Order order_;  // As they were first told.
  std::unordered_map<PackName, Item, Hash> names_;
};

}  // namespace terrace::tier::object
