// Blocks on their way from disk, or from a shared store, into host slots. Look-ups that want the
// same block share one read. Threading: thread-compatible; the manager's lock guards it. The I/O
// thread takes jobs, performs them without the lock and comes back with finish().  Waits: never.
// Bounds: each read holds a host slot, so there are never more than those.
#pragma once

#include <array>
#include <cstdint>
#include <deque>
#include <optional>
#include <unordered_map>
#include <vector>

#include "terrace/manager/context_internal.h"
#include "terrace/transfer/backend.h"

namespace terrace::manager {

// A look-up that waits for a block of its request.
struct Waiter {
  RequestId request{};
  GroupId group{};
  std::uint64_t block = 0;
};

struct ReadJob {
  std::uint64_t token = 0;
  GroupId group{};
  SequenceHash hash{};
  SlotIndex slot{};
  Tier source = Tier::kDisk;
  transfer::IoClass io_class = transfer::IoClass::kPrefetch;
  Nanoseconds deadline{0};
};

// What became of a read. `reason` is set when it failed.
struct ReadOutcome {
  BlockKey key{};
  Tier source = Tier::kDisk;
  std::vector<Waiter> waiters{};
  std::optional<catalog::Pin> pin{};
  std::optional<MissReason> reason{};
};

class Reads {
 public:
  explicit Reads(Context& context) : context_(context) {}

  // Joins the read of `key` or starts one, and says from where; `event` is announced when the block
  // is there. `asker`: the request that it is for; none = it is read whoever ends. Nothing when no
  // host slot can be had, no tier below host has the block any more, or it is just being filled
  // from elsewhere.
  std::optional<Tier> want(const BlockKey& key, transfer::IoClass io_class, Nanoseconds deadline,
                           std::optional<RequestId> asker, std::optional<Waiter> waiter,
                           std::optional<Event> event);
  // Jobs to begin, ttft_read first, at most `limit`.
  void take(std::size_t limit, Nanoseconds now, std::vector<ReadJob>& jobs);
  // What has not begun is not read, for now; their waiters are to be told.
  [[nodiscard]] std::vector<Waiter> cancel_queued();
  // The request does not wait for that block any more. Where nobody else does and the read has not
  // begun, it never will: what a slow tier is spared, others get sooner.
  void leave(const ShardGroup& block, RequestId request);
  // The request has ended: what it alone asked for and nobody has begun is not read. What has begun
  // may still wait for its device: see take_cancels().
  void release(RequestId request);
  // Of begun reads, those that nobody wants any more. One that is not at its device is to end as
  // kClosed; should somebody want it again by then, it begins anew.
  void take_cancels(std::vector<std::uint64_t>& tokens);
  [[nodiscard]] bool has_cancels() const { return !to_cancel_.empty(); }
  // The disk took no more: next time.
  void put_back(std::uint64_t token);
  // Nothing if the token is unknown.
  std::optional<ReadOutcome> finish(std::uint64_t token, const Status& status,
                                    std::span<const Checksum> checksums, std::uint64_t alias,
                                    Nanoseconds now);

  [[nodiscard]] std::size_t size() const { return reads_.size(); }
  [[nodiscard]] bool has_jobs() const {
    return !queues_[0].empty() || !queues_[1].empty() || has_cancels();
  }
  // What is still to be read from each tier for others than a request that wants `hashes`, whose
  // own prefetch is part of its load and no queue before it.
  [[nodiscard]] std::array<Bytes, kTierCount> queued_beside(
      std::span<const SequenceHash> hashes) const;

 private:
  struct Read {
    BlockKey key{};
    catalog::FillingSlot slot{};
    Tier source = Tier::kDisk;
    transfer::IoClass io_class = transfer::IoClass::kPrefetch;
    Nanoseconds deadline{0};
    bool is_begun = false;
    bool is_cancelled = false;        // Begun, and nobody wanted it any more.
    bool is_kept = false;             // Whoever ends.
    std::vector<RequestId> askers{};  // Both in the order of the requests.
    std::vector<Waiter> waiters{};
    std::optional<Event> event{};

    [[nodiscard]] bool is_wanted() const { return is_kept || !askers.empty(); }
  };
  using Entry = std::unordered_map<std::uint64_t, Read>::iterator;
  static constexpr Bytes kWindow =
      64_MiB;  // Observed as one: long enough to average a queue's depth.
  [[nodiscard]] std::deque<std::uint64_t>& queue_of(transfer::IoClass io_class) {
    return queues_[io_class == transfer::IoClass::kTtftRead ? 0 : 1];
  }
  // A tier's speed is taken over whole busy periods: single reads overlap.
  struct Busy {
    std::uint64_t begun = 0;
    std::uint64_t waiting = 0;  // Reads of it, begun or not.
    Nanoseconds window_start{0};
    Bytes window_bytes{0};
  };
  [[nodiscard]] Busy& busy(Tier source) { return busy_[static_cast<std::size_t>(source)]; }
  void note_asker(std::uint64_t token, std::optional<RequestId> asker);
  // Its slot is free again; its place in a queue is passed over.
  void drop(Entry read);
  // One that has begun came back unread.
  void end_cancelled(Entry read, Nanoseconds now);
  void observe(const Read& read, bool is_ok, Nanoseconds now);
  void fail(const Read& read, const Status& status, ReadOutcome& outcome);

  Context& context_;
  std::uint64_t last_token_ = 0;
  std::unordered_map<std::uint64_t, Read> reads_;  // By token.
  std::unordered_map<ShardGroup, std::uint64_t, HashOfShardGroup> tokens_;
  // Reads that a request asked for; some of them may be over.
  std::unordered_map<RequestId, std::vector<std::uint64_t>> asked_;
  std::vector<std::uint64_t> to_cancel_;
  std::array<std::deque<std::uint64_t>, 2> queues_;
  std::array<Busy, kTierCount> busy_{};
};

}  // namespace terrace::manager
