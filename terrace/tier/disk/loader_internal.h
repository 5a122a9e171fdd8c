// Reads slots.meta of every volume at start, through the tier's backend so that reading, checking
// and copying overlap, and adopts what is sealed, oldest first. Threading: the opening thread's.
// Waits: for its own reads, each volume at most kLoadLimit. Memory: 8 B per slot and 8 B per block
// found, given back at the end.
#pragma once

#include <vector>

#include "terrace/tier/disk/context_internal.h"
#include "terrace/tier/disk/writer_internal.h"

namespace terrace::tier::disk {

class Loader {
 public:
  Loader(Context& context, transfer::Backend& backend, Writer& writer);
  // What cannot be read is not adopted, and counted. Never fails the tier.
  void load();

 private:
  struct Buffer {
    std::byte* data = nullptr;
    std::uint64_t offset = 0;  // In the file; what it holds now.
    std::size_t bytes = 0;
  };
  void adopt_foreign();
  void load_volume(std::uint32_t volume);
  void read_range(std::uint32_t volume, int file, std::uint64_t begin, std::uint64_t end);
  void take_records(std::uint32_t volume, std::uint64_t offset, std::span<const std::byte> bytes);
  void take_record(std::uint32_t volume, std::uint32_t slot, std::size_t group,
                   const DecodedSlot& decoded);
  void adopt_batch(std::size_t group);
  void order();

  Context& context_;
  transfer::Backend& backend_;
  Writer& writer_;
  struct Group {
    std::vector<FoundBlock> batch;         // Not yet adopted.
    std::vector<std::uint64_t> sequences;  // [slot]; 0 = no block was found there.
  };
  std::vector<Group> groups_;
};

// The slots whose sequence is not 0, by rising sequence. Linear in time for the sequences a cache
// writes.
[[nodiscard]] std::vector<SlotIndex> order_by_sequence(std::span<const std::uint64_t> sequences);

}  // namespace terrace::tier::disk
