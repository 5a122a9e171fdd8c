// A simulated world: an engine with its ranks around one life of the owner after the other, over
// the same disk and store. Everything that happens follows from the seed. What counts as a step:
// one transition driven into the core (a request begins, is polled, admitted, goes on or ends;
// orders are built; a step's orders are carried out; a rank reports, dies or comes; a reset, a
// change of mode, a restart; a round of the I/O driver that had something to do), or one event of a
// device or store (a transfer or request begins, or ends). The oracle looks after each. An action
// that found nothing to do is not counted. Threading: one thread.  Waits: never: the clock is
// virtual.
#pragma once

#include <array>
#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "terrace/sim/life_rig.h"
#include "terrace/testing/scratch_directory.h"

namespace terrace::sim {

struct Tally {
  std::uint64_t seeds = 0;
  std::uint64_t steps = 0;
  std::uint64_t injected = 0;      // Faults, of devices, stores, memory, ranks and reports.
  std::uint64_t crash_points = 0;  // Lives that ended without their consent.
  std::uint64_t lives = 0;
  Verdict verdict;
  std::map<std::string, std::uint64_t> seen;  // That it happened at all.
  void add(const Tally& other);
};

// The steps are those of the world; it ends at a clean close after them.
[[nodiscard]] Tally run_world(std::uint64_t seed, std::uint64_t steps);

class World {
 public:
  explicit World(std::uint64_t seed);
  void run(std::uint64_t steps);
  [[nodiscard]] const Tally& tally() const { return tally_; }

 private:
  struct Live {  // A request.
    RequestId id;
    std::vector<SequenceHash> hashes;
    std::vector<std::vector<std::uint32_t>>
        tables;                  // [group] device blocks; empty before admission.
    std::uint64_t computed = 0;  // Blocks.
    bool is_admitted = false;
    std::uint32_t weights = 0;  // That it computes with.
    std::optional<Nanoseconds> opening_since;
    std::optional<Nanoseconds> waiting_since;
    Nanoseconds last_poll{INT64_MIN};
  };
  struct Compute {
    GroupId group;
    SequenceHash hash;
    std::uint32_t block = 0;
    std::uint32_t weights = 0;
    std::vector<std::uint32_t> reads;  // Device blocks before it: bad in, bad out.
  };
  struct Flight {  // An engine step between build and the reports.
    wire::Orders orders;
    std::vector<Compute> computes;
  };
  struct Meant {  // What a device block is to hold.
    GroupId group;
    SequenceHash hash;
  };

  // ---- Lives.
  void start_life();
  void end_life(bool is_abrupt);
  void close_cleanly();
  [[nodiscard]] LifeOptions life_options();

  // ---- One action each; false when there was nothing to do.
  bool act();
  bool begin();
  bool poll();
  bool admit();
  bool work();
  bool build();
  bool execute();
  bool deliver();
  bool end_one();
  bool tick();
  bool pass_time();
  bool misfortune();
  bool trouble_below(std::uint64_t dice);

  void work_on(Live& live);
  void compute(const Flight& flight);
  void leave_unfilled(wire::Report& report);
  std::set<std::uint32_t> load(const Flight& flight, std::vector<wire::Report>& loaded);
  void check_loaded(const Flight& flight, const std::set<std::uint32_t>& failed);
  void recompute();
  void end(Live& live);
  [[nodiscard]] manager::MatchAnswer ask(Live& live, std::uint64_t local_blocks);
  void check_pins();
  void execute_all() {
    while (!built_.empty()) execute();
  }
  void kill_rank();
  void reset();
  void switch_to(manager::Mode mode);
  void set_faults(unsigned level);
  Live* pick() { return live_.empty() ? nullptr : &live_[rng_.below(live_.size())]; }
  [[nodiscard]] manager::rig::Rig& rig() { return life_->rig; }
  [[nodiscard]] bool is_attached(std::uint16_t rank) { return rig().ranks[rank].epoch != Epoch(0); }
  void note_counters();

  Rng rng_;
  const std::uint64_t seed_;
  Tally tally_;
  testing::ScratchDirectory scratch_;
  Truth truth_;
  Stored stored_;
  std::shared_ptr<testing::MemoryPlace> place_;
  LifeOptions shape_;
  bool has_faults_;  // Of devices and stores; else only crashes.
  std::uint32_t weights_ = 0;
  std::uint32_t durable_weights_ = 0;  // Of what a later life may find.
  std::uint32_t last_weights_ = 0;
  Device device_;
  std::unique_ptr<Life> life_;
  std::uint64_t acts_ = 0;
  std::uint64_t store_events_ = 0;  // Of former lives.
  std::uint64_t store_injected_ = 0;

  // ---- The engine.
  std::vector<Live> live_;
  std::vector<std::uint32_t> free_;  // Device blocks.
  std::vector<Meant> meant_;         // [device block]
  std::set<std::uint32_t> bad_;      // Device blocks with bytes that are not their key's.
  Flight next_;
  std::deque<Flight> built_;
  std::array<std::deque<wire::Report>, kMostRanks> reports_;
  manager::Mode mode_ = manager::Mode::kOn;
};

}  // namespace terrace::sim
