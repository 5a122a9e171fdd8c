#include "terrace/sim/plan_rig.h"

#include <algorithm>
#include <array>

#include "terrace/base/check.h"
#include "terrace/manager/core_rig.h"

namespace terrace::sim {

namespace {

using manager::rig::Rig;

// The engine: 5 ms a step of at most 64 blocks, 1 ms a block, and up to another millisecond a block
// at the end of the longest prompts, 5 % more or less.
constexpr std::uint64_t kStepBlocks = 64;
constexpr double kStepMs = 5;
constexpr double kBlockMs = 1;
constexpr double kDepthMs = 1.0 / 128;  // A block, per block before it.
// The disk at full speed: 50 us a block, 0.2 ms latency and up to as much again.
constexpr double kFullBlockSeconds = 50e-6;
constexpr Nanoseconds kLatency{200'000};
constexpr std::uint64_t kDocuments = 40;
constexpr std::uint64_t kLongest = 112;
constexpr Nanoseconds kTick{500'000};

class Run {
 public:
  explicit Run(const PlanLoad& load)
      : load_(load),
        rng_(load.seed),
        rig_({.host_blocks = 256,
              .device_blocks = 256,
              .has_disk = true,
              .tune = [&](manager::Options& options) {
                options.has_planner = load.choice == PlanChoice::kPlanner;
                options.disk.queue_blocks = 4096;
                if (load.lookup_deadline > Nanoseconds(0)) {
                  options.lookup_deadline = load.lookup_deadline;
                }
              }}) {
    rig_.disk.depth = 64;
    for (std::uint32_t i = 0; i < kDocuments; ++i) {
      // Written at leisure, read once: computed before anything is measured.
      (void)rig_.run_cold(tokens_of(i, kLongest, 0, 0));
    }
    throttle(load.throttle);
  }

  PlanTimes measure() {
    for (unsigned i = 0; i < load_.requests; ++i) {
      if (load_.changes_every > 0 && i % load_.changes_every == 0) {
        constexpr std::array<double, 4> kThrottles{1, 0.1, 0.01, 0.001};
        throttle(kThrottles[rng_.below(kThrottles.size())]);
      }
      request(i);
      pass(milliseconds(static_cast<std::int64_t>(rng_.below(100))));
    }
    times_.abandoned = rig_.counters.abandoned_loads.value();
    return std::move(times_);
  }

 private:
  static std::vector<std::uint32_t> tokens_of(std::uint32_t document, std::uint64_t blocks,
                                              std::uint32_t tail, std::uint64_t tail_blocks) {
    auto tokens = Rig::make_tokens(blocks, 1 + document);
    const auto more = Rig::make_tokens(tail_blocks, 1000 + tail);
    tokens.insert(tokens.end(), more.begin(), more.end());
    return tokens;
  }
  void throttle(double share) {
    const auto bytes = static_cast<double>(rig_.core.context().groups.most_bytes().value());
    rate_ = share * bytes / kFullBlockSeconds;
    rig_.disk.read_bytes_per_second = rate_;
    rig_.disk.burst = 2 * bytes;
  }
  // Blocks [from, to) computed, in whole steps.
  static double compute_ms(std::uint64_t from, std::uint64_t to) {
    double sum = 0;
    for (std::uint64_t at = from; at < to; at += kStepBlocks) {
      const auto count = static_cast<double>(std::min(kStepBlocks, to - at));
      sum += kStepMs + count * (kBlockMs + kDepthMs * (static_cast<double>(at) + count / 2));
    }
    return sum;
  }
  static Nanoseconds of_ms(double time) {
    return Nanoseconds(static_cast<std::int64_t>(time * 1e6));
  }
  // Meanwhile the owner's I/O goes on.
  void pass(Nanoseconds time) {
    const Nanoseconds end = rig_.clock.now() + time;
    while (rig_.clock.now() < end) {
      rig_.settle();
      rig_.clock.advance(std::min(kTick, end - rig_.clock.now()));
    }
    rig_.settle();
  }
  void request(unsigned number) {
    const std::uint64_t shared = 32 + rng_.below(kLongest - 32);
    const std::uint64_t tail = 2 + rng_.below(14);
    const auto document = static_cast<std::uint32_t>(rng_.below(kDocuments));
    const double noise = 0.95 + static_cast<double>(rng_.below(1000)) / 1e4;
    rig_.disk.latency = kLatency + Nanoseconds(static_cast<std::int64_t>(rng_.below(200'000)));
    if (load_.jitter > 0) {
      const double drawn = static_cast<double>(rng_.below(2001)) / 1000 - 1;
      rig_.disk.read_bytes_per_second = rate_ * (1 + load_.jitter * drawn);
    }
    const std::uint64_t blocks = shared + tail;
    const RequestId id =
        rig_.begin(tokens_of(document, shared, number, tail), load_.choice != PlanChoice::kNever);
    const Nanoseconds start = rig_.clock.now();
    const std::uint64_t limit = load_.choice == PlanChoice::kHalf ? shared / 2 : blocks - 1;
    manager::MatchAnswer answer = rig_.poll(id, 0, limit * manager::rig::kBlockTokens);
    while (!answer.is_ready) {
      pass(kTick);
      answer = rig_.poll(id, 0, limit * manager::rig::kBlockTokens);
    }
    const Nanoseconds waited = rig_.clock.now() - start;
    const std::uint64_t loaded = answer.external.value() / manager::rig::kBlockTokens;
    const Nanoseconds copied = compute(id, loaded, blocks, noise);
    times_.first_token.push_back(rig_.clock.now() - start);
    times_.off.push_back(of_ms(compute_ms(0, blocks) * noise));
    times_.loaded_blocks += loaded;
    if (loaded > 0 || waited > Nanoseconds(0)) {
      ++times_.loads;
      const double saved = (compute_ms(0, blocks) - compute_ms(loaded, blocks)) * noise;
      if (waited + copied > of_ms(saved)) ++times_.slow_loads;
    }
    (void)rig_.end(id);
  }
  // Steps until the first token; returns what the copies took.
  Nanoseconds compute(RequestId id, std::uint64_t loaded, std::uint64_t blocks, double noise) {
    const auto table = Rig::make_table(blocks);
    const Status status = rig_.accept(id, 0, loaded, table);
    TERRACE_CHECK(status.is_ok());
    Nanoseconds copied{0};
    for (std::uint64_t at = loaded; at < blocks;) {
      const std::uint64_t end = std::min(at + kStepBlocks, blocks);
      for (std::uint64_t block = at; block < end; ++block) {
        rig_.compute(id, block, table[block]);
      }
      rig_.advance(id, end, table);
      const auto orders = rig_.build();
      wire::Report report;
      if (orders) report = rig_.obey(0, *orders);
      const Nanoseconds copy(static_cast<std::int64_t>(report.load_ns));
      copied += copy;
      pass(copy + of_ms(compute_ms(at, end) * noise));
      if (orders) {
        const Status taken = rig_.core.take_report(report, rig_.clock.now());
        TERRACE_CHECK(taken.is_ok());
      }
      at = end;
    }
    return copied;
  }

  const PlanLoad load_;
  Rng rng_;
  Rig rig_;
  double rate_ = 0;  // Of the disk, bytes per second, before jitter.
  PlanTimes times_;
};

}  // namespace

PlanTimes measure_plan(const PlanLoad& load) { return Run(load).measure(); }

Nanoseconds quantile(std::vector<Nanoseconds> times, double share) {
  const auto count = static_cast<double>(times.size());
  const auto place = std::min(static_cast<std::size_t>(count * share), times.size() - 1);
  std::ranges::nth_element(times, times.begin() + static_cast<std::ptrdiff_t>(place));
  return times[place];
}

}  // namespace terrace::sim
