#include "terrace/trace/foresight.h"

#include <algorithm>

#include "terrace/base/rng.h"

namespace terrace::trace {
namespace {

constexpr std::uint64_t kMillion = 1'000'000;

// Spread as real ones are, which are digests; none is a block's.
SequenceHash name_of(std::uint32_t session) {
  Rng rng(~std::uint64_t{session});
  const std::uint64_t high = rng.next();
  return {high, rng.next()};
}

// From one request to the next of its conversation; nothing = none comes.
Nanoseconds gap_after(const Workload& workload, const Foresight& known, std::uint32_t request) {
  const auto& requests = workload.requests();
  if (!known.next[request]) return Nanoseconds(0);
  const Nanoseconds gap = requests[*known.next[request]].at - requests[request].at;
  return std::max(gap, Nanoseconds(1));
}

}  // namespace

Foresight foresee(const Workload& workload) {
  const auto& requests = workload.requests();
  Foresight known;
  known.next.resize(requests.size());
  std::vector<std::optional<std::uint32_t>> ended_at(workload.unique_blocks());
  std::vector<std::uint32_t> blocks;
  for (std::uint32_t i = 0; i < requests.size(); ++i) {
    workload.chain(requests[i], blocks);
    std::optional<std::uint32_t> before;
    for (std::size_t at = blocks.size(); at-- > 0 && !before;) before = ended_at[blocks[at]];
    if (before && known.next[*before]) before.reset();
    if (before) known.next[*before] = i;
    known.session.push_back(before ? known.session[*before] : i);
    if (!blocks.empty()) {
      ended_at[blocks[blocks.size() - std::min<std::size_t>(blocks.size(), 2)]] = i;
    }
  }
  return known;
}

Workload with_hints(const Workload& workload, const Saying& saying) {
  const Foresight known = foresee(workload);
  const auto& requests = workload.requests();
  Workload hinted;
  for (std::uint32_t block = 0; block < workload.unique_blocks(); ++block) {
    (void)hinted.add_block(workload.parent(block));
  }
  Rng rng(saying.seed);
  for (std::uint32_t i = 0; i < requests.size(); ++i) {
    const bool is_wrong =
        static_cast<double>(rng.below(kMillion)) < saying.wrong * static_cast<double>(kMillion);
    const auto other = static_cast<std::uint32_t>(rng.below(requests.size()));
    Request request = requests[i];
    if (saying.over) request.hints.is_over = known.next[i].has_value() == is_wrong;
    if (saying.returns && !request.hints.is_over) {
      request.hints.returns_in = gap_after(workload, known, is_wrong ? other : i);
    }
    if (saying.session) request.hints.session = name_of(known.session[i]);
    hinted.add_request(request);
  }
  return hinted;
}

}  // namespace terrace::trace
