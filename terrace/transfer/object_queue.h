// Feeds an object store by priority and brings requests through its bad moments: a class starts
// only when no higher one can, lower classes may fill only part of the depth, and none starves:
// what was passed over kFloorStarts times goes next. What the store could not do now is tried
// again, ever more rarely, with jitter, within its deadline. A store that keeps failing, or that
// hangs, is left alone: what waits then ends as kUnavailable, at once, and a question of the
// queue's own, which nobody waits for, finds out when it is back: any answer tells that.
// Threading: owned by one thread, the store's.  Waits: only wait(), with a limit.
// Bounds: Options::capacity waiting, retries included.  Source of the jitter: "Exponential Backoff
// And Jitter", AWS Architecture Blog, 2015 ("full jitter").
#pragma once

#include <array>
#include <deque>
#include <map>
#include <string>
#include <vector>

#include "terrace/base/rng.h"
#include "terrace/transfer/object_store.h"

namespace terrace::transfer {

class ObjectQueue {
 public:
  // Requests of higher classes that may start before one of a lower class that waits.
  static constexpr unsigned kFloorStarts = 32;
  struct Options {
    std::size_t capacity = 1024;  // Waiting requests, all classes together.
    unsigned most_tries = 5;
    Nanoseconds first_pause = milliseconds(50);  // Before the second try; doubles, up to
    Nanoseconds longest_pause = seconds(5);
    // This many requests in a row that the store could not serve: it is away, for
    unsigned failures_to_rest = 8;
    Nanoseconds rest = seconds(5);  // Then the queue asks; meanwhile, and until an answer, away.
    Nanoseconds trial_time = seconds(5);  // For that answer; without one it rests again.
    // Under way for so long, past its deadline, and nothing came back since it began: it hangs.
    Nanoseconds hang_after = seconds(2);
    std::uint64_t seed = 0;  // Of the jitter; 0 = the system's randomness.
  };
  struct Counters {
    Counter retries;
    Counter rests;    // Times the store was left alone.
    Counter expired;  // Waited past their deadline.
  };
  // Both references outlive the queue.
  ObjectQueue(ObjectStore& store, const Clock& clock, Options options);

  // Errors: kExhausted = full; kUnavailable = the store is left alone; kInvalid as the store says.
  [[nodiscard]] Status push(IoClass io_class, ObjectRequest request);
  // Starts what may start and appends what finished, with the callers' tokens. A request whose
  // deadline passes while it waits ends as kDeadline, its memory untouched.
  void poll(std::vector<ObjectAnswer>& answers);
  // Returns when the store has something, a retry or a deadline is due, or after `limit`.
  void wait(Nanoseconds limit);
  void wake() { store_.wake(); }  // Thread-safe.
  // Ends everything that waits in `io_class` with `status`; what is in flight goes on.
  void cancel(IoClass io_class, const Status& status, std::vector<ObjectAnswer>& answers);

  [[nodiscard]] std::size_t waiting() const { return waiting_count_ + resting_.size(); }
  // Nothing of the callers' waits or is under way.
  [[nodiscard]] bool is_idle() const { return waiting() == 0 && running_.size() == trials(); }
  // Why the store is left alone, with what it said last; empty = it is not.
  [[nodiscard]] std::string problem() const;
  [[nodiscard]] const Counters& counters() const { return counters_; }

 private:
  struct Entry {
    ObjectRequest request;
    IoClass io_class = IoClass::kScrub;
    unsigned tries = 0;
    std::string failure;  // What the store said to the last try.
    Nanoseconds started{0};
    bool is_trial = false;    // The queue's own: nobody hears of its answer.
    bool is_overdue = false;  // Noted as a failure, though no answer has come.
  };
  [[nodiscard]] bool is_away() const { return rests_until_ != Nanoseconds(0); }
  [[nodiscard]] std::size_t trials() const;
  // When it counts as a failure that there is no answer.
  [[nodiscard]] Nanoseconds overdue_at(const Entry& entry) const;
  // `is_past`: some of a higher class wait.
  [[nodiscard]] bool may_start(std::size_t io_class, bool is_past) const;
  void start_front(std::size_t io_class, std::vector<ObjectAnswer>& answers);
  void start_waiting(std::vector<ObjectAnswer>& answers);
  // Moves the entry only if the store takes it.
  [[nodiscard]] Status submit(Entry& entry);
  // Asks whether the store is back, once a rest is over.
  void start_trial();
  [[nodiscard]] ObjectRequest next_trial();
  void watch();
  void expire(std::vector<ObjectAnswer>& answers);
  void finish(std::vector<ObjectAnswer>& answers);
  // True when the request goes on waiting.
  bool try_again(Entry& entry, const ObjectAnswer& answer);
  void note(const Entry& entry, const Status& status);
  void rest();
  void enqueue(Entry entry);
  void return_rested();
  [[nodiscard]] Nanoseconds pause_before(unsigned tries);

  ObjectStore& store_;
  const Clock& clock_;
  const Options options_;
  Rng rng_;
  std::array<std::deque<Entry>, kIoClassCount> waiting_;
  std::size_t waiting_count_ = 0;
  std::multimap<Nanoseconds, Entry> resting_;  // By when they are tried again.
  std::map<std::uint64_t, Entry> running_;     // By the store's token.
  std::array<unsigned, kIoClassCount> flying_{};
  std::array<unsigned, kIoClassCount> passed_over_{};  // Since its last start, while it waited.
  std::uint64_t last_token_ = 0;
  unsigned failures_ = 0;       // In a row.
  Nanoseconds rests_until_{0};  // 0 = the store is not away.
  std::string last_failure_;
  std::string hang_;            // What it does not answer; empty = it does not hang.
  ObjectRequest trial_;         // What to ask when a rest is over; each second time something else.
  unsigned asked_ = 0;          // Trials since it is away.
  Nanoseconds answered_at_{0};  // When the store last said anything.
  std::vector<ObjectAnswer> scratch_;
  Counters counters_;
};

}  // namespace terrace::transfer
