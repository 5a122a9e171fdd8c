// Reads the records of our runs from every volume's slots.meta at start, a wave of pieces at a
// time: while the caller works on one wave, the backend reads the next. Past the page cache where
// possible. Threading: the opening thread's.  Waits: for its own reads, each volume at most
// kLoadLimit. Memory: two waves of kMostPieces pieces of kPieceBytes, given back with it.
#pragma once

#include <vector>

#include "terrace/index/zeroed_array.h"
#include "terrace/tier/disk/context_internal.h"

namespace terrace::tier::disk {

class MetaReader {
 public:
  struct Piece {
    std::uint32_t volume = 0;
    std::uint64_t offset = 0;          // In the file, of the first byte; records are whole.
    std::span<const std::byte> bytes;  // Until the next call of next().
  };
  // Errors: kExhausted if memory is refused.
  static Result<MetaReader> create(Context& context, transfer::Backend& backend);
  MetaReader(MetaReader&&) = default;
  MetaReader(const MetaReader&) = delete;
  ~MetaReader();

  // The next pieces; false when there are none left. What cannot be read is counted, logged and
  // left out.
  [[nodiscard]] bool next(std::vector<Piece>& pieces);

 private:
  struct Range {  // Of neighbouring runs.
    std::uint32_t volume = 0;
    int file = -1;
    std::uint64_t begin = 0;
    std::uint64_t end = 0;
  };
  struct Read {
    Range range;
    std::uint64_t offset = 0;  // Whole pages; may begin before the range and end behind it.
    std::uint64_t bytes = 0;
    Status status;
  };
  struct Wave {
    std::byte* memory = nullptr;
    std::vector<Read> reads;
    std::size_t pending = 0;
  };
  MetaReader(Context& context, transfer::Backend& backend, index::ZeroedArray<std::byte> memory);
  void list_ranges();
  void start(Wave& wave);
  void submit(Wave& wave, Read read);
  void finish(Wave& wave);

  Context* context_;
  transfer::Backend* backend_;
  index::ZeroedArray<std::byte> memory_;
  std::size_t most_pieces_;
  std::vector<UniqueFd> direct_;
  std::vector<Range> ranges_;
  std::size_t range_ = 0;  // Which is being read, and how far.
  std::uint64_t at_ = 0;
  std::uint32_t limited_ = UINT32_MAX;  // The volume that limit_ is for.
  Nanoseconds limit_{0};
  Wave waves_[2];
  std::size_t under_way_ = 0;  // Of the waves.
};

}  // namespace terrace::tier::disk
