// A decorator that breaks any object store on purpose: seeded by rates, or aimed at the next
// requests. Fault model: a request fails (kIo, kUnavailable with patience asked for, kExhausted); a
// get returns a flipped bit, a part, or another object's bytes and says ok, finds the object too
// short, or loses its connection in the middle; an object that is there is not found; a listing is
// older than what was put last; a put lands and says that it failed, or says that the object was
// there and stores nothing; an answer comes late, twice, out of order, or only when the test lets
// it; every answer hangs until released.
// Threading: as ObjectStore; the aiming calls belong to the same thread.  Waits: as the inner
// store.
#pragma once

#include <array>
#include <deque>
#include <memory>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "terrace/base/rng.h"
#include "terrace/transfer/object_store.h"

namespace terrace::transfer {

enum class ObjectFault : std::uint8_t {
  kNone,
  kError,        // kIo, and nothing was done.
  kBusy,         // kUnavailable with `retry_after`, and nothing was done.
  kFull,         // kExhausted, and nothing was done.
  kFlip,         // Gets: one bit.
  kShort,        // Gets: kCorrupt; the pieces hold what was there before.
  kMisplace,     // Gets: the bytes of another object seen before that is long enough; else none.
  kLandAndFail,  // Puts: done, and answered with kIo.
  kFalseThere,   // Puts: nothing stored, and answered with `was_there`.
  kDelay,        // Answered a few polls later.
  kLose,         // Answered by release_lost().
  kCut,          // Gets: the tail from some sector on is zeros.
  kBreak,        // Gets: the same, and kIo: the connection was lost in the middle.
  kFalseAbsent,  // Gets and heads: kNotFound.
  kStaleList,    // Lists: without the last names of the page.
  kDuplicate,    // Answered, and once more a few polls later.
  kReorder       // It and those that came with it change places.
};
inline constexpr int kObjectFaultCount = 17;
// "error", "busy", …
[[nodiscard]] std::string_view to_string(ObjectFault fault);

// Percent of requests that get the fault, where it is one of their kind; at most one fault each.
struct ObjectFaultRates {
  unsigned error = 0;
  unsigned busy = 0;
  unsigned full = 0;  // Puts.
  unsigned flipped = 0;
  unsigned short_object = 0;
  unsigned misplaced = 0;
  unsigned landed_and_failed = 0;
  unsigned falsely_there = 0;
  unsigned delayed = 0;
  unsigned lost = 0;
  unsigned cut = 0;
  unsigned broken = 0;
  unsigned falsely_absent = 0;
  unsigned stale_list = 0;
  unsigned duplicated = 0;
  unsigned reordered = 0;
};

class FaultStore final : public ObjectStore {
 public:
  static constexpr Nanoseconds kPatience = milliseconds(250);  // `retry_after` of kBusy.

  FaultStore(std::unique_ptr<ObjectStore> inner, std::uint64_t seed);

  void set_rates(const ObjectFaultRates& rates) { rates_ = rates; }
  // The next `count` requests of this op whose name ends in `name_end` get this fault, which has to
  // be one of that op's. Replaces what was aimed before.
  void aim(ObjectFault fault, ObjectOp op, unsigned count = 1, std::string name_end = {});
  // While held no answer is handed out: the store hangs.
  void hold(bool is_held) { is_held_ = is_held; }
  // Hands out the answers that kLose kept.
  void release_lost();
  [[nodiscard]] std::size_t lost() const { return lost_.size(); }
  [[nodiscard]] std::uint64_t injected(ObjectFault fault) const {
    return injected_[static_cast<std::size_t>(fault)];
  }
  [[nodiscard]] std::uint64_t injected() const;
  [[nodiscard]] ObjectStore& inner() { return *inner_; }

  [[nodiscard]] std::string_view name() const override { return inner_->name(); }
  [[nodiscard]] const std::string& place() const override { return inner_->place(); }
  void wake() override { inner_->wake(); }
  bool close(Nanoseconds limit) override { return inner_->close(limit); }

 protected:
  Status start(ObjectRequest request) override;
  void collect(std::vector<Finished>& finished) override;
  void pause(Nanoseconds limit) override;

 private:
  struct Flight {
    ObjectRequest request;  // As the caller gave it.
    ObjectFault fault = ObjectFault::kNone;
  };
  struct Late {
    Finished finished;
    unsigned polls = 0;
  };
  struct Seen {
    std::string name;
    std::uint64_t bytes = 0;  // It is at least so long.
  };
  [[nodiscard]] ObjectFault choose(const ObjectRequest& request);
  [[nodiscard]] ObjectFault roll(const ObjectRequest& request);
  // Whether the answer needs no inner store.
  [[nodiscard]] bool answer_alone(ObjectFault fault, const ObjectRequest& request);
  [[nodiscard]] const Seen* other_than(const ObjectRequest& request) const;
  void note(const ObjectRequest& request);
  void flip_bit(const ObjectRequest& request);
  void spoil(const Flight& flight, ObjectAnswer& answer);
  void cut(const ObjectRequest& request);
  void pass_on(Flight flight, ObjectAnswer answer, std::vector<Finished>& finished);
  void shuffle(std::vector<Finished>& finished, std::size_t first);

  std::unique_ptr<ObjectStore> inner_;
  Rng rng_;
  ObjectFaultRates rates_;
  ObjectFault aimed_ = ObjectFault::kNone;
  ObjectOp aimed_op_ = ObjectOp::kGet;
  unsigned aimed_count_ = 0;
  std::string aimed_end_;
  bool is_held_ = false;
  std::uint64_t next_token_ = 1;
  std::unordered_map<std::uint64_t, Flight> flights_;
  std::vector<Finished> ready_;  // Answered without the inner store.
  std::vector<Late> late_;
  std::vector<Finished> lost_;
  std::deque<Seen> seen_;  // For kMisplace.
  bool is_shuffled_ = false;
  Rng order_rng_;  // Its own: how much is shuffled follows from time.
  std::vector<ObjectAnswer> scratch_;
  std::array<std::uint64_t, kObjectFaultCount> injected_{};
};

}  // namespace terrace::transfer
