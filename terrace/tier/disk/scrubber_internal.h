// Reads what is sealed, frame by frame, in the lowest I/O class, when the disk has nothing else to
// do and no faster than it is told; a block that does not verify is dropped before a request finds
// it. A block is looked at without a pin: dropping one would make it the most recently used, and a
// pass would turn the eviction order into the order of slots. So the slot's generation is compared
// before and after the read instead, and what changed meanwhile is nobody's loss: the memory is the
// scrubber's own. A directory that is left alone, or that owes a read while it hangs, is passed
// over: what it owes may land late, so each has memory of its own, and is asked for nothing more
// until it has come. A restart begins a pass anew. Threading: ask(), hold() and report() are
// thread-safe, the rest belongs to the I/O thread. Waits: never.  Memory: one frame of each volume,
// from the start.  Bounds: one read at a time, and one that hangs of each volume.
#pragma once

#include <atomic>
#include <cstdlib>
#include <memory>
#include <optional>
#include <vector>

#include "terrace/base/mutex.h"
#include "terrace/tier/disk/context_internal.h"
#include "terrace/tier/scrub_report.h"

namespace terrace::tier::disk {

class Writer;

class Scrubber {
 public:
  struct Options {
    std::uint64_t bytes_per_second = 0;  // 0 = only when asked.
    Nanoseconds interval{0};             // From the end of a pass to the next.
    Nanoseconds first{0};                // From the start to the first.
  };
  Scrubber(Context& context, Writer& writer, const Options& options);

  // Begins a pass now, or hastens the one that runs; 0 bytes/s = as the options say, else
  // kAskedRate. Returns the pass's number in report().
  std::uint64_t ask(std::uint64_t bytes_per_second);
  // While held no read begins.
  void hold(bool is_held) { is_held_.store(is_held, std::memory_order_relaxed); }
  [[nodiscard]] ScrubReport report() const;

  // Starts the next read if it is due.
  void advance();
  void finish(std::uint32_t volume, const Status& given);
  void stop() { is_stopped_ = true; }

 private:
  static constexpr std::uint64_t kAskedRate = 64ULL << 20U;
  struct Free {
    void operator()(std::byte* memory) const { std::free(memory); }
  };

  struct Owed {  // Of one volume.
    std::unique_ptr<std::byte, Free> memory;
    std::size_t bytes = 0;  // Of that: its largest frame.
    bool is_flying = false;
  };

  void take_request();
  // The one in hand is under way, and worth waiting for.
  [[nodiscard]] bool is_awaited();
  // Nobody else has anything under way, but where nothing comes back.
  [[nodiscard]] bool is_quiet() const;
  void note_wait();
  void begin_pass(bool is_asked, std::uint64_t bytes_per_second);
  void end_pass();
  [[nodiscard]] bool find_next();
  void read_next();
  void skip();
  void pass_over();
  void drop(const Status& why);
  [[nodiscard]] Status verify() const;

  Context& context_;
  Writer& writer_;
  const Options options_;
  std::vector<Owed> owed_;            // [volume]
  std::vector<bool> is_passed_over_;  // [volume]; in this pass.
  std::atomic<bool> is_held_{false};
  std::atomic<bool> has_request_{false};
  bool is_stopped_ = false;
  bool is_running_ = false;
  bool is_reading_ = false;  // The block in hand.
  bool has_told_wait_ = false;
  Nanoseconds read_at_{0};
  Nanoseconds next_pass_at_;
  Nanoseconds began_{0};
  Nanoseconds due_{0};  // Of the next read.
  std::uint64_t rate_ = 0;
  std::size_t group_ = 0;
  std::uint32_t slot_ = 0;  // Where to look on; the block in hand lies before it.
  std::uint16_t rank_ = 0;  // Of the block in hand.
  std::optional<Slots::Sight> block_;
  mutable Mutex mutex_;
  std::uint64_t wanted_rate_ TERRACE_GUARDED_BY(mutex_) = 0;
  ScrubReport report_ TERRACE_GUARDED_BY(mutex_);
};

}  // namespace terrace::tier::disk
