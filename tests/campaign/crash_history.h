// Lives of one disk cache, one after another: each opens, writes, resets and is cut off, and the
// next one begins on what a simulated machine crash has left, or on what a killed owner left in the
// hands of a machine that goes on, and crashes later. At many moments of each life, its opening
// among them, the medium is rebuilt, opened by a real DiskTier, and compared with what an oracle
// knows: what is found verifies and had been sealed with those bytes, and what was acknowledged as
// durable is found.
// Threading: thread-compatible.  Waits: for the tiers' I/O, bounded.
#pragma once

#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "campaign/report.h"
#include "terrace/base/rng.h"
#include "terrace/tier/disk/disk_rig.h"
#include "terrace/transfer/backends/fault/fault_backend.h"
#include "terrace/transfer/backends/fault/recorder.h"

namespace terrace::campaign {

class CrashHistory {
 public:
  struct Options {
    int lives = 4;
    int writes = 40;           // Of each life.
    std::size_t points = 200;  // Of each life, at most; every prefix where they suffice.
    // Off: syncs promise nothing. For a test that the oracle notices.
    bool trusts_syncs = true;
    int kills = 30;  // Percent of the lives that end so, and not with the machine.
  };
  CrashHistory(const Options& options, std::uint64_t seed, Figures& figures);
  void run();

 private:
  using Rig = tier::disk::Rig;
  using BlockMemory = tier::disk::BlockMemory;
  static constexpr std::size_t kNever = SIZE_MAX;

  // One writing of a block. Moments are the recorder's.
  struct Copy {
    std::uint32_t version = 0;
    std::size_t begun = 0;
    std::size_t acknowledged = kNever;
    std::size_t gone = kNever;       // Evicted or reset: need not be found from here on,
    std::size_t forbidden = kNever;  // and must not.
  };
  struct Name {  // Of a block: the same hashes in both models, with other bytes.
    int model = 0;
    std::uint16_t group = 0;
    std::uint64_t number = 0;
    auto operator<=>(const Name&) const = default;
  };
  struct Pending {
    Name name;
    std::size_t copy = 0;
    BlockMemory memory;
  };

  // ---- What a block of a version holds.
  [[nodiscard]] static std::uint64_t content_of(const Name& name, std::uint32_t version);
  [[nodiscard]] static std::uint64_t alias_of(const Name& name, std::uint32_t version);

  // ---- One life.
  void draw_shape();
  void live();
  bool open_recording();
  void work();
  void write(const Name& name);
  void reset();
  void step();
  void drain();
  void settle_accounts();
  void note_evictions();

  // ---- After it.
  void crash_often();
  void kill();
  // A sync has failed and the owner has not said so yet.
  [[nodiscard]] bool is_untold(std::size_t moment) const;
  std::unique_ptr<Rig> rebuild(std::size_t moment, unsigned percent);
  void configure(Rig& rig, int model) const;
  void examine(Rig& rig, std::size_t moment, int model);
  void judge(Rig& rig, const Name& name, std::size_t moment);
  // The version that is read back; nothing when it can't be, with the status.
  [[nodiscard]] std::optional<std::uint32_t> version_read(Rig& rig, const Name& name,
                                                          Status& status);
  // What the next life may expect of the medium that it begins with.
  void learn(Rig& rig, std::size_t moment);
  void adopt(Rig& rig, const Name& name, std::vector<Copy>& copies);
  void adopt_all();
  void expect_acknowledged();
  static void keep_possible(std::vector<Copy>& copies, std::size_t moment);
  [[nodiscard]] std::size_t moment_of(std::size_t point, std::size_t points);
  void find(std::uint64_t& counter, const std::string& what);

  const Options options_;
  Rng rng_;
  Figures& figures_;

  // The shape of this history; some of it changes between lives.
  Rig::Shape shape_;
  int paths_ = 1;
  int model_ = 0;
  std::uint64_t blocks_ = 16;
  std::string backend_;
  std::string preallocate_;
  bool has_faults_ = false;
  unsigned sync_error_ = 0;  // Percent of the syncs.

  std::unique_ptr<Rig> rig_;  // The medium of this life.
  std::unique_ptr<tier::disk::ScratchDirectory> snapshot_;
  std::unique_ptr<transfer::Recorder> recorder_;
  transfer::FaultBackend* faults_ = nullptr;
  std::map<Name, std::vector<Copy>> copies_;
  std::map<std::uint64_t, Pending> under_way_;
  std::uint64_t next_token_ = 1;
  std::uint32_t next_version_ = 1;
  std::size_t start_ = 0;
  bool was_killed_ = false;  // The life before: its changes are still in the system's hands.
  bool was_reset_ = false;
  std::string context_;
};

}  // namespace terrace::campaign
