#include "terrace/transfer/backends/fault/fault_store.h"

#include <fmt/format.h>

#include <algorithm>

#include "terrace/base/check.h"

namespace terrace::transfer {

namespace {
constexpr std::size_t kNamesKept = 64;
constexpr unsigned kMostLatePolls = 8;
constexpr std::uint64_t kSectorBytes = 512;

bool is_kind_of(ObjectFault fault, ObjectOp op) {
  switch (fault) {
    case ObjectFault::kFlip:
    case ObjectFault::kShort:
    case ObjectFault::kMisplace:
    case ObjectFault::kCut:
    case ObjectFault::kBreak:
      return op == ObjectOp::kGet;
    case ObjectFault::kFalseAbsent:
      return op == ObjectOp::kGet || op == ObjectOp::kHead;
    case ObjectFault::kStaleList:
      return op == ObjectOp::kList;
    case ObjectFault::kLandAndFail:
    case ObjectFault::kFalseThere:
    case ObjectFault::kFull:
      return op == ObjectOp::kPut;
    case ObjectFault::kNone:
    case ObjectFault::kError:
    case ObjectFault::kBusy:
    case ObjectFault::kDelay:
    case ObjectFault::kLose:
    case ObjectFault::kDuplicate:
    case ObjectFault::kReorder:
      return true;
  }
  return false;
}

Status injected_error(Code code, const ObjectRequest& request, std::string_view why) {
  return {code, fmt::format("{} {}: {} (injected)", to_string(request.op), request.name, why)};
}
}  // namespace

std::string_view to_string(ObjectFault fault) {
  switch (fault) {
    case ObjectFault::kNone:
      return "none";
    case ObjectFault::kError:
      return "error";
    case ObjectFault::kBusy:
      return "busy";
    case ObjectFault::kFull:
      return "full";
    case ObjectFault::kFlip:
      return "flip";
    case ObjectFault::kShort:
      return "short";
    case ObjectFault::kMisplace:
      return "misplace";
    case ObjectFault::kLandAndFail:
      return "land_and_fail";
    case ObjectFault::kFalseThere:
      return "false_there";
    case ObjectFault::kDelay:
      return "delay";
    case ObjectFault::kLose:
      return "lose";
    case ObjectFault::kCut:
      return "cut";
    case ObjectFault::kBreak:
      return "break";
    case ObjectFault::kFalseAbsent:
      return "false_absent";
    case ObjectFault::kStaleList:
      return "stale_list";
    case ObjectFault::kDuplicate:
      return "duplicate";
    case ObjectFault::kReorder:
      return "reorder";
  }
  return "unknown";
}

FaultStore::FaultStore(std::unique_ptr<ObjectStore> inner, std::uint64_t seed)
    : ObjectStore(inner->depth()), inner_(std::move(inner)), rng_(seed), order_rng_(~seed) {
  inner_->set_listener([this] { tell_listener(); });
}

void FaultStore::aim(ObjectFault fault, ObjectOp op, unsigned count, std::string name_end) {
  TERRACE_CHECK(is_kind_of(fault, op));
  aimed_ = fault;
  aimed_op_ = op;
  aimed_count_ = count;
  aimed_end_ = std::move(name_end);
}

void FaultStore::release_lost() {
  for (Finished& finished : lost_) ready_.push_back(std::move(finished));
  lost_.clear();
  inner_->wake();
}

std::uint64_t FaultStore::injected() const {
  std::uint64_t sum = 0;
  for (const std::uint64_t count : injected_) sum += count;
  return sum;
}

ObjectFault FaultStore::roll(const ObjectRequest& request) {
  const std::pair<unsigned, ObjectFault> all[] = {
      {rates_.error, ObjectFault::kError},
      {rates_.busy, ObjectFault::kBusy},
      {rates_.full, ObjectFault::kFull},
      {rates_.flipped, ObjectFault::kFlip},
      {rates_.short_object, ObjectFault::kShort},
      {rates_.misplaced, ObjectFault::kMisplace},
      {rates_.landed_and_failed, ObjectFault::kLandAndFail},
      {rates_.falsely_there, ObjectFault::kFalseThere},
      {rates_.cut, ObjectFault::kCut},
      {rates_.broken, ObjectFault::kBreak},
      {rates_.falsely_absent, ObjectFault::kFalseAbsent},
      {rates_.stale_list, ObjectFault::kStaleList},
      {rates_.delayed, ObjectFault::kDelay},
      {rates_.duplicated, ObjectFault::kDuplicate},
      {rates_.reordered, ObjectFault::kReorder},
      {rates_.lost, ObjectFault::kLose},
  };
  for (const auto& [percent, fault] : all) {
    if (percent > 0 && is_kind_of(fault, request.op) && rng_.chance(percent)) return fault;
  }
  return ObjectFault::kNone;
}

ObjectFault FaultStore::choose(const ObjectRequest& request) {
  ObjectFault fault = ObjectFault::kNone;
  if (aimed_count_ > 0 && aimed_op_ == request.op && request.name.ends_with(aimed_end_)) {
    --aimed_count_;
    fault = aimed_;
  } else {
    fault = roll(request);
  }
  const bool is_possible = fault != ObjectFault::kMisplace || other_than(request) != nullptr;
  return is_possible ? fault : ObjectFault::kNone;
}

bool FaultStore::answer_alone(ObjectFault fault, const ObjectRequest& request) {
  ObjectAnswer answer;
  switch (fault) {
    case ObjectFault::kError:
      answer.status = injected_error(Code::kIo, request, "EIO");
      break;
    case ObjectFault::kBusy:
      answer.status = injected_error(Code::kUnavailable, request, "the store is busy");
      answer.retry_after = kPatience;
      break;
    case ObjectFault::kFull:
      answer.status = injected_error(Code::kExhausted, request, "the store is full");
      break;
    case ObjectFault::kShort:
      answer.status = injected_error(Code::kCorrupt, request, "it is shorter than that");
      break;
    case ObjectFault::kFalseThere:
      answer.was_there = true;
      break;
    case ObjectFault::kFalseAbsent:
      answer.status = injected_error(Code::kNotFound, request, "no such object");
      break;
    case ObjectFault::kNone:
    case ObjectFault::kFlip:
    case ObjectFault::kMisplace:
    case ObjectFault::kLandAndFail:
    case ObjectFault::kDelay:
    case ObjectFault::kLose:
    case ObjectFault::kCut:
    case ObjectFault::kBreak:
    case ObjectFault::kStaleList:
    case ObjectFault::kDuplicate:
    case ObjectFault::kReorder:
      return false;
  }
  ready_.push_back({request, std::move(answer)});
  return true;
}

// The newest first.
const FaultStore::Seen* FaultStore::other_than(const ObjectRequest& request) const {
  const auto found = std::find_if(seen_.rbegin(), seen_.rend(), [&](const Seen& seen) {
    return seen.name != request.name && seen.bytes >= request.offset + request.bytes();
  });
  return found == seen_.rend() ? nullptr : &*found;
}

void FaultStore::note(const ObjectRequest& request) {
  if (request.op == ObjectOp::kRemove) {
    std::erase_if(seen_, [&](const Seen& seen) { return seen.name == request.name; });
  }
  if (request.op != ObjectOp::kPut && request.op != ObjectOp::kGet) return;
  seen_.push_back({request.name, request.offset + request.bytes()});
  if (seen_.size() > kNamesKept) seen_.pop_front();
}

Status FaultStore::start(ObjectRequest request) {
  const ObjectFault fault = choose(request);
  if (fault != ObjectFault::kNone) ++injected_[static_cast<std::size_t>(fault)];
  if (answer_alone(fault, request)) return {};
  ObjectRequest bent = request;
  bent.token = next_token_++;
  bent.arrivals = nullptr;  // What it sees may be spoiled afterwards.
  if (fault == ObjectFault::kMisplace) bent.name = other_than(request)->name;
  note(request);
  const std::uint64_t token = bent.token;
  TERRACE_RETURN_IF_ERROR(inner_->submit(std::move(bent)));
  flights_.emplace(token, Flight{std::move(request), fault});
  return {};
}

void FaultStore::flip_bit(const ObjectRequest& request) {
  std::uint64_t at = rng_.below(request.bytes());
  for (const MemoryPiece& piece : request.pieces) {
    if (at < piece.bytes) {
      piece.data[at] ^= std::byte{static_cast<unsigned char>(1U << rng_.below(8))};
      return;
    }
    at -= piece.bytes;
  }
}

void FaultStore::cut(const ObjectRequest& request) {
  const std::uint64_t sectors = std::max<std::uint64_t>(request.bytes() / kSectorBytes, 1);
  std::uint64_t keep = rng_.below(sectors) * kSectorBytes;
  for (const MemoryPiece& piece : request.pieces) {
    const std::uint64_t kept = std::min<std::uint64_t>(keep, piece.bytes);
    std::fill(piece.data + kept, piece.data + piece.bytes, std::byte{0});
    keep -= kept;
  }
}

void FaultStore::spoil(const Flight& flight, ObjectAnswer& answer) {
  if (flight.fault == ObjectFault::kLandAndFail) {
    answer = {};
    answer.status = injected_error(Code::kIo, flight.request, "EIO");
  }
  if (!answer.status.is_ok()) return;
  if (flight.fault == ObjectFault::kFlip) flip_bit(flight.request);
  const bool is_broken = flight.fault == ObjectFault::kBreak;
  if (is_broken || flight.fault == ObjectFault::kCut) cut(flight.request);
  if (is_broken) {
    answer = {};
    answer.status = injected_error(Code::kIo, flight.request, "the connection was lost");
  }
  if (flight.fault == ObjectFault::kStaleList) {
    answer.found.resize(rng_.below(answer.found.size() + 1));
    answer.next.clear();
  }
}

void FaultStore::shuffle(std::vector<Finished>& finished, std::size_t first) {
  for (std::size_t i = finished.size(); i > first + 1; --i) {
    std::swap(finished[i - 1], finished[first + order_rng_.below(i - first)]);
  }
}

void FaultStore::pass_on(Flight flight, ObjectAnswer answer, std::vector<Finished>& finished) {
  spoil(flight, answer);
  Finished item{std::move(flight.request), std::move(answer)};
  if (flight.fault == ObjectFault::kLose) {
    lost_.push_back(std::move(item));
  } else if (flight.fault == ObjectFault::kDelay) {
    late_.push_back({std::move(item), static_cast<unsigned>(1 + rng_.below(kMostLatePolls))});
  } else {
    if (flight.fault == ObjectFault::kDuplicate) {
      late_.push_back({item, static_cast<unsigned>(1 + rng_.below(kMostLatePolls))});
    }
    is_shuffled_ = is_shuffled_ || flight.fault == ObjectFault::kReorder;
    finished.push_back(std::move(item));
  }
}

void FaultStore::collect(std::vector<Finished>& finished) {
  if (is_held_) return;
  const std::size_t first = finished.size();
  is_shuffled_ = false;
  for (Finished& item : ready_) finished.push_back(std::move(item));
  ready_.clear();
  for (Late& late : late_) {
    if (--late.polls == 0) finished.push_back(std::move(late.finished));
  }
  std::erase_if(late_, [](const Late& late) { return late.polls == 0; });
  scratch_.clear();
  inner_->poll(scratch_);
  for (ObjectAnswer& answer : scratch_) {
    const auto found = flights_.find(answer.token);
    TERRACE_CHECK(found != flights_.end());
    Flight flight = std::move(found->second);
    flights_.erase(found);
    pass_on(std::move(flight), std::move(answer), finished);
  }
  if (is_shuffled_) shuffle(finished, first);
}

void FaultStore::pause(Nanoseconds limit) {
  const bool is_due = !is_held_ && (!ready_.empty() || !late_.empty());
  inner_->wait(is_due ? Nanoseconds(0) : limit);
}

}  // namespace terrace::transfer
