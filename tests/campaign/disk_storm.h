// A storm of faults over one living disk tier, round after round over the same directory: whatever
// is delivered as right is right, whatever was accepted ends, and when the faults are over no slot,
// pin, descriptor or thread is held by anything.
// Threading: thread-compatible.  Waits: for the tier's I/O, bounded.
#pragma once

#include <deque>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "campaign/report.h"
#include "terrace/base/rng.h"
#include "terrace/testing/fake_clock.h"
#include "terrace/tier/disk/disk_rig.h"
#include "terrace/transfer/backends/fault/fault_backend.h"

namespace terrace::campaign {

class DiskStorm {
 public:
  DiskStorm(const std::string& backend, std::uint64_t seed, Figures& figures);
  void run(int rounds, int steps);

 private:
  using BlockMemory = tier::disk::BlockMemory;
  struct Operation {
    bool is_read = false;
    std::uint64_t number = 0;
    std::uint32_t version = 0;      // Writes.
    std::set<std::uint32_t> right;  // Reads: the versions that may come.
    BlockMemory memory;
  };
  struct Block {
    std::set<std::uint32_t> written;       // Ever, since the last reset.
    std::optional<std::uint32_t> current;  // Acknowledged by this tier, and in it since.
    int under_way = 0;
    bool is_writing = false;
  };
  // Memory that the tier has given back, and must not touch again.
  struct Grave {
    BlockMemory memory;
    std::vector<Checksum> checksums;
  };

  bool open();
  void draw_rates();
  void round(int steps);
  void step();
  void write(std::uint64_t number);
  void read(std::uint64_t number);
  void reset();
  void poll(Nanoseconds limit);
  void finish(const tier::DiskDone& done);
  void finish_read(const Operation& operation, const tier::DiskDone& done);
  void end_faults();
  void settle_accounts();
  [[nodiscard]] BlockMemory filled(std::uint64_t number, std::uint32_t version) const;
  void find(std::uint64_t& counter, const std::string& what);

  const std::string backend_;
  Rng rng_;
  Figures& figures_;
  testing::FakeClock clock_;
  tier::disk::Rig rig_;
  transfer::FaultBackend* faults_ = nullptr;
  std::map<std::uint64_t, Block> blocks_;
  std::map<std::uint64_t, Operation> under_way_;
  std::deque<Grave> graves_;
  std::uint64_t next_token_ = 1;
  std::uint32_t next_version_ = 1;
  int held_steps_ = 0;
};

}  // namespace terrace::campaign
