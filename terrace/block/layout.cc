#include "terrace/block/layout.h"

#include <fmt/format.h>

#include <set>

namespace terrace {
namespace {

constexpr Bytes kMaxShardBytes = 1_GiB;
constexpr std::uint16_t kMaxRanks = 64;

Status validate_group(const GroupLayout& group) {
  const unsigned id = group.group.value();
  if (group.piece_bytes.empty()) {
    return {Code::kInvalid, fmt::format("layout: group {} has no pieces", id)};
  }
  Bytes total;
  for (const Bytes piece : group.piece_bytes) {
    if (piece == Bytes(0)) {
      return {Code::kInvalid, fmt::format("layout: group {} has a piece of 0 bytes", id)};
    }
    // Compared before adding, so that huge pieces cannot wrap around.
    if (piece > kMaxShardBytes || total + piece > kMaxShardBytes) {
      return {Code::kInvalid, fmt::format("layout: a shard of group {} is larger than 1 GiB", id)};
    }
    total += piece;
  }
  return {};
}

}  // namespace

Bytes GroupLayout::shard_bytes() const {
  Bytes total;
  for (const Bytes piece : piece_bytes) total += piece;
  return total;
}

Status Layout::validate() const {
  if (block_tokens == Tokens(0)) return {Code::kInvalid, "layout: block_tokens is 0"};
  if (ranks == 0 || ranks > kMaxRanks) {
    return {Code::kInvalid, fmt::format("layout: {} ranks, allowed are 1 to {}", ranks, kMaxRanks)};
  }
  if (groups.empty()) return {Code::kInvalid, "layout: no KV groups"};
  std::set<GroupId> seen;
  for (const GroupLayout& group : groups) {
    TERRACE_RETURN_IF_ERROR(validate_group(group));
    if (!seen.insert(group.group).second) {
      return {Code::kInvalid, fmt::format("layout: group {} is there twice", group.group.value())};
    }
  }
  return {};
}

}  // namespace terrace
