// Adopts at start what the records of slots.meta say is sealed, oldest first. The crew checks the
// records of one wave of pieces together, then enters them into the index together, while the next
// wave is read. What is adopted does not depend on who did which part, nor on the order of reading.
// Threading: the opening thread's, with its crew.  Waits: for reads (MetaReader) and the crew.
// Memory: 16 to 24 B per slot and a few MiB, given back at the end.
// Source: docs/adr/0014-a-crew-reads-slots-meta.md.
#pragma once

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
  struct alignas(64) Hand {  // What one of the crew found in a wave.
    std::vector<std::vector<catalog::PoolLoad::Entry>> found;  // [group × parts + part]
    std::uint64_t damaged = 0;
    std::uint64_t next_sequence = 0;
  };
  void adopt_foreign();
  void take_wave(std::span<const Piece> pieces);
  void take_records(Hand& hand, const Piece& piece);
  void take_record(Hand& hand, std::uint32_t volume, std::uint32_t slot, std::size_t group,
                   const DecodedSlot& decoded);
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
