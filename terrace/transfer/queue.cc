#include "terrace/transfer/queue.h"

#include <algorithm>
#include <utility>

#include "terrace/base/check.h"

namespace terrace::transfer {

namespace {
// Share of the depth that a class may fill, in eighths: reads for a first token may have all of it.
constexpr std::array<unsigned, kIoClassCount> kDepthShare{8, 6, 4, 1};

// Of what waits in a class, how many are looked at for a neighbour.
constexpr std::size_t kLookAhead = 16;

std::size_t index_of(IoClass io_class) { return static_cast<std::size_t>(io_class); }

unsigned most_of(std::size_t io_class, unsigned depth) {
  return std::max(1U, depth * kDepthShare[io_class] / 8);
}
}  // namespace

Queue::Queue(Backend& backend, const Clock& clock, Options options)
    : backend_(backend),
      clock_(clock),
      options_(std::move(options)),
      volumes_(std::max(1U, options_.volumes)),
      volume_depth_(std::max(1U, backend.depth() / static_cast<unsigned>(volumes_.size()))),
      running_(backend.depth()) {
  for (std::uint32_t i = backend.depth(); i > 0; --i) places_.push_back(i - 1);
}

Status Queue::push(const Transfer& transfer) {
  if (!has_room(1)) return {Code::kExhausted, "disk queue is full"};
  TERRACE_CHECK(transfer.volume < volumes_.size());
  volumes_[transfer.volume].waiting[index_of(transfer.io_class)].push_back(
      {.transfer = transfer, .pushed = clock_.now()});
  ++waiting_count_;
  next_deadline_ = std::min(next_deadline_, transfer.deadline);
  return {};
}

bool Queue::is_idle(std::uint32_t volume) const {
  const Volume& wanted = volumes_[volume % volumes_.size()];
  return wanted.flying_all == 0 &&
         std::ranges::all_of(wanted.waiting, [](const auto& waiting) { return waiting.empty(); });
}

std::size_t Queue::waiting(IoClass io_class) const {
  std::size_t count = 0;
  for (const Volume& volume : volumes_) count += volume.waiting[index_of(io_class)].size();
  return count;
}

Queue::Running Queue::running_of(const Transfer& transfer) {
  return {.token = transfer.token,
          .io_class = transfer.io_class,
          .volume = transfer.volume,
          .bytes = transfer.bytes(),
          .is_read = transfer.op == IoOp::kRead && transfer.io_class <= IoClass::kPrefetch};
}

bool Queue::may_start(const Volume& volume, const Transfer& transfer) const {
  const std::size_t io_class = index_of(transfer.io_class);
  const unsigned flying = volume.flying[io_class];
  if (places_.empty() || volume.flying_all >= volume_depth_) return false;
  if (flying == 0) return true;
  if (flying >= most_of(io_class, volume_depth_)) return false;
  if (transfer.io_class == IoClass::kOffloadWrite && flying >= volume.writes_now) return false;
  return volume.flying_bytes[io_class] + transfer.bytes() <=
         options_.class_bytes[io_class] / volumes_.size();
}

void Queue::start_waiting(std::vector<Completion>& completions) {
  const unsigned most_writes = most_of(index_of(IoClass::kOffloadWrite), volume_depth_);
  unsigned window = 0;
  for (Volume& volume : volumes_) {
    volume.writes_now = volume.throttle.window(most_writes, clock_.now());
    window += volume.writes_now;
    volume.is_held = false;
    for (std::size_t io_class = 1; io_class < kIoClassCount; ++io_class) {
      if (volume.passed_over[io_class] < kFloorStarts || volume.waiting[io_class].empty()) continue;
      (void)start_front(volume, io_class, completions);  // At its own bounds it does not starve.
    }
    volume.is_held = false;
  }
  write_window_.set(window);
  for (std::size_t io_class = 0; io_class < kIoClassCount; ++io_class) {
    start_class(io_class, completions);
  }
}

void Queue::start_class(std::size_t io_class, std::vector<Completion>& completions) {
  for (Volume& volume : volumes_) volume.is_unprepared = false;
  for (bool has_started = true; has_started;) {
    has_started = false;
    for (Volume& volume : volumes_) {
      if (volume.is_held || volume.is_unprepared || volume.waiting[io_class].empty()) continue;
      if (start_front(volume, io_class, completions)) has_started = true;
    }
  }
}

bool Queue::may_merge(const Transfer& transfer, const Waiting& next) const {
  const Transfer& other = next.transfer;
  return !next.is_alone && other.op == IoOp::kRead && other.file == transfer.file &&
         other.arrivals == nullptr && other.offset == transfer.offset + transfer.bytes() &&
         transfer.bytes() + other.bytes() <= options_.merged_bytes &&
         transfer.piece_count + other.piece_count <= backend_.most_pieces();
}

std::vector<Transfer> Queue::merge(std::deque<Waiting>& waiting, Transfer& transfer) {
  std::vector<Transfer> parts;
  if (transfer.op != IoOp::kRead || transfer.arrivals != nullptr || waiting.front().is_alone) {
    return parts;
  }
  // Those of other files may stand in between.
  for (std::size_t at = 1; at < waiting.size() && at <= kLookAhead;) {
    if (!may_merge(transfer, waiting[at])) {
      ++at;
      continue;
    }
    Transfer next = waiting[at].transfer;
    if (options_.prepare && !options_.prepare(next)) break;
    if (parts.empty()) parts.push_back(transfer);
    parts.push_back(next);
    for (std::size_t i = 0; i < next.piece_count; ++i) {
      transfer.pieces[transfer.piece_count++] = next.pieces[i];
    }
    waiting.erase(waiting.begin() + static_cast<std::ptrdiff_t>(at));
    --waiting_count_;
    at = 1;
  }
  return parts;
}

bool Queue::start_front(Volume& volume, std::size_t io_class,
                        std::vector<Completion>& completions) {
  auto& waiting = volume.waiting[io_class];
  Transfer transfer = waiting.front().transfer;
  if (!may_start(volume, transfer)) {
    volume.is_held = true;
    return false;
  }
  // Not held by that: what needs no buffers may be what brings some back.
  if (options_.prepare && !options_.prepare(transfer)) {
    volume.is_unprepared = true;
    return false;
  }
  const std::uint32_t place = places_.back();
  Running running = running_of(transfer);
  running.pushed = waiting.front().pushed;
  running.parts = merge(waiting, transfer);
  running.bytes = transfer.bytes();
  const std::uint64_t token = std::exchange(transfer.token, place);
  Status status = backend_.submit(transfer);
  if (status.code() == Code::kExhausted) {
    volume.is_held = true;
    if (running.parts.empty()) {
      transfer.token = token;
      running.parts.push_back(transfer);
    }
    for (Transfer& part : running.parts) release(part);
    for (std::size_t i = running.parts.size(); i > 1; --i) {
      waiting.insert(waiting.begin() + 1,
                     {.transfer = running.parts[i - 1], .pushed = running.pushed});
      ++waiting_count_;
    }
    return false;
  }
  waiting.pop_front();
  --waiting_count_;
  if (!status.is_ok()) {
    end(std::move(running), std::move(status), completions);
    return true;
  }
  places_.pop_back();
  running.ahead = volume.flying_reads;
  running.started = clock_.now();
  note_start(volume, running);
  running_[place] = std::move(running);
  return true;
}

void Queue::release(Transfer& transfer) const {
  if (options_.release) options_.release(transfer);
}

void Queue::end(Running running, Status status, std::vector<Completion>& completions) {
  if (running.parts.empty()) {
    note_end(running.io_class, running.pushed, 1);
    completions.push_back({running.token, std::move(status)});
    return;
  }
  if (status.is_ok()) {
    note_end(running.io_class, running.pushed, running.parts.size());
    for (const Transfer& part : running.parts) completions.push_back({part.token, {}});
    return;
  }
  auto& waiting = volumes_[running.volume].waiting[index_of(running.io_class)];
  for (std::size_t i = running.parts.size(); i > 0; --i) {
    Transfer& part = running.parts[i - 1];
    release(part);
    waiting.push_front({.transfer = part, .pushed = running.pushed, .is_alone = true});
    next_deadline_ = std::min(next_deadline_, part.deadline);
    ++waiting_count_;
  }
}

void Queue::note_end(IoClass io_class, Nanoseconds pushed, std::uint64_t transfers) {
  const auto time =
      static_cast<std::uint64_t>(std::max<std::int64_t>((clock_.now() - pushed).value(), 0));
  counters_.done[index_of(io_class)].add(transfers);
  counters_.time_ns[index_of(io_class)].add(time * transfers);
}

void Queue::note_start(Volume& volume, const Running& running) {
  const std::size_t io_class = index_of(running.io_class);
  volume.flying_bytes[io_class] += running.bytes;
  ++volume.flying[io_class];
  ++volume.flying_all;
  volume.passed_over[io_class] = 0;
  for (std::size_t lower = io_class + 1; lower < kIoClassCount; ++lower) {
    volume.passed_over[lower] = volume.waiting[lower].empty() ? 0 : volume.passed_over[lower] + 1;
  }
  if (!running.is_read) return;
  ++volume.flying_reads;
  volume.throttle.on_read_started(running.started);
}

void Queue::expire(std::vector<Completion>& completions) {
  const Nanoseconds now = clock_.now();
  if (now < next_deadline_) return;
  next_deadline_ = kNoDeadline;
  const auto expire_in = [&](std::deque<Waiting>& waiting) {
    std::erase_if(waiting, [&](const Waiting& item) {
      if (now < item.transfer.deadline) return false;
      completions.push_back(
          {item.transfer.token, {Code::kDeadline, "the deadline passed in the disk queue"}});
      note_end(item.transfer.io_class, item.pushed, 1);
      --waiting_count_;
      return true;
    });
    for (const Waiting& item : waiting) {
      next_deadline_ = std::min(next_deadline_, item.transfer.deadline);
    }
  };
  for (Volume& volume : volumes_) std::ranges::for_each(volume.waiting, expire_in);
}

void Queue::finish(std::vector<Completion>& completions) {
  scratch_.clear();
  backend_.poll(scratch_);
  for (Completion& completion : scratch_) {
    TERRACE_CHECK(completion.token < running_.size());
    const auto place = static_cast<std::uint32_t>(completion.token);
    Running running = std::move(running_[place]);
    Volume& volume = volumes_[running.volume];
    volume.flying_bytes[index_of(running.io_class)] -= running.bytes;
    --volume.flying[index_of(running.io_class)];
    --volume.flying_all;
    if (running.is_read) {
      --volume.flying_reads;
      const Nanoseconds now = clock_.now();
      if (completion.status.is_ok()) {
        volume.throttle.on_read_finished(running.bytes, running.ahead, now - running.started, now);
      } else {
        volume.throttle.on_read_failed(now);
      }
    }
    places_.push_back(place);
    end(std::move(running), std::move(completion.status), completions);
  }
}

void Queue::poll(std::vector<Completion>& completions) {
  finish(completions);
  expire(completions);
  start_waiting(completions);
  for (int i = 0; i < kIoClassCount; ++i) {
    const auto io_class = static_cast<IoClass>(i);
    counters_.waiting[index_of(io_class)].set(static_cast<std::int64_t>(waiting(io_class)));
  }
}

void Queue::cancel(IoClass io_class, const Status& status, std::vector<Completion>& completions) {
  for (Volume& volume : volumes_) {
    auto& waiting = volume.waiting[index_of(io_class)];
    for (const Waiting& item : waiting) {
      note_end(io_class, item.pushed, 1);
      completions.push_back({item.transfer.token, status});
    }
    waiting_count_ -= waiting.size();
    waiting.clear();
  }
}

void Queue::cancel_if(const std::function<bool(std::uint64_t)>& is_meant, const Status& status,
                      std::vector<Completion>& completions) {
  const auto cancel_in = [&](std::deque<Waiting>& waiting) {
    std::erase_if(waiting, [&](const Waiting& item) {
      if (!is_meant(item.transfer.token)) return false;
      note_end(item.transfer.io_class, item.pushed, 1);
      completions.push_back({item.transfer.token, status});
      --waiting_count_;
      return true;
    });
  };
  for (Volume& volume : volumes_) std::ranges::for_each(volume.waiting, cancel_in);
}

}  // namespace terrace::transfer
