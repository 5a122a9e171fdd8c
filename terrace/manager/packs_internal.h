// Packs on their way from host slots into a shared store: offered when the last of their blocks was
// sealed, if the others are still in host, and again when a later request finds them.
// Threading: thread-compatible; the manager's lock guards it. The I/O thread takes jobs, performs
// them without the lock and comes back with finish().  Waits: never. Bounds: object.queue_packs,
// and pins on at most a quarter of the host slots.
#pragma once

#include <cstdint>
#include <deque>
#include <memory>
#include <set>
#include <span>
#include <string>
#include <unordered_map>
#include <vector>

#include "terrace/manager/context_internal.h"

namespace terrace::manager {

// The hashes of a pack's blocks, shared by the saves of those blocks.
using PackHashes = std::shared_ptr<const std::vector<SequenceHash>>;

struct PackJob {
  struct Shard {
    SlotIndex slot{};
    std::vector<Checksum> checksums{};
  };
  std::uint64_t token = 0;
  PackHashes hashes{};
  std::vector<Shard> shards{};  // By block, then by group.
};

class Packs {
 public:
  explicit Packs(Context& context) : context_(context) {}

  // The pack that block `block` of the chain belongs to; null when there is no shared store, or the
  // chain ends before the pack does. The same object for all blocks of one pack.
  [[nodiscard]] PackHashes pack_of(std::span<const SequenceHash> chain, std::uint64_t block);
  // Some of its blocks were sealed just now, or a request has found all of them.
  void offer(const PackHashes& pack, Nanoseconds now);
  // A request has found the chain's first `found` blocks: packs of them that are in host, and that
  // the store has never been seen to have, are put after all. So what was computed while the store
  // was away gets there, and what was dropped.
  void offer_found(std::span<const SequenceHash> chain, std::uint64_t found, Nanoseconds now);
  // None in a mode that stores nothing.
  void take(std::size_t limit, std::vector<PackJob>& jobs);
  void put_back(std::uint64_t token);
  void finish(std::uint64_t token, const Status& status);
  // Nothing more is accepted, what has not begun is dropped.
  void stop();
  // What belongs to a namespace that was left is not put any more.
  void forget_stale();

  [[nodiscard]] std::size_t size() const { return packs_.size(); }
  [[nodiscard]] bool has_jobs() const { return !queue_.empty() && context_.mode == Mode::kOn; }
  // Why no pack can ever be put, and the way out; empty = they can.
  [[nodiscard]] std::string problem() const;
  // Waiting or under way at most: their blocks are pinned, which may be a quarter of host.
  [[nodiscard]] std::size_t limit() const;

 private:
  static constexpr std::uint64_t kMostLooks = 256;  // Per request; some 40 us under the lock.
  struct Pack {
    PackHashes hashes{};
    NamespaceId name_space{};
    std::vector<catalog::PinRun> pins{};  // [group]
    bool is_begun = false;
  };
  // Pins of all its blocks, by group; nothing when one is missing.
  [[nodiscard]] std::vector<catalog::PinRun> hold(const std::vector<SequenceHash>& hashes);
  void erase(std::unordered_map<std::uint64_t, Pack>::iterator pack);

  Context& context_;
  bool is_stopped_ = false;
  std::uint64_t last_token_ = 0;
  PackHashes latest_;  // Blocks come in order: the next one is mostly of the same pack.
  std::unordered_map<std::uint64_t, Pack> packs_;  // By token.
  std::set<SequenceHash> names_;                   // Of packs_.
  std::deque<std::uint64_t> queue_;
};

}  // namespace terrace::manager
