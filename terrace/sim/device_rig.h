// A disk that is made up: every transfer takes its time on a virtual clock, fails or lies as a seed
// says, and what was not synced may be lost when the power goes. The bytes themselves lie in real
// files on a file system in memory, so that the code which opens them sees what is "on the medium".
// Fault model: an operation fails (EIO, ENOSPC), a failed write having landed up to some sector; a
// read returns flipped, cut or another place's bytes and says ok; a frame lands flipped or torn and
// says ok; completions come in another order, late, and long after any deadline. Crash model: a
// write that had finished before a sync of its file began is on the medium once that sync has
// finished. Of every other write any set of 512-byte sectors may have landed. A sync that failed
// promises nothing about what it covered, nor does a later one. What an owner that was killed, or
// has ended, left unsynced stays so, until somebody syncs it or the power goes.
// Threading: one thread.  Waits: never; wait() moves the clock.  Source: terrace/sim/README.md.
#pragma once

#include <array>
#include <deque>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "terrace/base/rng.h"
#include "terrace/block/key.h"
#include "terrace/testing/fake_clock.h"
#include "terrace/testing/file_calls.h"
#include "terrace/transfer/backend.h"

namespace terrace::sim {

constexpr Nanoseconds microseconds(std::int64_t n) { return Nanoseconds(n * 1'000); }

// How long things take. Reads and writes are served first come, first served, by `channels` that
// work side by side; each takes `latency` and `per_page` for every 4 KiB it moves. A sync waits for
// the writes begun before it, an allocation for nobody.
struct DeviceModel {
  unsigned channels = 4;
  Nanoseconds latency = microseconds(80);
  Nanoseconds per_page = microseconds(2);
  Nanoseconds sync = microseconds(200);
  unsigned jitter_percent = 0;  // A transfer takes up to this much longer: they overtake another.
};

// Of 10,000 transfers of the kind; at most one fault each.
struct DeviceFaults {
  unsigned read_error = 0;
  unsigned write_error = 0;
  unsigned sync_error = 0;
  unsigned no_space = 0;  // Writes and allocations.
  unsigned flipped_read = 0;
  unsigned short_read = 0;      // The tail from some sector on is what the memory held before.
  unsigned misplaced_read = 0;  // The bytes of another frame, half of them of the same key.
  unsigned flipped_write = 0;   // Frames only, as torn ones: records rot by rot_record().
  unsigned torn_write = 0;
  unsigned hanging = 0;  // Takes up to `longest_hang` more.
  Nanoseconds longest_hang = seconds(20);
};

// Who watches the device: who owns the memory it moves bytes to and from, and what it spoilt.
class DeviceWitness {
 public:
  virtual ~DeviceWitness() = default;
  // Returns what moves() is to be told of this transfer.
  [[nodiscard]] virtual std::uint64_t begins(const transfer::Transfer& transfer) = 0;
  // Just before the bytes move.
  virtual void moves(const transfer::Transfer& transfer, std::uint64_t mark) = 0;
  // The stored block of this key need not be found any more: its frame, its record or a read of it
  // was spoilt.
  virtual void harms(GroupId group, const SequenceHash& hash) = 0;
};

class Device {
 public:
  Device(std::uint64_t seed, const DeviceModel& model) : rng_(seed), model_(model) {}

  // A backend for one life of its owner, to be given to Options::decorate in place of the real one.
  // `clock` outlives it.
  [[nodiscard]] std::unique_ptr<transfer::Backend> plug_in(testing::FakeClock& clock,
                                                           unsigned depth);
  void set_witness(DeviceWitness* witness) { witness_ = witness; }
  void set_faults(const DeviceFaults& faults) { faults_ = faults; }
  // What is written from now on is kept until it is synced, for cut_power().
  void keep_unsynced() { keeps_unsynced_ = true; }
  // What is written from now on takes its time, and is gone: for measurements that read nothing
  // of it.
  void drop_writes() { drops_writes_ = true; }
  // Writes under way land in part. From here on the plugged-in backend does nothing, and says so
  // at once, until settle_power().
  void cut_power();
  // After the owner is gone: makes the files what the medium holds. `percent` of the sectors in
  // doubt have landed.
  void settle_power(unsigned percent);
  // After the owner is gone, and the machine stays: all that was written is there to be read, and
  // as durable as it was.
  void leave() { has_power_ = true; }
  // The owner changes a file by itself, while it opens. Names and lengths count as landed.
  void see(const testing::FileChange& change);
  // Flips a bit of a frame, or of a record of slots.meta, that was written at some time.
  void rot_frame();
  void rot_record();

  // When the next completion is due; kNoDeadline = nothing is under way.
  [[nodiscard]] Nanoseconds next_due() const {
    return flights_.empty() ? kNoDeadline : flights_.begin()->first.first;
  }
  [[nodiscard]] std::size_t in_flight() const { return flights_.size(); }
  [[nodiscard]] std::uint64_t injected() const { return injected_; }
  [[nodiscard]] std::uint64_t events() const { return events_; }  // Transfers begun and ended.

 private:
  friend class DeviceBackend;
  enum class Fault : std::uint8_t { kNone, kError, kNoSpace, kFlip, kCut, kMisplace };
  struct Flight {
    transfer::Transfer transfer;
    const std::string* path = nullptr;
    Fault fault = Fault::kNone;
    std::uint64_t begun = 0;  // By events_.
    std::uint64_t mark = 0;   // The witness's.
  };
  struct Unsynced {
    std::string path;
    std::uint64_t offset = 0;
    std::vector<std::byte> before;
    std::vector<std::byte> after;
    std::uint64_t finished = 0;  // By events_; 0 = under way when the power went.
    bool is_durable = false;
    bool is_doomed = false;  // A sync of it failed.
  };
  struct Outcome {
    int error = 0;
    bool is_short = false;
  };
  using Place = std::pair<std::string, std::uint64_t>;
  using Flights = std::map<std::pair<Nanoseconds, std::uint64_t>, Flight>;

  void start(const transfer::Transfer& transfer, const std::string& path);
  [[nodiscard]] Nanoseconds serve(const transfer::Transfer& transfer);
  [[nodiscard]] Fault choose(const transfer::Transfer& transfer);
  [[nodiscard]] Outcome finish(const Flight& flight);
  [[nodiscard]] Outcome read(const Flight& flight);
  [[nodiscard]] std::uint64_t other_frame(const Flight& flight);
  [[nodiscard]] Outcome write(const Flight& flight);
  void land(const Flight& flight, const std::vector<std::byte>& bytes, std::uint64_t finished);
  void sync(const std::string& path, std::uint64_t begun, bool is_failed);
  void forget_from(const std::string& path, std::uint64_t length);
  void tell_harm(const transfer::Transfer& transfer);
  [[nodiscard]] bool chance(unsigned of_ten_thousand);

  void rot(const Place& place, std::uint64_t within, bool is_record);

  testing::FakeClock* clock_ = nullptr;  // Of the present life.
  Rng rng_;
  const DeviceModel model_;
  DeviceFaults faults_;
  DeviceWitness* witness_ = nullptr;
  Flights flights_;
  std::vector<Nanoseconds> channels_;  // When each is free.
  std::deque<Unsynced> unsynced_;      // In the order in which they landed.
  std::deque<Place> frames_;           // Written lately: file and offset.
  std::deque<Place> records_;          // The same of batches of records.
  std::uint64_t last_flight_ = 0;
  std::uint64_t events_ = 0;
  std::uint64_t injected_ = 0;
  bool keeps_unsynced_ = false;
  bool drops_writes_ = false;
  bool has_power_ = true;
};

}  // namespace terrace::sim
