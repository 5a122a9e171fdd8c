#include <fmt/format.h>

#include "terrace/attach/server_loop_internal.h"

namespace terrace::attach {
namespace {

template <typename T>
std::string differ(const std::string& field, const T& owner, const T& worker) {
  return fmt::format("layout.{}: the owner has {}, the worker {}", field, owner, worker);
}

std::string group_difference(const std::string& name, const GroupLayout& owner,
                             const GroupLayout& worker) {
  if (owner.group != worker.group) {
    return differ(name + ".group", owner.group.value(), worker.group.value());
  }
  if (owner.piece_bytes.size() != worker.piece_bytes.size()) {
    return differ(name + ".pieces", owner.piece_bytes.size(), worker.piece_bytes.size());
  }
  for (std::size_t i = 0; i < owner.piece_bytes.size(); ++i) {
    if (owner.piece_bytes[i] != worker.piece_bytes[i]) {
      return differ(fmt::format("{}.piece_bytes[{}]", name, i), owner.piece_bytes[i].value(),
                    worker.piece_bytes[i].value());
    }
  }
  return {};
}

}  // namespace

std::string layout_difference(const Layout& owner, const Layout& worker) {
  if (owner.block_tokens != worker.block_tokens) {
    return differ("block_tokens", owner.block_tokens.value(), worker.block_tokens.value());
  }
  if (owner.ranks != worker.ranks) return differ("ranks", owner.ranks, worker.ranks);
  if (owner.groups.size() != worker.groups.size()) {
    return differ("groups", owner.groups.size(), worker.groups.size());
  }
  for (std::size_t i = 0; i < owner.groups.size(); ++i) {
    std::string difference =
        group_difference(fmt::format("groups[{}]", i), owner.groups[i], worker.groups[i]);
    if (!difference.empty()) return difference;
  }
  return {};
}

}  // namespace terrace::attach
