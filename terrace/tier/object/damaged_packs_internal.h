// Packs that did not verify, each until it is known to be gone, another one or well again: what the
// status tells.
// Threading: thread-compatible; the tier's lock guards it.  Waits: never.  Bounds: kMost; of more
// the first told go.
#pragma once

#include <algorithm>
#include <cstdint>
#include <deque>
#include <optional>
#include <string>
#include <utility>

#include "terrace/tier/object/timed_names_internal.h"

namespace terrace::tier::object {

struct DamagedPack {
  PackName name;
  std::string text{};                     // For people.
  std::optional<std::uint64_t> offset{};  // Of what did not verify; empty = its length is wrong.
  // What lay there when it was seen damaged, as far as is known: another one differs in that.
  std::optional<std::uint64_t> bytes{};
  std::optional<std::int64_t> modified_seconds{};
  Nanoseconds look_at{0};
};

class DamagedPacks {
 public:
  static constexpr std::size_t kMost = 256;

  // One that is in it becomes the newest.
  void add(DamagedPack pack) {
    remove(pack.name);
    packs_.push_back(std::move(pack));
    if (packs_.size() > kMost) packs_.pop_front();
  }
  void remove(const PackName& name) {
    std::erase_if(packs_, [&](const DamagedPack& pack) { return pack.name == name; });
  }
  // So many bytes from `offset` on have verified.
  void note_well(const PackName& name, std::uint64_t offset, std::uint64_t bytes) {
    const DamagedPack* pack = find(name);
    if (pack == nullptr || !pack->offset || *pack->offset < offset) return;
    if (*pack->offset - offset < bytes) remove(PackName(name));
  }
  void clear() { packs_.clear(); }
  // Null: it is not in it.
  [[nodiscard]] DamagedPack* find(const PackName& name) {
    const auto found = std::ranges::find(packs_, name, &DamagedPack::name);
    return found == packs_.end() ? nullptr : &*found;
  }
  // The one whose turn it is to be looked at; null = none's, yet.
  [[nodiscard]] const DamagedPack* due(Nanoseconds now) const {
    const auto first = std::ranges::min_element(packs_, {}, &DamagedPack::look_at);
    return first == packs_.end() || first->look_at > now ? nullptr : &*first;
  }
  [[nodiscard]] std::size_t size() const { return packs_.size(); }
  // There is one.
  [[nodiscard]] const DamagedPack& newest() const { return packs_.back(); }

 private:
  std::deque<DamagedPack> packs_;  // The newest last.
};

}  // namespace terrace::tier::object
