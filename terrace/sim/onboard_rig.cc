#include "terrace/sim/onboard_rig.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <vector>

#include "terrace/base/check.h"
#include "terrace/tier/disk/disk_rig.h"

namespace terrace::sim {

namespace {

using tier::DiskDone;
using tier::disk::hash_of;

constexpr std::uint64_t kReadBlocks = 64;
constexpr std::uint64_t kSlots = 1'024;
constexpr std::uint64_t kReadBit = std::uint64_t{1} << 62U;

class Run {
 public:
  explicit Run(const OnboardLoad& load)
      : load_(load),
        rng_(load.seed),
        device_(load.seed + 1, load.device),
        rig_({.ranks = 1, .payload_bytes = {load.payload_bytes}}),
        source_(1, load.payload_bytes) {
    tier::DiskTier::Options& options = rig_.options();
    options.backend = "threads";
    options.io = {.depth = load.depth, .threads = 1};
    options.is_direct = false;
    options.blocks = kSlots;
    options.decorate = [this](std::unique_ptr<transfer::Backend>) {
      return device_.plug_in(clock_, load_.depth);
    };
    if (load_.tune) load_.tune(options);
    rig_.use_clock(clock_);
    const Status status = rig_.open();
    TERRACE_CHECK(status.is_ok());
    source_.fill(1);
    sums_ = source_.checksums();
    for (std::uint64_t i = 0; i < kReadBlocks; ++i) write(i);
    drain();
    device_.drop_writes();
  }

  OnboardTimes measure() {
    OnboardTimes times;
    std::vector<Nanoseconds> taken = phase(false);
    times.idle_p50 = at(taken, 50);
    times.idle_p99 = at(taken, 99);
    const Nanoseconds start = clock_.now();
    written_ = 0;
    taken = phase(true);
    times.loaded_p50 = at(taken, 50);
    times.loaded_p99 = at(taken, 99);
    const auto service =
        load_.device.latency +
        load_.device.per_page * static_cast<std::int64_t>((load_.payload_bytes + 4095) / 4096 + 1);
    const double most = static_cast<double>((clock_.now() - start).value()) *
                        load_.device.channels / static_cast<double>(service.value());
    times.written_share = static_cast<double>(written_) / most;
    drain();
    return times;
  }

 private:
  struct Read {
    Nanoseconds begun{0};
    unsigned left = 0;
  };

  static Nanoseconds at(std::vector<Nanoseconds>& taken, std::size_t percent) {
    const std::size_t place = std::min(taken.size() * percent / 100, taken.size() - 1);
    std::ranges::nth_element(taken, taken.begin() + static_cast<std::ptrdiff_t>(place));
    return taken[place];
  }

  // False when the tier takes no more for now.
  bool write(std::uint64_t number) {
    return rig_.tier()
        .begin_write(number, GroupId(0), hash_of(number), 0, source_.shards(), sums_)
        .is_ok();
  }
  void begin_read() {
    const std::uint64_t id = ++last_read_;
    reads_[id] = {clock_.now(), load_.blocks_per_read};
    for (unsigned i = 0; i < load_.blocks_per_read; ++i) {
      const SequenceHash hash = hash_of(rng_.below(kReadBlocks));
      rig_.tier().touch(GroupId(0), hash);
      const Status status = rig_.tier().begin_read(kReadBit | id, GroupId(0), hash,
                                                   target_.shards(), load_.read_class, kNoDeadline);
      TERRACE_CHECK(status.is_ok());
    }
  }
  // Keeps the blocks that are read from being the oldest.
  void touch_all() {
    for (std::uint64_t i = 0; i < kReadBlocks; ++i) rig_.tier().touch(GroupId(0), hash_of(i));
  }
  void poll(std::vector<Nanoseconds>& taken) {
    done_.clear();
    rig_.tier().poll(done_);
    for (const DiskDone& done : done_) {
      TERRACE_CHECK(done.status.is_ok());
      if ((done.token & kReadBit) == 0) {
        ++written_;
        continue;
      }
      const auto read = reads_.find(done.token & ~kReadBit);
      if (--read->second.left > 0) continue;
      taken.push_back(clock_.now() - read->second.begun);
      reads_.erase(read);
    }
  }
  std::vector<Nanoseconds> phase(bool is_loaded) {
    std::vector<Nanoseconds> taken;
    const std::size_t unmeasured = load_.reads / 10;
    Nanoseconds arrival = clock_.now();
    std::uint64_t offered = 0;
    while (taken.size() < load_.reads + unmeasured) {
      while (is_loaded && write(next_block_)) {
        ++next_block_;
        if (++offered % (kSlots / 4) == 0) touch_all();
      }
      poll(taken);
      const Nanoseconds now = clock_.now();
      const Nanoseconds next = std::min(arrival, device_.next_due());
      if (next > now) clock_.advance(next - now);
      if (clock_.now() < arrival) continue;
      begin_read();
      poll(taken);  // As the owner's thread is woken at once.
      const double part = static_cast<double>(rng_.below(1'000'000) + 1) / 1e6;
      arrival =
          clock_.now() + Nanoseconds(static_cast<std::int64_t>(
                             -std::log(part) * static_cast<double>(load_.between_reads.value())));
    }
    taken.erase(taken.begin(), taken.begin() + static_cast<std::ptrdiff_t>(unmeasured));
    return taken;
  }
  void drain() {
    std::vector<Nanoseconds> ignored;
    for (;;) {
      poll(ignored);
      if (rig_.tier().is_idle() && device_.in_flight() == 0) return;
      rig_.tier().wait(milliseconds(10));
    }
  }

  const OnboardLoad& load_;
  Rng rng_;
  testing::FakeClock clock_;
  Device device_;
  tier::disk::Rig rig_;
  tier::disk::BlockMemory source_;
  tier::disk::BlockMemory target_{1, load_.payload_bytes};
  std::vector<Checksum> sums_;
  std::vector<DiskDone> done_;
  std::map<std::uint64_t, Read> reads_;
  std::uint64_t last_read_ = 0;
  std::uint64_t next_block_ = kReadBlocks;
  std::uint64_t written_ = 0;
};

}  // namespace

OnboardTimes measure_onboard(const OnboardLoad& load) { return Run(load).measure(); }

}  // namespace terrace::sim
