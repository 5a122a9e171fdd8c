// The I/O thread's work, one round at a time: attachments, deadlines, disk reads and writes,
// checking questioned host blocks, the disk leg of the canary. Tests call tick() themselves, with a
// fake clock. Threading: tick() and wait() belong to one thread; the rest is thread-safe. Waits:
// only wait(), with a limit.
#pragma once

#include <atomic>
#include <cstdint>
#include <deque>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "terrace/base/log.h"
#include "terrace/base/mutex.h"
#include "terrace/manager/shared_internal.h"

namespace terrace::manager {

class IoDriver {
 public:
  IoDriver(Shared& shared, const Clock& clock, LogSink& log)
      : shared_(shared), clock_(clock), log_(log) {}
  ~IoDriver();

  // Events of `server` reach the core from now on. Null before it goes.
  void set_attach(attach::AttachServer* server) { attach_.store(server); }
  // `lower` is used until clear_lower(), which only the ticking thread or its joiner calls.
  void set_lower(LowerTier& lower) { lower_.store(&lower); }
  void clear_lower() { lower_.store(nullptr); }
  // The same of a shared store.
  void set_objects(tier::ObjectTier& objects) { objects_.store(&objects); }
  void clear_objects() { objects_.store(nullptr); }

  // True when something was begun or finished, so that another round is worth while at once.
  bool tick();
  void wait(Nanoseconds limit);
  void wake();
  // All begun reads and writes have come back.
  [[nodiscard]] bool is_idle() const;

 private:
  enum class Canary : std::uint8_t {
    kNone,
    kNeeded,
    kWriting,
    kReading,
    kLate,     // Given up, but the device has not let go of the slot yet.
    kResting,  // Tried again at canary_retry_at_.
    kDone
  };
  static constexpr std::uint64_t kReadBit = std::uint64_t{1} << 63U;
  static constexpr std::uint64_t kCanaryBit = std::uint64_t{1} << 62U;
  static constexpr std::size_t kJobsPerTick = 64;
  static constexpr int kMaxCanaryTries = 3;

  bool pump_attach();
  [[nodiscard]] std::vector<tier::ShardMemory> memory_of(SlotIndex slot, GroupId group) const;
  // True when all of a full batch was taken: there may be more.
  bool begin(LowerTier* lower, tier::ObjectTier* objects, const Jobs& jobs);
  [[nodiscard]] Status begin_read(LowerTier* lower, tier::ObjectTier* objects, const ReadJob& job);
  // False when nothing was begun.
  bool begin_probes(tier::ObjectTier* objects, const std::vector<ProbeJob>& probes);
  bool begin_packs(tier::ObjectTier* objects, const std::vector<PackJob>& packs);
  void apply_objects();
  void apply(const std::vector<CheckJob>& checks);
  [[nodiscard]] bool is_right(const CheckJob& job) const;
  [[nodiscard]] Compared compare(const CompareJob& job, const Options& options) const;
  // After a difference: where both versions lie, and the quarantine is written down.
  [[nodiscard]] std::string keep(const CompareJob& job, const Compared& found,
                                 const Options& options) const;
  // True when there was something to compare.
  bool compare_all(const std::vector<CompareJob>& jobs);
  void write_notes();

  void tell_late_opening();
  void tick_canary(LowerTier& lower);
  void expire_canary();
  void begin_canary_write(LowerTier& lower);
  void begin_canary_read(LowerTier& lower);
  void on_canary(const tier::DiskDone& done);
  void end_canary(const std::string& problem);
  void put_off_canary(const std::string& why);
  void fail_canary(const char* leg, const Status& status);
  void free_canary_slot();
  // What it found out, told to the core and to whoever reads the log.
  void tell_canary(const std::string& problem);

  Shared& shared_;
  const Clock& clock_;
  LogSink& log_;
  std::atomic<attach::AttachServer*> attach_{nullptr};
  std::atomic<LowerTier*> lower_{nullptr};
  std::atomic<tier::ObjectTier*> objects_{nullptr};
  std::vector<tier::ObjectDone> objects_done_;
  std::vector<tier::DiskDone> done_;
  Nanoseconds plans_due_{0};  // To be told again.
  Nanoseconds problems_due_{0};
  std::optional<Nanoseconds> opening_deadline_;  // Of the lower tier; from the first tick on.
  bool has_told_late_opening_ = false;
  bool has_told_attach_ = false;  // That the attach server's thread is gone.
  Canary canary_ = Canary::kNone;
  int canary_tries_ = 0;
  std::optional<Nanoseconds> canary_deadline_;  // Of a round of tries, from its first one on.
  int canary_rests_ = 0;
  Nanoseconds canary_rest_{0};  // The last one.
  Nanoseconds canary_retry_at_{0};
  std::optional<catalog::FillingSlot> canary_slot_;
  Mutex wait_mutex_;
  CondVar wait_condition_;
  bool has_wake_ TERRACE_GUARDED_BY(wait_mutex_) = false;
};

}  // namespace terrace::manager
