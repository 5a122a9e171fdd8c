#include "terrace/trace/scenario.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <utility>

#include "terrace/base/rng.h"

namespace terrace::trace {
namespace {

struct Span {
  Nanoseconds begin{0};
  Nanoseconds end{0};
};

// The middle of the workload's time, `share` of it.
Span middle(const Workload& workload, double share) {
  if (workload.requests().empty()) return {};
  const Nanoseconds first = workload.requests().front().at;
  const auto whole = static_cast<double>((workload.requests().back().at - first).value());
  const auto at = [&](double part) {
    return first + Nanoseconds(static_cast<std::int64_t>(whole * part));
  };
  return {at(0.5 - share / 2), at(0.5 + share / 2)};
}

// Those that arrive in the span.
std::vector<Request> requests_in(const Workload& workload, const Span& span) {
  std::vector<Request> all;
  for (const Request& request : workload.requests()) {
    if (request.at >= span.begin && request.at <= span.end && request.part == Part::kTrace) {
      all.push_back(request);
    }
  }
  return all;
}

double uniform(Rng& rng) { return (static_cast<double>(rng.next() >> 11U) + 0.5) * 0x1.0p-53; }

Nanoseconds exponential(Rng& rng, double mean_seconds) {
  return Nanoseconds(static_cast<std::int64_t>(-std::log(uniform(rng)) * mean_seconds * 1e9));
}

std::uint32_t grown(Workload& workload, std::uint32_t tip, std::uint64_t blocks) {
  for (std::uint64_t i = 0; i < blocks; ++i) tip = workload.add_block(tip);
  return tip;
}

// A prompt that goes beyond what others share, and whose answer nobody goes on from.
struct Once {
  std::uint32_t tip = 0;  // Of what is shared.
  std::uint64_t depth = 0;
  std::uint64_t own = 0;     // Blocks.
  std::uint64_t answer = 0;  // Blocks, at most.
};

void add_once(Workload& workload, Rng& rng, Nanoseconds at, const Once& once) {
  const std::uint32_t tip = grown(workload, once.tip, once.own);
  const std::uint64_t answer = 1 + rng.below(once.answer);
  workload.add_request(
      {.at = at,
       .tip = tip,
       .depth = static_cast<std::uint32_t>(once.depth + once.own),
       .answer_tokens = static_cast<std::uint32_t>(answer) * workload.block_tokens(),
       .answer_tip = grown(workload, tip, answer)});
}

}  // namespace

Workload make_chat(const ChatOptions& options) {
  constexpr std::uint64_t kSystemPrompts = 3;
  constexpr std::uint64_t kSystemBlocks = 12;
  constexpr double kThinkSeconds = 60;
  constexpr unsigned kGoesOn = 75;  // Percent, after each turn.
  Rng rng(options.seed);
  Workload workload;
  (void)workload.set_block_tokens(options.block_tokens);
  std::vector<std::uint32_t> system;
  system.reserve(kSystemPrompts);
  for (std::uint64_t i = 0; i < kSystemPrompts; ++i) {
    system.push_back(grown(workload, 0, kSystemBlocks));
  }
  for (std::uint32_t i = 0; i < options.conversations; ++i) {
    Nanoseconds at(
        static_cast<std::int64_t>(rng.below(static_cast<std::uint64_t>(options.span.value()) + 1)));
    std::uint32_t tip = system[rng.below(kSystemPrompts)];
    std::uint64_t depth = kSystemBlocks;
    std::uint64_t answer = 0;
    do {
      const std::uint64_t more = answer + 1 + rng.below(12);
      answer = 1 + rng.below(8);
      depth += more;
      tip = grown(workload, tip, more);
      workload.add_request(
          {.at = at,
           .tip = tip,
           .depth = static_cast<std::uint32_t>(depth),
           .answer_tokens = static_cast<std::uint32_t>(answer) * options.block_tokens});
      at += exponential(rng, kThinkSeconds);
    } while (rng.chance(kGoesOn));
  }
  workload.sort();
  return workload;
}

Workload make_rag(const RagOptions& options) {
  constexpr std::uint64_t kSystemBlocks = 8;
  Rng rng(options.seed);
  Workload workload;
  (void)workload.set_block_tokens(options.block_tokens);
  const std::uint32_t system = grown(workload, 0, kSystemBlocks);
  // How likely each is or one before it, and how long each is.
  std::vector<double> weights;
  std::vector<std::uint64_t> lengths;
  double all = 0;
  for (std::uint32_t i = 0; i < options.documents; ++i) {
    all += 1.0 / (i + 1);
    weights.push_back(all);
    lengths.push_back(8 + rng.below(33));
  }
  // A document after others is other blocks than after none.
  std::map<std::pair<std::uint32_t, std::size_t>, std::uint32_t> tips;
  for (std::uint32_t i = 0; i < options.questions; ++i) {
    const Nanoseconds at(
        static_cast<std::int64_t>(rng.below(static_cast<std::uint64_t>(options.span.value()) + 1)));
    std::uint32_t tip = system;
    std::uint64_t depth = kSystemBlocks;
    for (std::uint64_t found = 1 + rng.below(3); found > 0; --found) {
      const auto chosen = std::ranges::lower_bound(weights, uniform(rng) * all);
      const auto document = static_cast<std::size_t>(chosen - weights.begin());
      std::uint32_t& end = tips[{tip, document}];
      if (end == 0) end = grown(workload, tip, lengths[document]);
      tip = end;
      depth += lengths[document];
    }
    const std::uint64_t question = 1 + rng.below(3);
    add_once(workload, rng, at, {.tip = tip, .depth = depth, .own = question, .answer = 6});
  }
  workload.sort();
  return workload;
}

Workload make_batch(const BatchOptions& options) {
  constexpr std::uint64_t kInstructionBlocks = 16;
  Rng rng(options.seed);
  Workload workload;
  (void)workload.set_block_tokens(options.block_tokens);
  const std::uint32_t instructions = grown(workload, 0, kInstructionBlocks);
  for (std::uint32_t i = 0; i < options.items; ++i) {
    const auto part = static_cast<double>(i) / options.items;
    const Nanoseconds at(
        static_cast<std::int64_t>(static_cast<double>(options.span.value()) * part));
    const std::uint64_t item = 4 + rng.below(37);
    add_once(workload, rng, at,
             {.tip = instructions, .depth = kInstructionBlocks, .own = item, .answer = 12});
  }
  return workload;
}

bool mix_scan(Workload& workload, std::uint64_t seed, double share) {
  const Span span = middle(workload, 0.5);
  const std::vector<Request> users = requests_in(workload, span);
  std::uint64_t asked = 0;
  for (const Request& request : users) asked += request.depth;
  if (asked == 0) return false;
  const auto wanted = static_cast<std::uint64_t>(static_cast<double>(asked) * share);
  Rng rng(seed);
  std::vector<std::uint32_t> depths;
  for (std::uint64_t blocks = 0; blocks < wanted;) {
    const std::uint32_t depth = users[rng.below(users.size())].depth;
    if (depth == 0) continue;
    depths.push_back(depth);
    blocks += depth;
  }
  const auto whole = static_cast<double>((span.end - span.begin).value());
  for (std::size_t i = 0; i < depths.size(); ++i) {
    const double part = static_cast<double>(i) / static_cast<double>(depths.size());
    workload.add_request({.at = span.begin + Nanoseconds(static_cast<std::int64_t>(whole * part)),
                          .tip = grown(workload, 0, depths[i]),
                          .depth = depths[i],
                          .answer_tokens = 1,
                          .part = Part::kScan});
  }
  workload.sort();
  return !depths.empty();
}

bool mix_burst(Workload& workload, std::uint64_t seed, std::uint32_t users) {
  const Span span = middle(workload, 0.05);
  const std::vector<Request> copied = requests_in(workload, span);
  if (copied.empty()) return false;
  Rng rng(seed);
  std::vector<std::uint32_t> blocks;
  for (std::uint32_t user = 0; user < users; ++user) {
    // What of the trace has become what of this user's: what requests shared, they share still.
    std::unordered_map<std::uint32_t, std::uint32_t> twins;
    const Nanoseconds late(static_cast<std::int64_t>(rng.below(1'000'000'000)));
    for (Request request : copied) {
      workload.chain(request, blocks);
      std::uint32_t tip = 0;
      for (const std::uint32_t block : blocks) {
        std::uint32_t& twin = twins[block];
        if (twin == 0) twin = workload.add_block(tip);
        tip = twin;
      }
      request.tip = tip;
      request.at += late;
      request.answer_tip = 0;
      request.part = Part::kBurst;
      workload.add_request(request);
    }
  }
  workload.sort();
  return true;
}

}  // namespace terrace::trace
