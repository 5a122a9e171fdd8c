// What of a shared store this owner knows to be there, or not to be there. It is a memory, not an
// index: what has aged out of it, or was never asked about, is asked for again. Packs whose chains
// begin alike and part later have blocks in common: such a block is known as long as one of them
// is. Threading: thread-compatible; the tier's lock guards it.  Waits: never. Bounds:
// Options::blocks, the oldest packs go first; as many names that are not there as packs, and of
// those touched as many as blocks: a touch is remembered for longer than the pack.
#pragma once

#include <cstdint>
#include <list>
#include <optional>
#include <span>
#include <unordered_map>
#include <vector>

#include "terrace/base/clock.h"
#include "terrace/block/sequence_hash.h"
#include "terrace/tier/object/timed_names_internal.h"

namespace terrace::tier::object {

struct PackPlace {
  SequenceHash pack;         // The hash of the pack's last block: its name.
  std::uint32_t block = 0;   // Within the pack.
  std::uint8_t variant = 0;  // Of Context::variants, as far as is known.
  friend bool operator==(const PackPlace&, const PackPlace&) = default;
};

class KnownPacks {
 public:
  struct Options {
    std::uint32_t pack_blocks = 16;
    std::uint64_t blocks = 65'536;
    Nanoseconds present_for = seconds(600);   // Others may remove it: then it is asked for again.
    Nanoseconds absent_for = seconds(2);      // Others may put it.
    Nanoseconds damaged_for = seconds(3600);  // Somebody may remove it, and others put it anew.
    std::size_t variants = 1;                 // A pack's names.
  };
  explicit KnownPacks(const Options& options);

  // `hashes`: the pack's blocks, pack_blocks of them. What is only a guess of the variant does not
  // replace what is known of it. One that was seen damaged stays so: it counts as absent.
  void add(std::span<const SequenceHash> hashes, Nanoseconds now, std::uint8_t variant = 0,
           bool is_guess = false);
  void set_variant(const SequenceHash& pack, std::uint8_t variant);
  void add_absent(const SequenceHash& pack, Nanoseconds now);
  // The pack is gone, or no good: nothing of it is known any more, and for a while it is absent.
  void remove(const SequenceHash& pack, Nanoseconds now);
  // Under this name lies what is no good. Nobody replaces it, so it is looked at rarely.
  void add_damaged(const PackName& name, Nanoseconds now);
  // It was put anew.
  void repair(const PackName& name) { damaged_.remove(name); }
  void clear();

  // Where a block lies; nothing when that is not known (any more).
  [[nodiscard]] std::optional<PackPlace> find(const SequenceHash& hash, Nanoseconds now) const;
  // How many leading hashes are known to be there.
  [[nodiscard]] std::size_t match(std::span<const SequenceHash> hashes, Nanoseconds now) const;
  [[nodiscard]] bool is_absent(const SequenceHash& pack, Nanoseconds now) const;
  [[nodiscard]] bool is_damaged(const PackName& name, Nanoseconds now) const {
    return damaged_.holds(name, now);
  }
  // True once every `every`: the pack, which is known, is in use and is to be touched.
  [[nodiscard]] bool take_touch(const SequenceHash& pack, Nanoseconds now, Nanoseconds every);
  [[nodiscard]] bool is_touch_due(const SequenceHash& pack, Nanoseconds now) const;
  // It was known once, or touched of late, though perhaps too long ago to be counted on.
  [[nodiscard]] bool remembers(const SequenceHash& pack, Nanoseconds now) const {
    return blocks_.contains(pack) || touched_.holds({pack}, now);
  }
  [[nodiscard]] std::size_t packs() const { return packs_.size(); }

 private:
  struct Pack;
  using Order = std::list<Pack>;  // Oldest first.
  struct Place {
    Order::iterator pack;
    std::uint32_t block = 0;
  };
  using Places = std::list<Place>;  // One for each pack with this block, in the order of those.
  struct Pack {
    std::vector<SequenceHash> hashes;
    std::vector<Places::iterator> places;  // By block: its own.
    Nanoseconds until;
    std::uint8_t variant = 0;
  };
  void forget(Order::iterator pack);
  void renew(Order::iterator pack, Nanoseconds until);
  // A name stands for one pack alone: no other ends with this block.
  [[nodiscard]] std::optional<Order::iterator> named(const SequenceHash& pack) const;

  const Options options_;
  Order packs_;
  std::unordered_map<SequenceHash, Places, HashOfSequenceHash> blocks_;  // None is empty.
  TimedNames absent_;                                                    // Of no variant.
  TimedNames damaged_;
  TimedNames touched_;  // Of no variant.
};

}  // namespace terrace::tier::object
