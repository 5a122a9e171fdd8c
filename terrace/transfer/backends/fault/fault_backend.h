// A decorator that breaks any backend on purpose: seeded by rates, or aimed at the next transfers.
// Fault model: an operation fails (EIO, ENOSPC, EROFS, EOPNOTSUPP, EINTR, EAGAIN); a read returns
// flipped, missing, another offset's or overwritten bytes and says ok; a write lands flipped or
// torn at a sector and says ok; a completion comes late, twice, out of order, or only when the test
// lets it; every completion hangs until released; all of them wait for a token bucket, as on a slow
// device. Threading: as Backend; the aiming calls belong to the same thread.  Waits: as the inner
// backend.
#pragma once

#include <cerrno>
#include <deque>
#include <map>
#include <memory>
#include <optional>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include "terrace/base/rng.h"
#include "terrace/transfer/backend.h"
#include "terrace/transfer/backends/fault/token_bucket.h"

namespace terrace::transfer {

// Percent of transfers that get the fault; at most one fault each.
struct FaultRates {
  unsigned read_error = 0;      // EIO
  unsigned write_error = 0;     // EIO
  unsigned sync_error = 0;      // EIO
  unsigned no_space = 0;        // ENOSPC, on writes and allocations.
  unsigned flipped_read = 0;    // One bit.
  unsigned flipped_write = 0;   // One bit.
  unsigned short_read = 0;      // The tail from some sector on is zeros.
  unsigned torn_write = 0;      // Only the sectors before some sector land.
  unsigned misplaced_read = 0;  // The bytes of another place that was accessed before.
  unsigned replayed_read = 0;   // The bytes that lay there before the last write of this place.
  unsigned read_only = 0;       // EROFS, on writes.
  unsigned interrupted = 0;     // EINTR, as a device's last word.
  unsigned again = 0;           // EAGAIN, the same.
  unsigned delayed = 0;         // The completion comes a few polls later.
  unsigned duplicated = 0;      // It comes, and once more a few polls later.
  unsigned reordered = 0;       // It and those that came with it change places.
  unsigned lost = 0;            // It comes when release_lost() is called.
};

enum class Fault : std::uint8_t {
  kNone,
  kError,
  kNoSpace,
  kUnsupported,
  kFlip,
  kCut,
  kMisplace,
  kDelay,
  kLose,
  kInterrupt,
  kAgain,
  kReplay,
  kDuplicate,
  kReorder,
  kReadOnly
};
inline constexpr int kFaultCount = 15;
// "error", "no_space", …
[[nodiscard]] std::string_view to_string(Fault fault);

class FaultBackend final : public Backend {
 public:
  FaultBackend(std::unique_ptr<Backend> inner, std::uint64_t seed);
  ~FaultBackend() override;

  // With a rate of replays, what is written from now on is kept for them.
  void set_rates(const FaultRates& rates);
  // The next `count` transfers of this op on a file whose path ends in `path_end` get this fault.
  // kFlip and kCut mean the read or write form; kMisplace and kReplay are of reads. Replaces what
  // was aimed before.
  void aim(Fault fault, IoOp op, unsigned count = 1, std::string path_end = {});
  // From now on each read that covers `offset` of a file whose path ends in `path_end` fails: a
  // sector there is bad. Several may be.
  void spoil(std::string path_end, std::uint64_t offset) {
    bad_.emplace_back(std::move(path_end), offset);
  }
  // While held no completion is handed out: the device hangs.
  void hold(bool is_held) { is_held_ = is_held; }
  // From now on reads and writes complete only when a bucket has their bytes, in the order in which
  // the inner backend ended them; what waits already goes on at the new rate. `clock` outlives
  // this.
  void set_throttle(const Throttle& throttle, const Clock& clock);
  // Completions that wait for the bucket.
  [[nodiscard]] std::size_t throttled() const { return slow_.size(); }
  // From now on everything on files whose path has `part` in it gets kLose: that device hangs.
  // Empty = none does. With `op` that operation alone.
  void hang(std::string part, std::optional<IoOp> op = {}) {
    hanging_ = std::move(part);
    hanging_op_ = op;
  }
  // Hands out the completions that kLose kept.
  void release_lost();
  [[nodiscard]] std::size_t lost() const { return lost_.size(); }
  [[nodiscard]] std::uint64_t injected(Fault fault) const {
    return injected_[static_cast<std::size_t>(fault)];
  }
  [[nodiscard]] std::uint64_t injected() const;

  [[nodiscard]] std::string_view name() const override { return inner_->name(); }
  [[nodiscard]] std::size_t most_pieces() const override { return inner_->most_pieces(); }
  [[nodiscard]] std::uint64_t joined_bytes() const override { return inner_->joined_bytes(); }
  void name_file(int file, const std::string& path) override;
  void wake() override { inner_->wake(); }

 protected:
  Status start(const Transfer& transfer) override;
  void collect(std::vector<Finished>& finished) override;
  void pause(Nanoseconds limit) override;

 private:
  struct Flight {
    Transfer transfer;
    Fault fault = Fault::kNone;
    std::vector<std::byte> copy;  // Of what a flipped write writes instead.
  };
  struct Late {
    Finished finished;
    unsigned polls = 0;
  };
  [[nodiscard]] Fault choose(const Transfer& transfer);
  [[nodiscard]] Fault roll(const Transfer& transfer);
  [[nodiscard]] Transfer bend(Flight& flight);
  void spoil_read(const Flight& flight);
  void flip_bit(const Transfer& transfer);
  void pass_on(const Flight& flight, Status status, std::vector<Finished>& finished);
  void keep_for_replays(const Transfer& write);
  void replay(const Transfer& read);
  void shuffle(std::vector<Finished>& finished, std::size_t first);
  void slow_down(std::vector<Finished>& finished, std::size_t first);

  std::unique_ptr<Backend> inner_;
  Rng rng_;
  FaultRates rates_;
  Fault aimed_ = Fault::kNone;
  IoOp aimed_op_ = IoOp::kRead;
  unsigned aimed_count_ = 0;
  std::string aimed_path_;
  std::vector<std::pair<std::string, std::uint64_t>> bad_;
  std::string hanging_;
  std::optional<IoOp> hanging_op_;
  bool is_held_ = false;
  std::uint64_t next_token_ = 1;
  std::unordered_map<std::uint64_t, Flight> flights_;
  std::vector<Finished> ready_;  // Failed without the inner backend.
  std::vector<Late> late_;
  std::vector<Finished> lost_;
  const Clock* clock_ = nullptr;  // Null = never throttled.
  TokenBucket bucket_;
  std::deque<Finished> slow_;    // Waiting for the bucket.
  std::deque<Transfer> places_;  // Seen before, for kMisplace.
  struct Written {
    std::vector<std::byte> last;
    std::vector<std::byte> before;
  };
  bool keeps_written_ = false;
  std::map<std::pair<int, std::uint64_t>, Written> written_;  // By file and offset, for kReplay.
  bool is_shuffled_ = false;
  Rng order_rng_;  // Its own: how much is shuffled follows from time.
  std::vector<Completion> scratch_;
  std::array<std::uint64_t, kFaultCount> injected_{};
};

}  // namespace terrace::transfer
