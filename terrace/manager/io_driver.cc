#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <ranges>
#include <utility>

#include "terrace/manager/io_driver_internal.h"
#include "terrace/manager/status_internal.h"

namespace terrace::manager {

namespace {

// No chain gives it: it would need a SHA-256 digest of 128 ones.
constexpr SequenceHash kDiskCanary{.high = ~std::uint64_t{0}, .low = ~std::uint64_t{0}};
// All groups go the same way: one stands for them.
constexpr GroupId kCanaryGroup{0};
constexpr Nanoseconds kCanaryPatience = seconds(30);
constexpr Nanoseconds kFirstCanaryRest = seconds(30);  // Doubles from rest to rest, up to
constexpr Nanoseconds kLongestCanaryRest = seconds(600);
constexpr int kMostCanaryRests = 16;  // 930 s + 11 × 600 s: about two hours.
constexpr Nanoseconds kOpeningPatience = seconds(30);
constexpr Nanoseconds kPlansEvery = milliseconds(100);
constexpr Nanoseconds kProblemsEvery = seconds(1);

// The same in every run, so that a canary found from before can be compared as well. No two ranks
// and no two pages alike: SplitMix64's increment, an odd number, makes the words all differ.
void fill_pattern(std::span<std::byte> shard, std::size_t rank) {
  std::uint64_t word = (rank + 1) << 48U;
  for (std::size_t at = 0; at + sizeof word <= shard.size(); at += sizeof word) {
    word += 0x9E3779B97F4A7C15ULL;
    std::memcpy(shard.data() + at, &word, sizeof word);
  }
}

bool has_pattern(std::span<const std::byte> shard, std::size_t rank) {
  std::uint64_t word = (rank + 1) << 48U;
  for (std::size_t at = 0; at + sizeof word <= shard.size(); at += sizeof word) {
    word += 0x9E3779B97F4A7C15ULL;
    if (std::memcmp(shard.data() + at, &word, sizeof word) != 0) return false;
  }
  return true;
}

}  // namespace

IoDriver::~IoDriver() { free_canary_slot(); }

bool IoDriver::pump_attach() {
  attach::AttachServer* server = attach_.load();
  if (server == nullptr) return false;
  const auto events = server->take_events();
  const std::string problem = server->problem();
  const bool is_new = !problem.empty() && !std::exchange(has_told_attach_, true);
  if (events.empty() && !is_new) return false;
  {
    const MutexLock lock(shared_.mutex);
    // First: ranks whose deaths are told by a dead thread may still write to what is free then.
    if (is_new) shared_.core.poison(problem);
    for (const attach::AttachEvent& event : events) shared_.core.on_attach(event, clock_.now());
  }
  if (is_new) log_.write(LogLevel::kError, fmt::format("event=poisoned reason=\"{}\"", problem));
  return true;
}

bool IoDriver::tick() {
  bool is_busy = pump_attach();
  LowerTier* lower = lower_.load();
  if (lower != nullptr) {
    tick_canary(*lower);
  } else {
    tell_late_opening();
  }
  Jobs jobs;
  bool allows_upkeep = false;
  bool is_paused = false;
  std::string learned;
  {
    const MutexLock lock(shared_.mutex);
    const Nanoseconds now = clock_.now();
    shared_.core.tick(now);
    shared_.core.take_jobs(kJobsPerTick, now, jobs);
    shared_.figures.tell(shared_.core);
    if (now >= plans_due_) {
      shared_.figures.tell_plans(shared_.core);
      shared_.figures.tell_memory(shared_.core);
      plans_due_ = now + kPlansEvery;
    }
    if (now >= problems_due_) {
      shared_.figures.tell_problems(problems_of(shared_.core, now).size());
      problems_due_ = now + kProblemsEvery;
    }
    allows_upkeep = shared_.core.allows_upkeep();
    is_paused = shared_.core.context().is_paused();
    if (lower != nullptr && shared_.core.is_learned_due(now)) {
      learned = shared_.core.take_learned(now);
    }
  }
  if (lower != nullptr) lower->hold_idle_work(is_paused);
  if (!learned.empty()) lower->keep_learned(std::move(learned));
  tier::ObjectTier* objects = objects_.load();
  if (objects != nullptr) objects->allow_upkeep(allows_upkeep);
  is_busy = begin(lower, objects, jobs) || is_busy;
  is_busy = begin_probes(objects, jobs.probes) || is_busy;
  is_busy = begin_packs(objects, jobs.packs) || is_busy;
  if (lower != nullptr) lower->poll(done_);
  if (objects != nullptr) objects->poll(objects_done_);
  is_busy = is_busy || !done_.empty() || !objects_done_.empty() || !jobs.checks.empty();
  apply_objects();
  apply(jobs.checks);
  is_busy = compare_all(jobs.comparisons) || is_busy;
  if (lower != nullptr) expire_canary();
  write_notes();
  return is_busy;
}

std::vector<tier::ShardMemory> IoDriver::memory_of(SlotIndex slot, GroupId group) const {
  const tier::HostTier* host = nullptr;
  std::size_t payload = 0;
  {
    const MutexLock lock(shared_.mutex);
    host = shared_.core.context().host.get();  // Never replaced once it is there.
    payload = shared_.core.context().groups.shard_bytes(group).value();
  }
  std::vector<tier::ShardMemory> memory;
  for (std::uint16_t rank = 0; rank < host->geometry().lanes; ++rank) {
    const auto shard = host->shard(slot, RankId(rank));
    memory.push_back(
        {.payload = shard.data(), .payload_bytes = payload, .padded_bytes = shard.size()});
  }
  return memory;
}

Status IoDriver::begin_read(LowerTier* lower, tier::ObjectTier* objects, const ReadJob& job) {
  const auto memory = memory_of(job.slot, job.group);
  const std::uint64_t token = job.token | kReadBit;
  if (job.source == Tier::kObject) {
    if (objects == nullptr) return {Code::kUnavailable, "object: not there any more"};
    return objects->begin_read(token, job.group, job.hash, memory, job.io_class, job.deadline);
  }
  if (lower == nullptr) return {Code::kUnavailable, "disk: not there any more"};
  return lower->begin_read(token, job.group, job.hash, memory, job.io_class, job.deadline);
}

bool IoDriver::begin(LowerTier* lower, tier::ObjectTier* objects, const Jobs& jobs) {
  const Status none(Code::kUnavailable, "disk: not there any more");
  if (lower != nullptr && !jobs.cancels.empty()) {
    std::vector<std::uint64_t> tokens;
    tokens.reserve(jobs.cancels.size());
    for (const std::uint64_t token : jobs.cancels) tokens.push_back(token | kReadBit);
    lower->cancel_reads(tokens);
  }
  std::array<bool, kTierCount> is_full{};
  std::vector<std::uint64_t> reads_back;
  std::vector<std::uint64_t> writes_back;
  for (const ReadJob& job : jobs.reads) {
    bool& source_is_full = is_full[static_cast<std::size_t>(job.source)];
    Status status(Code::kExhausted, "");
    if (!source_is_full) status = begin_read(lower, objects, job);
    source_is_full = status.code() == Code::kExhausted;
    if (status.code() == Code::kExhausted) {
      reads_back.push_back(job.token);
    } else if (!status.is_ok()) {
      done_.push_back({.token = job.token | kReadBit,
                       .is_read = true,
                       .status = std::move(status),
                       .checksums = {},
                       .alias = 0});
    }
  }
  for (const WriteJob& job : jobs.writes) {
    Status status = none;
    if (lower != nullptr) {
      status = writes_back.empty()
                   ? lower->begin_write(job.token, job.group, job.hash, job.alias,
                                        memory_of(job.slot, job.group), job.checksums, job.resets)
                   : Status(Code::kExhausted, "");
    }
    if (status.code() == Code::kExhausted) {
      writes_back.push_back(job.token);
    } else if (!status.is_ok()) {
      done_.push_back({.token = job.token,
                       .is_read = false,
                       .status = std::move(status),
                       .checksums = {},
                       .alias = 0});
    }
  }
  if (reads_back.empty() && writes_back.empty()) {
    return std::max(jobs.reads.size(), jobs.writes.size()) >= kJobsPerTick;
  }
  const MutexLock lock(shared_.mutex);
  for (const std::uint64_t token : std::views::reverse(reads_back)) {
    shared_.core.put_back_read(token);
  }
  for (const std::uint64_t token : std::views::reverse(writes_back)) {
    shared_.core.put_back_write(token);
  }
  return false;
}

bool IoDriver::is_right(const CheckJob& job) const {
  const auto ranks = memory_of(job.slot, job.group);
  for (std::size_t rank = 0; rank < ranks.size(); ++rank) {
    const std::span<const std::byte> payload(ranks[rank].payload, ranks[rank].payload_bytes);
    if (checksum_of(payload) != job.checksums[rank]) return false;
  }
  return true;
}

void IoDriver::apply(const std::vector<CheckJob>& checks) {
  std::vector<bool> verdicts;
  verdicts.reserve(checks.size());
  for (const CheckJob& job : checks) verdicts.push_back(is_right(job));
  {
    const MutexLock lock(shared_.mutex);
    const Nanoseconds now = clock_.now();
    for (const tier::DiskDone& done : done_) {
      if ((done.token & kCanaryBit) != 0) continue;
      if (done.is_read) {
        shared_.core.on_read(done.token & ~kReadBit, done.status, done.checksums, done.alias, now);
      } else {
        shared_.core.on_write(done.token, done.status);
      }
    }
    for (std::size_t i = 0; i < checks.size(); ++i) {
      shared_.core.on_check(checks[i].token, verdicts[i]);
    }
  }
  for (const tier::DiskDone& done : done_) {
    if ((done.token & kCanaryBit) != 0) on_canary(done);
  }
  done_.clear();
}

void IoDriver::write_notes() {
  std::vector<Note> notes;
  {
    const MutexLock lock(shared_.mutex);
    notes = std::exchange(shared_.core.context().notes, {});
  }
  for (const Note& note : notes) log_.write(note.level, note.line);
}

void IoDriver::wait(Nanoseconds limit) {
  if (LowerTier* lower = lower_.load(); lower != nullptr) {
    lower->wait(limit);
    return;
  }
  const MutexLock lock(wait_mutex_);
  if (!has_wake_) wait_condition_.wait_for(wait_mutex_, limit);
  has_wake_ = false;
}

void IoDriver::wake() {
  if (LowerTier* lower = lower_.load(); lower != nullptr) lower->wake();
  const MutexLock lock(wait_mutex_);
  has_wake_ = true;
  wait_condition_.notify_one();
}

bool IoDriver::is_idle() const {
  const LowerTier* lower = lower_.load();
  const tier::ObjectTier* objects = objects_.load();
  return (lower == nullptr || lower->is_idle()) && (objects == nullptr || objects->is_idle());
}

// The opening thread may hang in a call on a dead device, where it can say nothing itself.
void IoDriver::tell_late_opening() {
  if (has_told_late_opening_) return;
  const Nanoseconds now = clock_.now();
  if (!opening_deadline_) opening_deadline_ = now + kOpeningPatience;
  if (now < *opening_deadline_) return;
  has_told_late_opening_ = true;
  {
    const MutexLock lock(shared_.mutex);
    if (shared_.core.is_lower_settled()) return;
  }
  log_.write(
      LogLevel::kError,
      fmt::format("event=disk_late reason=\"the disk tier is not open after {} s: the model's "
                  "directory or one of disk.paths hangs\": nothing is read from disk until "
                  "it opens; check the devices and the kernel's log",
                  kOpeningPatience / seconds(1)));
}

// ---- The canary's disk leg: a made-up block goes to disk and comes back, before any block found
// there is offered. One from an earlier run is read again; if that one is damaged, a new one is
// written. What differs keeps the disk off for good. What only fails or does not come in time says
// nothing about the bytes (a stopped process, a disk that was busy, full, read-only or away): it is
// tried again, ever more rarely, for about two hours.

void IoDriver::tick_canary(LowerTier& lower) {
  if (canary_ == Canary::kDone || canary_ == Canary::kLate) return;
  if (canary_ == Canary::kResting && clock_.now() < canary_retry_at_) return;
  if (canary_ == Canary::kNone || canary_ == Canary::kResting) canary_ = Canary::kNeeded;
  if (!canary_deadline_) canary_deadline_ = clock_.now() + kCanaryPatience;
  if (canary_ != Canary::kNeeded) return;
  if (!canary_slot_) {
    const MutexLock lock(shared_.mutex);
    if (shared_.core.context().host == nullptr) return;
    auto slot = shared_.core.reserve_canary();
    if (!slot) return;
    canary_slot_ = std::move(*slot);
  }
  begin_canary_write(lower);
}

// After the answers that have come were taken: a process that was stopped finds them waiting.
void IoDriver::expire_canary() {
  const bool is_under_way = canary_ == Canary::kWriting || canary_ == Canary::kReading;
  if (!is_under_way && canary_ != Canary::kNeeded) return;
  if (!canary_deadline_ || clock_.now() < *canary_deadline_) return;
  put_off_canary(fmt::format("no answer within {} s: the disk hangs or is overloaded",
                             kCanaryPatience / seconds(1)));
}

void IoDriver::begin_canary_write(LowerTier& lower) {
  const auto memory = memory_of(canary_slot_->slot().index, kCanaryGroup);
  std::vector<Checksum> checksums;
  for (std::size_t rank = 0; rank < memory.size(); ++rank) {
    const std::span<std::byte> payload(memory[rank].payload, memory[rank].payload_bytes);
    fill_pattern(payload, rank);
    checksums.push_back(checksum_of(payload));
  }
  const Status status = lower.begin_write(kCanaryBit, kCanaryGroup, kDiskCanary, 0, memory,
                                          checksums, lower.resets());
  if (status.is_ok()) {
    canary_ = Canary::kWriting;
  } else if (status.code() == Code::kInvalid) {
    begin_canary_read(lower);
  } else if (status.code() != Code::kExhausted) {  // kExhausted: again next round.
    fail_canary("write", status);
  }
}

void IoDriver::begin_canary_read(LowerTier& lower) {
  const auto memory = memory_of(canary_slot_->slot().index, kCanaryGroup);
  for (const tier::ShardMemory& shard : memory) std::memset(shard.payload, 0, shard.payload_bytes);
  canary_deadline_ = clock_.now() + kCanaryPatience;
  const Status status = lower.begin_read(kCanaryBit | kReadBit, kCanaryGroup, kDiskCanary, memory,
                                         transfer::IoClass::kTtftRead, *canary_deadline_);
  canary_ = Canary::kReading;
  if (status.is_ok()) return;
  on_canary({.token = kCanaryBit | kReadBit,
             .is_read = true,
             .status = status,
             .checksums = {},
             .alias = 0});
}

void IoDriver::on_canary(const tier::DiskDone& done) {
  LowerTier* lower = lower_.load();
  if (lower == nullptr || !canary_slot_) return;
  if (canary_ == Canary::kLate) {
    canary_ = canary_rests_ > kMostCanaryRests ? Canary::kDone : Canary::kResting;
    return free_canary_slot();
  }
  if (canary_ == Canary::kWriting) {
    if (done.status.is_ok()) {
      begin_canary_read(*lower);
    } else if (done.status.code() == Code::kNotFound && ++canary_tries_ < kMaxCanaryTries) {
      canary_ = Canary::kNeeded;  // A reset came in between.
    } else {
      fail_canary("write", done.status);
    }
    return;
  }
  if (done.status.is_ok()) {
    const auto memory = memory_of(canary_slot_->slot().index, kCanaryGroup);
    bool is_equal = true;
    for (std::size_t rank = 0; rank < memory.size(); ++rank) {
      is_equal = is_equal && has_pattern({memory[rank].payload, memory[rank].payload_bytes}, rank);
    }
    end_canary(is_equal ? "" : "disk canary: other bytes came back than were written");
  } else if (++canary_tries_ < kMaxCanaryTries) {
    canary_ = Canary::kNeeded;
  } else {
    fail_canary("read", done.status);
  }
}

void IoDriver::end_canary(const std::string& problem) {
  canary_ = Canary::kDone;
  free_canary_slot();
  tell_canary(problem);
}

void IoDriver::fail_canary(const char* leg, const Status& status) {
  switch (status.code()) {
    case Code::kIo:
    case Code::kExhausted:
    case Code::kUnavailable:
    case Code::kDeadline:
    case Code::kNotFound:
    case Code::kRefused:          // No write budget for now, or a medium that is read-only.
      canary_ = Canary::kNeeded;  // Nothing of it is under way.
      return put_off_canary(fmt::format("{}: {}", leg, status.text()));
    case Code::kOk:
    case Code::kInvalid:
    case Code::kCorrupt:
    case Code::kClosed:
    case Code::kInternal:
      return end_canary(fmt::format("disk canary: {}: {}", leg, status.text()));
  }
}

void IoDriver::put_off_canary(const std::string& why) {
  // The device may still read or fill the slot: it is kept until the answer comes, if it does.
  const bool is_under_way = canary_ != Canary::kNeeded;
  if (!is_under_way) free_canary_slot();
  const bool is_last = ++canary_rests_ > kMostCanaryRests;
  canary_rest_ =
      canary_rests_ == 1 ? kFirstCanaryRest : std::min(canary_rest_ * 2, kLongestCanaryRest);
  canary_retry_at_ = clock_.now() + canary_rest_;
  canary_deadline_.reset();
  canary_tries_ = 0;
  if (is_under_way) {
    canary_ = Canary::kLate;
  } else {
    canary_ = is_last ? Canary::kDone : Canary::kResting;
  }
  const std::string again =
      is_last ? "until the engine restarts"
              : fmt::format("for now, it is tried again in {} s{}", canary_rest_ / seconds(1),
                            is_under_way ? " or when this answer has come, if that is later" : "");
  tell_canary(
      fmt::format("disk canary: {}; nothing is read from disk {}; check the devices of disk.paths "
                  "and the kernel's log",
                  why, again));
}

void IoDriver::free_canary_slot() {
  const MutexLock lock(shared_.mutex);
  canary_slot_.reset();
}

void IoDriver::tell_canary(const std::string& problem) {
  {
    const MutexLock lock(shared_.mutex);
    shared_.core.on_lower_canary(problem);
  }
  if (!problem.empty()) {
    log_.write(LogLevel::kError, fmt::format("event=disk_off reason=\"{}\"", problem));
  } else if (canary_rests_ > 0) {
    log_.write(LogLevel::kInfo,
               "event=disk_on reason=\"the disk canary came back right: what is there is served\"");
  }
}

}  // namespace terrace::manager
