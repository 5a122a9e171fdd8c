// Key -> slot, and the longest stored prefix of a chain. Open addressing, key held in the entry: one
// cache miss per probe, and probes of one look-up are prefetched together.
// Threading: thread-compatible; the tier's lock guards it.  Waits: never.
// Memory: <= 30 bytes per slot of capacity, allocated in create().
#pragma once

#include <memory>
#include <optional>
#include <span>

#include "terrace/base/status.h"
#include "terrace/block/key.h"

namespace terrace::index {

class BlockIndex {
 public:
  // Errors: kInvalid for capacity 0 or over 2^31; kExhausted if memory is refused.
  static Result<BlockIndex> create(std::uint64_t capacity);
  BlockIndex(BlockIndex&&) noexcept;
  BlockIndex& operator=(BlockIndex&&) noexcept;
  ~BlockIndex();

  // False if the key is there already (the first writer stays). Breach when over capacity.
  bool insert(const BlockKey& key, SlotIndex slot);
  // False if absent.
  bool erase(const BlockKey& key);

  [[nodiscard]] std::optional<SlotIndex> find(const BlockKey& key) const;
  // Writes the slots of the longest leading run of `hashes` that is present; returns its length.
  // `slots` is at least as long as `hashes`.
  std::size_t match(NamespaceId name_space, GroupId group, std::span<const SequenceHash> hashes,
                    std::span<SlotIndex> slots) const;
  [[nodiscard]] std::uint64_t size() const;
  [[nodiscard]] Bytes memory() const;

 private:
  struct State;
  explicit BlockIndex(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

}  // namespace terrace::index
