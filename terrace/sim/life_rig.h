// One life of an owner: the production core, I/O driver, disk tier and object tier on a simulated
// device and store, from the start until it is closed, killed or loses power. Watches, at every
// step, that each host slot holds the bytes of its key and that no device moves bytes to or from
// memory that was given to somebody else.
// Threading: one thread.  Waits: never: the clock is virtual.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "terrace/manager/core_rig.h"
#include "terrace/sim/device_rig.h"
#include "terrace/sim/observed_lower_rig.h"
#include "terrace/sim/oracle_rig.h"
#include "terrace/transfer/backends/fault/fault_store.h"

namespace terrace::sim {

struct LifeOptions {
  std::uint16_t ranks = 2;
  std::uint16_t groups = 1;
  std::uint64_t host_blocks = 24;
  std::uint32_t device_blocks = 512;
  std::vector<std::string> disk_paths;
  std::uint64_t disk_blocks = 48;
  std::shared_ptr<testing::MemoryPlace> store;  // Null = no object tier.
  bool is_demote = false;
  std::uint64_t seed = 0;
};

class Life final : public DeviceWitness {
 public:
  // Opens the tiers and lets the canaries pass.
  Life(const LifeOptions& options, Device& device, ObservedLower::Watch watch);
  Life(const Life&) = delete;
  Life& operator=(const Life&) = delete;
  ~Life() override;

  // ---- What happens to it.
  // The driver's round. False when nothing was to be done.
  bool tick() { return rig.driver.tick(); }
  // To when the device has something, at most by `limit`.
  void pass(Nanoseconds limit);
  // Ticks and passes time until everything below is still.
  void settle();
  void rot_host(Rng& rng);
  void reset();
  // Everything sealed must be found, and readable.
  void check_found();
  // Every host slot holds its key's bytes; slots add up.
  void check_slots();
  // When all requests have ended and all ranks are gone.
  void check_no_leaks();
  // Destroys the tiers, then the rest, as a process's end would. `is_abrupt`: see Device.
  void end(bool is_abrupt);

  // ---- Device's witness.
  std::uint64_t begins(const transfer::Transfer& transfer) override;
  void moves(const transfer::Transfer& transfer, std::uint64_t mark) override;
  void harms(GroupId group, const SequenceHash& hash) override { watch_.stored.harm(group, hash); }

  // Whether a rank may write into the slot of an order that it has not reported yet. It may read
  // from any: a load from a slot that changed fails its check.
  void check_save(const wire::SaveOrder& save);

  [[nodiscard]] std::size_t store_events() const;
  [[nodiscard]] transfer::FaultStore* store() { return store_; }
  [[nodiscard]] bool is_below_settled() const {
    return rig.core.is_lower_settled() && (objects_ == nullptr || objects_->is_settled());
  }

  manager::rig::Rig rig;

 private:
  struct Seen {  // Of a host slot.
    SlotRef slot;
    NamespaceId name_space;
    const Truth::Shards* right = nullptr;  // Null: of nobody's key, or spoilt by the simulator.
    bool is_spoilt = false;                // What is written to disk from here is harmed, too.
  };
  static manager::rig::RigOptions rig_options(const LifeOptions& options);
  void open_disk(const LifeOptions& options);
  void open_objects(const LifeOptions& options);
  void open();
  void map_host();
  void check_object(const transfer::ObjectRequest& request);

  const LifeOptions options_;
  Device& device_;
  ObservedLower::Watch watch_;
  std::unique_ptr<tier::DiskTier> disk_;
  std::unique_ptr<ObservedLower> lower_;
  std::unique_ptr<tier::ObjectTier> objects_;
  transfer::FaultStore* store_ = nullptr;              // The object tier's.
  std::vector<Seen> seen_;                             // [slot]
  std::vector<std::vector<const std::byte*>> memory_;  // [slot][rank]
  std::unordered_map<const std::byte*, std::uint32_t> slot_of_;
  std::uint32_t slots_ = 0;
};

}  // namespace terrace::sim
