// Whole, immutable objects by name: put, ranged get, head, list, remove, touch, asynchronously;
// completions are polled. One folder each under backends/: `dir` (a mounted file system that nodes
// share) and `s3`; `fault` breaks any of them. Public calls check and count; the virtuals move
// bytes. Threading: owned by one thread at a time (the tier's I/O thread); `wake()` and counters()
// are thread-safe.  Waits: only wait(), with a limit.  Bounds: at most Options::depth requests in
// flight, listings of at most kMostListed names.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "terrace/base/clock.h"
#include "terrace/base/metric.h"
#include "terrace/base/status.h"
#include "terrace/transfer/arrivals.h"
#include "terrace/transfer/backend.h"

namespace terrace::transfer {

// Parts of [a-z0-9._-], none of them "." or "..", divided by single slashes. A part is a file name
// in `dir`, which leaves room below 255 for the ending of an unfinished one.
inline constexpr std::size_t kMostNameBytes = 512;
inline constexpr std::size_t kMostPartBytes = 200;
inline constexpr std::size_t kMostListed = 1000;
// Errors: kInvalid, with the name and what is wrong with it.
[[nodiscard]] Status check_object_name(std::string_view name);

// kPut: the object becomes visible whole, or not at all, and replaces none: one that is there
// stays. kGet: [offset, offset + bytes of pieces). kHead: is it there, how long, since when.
// kList: names that begin with `name`, in the order of their bytes where the store has one.
// kRemove: absent is as good as removed; who reads it meanwhile gets all of it or an error.
// kTouch: since when it is there becomes now, so that what is used is not what is oldest; its
// content stays. A store may refuse it (kRefused: another user's file; kIo: no such call).
enum class ObjectOp : std::uint8_t { kPut, kGet, kHead, kList, kRemove, kTouch };
inline constexpr int kObjectOpCount = 6;
// "put", "get", … as in metric labels.
[[nodiscard]] std::string_view to_string(ObjectOp op);

struct ObjectRequest {
  std::uint64_t token = 0;  // The caller's; comes back in the completion.
  ObjectOp op = ObjectOp::kHead;
  std::string name;                 // kList: what names begin with; may be empty.
  std::uint64_t offset = 0;         // kGet
  std::vector<MemoryPiece> pieces;  // kPut: the content. kGet: where it goes.
  std::string after;                // kList: ObjectAnswer::next of the page before; empty = first.
  // kPut: the answer comes when a crash of whoever keeps the object cannot undo it. Else a crash
  // may: then it is gone, never half there.
  bool is_lasting = true;
  Nanoseconds deadline = kNoDeadline;
  // kGet: told what has arrived, by stores that can. Outlives the answer.
  Arrivals* arrivals = nullptr;
  [[nodiscard]] std::uint64_t bytes() const;
};

struct ObjectInfo {
  std::string name;
  std::uint64_t bytes = 0;
  std::int64_t modified_seconds = 0;  // Unix time by the store's clock.
};

// Codes: kNotFound = no such object; kCorrupt = it is shorter than the range asked for, or what has
// its name is none; kUnavailable = busy or away, ask again (`retry_after`); kExhausted = the store
// is full; kRefused = permission or credentials; kDeadline; kIo = the rest, also an answer that
// makes no sense: it says nothing of the object.
struct ObjectAnswer {
  std::uint64_t token = 0;
  Status status;
  bool was_there = false;         // kPut, ok: an object of this name stays, ours was not needed.
  ObjectInfo info;                // kHead, ok.
  std::vector<ObjectInfo> found;  // kList, ok.
  std::string next;               // kList, ok: for the next page; empty = this was the last one.
  Nanoseconds retry_after{0};     // kUnavailable: the store asked for this much patience.
};

class ObjectStore {
 public:
  struct Counters {
    std::array<Counter, kObjectOpCount> done;    // Answers, by op, failed ones included.
    std::array<Counter, kObjectOpCount> bytes;   // Of ok gets, and puts that were needed.
    std::array<Counter, kObjectOpCount> errors;  // By op; kNotFound is none.
    Counter stray;                               // Answers to nothing in flight: left out.
  };
  explicit ObjectStore(unsigned depth) : depth_(depth), in_flight_(depth) {
    finished_.reserve(depth);
  }
  ObjectStore(const ObjectStore&) = delete;
  ObjectStore& operator=(const ObjectStore&) = delete;
  virtual ~ObjectStore() = default;
  [[nodiscard]] virtual std::string_view name() const = 0;
  // For errors and logs: "s3://bucket/prefix at host", "/mnt/kv". No secrets.
  [[nodiscard]] virtual const std::string& place() const = 0;
  // Errors: kExhausted = depth reached, poll first; kInvalid = a name or pieces that make no sense.
  // The pieces' memory stays the caller's to keep alive until the answer, which always comes: at
  // the deadline at the latest where the store can really let go of the memory, else when it does.
  [[nodiscard]] Status submit(ObjectRequest request);
  // Gets tell ObjectRequest::arrivals.
  [[nodiscard]] virtual bool shows_arrivals() const { return false; }
  // Appends what finished, each request once: an answer that comes twice is counted and left out.
  // Never blocks.
  void poll(std::vector<ObjectAnswer>& answers);
  // Returns when something finished, wake() was called, or after `limit` (a duration).
  void wait(Nanoseconds limit) { pause(limit); }
  virtual void wake() = 0;
  // The last call but wait() and wake(): begins nothing any more; what can be given up at once is,
  // and is never answered. WAITS for the rest, at most `limit` (a duration). True = no thread of
  // the store touches a request's memory or calls the listener any more. False = some system call
  // hangs: then all of that, and the store itself, has to stay until the process ends, as its
  // destructor would wait for that call.
  [[nodiscard]] virtual bool close(Nanoseconds limit) = 0;
  // Called by the store's threads whenever something has finished, for who waits elsewhere. Set
  // before the first request; must be quick and thread-safe.
  void set_listener(std::function<void()> listener) { listener_ = std::move(listener); }
  [[nodiscard]] unsigned in_flight() const { return in_flight_.count(); }
  [[nodiscard]] unsigned depth() const { return depth_; }
  [[nodiscard]] const Counters& counters() const { return counters_; }

 protected:
  struct Finished {
    ObjectRequest request;  // As it was started: its token is this room's own.
    ObjectAnswer answer;    // All but its token.
  };
  [[nodiscard]] virtual Status start(ObjectRequest request) = 0;
  // `finished` is empty, and has room for `depth`: it may be swapped for another of that kind.
  virtual void collect(std::vector<Finished>& finished) = 0;
  virtual void pause(Nanoseconds limit) = 0;
  // To be called, without a lock, after something has finished.
  void tell_listener() const {
    if (listener_) listener_();
  }

 private:
  const unsigned depth_;
  InFlight in_flight_;
  std::function<void()> listener_;
  std::vector<Finished> finished_;
  Counters counters_;
};

}  // namespace terrace::transfer
