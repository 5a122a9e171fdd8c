// What each KV group needs of the past for a request to go on after some blocks: all of it, or what
// lies within its window. A request can resume only where every group has what it needs.
// Threading: immutable values.  Waits: never.  Source: docs/adr/0019.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "terrace/block/layout.h"
#include "terrace/manager/options.h"

namespace terrace::manager {

class Groups {
 public:
  // No rules: every group needs all.
  Groups(const Layout& layout, const std::vector<GroupRule>& rules);

  [[nodiscard]] std::uint16_t count() const { return static_cast<std::uint16_t>(groups_.size()); }
  // One group that needs everything: whatever leading part of a run is there can be used, also when
  // the rest is lost. Otherwise less of it is another question, to be asked again.
  [[nodiscard]] bool is_plain() const { return groups_.size() == 1 && needs_all(GroupId(0)); }
  [[nodiscard]] bool needs_all(GroupId group) const { return of(group).window == Tokens(0); }
  // The first block that `group` needs once `blocks` are computed. Never decreases with `blocks`.
  [[nodiscard]] std::uint64_t first_needed(GroupId group, std::uint64_t blocks) const;
  // Whether `device_block` of a block table stands for none.
  [[nodiscard]] bool is_null(GroupId group, std::uint32_t device_block) const {
    return of(group).null_block == device_block;
  }
  // One rank's payload of one block, and that of all ranks.
  [[nodiscard]] Bytes shard_bytes(GroupId group) const { return of(group).shard_bytes; }
  [[nodiscard]] Bytes bytes(GroupId group) const { return of(group).shard_bytes * ranks_; }
  // Of the groups whose every block is loaded, or of all where there is none: what a block costs.
  [[nodiscard]] Bytes load_bytes() const;
  // Of the largest group.
  [[nodiscard]] Bytes most_bytes() const { return most_shard_bytes() * ranks_; }
  // The same of one rank.
  [[nodiscard]] Bytes most_shard_bytes() const;

 private:
  struct Group {
    Tokens window;
    std::optional<std::uint32_t> null_block;
    Bytes shard_bytes;
  };
  [[nodiscard]] const Group& of(GroupId group) const { return groups_[group.value()]; }

  Tokens block_tokens_;
  std::uint16_t ranks_;
  std::vector<Group> groups_;
};

}  // namespace terrace::manager
