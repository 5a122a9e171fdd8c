// What must be true of a simulated world, known apart from the code under test: which bytes each
// key has, which blocks are sealed on disk, who owns the memory that a device moves bytes to. What
// is found otherwise is counted by kind, the first of it kept in words.
// Threading: one thread.  Waits: never.  Memory: the bytes of every key that was asked for, until
// forget().
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <unordered_map>

#include "terrace/block/key.h"

namespace terrace::sim {

// As core_rig.h makes the layout.
inline constexpr std::size_t kPayloadBytes = 192;
inline constexpr std::uint16_t kMostRanks = 3;

enum class Wrong : std::uint8_t {
  kBytes,       // A rank or a tier was handed bytes that are not the key's, as right ones.
  kHang,        // A look-up or the end of work did not come by its time.
  kLeak,        // A pin, slot or descriptor that nobody owns any more; slots that do not add up.
  kLostSealed,  // A block that was sealed is not found, or not readable, and nobody harmed it.
  kBreach       // The code under test found an invariant of its own broken.
};
inline constexpr int kWrongCount = 5;

struct Verdict {
  std::array<std::uint64_t, kWrongCount> count{};
  std::string first;
  void found(Wrong kind, std::string what) {
    if (++count[static_cast<std::size_t>(kind)] == 1 && first.empty()) first = std::move(what);
  }
  [[nodiscard]] std::uint64_t of(Wrong kind) const { return count[static_cast<std::size_t>(kind)]; }
  [[nodiscard]] bool is_clean() const { return first.empty(); }
};

// The KV of a block follows from its chain, its group and rank, and the weights of the model.
class Truth {
 public:
  using Payload = std::array<std::byte, kPayloadBytes>;
  using Shards = std::array<Payload, kMostRanks>;
  // Valid until forget().
  [[nodiscard]] const Shards& of(GroupId group, const SequenceHash& hash, std::uint32_t weights);
  void forget() { known_.clear(); }
  [[nodiscard]] std::size_t size() const { return known_.size(); }

 private:
  std::unordered_map<std::uint64_t, std::unique_ptr<Shards>> known_;
};

// The disk as it was promised to be: what was acknowledged as sealed, and not evicted, reset or
// harmed since.
class Stored {
 public:
  enum class State : std::uint8_t {
    kDoubtful,  // Being written, evicted or harmed: may be found, or not.
    kSealed
  };
  using Key = std::pair<std::uint16_t, SequenceHash>;  // Group and hash.

  void begin(GroupId group, const SequenceHash& hash) { set(group, hash, State::kDoubtful); }
  void seal(GroupId group, const SequenceHash& hash) {
    const Key key{group.value(), hash};
    const auto found = blocks_.find(key);
    // Harmed while it was being written: it stays in doubt.
    if (found != blocks_.end() && !is_harmed(key)) found->second = State::kSealed;
  }
  void doubt(GroupId group, const SequenceHash& hash) {
    const auto found = blocks_.find({group.value(), hash});
    if (found != blocks_.end()) found->second = State::kDoubtful;
  }
  void harm(GroupId group, const SequenceHash& hash) {
    harmed_[{group.value(), hash}] = true;
    doubt(group, hash);
  }
  // A new frame replaces what was harmed.
  void renew(GroupId group, const SequenceHash& hash) { harmed_[{group.value(), hash}] = false; }
  void forget_all() { blocks_.clear(); }
  [[nodiscard]] bool is_sealed(GroupId group, const SequenceHash& hash) const {
    const auto found = blocks_.find({group.value(), hash});
    return found != blocks_.end() && found->second == State::kSealed;
  }
  [[nodiscard]] const std::map<Key, State>& blocks() const { return blocks_; }

 private:
  void set(GroupId group, const SequenceHash& hash, State state) {
    blocks_[{group.value(), hash}] = state;
  }
  [[nodiscard]] bool is_harmed(const Key& key) const {
    const auto found = harmed_.find(key);
    return found != harmed_.end() && found->second;
  }
  std::map<Key, State> blocks_;
  std::map<Key, bool> harmed_;
};

}  // namespace terrace::sim
