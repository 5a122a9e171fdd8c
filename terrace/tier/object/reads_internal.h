// Shard groups on their way out of packs. What was asked for between two polls and lies side by
// side is read by one ranged request, as each costs a round trip. Of it what does not verify, and
// that alone, is read once more before the pack is called damaged: it may have changed on its way.
// Threading: owned by the I/O thread.  Waits: never.  Bounds: ObjectTier::Options::most_reads.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <unordered_map>
#include <vector>

#include "terrace/tier/frame_sums.h"
#include "terrace/tier/object/context_internal.h"

namespace terrace::tier::object {

class Reads {
 public:
  explicit Reads(Context& context) : context_(context) {}

  [[nodiscard]] Status begin(std::uint64_t token, GroupId group, const SequenceHash& hash,
                             std::span<const ShardMemory> ranks, transfer::IoClass io_class,
                             Nanoseconds deadline);
  // Hands what waits to the queue.
  void advance(std::vector<ObjectDone>& done);
  void take(const transfer::ObjectAnswer& answer, std::uint64_t number,
            std::vector<ObjectDone>& done);
  // Cipher work on one of its frames has ended.
  void take_opened(std::uint64_t number, std::vector<ObjectDone>& done);
  [[nodiscard]] bool is_idle() const { return waiting_.empty() && gets_.empty(); }

 private:
  using Page = std::array<std::byte, wire::kFrameHeaderBytes>;
  struct Read {
    std::uint64_t token = 0;
    GroupId group;
    SequenceHash hash;
    PackPlace place;
    std::vector<ShardMemory> ranks;
    transfer::IoClass io_class = transfer::IoClass::kPrefetch;
    Nanoseconds deadline{0};
    wire::PackRange range;
  };
  struct Get {
    std::vector<Read> reads;                   // In the order of their places, without gaps.
    std::vector<std::unique_ptr<Page>> pages;  // Header pages, by read and rank.
    std::unique_ptr<FrameSums> sums;           // Where the store shows what arrives; else null.
    std::size_t attempt = 0;                   // Names that were tried before.
    bool is_second = false;                    // Read once more.
    Status answer;                             // The store's.
    std::vector<Status> statuses;              // By read,
    std::vector<wire::FrameHeader> headers;    // and these by read and rank, as the pages.
    std::vector<Status> opened;
    std::size_t pending = 0;  // Frames being opened.
  };
  // How many of waiting_ from `first` on one request can take.
  [[nodiscard]] std::size_t together(std::size_t first) const;
  // Errors: as the queue's push.
  [[nodiscard]] Status start(std::span<Read> reads);
  // Asks for it under the name that is next to be tried.
  [[nodiscard]] Status ask(std::uint64_t number, Get& get);
  // Under the next name that no damaged pack has. Errors: kNotFound = there is none; else the
  // queue's push.
  [[nodiscard]] Status ask_next(std::uint64_t number, Get& get);
  [[nodiscard]] std::size_t variant_of(const Get& get) const {
    return (get.reads.front().place.variant + get.attempt) % context_.variants.size();
  }
  // The frame is the wanted block's, and can be read; what is plain is verified.
  [[nodiscard]] Status examine(const Get& get, std::size_t frame, wire::FrameHeader& found) const;
  // Asks once more for what does not verify, for that alone: what did is in its place. By read:
  // whether it is under way again.
  [[nodiscard]] std::vector<bool> read_again(Get& get);
  // For the reads [first, end) of it, with their pages.
  [[nodiscard]] bool ask_again(Get& get, std::size_t first, std::size_t end);
  void open_frames(std::uint64_t number, Get& get);
  void conclude(std::uint64_t number, std::vector<ObjectDone>& done);
  void note_well(const Get& get, const PackName& name);
  void finish(const Read& read, const Status& status, std::vector<Checksum> checksums,
              std::vector<ObjectDone>& done);

  Context& context_;
  std::uint64_t last_number_ = 0;
  std::size_t count_ = 0;  // Reads, waiting or under way.
  std::vector<Read> waiting_;
  std::unordered_map<std::uint64_t, Get> gets_;
};

}  // namespace terrace::tier::object
