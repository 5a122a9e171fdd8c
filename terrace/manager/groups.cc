#include <algorithm>

#include "terrace/manager/groups_internal.h"

namespace terrace::manager {

Groups::Groups(const Layout& layout, const std::vector<GroupRule>& rules)
    : block_tokens_(layout.block_tokens), ranks_(layout.ranks) {
  for (std::size_t i = 0; i < layout.groups.size(); ++i) {
    const GroupRule rule = i < rules.size() ? rules[i] : GroupRule{};
    groups_.push_back({.window = rule.window,
                       .null_block = rule.null_block,
                       .shard_bytes = layout.groups[i].shard_bytes()});
  }
}

std::uint64_t Groups::first_needed(GroupId group, std::uint64_t blocks) const {
  const std::uint64_t window = of(group).window.value();
  // The next token, the one at `computed`, sees itself and the window - 1 before it.
  const std::uint64_t computed = blocks * block_tokens_.value();
  if (window == 0 || computed + 1 <= window) return 0;
  return (computed + 1 - window) / block_tokens_.value();
}

Bytes Groups::load_bytes() const {
  Bytes total(0);
  for (const Group& group : groups_) {
    if (group.window == Tokens(0)) total += group.shard_bytes * ranks_;
  }
  if (total > Bytes(0)) return total;
  for (const Group& group : groups_) total += group.shard_bytes * ranks_;
  return total;
}

Bytes Groups::most_shard_bytes() const {
  Bytes most(0);
  for (const Group& group : groups_) most = std::max(most, group.shard_bytes);
  return most;
}

}  // namespace terrace::manager
