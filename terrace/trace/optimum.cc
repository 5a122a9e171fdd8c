#include "terrace/trace/optimum.h"

#include <algorithm>
#include <queue>
#include <utility>

namespace terrace::trace {
namespace {

// So many blocks of a request are next used by request `next`.
struct NextUse {
  std::uint32_t next;
  std::uint32_t blocks;
};

struct NextUses {
  std::vector<NextUse> all;
  std::vector<std::size_t> first;  // Of each request, in `all`, which goes from the last request.
};

NextUses next_uses(const Workload& workload) {
  const auto& requests = workload.requests();
  const auto none = static_cast<std::uint32_t>(requests.size());
  NextUses uses;
  uses.first.resize(requests.size() + 1);
  std::vector<std::uint32_t> next(workload.unique_blocks(), none);
  for (std::uint32_t i = none; i-- > 0;) {
    uses.first[i + 1] = uses.all.size();
    const std::size_t begin = uses.all.size();
    for (std::uint32_t tip = requests[i].tip; tip != 0; tip = workload.parent(tip - 1)) {
      const std::uint32_t then = std::exchange(next[tip - 1], i);
      if (then == none) continue;
      if (uses.all.size() > begin && uses.all.back().next == then) {
        ++uses.all.back().blocks;
      } else {
        uses.all.push_back({then, 1});
      }
    }
  }
  uses.first[0] = uses.all.size();
  return uses;
}

}  // namespace

// A block that a request uses next is used by no other before, and its parents neither later: what
// is kept for a request is a leading run of its chain, whatever was given up, so a count says it.
std::uint64_t optimum_hits(const Workload& workload, std::uint64_t slots) {
  const NextUses uses = next_uses(workload);
  std::vector<std::uint32_t> kept(workload.requests().size(), 0);
  std::priority_queue<std::uint32_t> farthest;
  std::uint64_t total = 0;
  std::uint64_t hits = 0;
  for (std::uint32_t i = 0; i < kept.size(); ++i) {
    hits += kept[i];
    total -= std::exchange(kept[i], 0);
    for (std::size_t at = uses.first[i + 1]; at < uses.first[i]; ++at) {
      const auto [next, blocks] = uses.all[at];
      if (kept[next] == 0) farthest.push(next);
      kept[next] += blocks;
      total += blocks;
    }
    while (total > slots) {
      const std::uint32_t next = farthest.top();
      const auto gone =
          static_cast<std::uint32_t>(std::min<std::uint64_t>(kept[next], total - slots));
      kept[next] -= gone;
      total -= gone;
      if (kept[next] == 0) farthest.pop();
    }
  }
  return hits;
}

}  // namespace terrace::trace
