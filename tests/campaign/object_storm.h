// A storm of faults over object tiers of two nodes that share one store: whatever is delivered as
// right is right, and whatever was accepted ends.
// Threading: thread-compatible.  Waits: for the stores' I/O, bounded.
#pragma once

#include <atomic>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "campaign/report.h"
#include "terrace/base/clock.h"
#include "terrace/base/rng.h"
#include "terrace/tier/object/object_tier_rig.h"
#include "terrace/transfer/backends/fault/fault_store.h"

namespace terrace::campaign {

// The system's clock, and jumps ahead. Threading: thread-safe.
class JumpClock final : public Clock {
 public:
  [[nodiscard]] Nanoseconds now() const override {
    return system_.now() + Nanoseconds(ahead_ns_.load());
  }
  [[nodiscard]] std::int64_t wall_seconds() const override {
    return system_.wall_seconds() + ahead_ns_.load() / 1'000'000'000;
  }
  void jump(Nanoseconds by) { ahead_ns_.fetch_add(by.value()); }

 private:
  SystemClock system_;
  std::atomic<std::int64_t> ahead_ns_{0};
};

class ObjectStorm {
 public:
  using Maker = std::function<std::unique_ptr<transfer::ObjectStore>(const Clock& clock)>;
  // `name`: in the figures. `make`: a store of one node, each time of the same place.
  ObjectStorm(std::string name, Maker make, std::uint64_t seed, Figures& figures);
  // `calm`: ends what the place does on its own.
  void run(int rounds, int steps, const std::function<void()>& calm = {});

 private:
  using ChainMemory = tier::object::ChainMemory;
  static constexpr std::uint32_t kPackBlocks = 2;
  static constexpr std::uint64_t kPacks = 3;
  static constexpr std::uint64_t kChains = 6;
  static constexpr std::size_t kNodes = 2;
  struct Node {
    std::unique_ptr<tier::ObjectTier> tier;
    transfer::FaultStore* faults = nullptr;
    bool was_reset = false;
  };
  struct Read {
    std::uint64_t chain = 0;
    std::uint64_t block = 0;
    std::uint16_t group = 0;
    std::unique_ptr<ChainMemory> memory;
  };
  struct Pending {
    std::size_t node = 0;
    std::optional<Read> read;
  };

  void round(int steps, const std::function<void()>& calm);
  void open(Node& node);
  void step();
  void read(std::size_t index);
  void write(std::size_t index);
  void poll(std::size_t index);
  void finish(std::size_t index, const tier::ObjectDone& done);
  void judge(const Node& node, const Read& read, const tier::ObjectDone& done);
  void end_faults();
  [[nodiscard]] transfer::ObjectFaultRates drawn_rates();
  void find(std::uint64_t& counter, const std::string& what);

  const std::string name_;
  const Maker make_;
  Rng rng_;
  Figures& figures_;
  JumpClock clock_;
  NullLog log_;
  tier::ObjectTier::Options options_;
  std::vector<std::vector<SequenceHash>> hashes_;                  // [chain]
  std::vector<std::vector<std::unique_ptr<ChainMemory>>> memory_;  // [node][chain]
  std::vector<Node> nodes_;
  std::map<std::uint64_t, Pending> under_way_;
  std::uint64_t next_token_ = 1;
};

}  // namespace terrace::campaign
