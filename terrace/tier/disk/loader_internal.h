// Adopts at start what the records of slots.meta say is sealed, oldest first. The crew checks the
// records of one wave of pieces together, then enters them into the index together, while the next
// wave is read. What is adopted does not depend on who did which part, nor on the order of reading.
// Threading: the opening thread's, with its crew.  Waits: for reads (MetaReader) and the crew.
// Memory: 16 to 24 B per slot and a few MiB, given back at the end.
// Source: docs/adr/0014-a-crew-reads-slots-meta.md.
#pragma once

#include <optional>
#include <vector>

#include "terrace/tier/disk/context_internal.h"
#include "terrace/tier/disk/meta_reader_internal.h"
#include "terrace/tier/disk/writer_internal.h"

namespace terrace::tier::disk {

class Loader {
 public:
  Loader(Context& context, transfer::Backend& backend, Writer& writer);
  // What cannot be read is not adopted, and counted. Errors: kExhausted if memory is refused.
  [[nodiscard]] Status load();

 private:
  using Piece = MetaReader::Piece;
  struct Locked {                          // A block that cannot be read with the keys at hand.
    std::optional<std::uint16_t> key_tag;  // None = it is plain.
    std::uint32_t volume = 0;
    std::uint32_t slot = 0;
    std::size_t group = 0;
  };
  struct alignas(64) Hand {  // What one of the crew found in a wave.
    std::vector<std::vector<catalog::PoolLoad::Entry>> found;  // [group × parts + part]
    std::vector<Locked> locked;                                // One for each key.
    std::uint64_t locked_blocks = 0;
    std::uint64_t damaged = 0;
    std::uint64_t next_sequence = 0;
  };
  void adopt_foreign();
  void take_wave(std::span<const Piece> pieces);
  void take_records(Hand& hand, const Piece& piece);
  void take_record(Hand& hand, std::uint32_t volume, std::uint32_t slot, std::size_t group,
                   const DecodedSlot& decoded);
  void note_locked(Hand& hand, const Locked& block);
  // How many there are. Which keys are missing, asked of one frame of each, goes into the context.
  std::uint64_t tell_locked();
  void enter_wave();
  [[nodiscard]] Status order();

  Context& context_;
  transfer::Backend& backend_;
  Writer& writer_;
  const Crew& crew_;
  std::vector<Slots::Loading> groups_;
  std::vector<Hand> hands_;  // [of the crew]
};

}  // namespace terrace::tier::disk
