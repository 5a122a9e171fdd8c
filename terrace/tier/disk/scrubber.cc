#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>

#include "terrace/tier/disk/frame_check_internal.h"
#include "terrace/tier/disk/scrubber_internal.h"
#include "terrace/tier/disk/writer_internal.h"

namespace terrace::tier::disk {

namespace {
// A disk that is never idle gets a frame a second nevertheless.
constexpr Nanoseconds kPatience = seconds(1);
// What the rate may catch up with: the I/O thread sleeps up to 20 ms between its rounds.
constexpr Nanoseconds kCatchUp = milliseconds(100);
constexpr Nanoseconds kLongWait = seconds(1);  // For one read, before it is told.
constexpr std::uint32_t kSlotsAtOnce = 8192;   // Looked at under the slots' lock: about 0.1 ms.

}  // namespace

Scrubber::Scrubber(Context& context, Writer& writer, const Options& options)
    : context_(context),
      writer_(writer),
      options_(options),
      is_passed_over_(context.volumes.size(), false),
      next_pass_at_(context.clock.now() + options.first) {
  for (const auto& volume : context.volumes) {
    const std::size_t bytes = std::ranges::max(volume->geometry().frame_bytes);
    Owed owed;
    owed.memory.reset(static_cast<std::byte*>(std::aligned_alloc(kPageBytes, bytes)));
    owed.bytes = bytes;
    TERRACE_CHECK(owed.memory != nullptr);
    owed_.push_back(std::move(owed));
  }
  const MutexLock lock(mutex_);
  report_.bytes_per_second = options.bytes_per_second;
  report_.found.reserve(kMostScrubFindings);
}

std::uint64_t Scrubber::ask(std::uint64_t bytes_per_second) {
  const MutexLock lock(mutex_);
  wanted_rate_ = bytes_per_second;
  if (wanted_rate_ == 0) wanted_rate_ = options_.bytes_per_second;
  if (wanted_rate_ == 0) wanted_rate_ = kAskedRate;
  const bool is_new = !has_request_.exchange(true) && !report_.is_running;
  if (is_new) {
    ++report_.pass;
    report_.is_running = true;  // Whoever asks now need not wait for the I/O thread to see it.
    report_.progress = 0;
  }
  report_.is_asked = true;
  return report_.pass;
}

ScrubReport Scrubber::report() const {
  const MutexLock lock(mutex_);
  ScrubReport report = report_;
  report.is_held = is_held_.load(std::memory_order_relaxed);
  return report;
}

void Scrubber::take_request() {
  std::uint64_t rate = 0;
  {
    const MutexLock lock(mutex_);
    rate = wanted_rate_;
    has_request_.store(false);
    report_.bytes_per_second = rate;
  }
  if (is_running_) {
    rate_ = rate;
    return;
  }
  begin_pass(true, rate);
}

void Scrubber::begin_pass(bool is_asked, std::uint64_t bytes_per_second) {
  is_running_ = true;
  rate_ = bytes_per_second;
  began_ = context_.clock.now();
  due_ = began_;
  group_ = 0;
  slot_ = 0;
  block_.reset();
  is_passed_over_.assign(is_passed_over_.size(), false);
  const MutexLock lock(mutex_);
  ScrubReport fresh;
  fresh.pass = report_.is_running ? report_.pass : report_.pass + 1;  // ask() counts its own.
  fresh.is_running = true;
  fresh.is_asked = is_asked;
  fresh.bytes_per_second = rate_;
  fresh.found.swap(report_.found);
  report_ = std::move(fresh);
}

void Scrubber::end_pass() {
  is_running_ = false;
  const Nanoseconds now = context_.clock.now();
  next_pass_at_ = now + options_.interval;
  context_.meters.scrub_passes.add();
  ScrubReport done;
  {
    const MutexLock lock(mutex_);
    report_.is_running = false;
    report_.progress = 1;
    report_.took = now - began_;
    done = report_;
    report_.bytes_per_second = options_.bytes_per_second;
  }
  context_.log.write(
      done.bad_blocks + done.skipped_blocks > 0 ? LogLevel::kWarn : LogLevel::kInfo,
      fmt::format("disk scrub=done pass={} good_blocks={} bad_blocks={} skipped_blocks={} "
                  "bytes={} seconds={}",
                  done.pass, done.good_blocks, done.bad_blocks, done.skipped_blocks, done.bytes,
                  done.took / seconds(1)) +
          (done.passed_over.empty()
               ? std::string()
               : fmt::format(" passed_over=\"{}\"", fmt::join(done.passed_over, " "))));
}

void Scrubber::advance() {
  if (is_stopped_) return;
  if (has_request_.load(std::memory_order_relaxed)) take_request();
  if (is_awaited() || is_held_.load(std::memory_order_relaxed)) return;
  const Nanoseconds now = context_.clock.now();
  if (!is_running_) {
    if (options_.bytes_per_second == 0 || now < next_pass_at_) return;
    begin_pass(false, options_.bytes_per_second);
  }
  if (now < due_ || (!is_quiet() && now < due_ + kPatience)) return;
  if (find_next()) read_next();
}

bool Scrubber::is_awaited() {
  if (!is_reading_) return false;
  if (context_.health.may_read(block_->place.volume)) {
    note_wait();
    return true;
  }
  is_reading_ = false;
  pass_over();
  return false;
}

bool Scrubber::is_quiet() const {
  for (std::uint32_t v = 0; v < context_.volumes.size(); ++v) {
    if (context_.health.may_read(v) && !context_.queue.is_idle(v)) return false;
  }
  return true;
}

void Scrubber::note_wait() {
  if (has_told_wait_ || context_.clock.now() - read_at_ < kLongWait) return;
  has_told_wait_ = true;
  const MutexLock lock(mutex_);
  report_.waits_for = context_.volumes[block_->place.volume]->directory();
}

// The block in hand, or the next one; false when there is none for now.
bool Scrubber::find_next() {
  const std::size_t groups = context_.options.layout.groups.size();
  std::uint32_t looked_at = 0;
  while (!block_) {
    if (group_ >= groups) {
      end_pass();
      return false;
    }
    const std::uint32_t from = slot_;
    block_ = context_.slots.next_sealed(group_, slot_, kSlotsAtOnce);
    looked_at += slot_ - from;
    rank_ = 0;
    if (slot_ >= context_.slots.size() && !block_) {
      ++group_;
      slot_ = 0;
    }
    if (block_) {
      const std::uint32_t volume = block_->place.volume;
      if (!context_.health.may_read(volume) || owed_[volume].is_flying) pass_over();
    }
    const double rows = static_cast<double>(groups) * context_.slots.size();
    const MutexLock lock(mutex_);
    report_.progress =
        std::min(1.0, (static_cast<double>(group_) * context_.slots.size() + slot_) / rows);
    report_.took = context_.clock.now() - began_;
    // Many slots without a block that can be read: the rest of them in the next round.
    if (!block_ && looked_at >= kSlotsAtOnce) return false;
  }
  return true;
}

void Scrubber::skip() {
  block_.reset();
  context_.meters.scrub_skipped.add();
  const MutexLock lock(mutex_);
  ++report_.skipped_blocks;
  report_.waits_for.clear();
}

void Scrubber::pass_over() {
  const std::uint32_t volume = block_->place.volume;
  skip();
  if (is_passed_over_[volume]) return;
  is_passed_over_[volume] = true;
  const MutexLock lock(mutex_);
  report_.passed_over.push_back(context_.volumes[volume]->directory());
}

void Scrubber::read_next() {
  const SlotMap::Place place = block_->place;
  const Volume& volume = *context_.volumes[place.volume];
  transfer::Transfer transfer;
  transfer.token = Ticket{Purpose::kScrub, 0, place.volume}.token();
  transfer.op = transfer::IoOp::kRead;
  transfer.io_class = transfer::IoClass::kScrub;
  transfer.file = volume.data_file();
  transfer.offset = volume.geometry().offset(group_, place.slot, rank_);
  Owed& owed = owed_[place.volume];
  transfer.pieces[0] = {owed.memory.get(), volume.geometry().frame_bytes[group_]};
  transfer.piece_count = 1;
  owed.is_flying = true;
  is_reading_ = true;
  has_told_wait_ = false;
  const auto bytes = static_cast<double>(transfer.pieces[0].bytes);
  const Nanoseconds now = context_.clock.now();
  read_at_ = now;
  due_ = std::max(due_, now - kCatchUp) +
         Nanoseconds(static_cast<std::int64_t>(bytes / static_cast<double>(rate_) * 1e9));
  context_.push(place.volume, transfer);
}

Status Scrubber::verify() const {
  const Owed& owed = owed_[block_->place.volume];
  const Status status =
      check_frame({owed.memory.get(), owed.bytes},
                  context_.header(block_->place.volume, group_, block_->hash, rank_,
                                  block_->slot.generation.value(), block_->epoch));
  return status.is_ok() ? status : Status(Code::kCorrupt, status.message());
}

void Scrubber::finish(std::uint32_t volume, const Status& given) {
  owed_[volume].is_flying = false;
  if (!is_reading_ || block_->place.volume != volume) return;  // It was passed over.
  is_reading_ = false;
  if (has_told_wait_) {
    const MutexLock lock(mutex_);
    report_.waits_for.clear();
  }
  Status status = given.is_ok() ? verify() : given;
  if (!context_.slots.is_same(group_, *block_)) {  // Evicted, dropped or reset meanwhile.
    block_.reset();
    return;
  }
  const std::uint64_t bytes = context_.volumes[volume]->geometry().frame_bytes[group_];
  if (status.is_ok()) {
    context_.health.succeeded(volume, false);
    context_.meters.scrub_bytes.add(bytes);
    const bool is_whole = ++rank_ == context_.ranks();
    if (is_whole) context_.meters.scrub_good.add();
    const MutexLock lock(mutex_);
    report_.bytes += bytes;
    if (!is_whole) return;
    ++report_.good_blocks;
    block_.reset();
  } else if (status.code() == Code::kCorrupt || status.code() == Code::kIo) {
    if (status.code() == Code::kIo) context_.health.failed(volume, status);
    // Of one that is shut now nothing is known: it is looked at as a whole.
    context_.health.may_read(volume) ? drop(status) : pass_over();
  } else {
    skip();
  }
}

void Scrubber::drop(const Status& why) {
  const SlotMap::Place place = block_->place;
  // A request reads it at this moment, and will find out: look again when it has.
  if (!context_.slots.drop(group_, *block_)) return;
  writer_.invalidate(group_, place);
  context_.meters.scrub_bad.add();
  const Volume& volume = *context_.volumes[place.volume];
  ScrubFinding finding{.file = volume.data_path(),
                       .offset = volume.geometry().offset(group_, place.slot, rank_),
                       .group = GroupId(static_cast<std::uint16_t>(group_)),
                       .rank = RankId(rank_),
                       .hash = block_->hash,
                       .reason = why.message()};
  context_.corrupt_log.write(
      LogLevel::kWarn,
      fmt::format("disk file={} offset={} scrub=bad key={} group={} rank={} reason=\"{}\"",
                  finding.file, finding.offset, finding.hash.hex(), group_, rank_, finding.reason));
  block_.reset();
  const MutexLock lock(mutex_);
  ++report_.bad_blocks;
  if (report_.found.size() >= kMostScrubFindings) report_.found.erase(report_.found.begin());
  report_.found.push_back(std::move(finding));
}

}  // namespace terrace::tier::disk
