// Reads of blocks: pinned while under way, each rank's frame in one vectored call, header and
// payload checked as soon as it is in; through the page cache by the thread that copies it, piece
// by piece. A block that is not what its record says is removed and counted; one that the device
// does not give is removed the second time. Threading: the I/O thread's.  Waits: never.  Bounds:
// kMostReads operations, each volume its share of them.  Memory: those, and kMostDoubts doubts.
#pragma once

#include <vector>

#include "terrace/tier/disk/context_internal.h"
#include "terrace/tier/frame_sums.h"

namespace terrace::tier::disk {

class Writer;

class Reader {
 public:
  static constexpr std::uint32_t kMostReads = 1024;
  Reader(Context& context, Writer& writer);

  [[nodiscard]] Status begin(std::uint64_t token, std::size_t group, const SequenceHash& hash,
                             std::span<const ShardMemory> shards, transfer::IoClass io_class,
                             Nanoseconds deadline);
  // Adds the header page just before the transfer starts. False = no page left.
  [[nodiscard]] bool prepare(Ticket ticket, transfer::Transfer& transfer);
  // Takes it back.
  void release(Ticket ticket);
  void finish(Ticket ticket, Status status, std::vector<DiskDone>& done);
  // Cipher work on one rank's frame has ended.
  void finish_open(Ticket ticket, std::vector<DiskDone>& done);
  // Takes the transfers of these reads out of the queue, where all of them wait there: for
  // finish().
  void cancel(std::span<const std::uint64_t> tokens, std::vector<transfer::Completion>& cancelled);
  [[nodiscard]] bool is_idle() const { return free_.size() == operations_.size(); }

 private:
  struct Operation {
    std::uint64_t token = 0;
    std::size_t group = 0;
    SequenceHash hash;
    Slots::Pinned pinned;
    std::vector<ShardMemory> shards;
    std::vector<std::byte*> pages;           // [rank]
    std::vector<wire::FrameHeader> headers;  // [rank], of frames that are the wanted ones.
    std::vector<Status> opened;              // [rank], by cipher work.
    std::vector<FrameSums> sums;             // [rank], as far as the backend shows what arrives.
    bool is_urgent = false;
    std::size_t pending = 0;
    Status status;
    [[nodiscard]] bool has_begun() const;  // Some of it is at its device, or was.
  };
  struct Doubt {  // The last read of this block failed; of the slot's next one that says nothing.
    std::size_t group = 0;
    SlotRef slot;
  };
  // As many reads as may fail together. One that is forgotten has one more error to go.
  static constexpr std::size_t kMostDoubts = kMostReads;
  struct UnderWay {  // Of one volume.
    std::size_t count = 0;
    Nanoseconds answered{0};  // When it had nothing, or something came back.
  };
  // Counts one more operation of the volume. Errors: kExhausted, kUnavailable.
  [[nodiscard]] Status find_room(std::uint32_t volume);
  // The rank's frame is the wanted block's, and can be read; what is plain is verified.
  [[nodiscard]] Status examine(Operation& operation, std::size_t rank) const;
  void complete(std::uint32_t number, std::vector<DiskDone>& done);
  // Gives what is encrypted to others' hands. False if nothing is.
  bool open_frames(std::uint32_t number);
  void conclude(std::uint32_t number, std::vector<DiskDone>& done);
  // Of a read that failed: its block goes. The first failure may be the device's alone, which drops
  // out for a moment with all that is under way; a place that fails again is bad.
  [[nodiscard]] bool is_given_up(const Operation& operation);
  // The slot's last read is no failure any more.
  void forget_doubt(const Operation& operation);
  void tell_unreadable(const Operation& operation, SlotMap::Place place, const Status& status);

  Context& context_;
  Writer& writer_;
  std::vector<Operation> operations_;
  std::vector<std::uint32_t> free_;
  std::vector<UnderWay> under_way_;  // [volume]
  std::vector<Doubt> doubts_;        // One of each slot at most, mostly none at all.
  std::size_t oldest_doubt_ = 0;     // About: the next one's place, once there are kMostDoubts.
};

}  // namespace terrace::tier::disk
