// A decorator that breaks any backend on purpose: seeded by rates, or aimed at the next transfers.
// Fault model: an operation fails (EIO, ENOSPC, EOPNOTSUPP); a read returns flipped, missing or
// another offset's bytes and says ok; a write lands flipped or torn at a sector and says ok; a
// completion comes late, or only when the test lets it; every completion hangs until released.
// Threading: as Backend; the aiming calls belong to the same thread.  Waits: as the inner backend.
#pragma once

#include <cerrno>
#include <deque>
#include <memory>
#include <unordered_map>
#include <vector>

#include "terrace/base/rng.h"
#include "terrace/transfer/backend.h"

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
  unsigned delayed = 0;         // The completion comes a few polls later.
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
  kLose
};
inline constexpr int kFaultCount = 9;

class FaultBackend final : public Backend {
 public:
  FaultBackend(std::unique_ptr<Backend> inner, std::uint64_t seed);
  ~FaultBackend() override;

  void set_rates(const FaultRates& rates) { rates_ = rates; }
  // The next `count` transfers of this op on a file whose path ends in `path_end` get this fault.
  // kFlip, kCut and kMisplace mean the read or write form. Replaces what was aimed before.
  void aim(Fault fault, IoOp op, unsigned count = 1, std::string path_end = {});
  // While held no completion is handed out: the device hangs.
  void hold(bool is_held) { is_held_ = is_held; }
  // Hands out the completions that kLose kept.
  void release_lost();
  [[nodiscard]] std::size_t lost() const { return lost_.size(); }
  [[nodiscard]] std::uint64_t injected(Fault fault) const {
    return injected_[static_cast<std::size_t>(fault)];
  }
  [[nodiscard]] std::uint64_t injected() const;

  [[nodiscard]] std::string_view name() const override { return inner_->name(); }
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

  std::unique_ptr<Backend> inner_;
  Rng rng_;
  FaultRates rates_;
  Fault aimed_ = Fault::kNone;
  IoOp aimed_op_ = IoOp::kRead;
  unsigned aimed_count_ = 0;
  std::string aimed_path_;
  bool is_held_ = false;
  std::uint64_t next_token_ = 1;
  std::unordered_map<std::uint64_t, Flight> flights_;
  std::vector<Finished> ready_;  // Failed without the inner backend.
  std::vector<Late> late_;
  std::vector<Finished> lost_;
  std::deque<Transfer> places_;  // Seen before, for kMisplace.
  std::vector<Completion> scratch_;
  std::array<std::uint64_t, kFaultCount> injected_{};
};

}  // namespace terrace::transfer
