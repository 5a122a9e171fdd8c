// How far a request could resume from what the tiers hold, which blocks that takes, and the holding
// of those in host. Knows the slots in doubt and offers and pins none of them. Changes nothing
// beside its pins but the touch order of blocks in doubt.
// Threading: thread-compatible; the manager's lock guards it.  Waits: never.
// Source: docs/architecture.md.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <unordered_set>
#include <vector>

#include "terrace/manager/context_internal.h"
#include "terrace/manager/request_internal.h"

namespace terrace::manager {

class Survey {
 public:
  enum class Hold : std::uint8_t { kHeld, kGone, kInDoubt };

  explicit Survey(Context& context) : context_(context) {}

  // Leading blocks of `hashes` that some tier offers, as runs; the first `in_host` are known to be
  // in host. Without `may_read` only those of the host count.
  [[nodiscard]] std::uint64_t leading(GroupId group, std::span<const SequenceHash> hashes,
                                      std::uint64_t in_host, bool may_read,
                                      std::vector<policy::SourceRun>& runs) const;
  // The most blocks, at most `end`, after which every group can resume, where the engine itself has
  // [0, first) of the chain `hashes`; `first` when there are none. `runs`: where those of the first
  // group that needs all of them lie.
  [[nodiscard]] std::uint64_t resume_at(std::span<const SequenceHash> hashes, std::uint64_t first,
                                        std::uint64_t end, bool may_read,
                                        std::vector<policy::SourceRun>& runs);

  // Pins what leads `hashes` in host, the first of them being the strand's first block. False if
  // that ends at a block in doubt.
  bool hold_leading(Strand& strand, std::span<const SequenceHash> hashes);
  // Pins `block` of the strand's tail, which is missing.
  Hold hold(Strand& strand, std::uint64_t block, const SequenceHash& hash);

  // Some tier below host can be read from.
  [[nodiscard]] bool can_read() const { return can_read_disk() || context_.objects != nullptr; }

  // A slot whose bytes are in doubt: neither offered nor held until it is cleared or removed.
  void condemn(SlotRef slot) { condemned_.insert(slot); }
  void absolve(SlotRef slot) { condemned_.erase(slot); }
  [[nodiscard]] bool has_doubts() const { return !condemned_.empty(); }
  [[nodiscard]] bool is_condemned(SlotRef slot) const;
  // Of a block in host.
  [[nodiscard]] bool is_in_doubt(const BlockKey& key);

 private:
  struct HashOfSlot {
    std::size_t operator()(SlotRef slot) const noexcept {
      return std::hash<std::uint32_t>()(slot.index.value());
    }
  };
  static constexpr std::size_t kMaxRuns = 64;
  [[nodiscard]] bool can_read_disk() const {
    return context_.lower != nullptr && context_.is_lower_readable;
  }
  // Leading blocks of `hashes` in one tier.
  [[nodiscard]] std::uint64_t leading_in(Tier tier, GroupId group,
                                         std::span<const SequenceHash> hashes) const;
  [[nodiscard]] Tier slowest(bool may_read) const;
  [[nodiscard]] bool is_offered(GroupId group, const SequenceHash& hash, bool may_read);
  // Leading blocks in host, as far as none is in doubt.
  [[nodiscard]] std::uint64_t in_host(GroupId group, std::span<const SequenceHash> hashes);
  // The most blocks, at most `end`, at which `group` finds all that lies in its window.
  [[nodiscard]] std::uint64_t windowed(GroupId group, std::span<const SequenceHash> hashes,
                                       std::uint64_t first, std::uint64_t end, bool may_read);

  Context& context_;
  std::unordered_set<SlotRef, HashOfSlot> condemned_;
};

}  // namespace terrace::manager
