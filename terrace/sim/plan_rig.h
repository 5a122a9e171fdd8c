// Time to first token over a disk that a token bucket throttles: the production core, with its
// planner or a fixed choice in its place, beside an engine that computes everything itself.
// Virtual time: the same figures on every machine. Threading: one thread.  Waits: never.
#pragma once

#include <cstdint>
#include <vector>

#include "terrace/base/strong.h"

namespace terrace::sim {

enum class PlanChoice : std::uint8_t { kPlanner, kAlways, kNever, kHalf };

// One user, one request after the other. Prompts continue one of some documents that lie on disk;
// host has the last two or three of those that were loaded or computed.
struct PlanLoad {
  PlanChoice choice = PlanChoice::kPlanner;
  double throttle =
      1;  // Of the disk's full speed, at which reading a block takes 1/20 of computing.
  // Above 0: after so many requests the throttle is another, drawn from 1, 1/10, 1/100, 1/1000.
  unsigned changes_every = 0;
  // Each request finds the disk faster or slower by up to that share.
  double jitter = 0;
  Nanoseconds lookup_deadline{0};  // 0 = the default.
  unsigned requests = 1'000;
  std::uint64_t seed = 1;
};

struct PlanTimes {
  std::vector<Nanoseconds> first_token;
  std::vector<Nanoseconds> off;  // Of the same requests, everything computed.
  std::uint64_t loads = 0;       // Requests that loaded, or waited for a load.
  // Of these: waiting and copying took longer than computing the same, or nothing came.
  std::uint64_t slow_loads = 0;
  std::uint64_t abandoned = 0;
  std::uint64_t loaded_blocks = 0;
};

[[nodiscard]] PlanTimes measure_plan(const PlanLoad& load);
[[nodiscard]] Nanoseconds quantile(std::vector<Nanoseconds> times, double share);

}  // namespace terrace::sim
