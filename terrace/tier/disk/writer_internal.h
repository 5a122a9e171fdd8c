// Writes of blocks, in an order that a crash at any moment cannot turn into a lie:
//   claim of the run, void record of the slot's last block -> sync     (only where due)
//   -> frames -> sync of the slot file -> record -> sync of slots.meta -> findable, done.
// Claims, void records and records of many blocks share one batch, and so one sync; while it is
// under way the next blocks' frames are being written. One batch and one data sync per volume at a
// time. What a failed sync may have covered the system has given up, and no later sync makes up for
// it: such blocks fail with it. After a reset a block ends with this process: it gets frames that
// name nobody else's content, and no record. Threading: the I/O thread's.  Waits: never.  Bounds:
// Options::queue_blocks operations, each volume its share of them. Source: docs/formats/disk.md,
// docs/adr/0006-disk-writes-in-groups.md.
#pragma once

#include <vector>

#include "terrace/tier/disk/allocator_internal.h"
#include "terrace/tier/disk/context_internal.h"

namespace terrace::tier::disk {

class Writer {
 public:
  explicit Writer(Context& context);

  [[nodiscard]] Status begin(std::uint64_t token, std::size_t group, const SequenceHash& hash,
                             std::uint64_t alias, std::span<const ShardMemory> shards,
                             std::span<const Checksum> checksums,
                             std::optional<std::uint32_t> wanted_epoch);
  [[nodiscard]] bool prepare(Ticket ticket, transfer::Transfer& transfer);
  // Takes the header page back.
  void release(Ticket ticket);
  // Cipher work on one rank's frame has ended.
  void finish_seal(Ticket ticket, std::vector<DiskDone>& done);
  void finish_frame(Ticket ticket, Status status, std::vector<DiskDone>& done);
  void finish_data_sync(std::uint32_t volume, const Status& status, std::vector<DiskDone>& done);
  void finish_meta_write(std::uint32_t volume, const Status& status, std::vector<DiskDone>& done);
  void finish_meta_sync(std::uint32_t volume, const Status& status, std::vector<DiskDone>& done);
  [[nodiscard]] Allocator& allocator() { return allocator_; }
  [[nodiscard]] BudgetKeeper& budget() { return budget_; }

  // Starts what became due.
  void advance(std::vector<DiskDone>& done);
  // The slot's record must not be found again; written with the next batch. Bounded: beyond that
  // the next block in the slot, or the next read after a restart, finds out.
  void invalidate(std::size_t group, SlotMap::Place place);
  // At start: the slot has a record that would count, or a void one that may hide such a record on
  // the medium. Different slots may be told by different threads.
  void set_recorded(std::uint32_t volume, std::size_t group, std::uint32_t slot);
  // Ends what has not reached the device; the rest goes on.
  void stop(std::vector<DiskDone>& done);
  // Nothing under way, and what was reset is durable.
  [[nodiscard]] bool is_idle() const;
  // A reset is not durable yet on a volume that can be asked.
  [[nodiscard]] bool is_drop_due() const;

 private:
  struct Operation {
    std::uint64_t token = 0;
    std::size_t group = 0;
    SequenceHash hash;
    std::uint64_t alias = 0;
    std::uint32_t epoch = 0;
    catalog::FillingSlot slot;
    SlotMap::Place place;
    std::uint32_t generation = 0;
    std::vector<ShardMemory> shards;
    std::vector<Checksum> checksums;
    std::vector<std::byte*> pages;           // [rank]
    std::byte* buffer = nullptr;             // Of the encrypted payloads, rank after rank.
    std::vector<wire::FrameHeader> headers;  // [rank], of those.
    std::vector<Status> seals;               // [rank], how that went.
    std::size_t pending = 0;
    std::uint64_t failed_syncs = 0;  // Of the volume, when its frames were begun.
    Status status;
  };
  // kDoubting: a sync failed, and the header is made to say so.
  enum class Phase : std::uint8_t { kIdle, kWriting, kSyncing, kDoubting };
  struct Entry {  // Of a batch: one record.
    std::uint64_t offset = 0;
    std::size_t group = 0;
    std::uint32_t slot = 0;
    std::uint32_t operation = kNone;  // kNone = a void record.
  };
  static constexpr std::uint32_t kNone = UINT32_MAX;
  struct Batch {
    Phase phase = Phase::kIdle;
    std::vector<std::uint32_t> prepared;  // Operations that wait for claims and void records,
    std::vector<std::uint32_t> recorded;  // and those whose records it writes.
    std::vector<std::uint32_t> claims;    // Runs.
    std::vector<Entry> entries;
    std::vector<std::byte> record_bytes;
    std::vector<std::byte> claim_bytes;
    std::vector<std::byte> header_bytes;
    std::vector<std::byte> doubt_bytes;
    MetaHeader header;        // In header_bytes,
    std::uint32_t epoch = 0;  // and the resets it stands for.
    std::size_t pending = 0;
    Status status;
    bool has_failed_sync = false;
  };
  struct Stream {  // Of one volume; operations by number, each in one of these lists or in a batch.
    std::vector<std::uint32_t> for_space;
    std::vector<std::uint32_t> for_meta;
    std::vector<std::uint32_t> for_buffer;  // Counted in `writing`, too.
    std::size_t buffers = 0;                // In use.
    std::size_t writing = 0;
    std::size_t operations = 0;  // All of the volume.
    std::vector<std::uint32_t> written;
    std::vector<std::uint32_t> syncing;
    std::vector<std::uint32_t> synced;
    std::uint64_t written_bytes = 0;
    std::uint64_t failed_syncs = 0;   // Of its slot file.
    MetaHeader first_header;          // As it was when the tier opened.
    std::uint32_t durable_epoch = 0;  // Resets, as Slots count them.
    Nanoseconds epoch_retry_at{INT64_MIN};
    std::vector<Entry> voids;
    std::vector<std::vector<std::uint8_t>> is_recorded;  // [group][slot]: 1 = a record that counts.
    Batch batch;
  };

  // As it is before it is encrypted.
  [[nodiscard]] wire::FrameHeader header_of(const Operation& operation, std::uint16_t rank) const;
  // Sees which volumes take a block now. Errors: kExhausted, kUnavailable = none, and why.
  [[nodiscard]] Status find_open();
  void limit(std::uint32_t volume);
  void route(std::uint32_t number);
  void write_frames(std::uint32_t number);
  // False when all of the volume's buffers are in use.
  [[nodiscard]] bool seal_frames(std::uint32_t number);
  void push_frames(std::uint32_t number);
  void release_buffer(Operation& operation);
  void start_data_sync(std::uint32_t volume);
  void start_batch(std::uint32_t volume, std::vector<DiskDone>& done);
  void push_header(std::uint32_t volume);
  void push_doubt(std::uint32_t volume, std::vector<DiskDone>& done);
  void push_header_pages(std::uint32_t volume, const MetaHeader& header,
                         std::vector<std::byte>& bytes);
  void add_entries(std::uint32_t volume);
  void add_claims(std::uint32_t volume);
  void encode_batch(std::uint32_t volume);
  void push_records(std::uint32_t volume);
  void push_meta_write(std::uint32_t volume, int file, std::uint64_t offset,
                       std::span<std::byte> bytes);
  void push_meta_sync(std::uint32_t volume, int file);
  void finish_batch(std::uint32_t volume, std::vector<DiskDone>& done);
  void fail_batch(std::uint32_t volume, std::vector<DiskDone>& done);
  void end(std::uint32_t number, Status status, std::vector<DiskDone>& done);
  void end_all(std::vector<std::uint32_t>& numbers, const Status& status,
               std::vector<DiskDone>& done);
  [[nodiscard]] SlotRecord record_of(std::uint32_t volume, const Entry& entry);

  Context& context_;
  BudgetKeeper budget_;
  Allocator allocator_;
  std::vector<Operation> operations_;
  std::vector<std::uint32_t> free_;
  std::vector<Stream> streams_;
  std::vector<bool> is_blocked_;       // [volume]
  std::vector<std::uint32_t> limits_;  // [volume], as slots know them.
  bool is_stopped_ = false;
};

}  // namespace terrace::tier::disk
