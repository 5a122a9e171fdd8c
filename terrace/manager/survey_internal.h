// How far a request could resume from what the tiers hold, and which blocks that takes. Changes
// nothing but the touch order of blocks in doubt.
// Threading: thread-compatible; the manager's lock guards it.  Waits: never.
// Source: design.md section 1.5.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "terrace/manager/context_internal.h"

namespace terrace::manager {

class Survey {
 public:
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

  // A slot whose bytes are in doubt: not offered until it is cleared or removed.
  void condemn(SlotRef slot) { condemned_.push_back(slot); }
  void absolve(SlotRef slot) { std::erase(condemned_, slot); }
  [[nodiscard]] const std::vector<SlotRef>& condemned() const { return condemned_; }
  [[nodiscard]] bool is_condemned(SlotRef slot) const;
  // Of a block in host.
  [[nodiscard]] bool is_in_doubt(const BlockKey& key);

 private:
  static constexpr std::size_t kMaxRuns = 64;
  [[nodiscard]] bool can_read() const {
    return context_.lower != nullptr && context_.is_lower_readable;
  }
  [[nodiscard]] bool is_offered(GroupId group, const SequenceHash& hash, bool may_read);
  // Leading blocks in host, as far as none is in doubt.
  [[nodiscard]] std::uint64_t in_host(GroupId group, std::span<const SequenceHash> hashes);
  // The most blocks, at most `end`, at which `group` finds all that lies in its window.
  [[nodiscard]] std::uint64_t windowed(GroupId group, std::span<const SequenceHash> hashes,
                                       std::uint64_t first, std::uint64_t end, bool may_read);

  Context& context_;
  std::vector<SlotRef> condemned_;
};

}  // namespace terrace::manager
