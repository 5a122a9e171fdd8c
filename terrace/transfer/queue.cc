#include "terrace/transfer/queue.h"

#include <algorithm>

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
    : backend_(backend), clock_(clock), options_(std::move(options)), running_(backend.depth()) {
  for (std::uint32_t i = backend.depth(); i > 0; --i) places_.push_back(i - 1);
}

Status Queue::push(const Transfer& transfer) {
  if (!has_room(1)) return {Code::kExhausted, "disk queue is full"};
  waiting_[index_of(transfer.io_class)].push_back({transfer, false});
  ++waiting_count_;
  next_deadline_ = std::min(next_deadline_, transfer.deadline);
  return {};
}

std::size_t Queue::waiting(IoClass io_class) const { return waiting_[index_of(io_class)].size(); }

Queue::Running Queue::running_of(const Transfer& transfer) {
  return {.token = transfer.token,
          .io_class = transfer.io_class,
          .bytes = transfer.bytes(),
          .is_read = transfer.op == IoOp::kRead && transfer.io_class <= IoClass::kPrefetch};
}

bool Queue::may_start(const Transfer& transfer) const {
  const std::size_t io_class = index_of(transfer.io_class);
  if (places_.empty()) return false;
  if (flying_[io_class] == 0) return true;
  if (flying_[io_class] >= most_of(io_class, backend_.depth())) return false;
  if (transfer.io_class == IoClass::kOffloadWrite && flying_[io_class] >= writes_now_) return false;
  return flying_bytes_[io_class] + transfer.bytes() <= options_.class_bytes[io_class];
}

void Queue::start_waiting(std::vector<Completion>& completions) {
  const std::size_t writes = index_of(IoClass::kOffloadWrite);
  writes_now_ = throttle_.window(most_of(writes, backend_.depth()), clock_.now());
  write_window_.set(writes_now_);
  for (std::size_t io_class = 1; io_class < waiting_.size(); ++io_class) {
    if (passed_over_[io_class] < kFloorStarts || waiting_[io_class].empty()) continue;
    (void)start_front(io_class, completions);  // At its own bounds it does not starve.
  }
  for (std::size_t io_class = 0; io_class < waiting_.size(); ++io_class) {
    while (!waiting_[io_class].empty()) {
      if (!start_front(io_class, completions)) return;
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

std::vector<Transfer> Queue::merge(std::size_t io_class, Transfer& transfer) {
  std::vector<Transfer> parts;
  auto& waiting = waiting_[io_class];
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

bool Queue::start_front(std::size_t io_class, std::vector<Completion>& completions) {
  auto& waiting = waiting_[io_class];
  Transfer transfer = waiting.front().transfer;
  if (!may_start(transfer)) return false;
  if (options_.prepare && !options_.prepare(transfer)) return false;
  const std::uint32_t place = places_.back();
  const std::uint64_t token = transfer.token;
  std::vector<Transfer> parts = merge(io_class, transfer);
  Running running = running_of(transfer);
  running.token = token;
  running.parts = std::move(parts);
  transfer.token = place;
  Status status = backend_.submit(transfer);
  if (status.code() == Code::kExhausted) {
    for (std::size_t i = running.parts.size(); i > 1; --i) {
      waiting.insert(waiting.begin() + 1, {running.parts[i - 1], false});
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
  running.ahead = flying_reads_;
  running.started = clock_.now();
  note_start(running);
  running_[place] = std::move(running);
  return true;
}

void Queue::end(Running running, Status status, std::vector<Completion>& completions) {
  if (running.parts.empty()) {
    completions.push_back({running.token, std::move(status)});
    return;
  }
  if (status.is_ok()) {
    for (const Transfer& part : running.parts) completions.push_back({part.token, {}});
    return;
  }
  auto& waiting = waiting_[index_of(running.io_class)];
  for (std::size_t i = running.parts.size(); i > 0; --i) {
    waiting.push_front({running.parts[i - 1], true});
    next_deadline_ = std::min(next_deadline_, running.parts[i - 1].deadline);
    ++waiting_count_;
  }
}

void Queue::note_start(const Running& running) {
  const std::size_t io_class = index_of(running.io_class);
  flying_bytes_[io_class] += running.bytes;
  ++flying_[io_class];
  passed_over_[io_class] = 0;
  for (std::size_t lower = io_class + 1; lower < waiting_.size(); ++lower) {
    passed_over_[lower] = waiting_[lower].empty() ? 0 : passed_over_[lower] + 1;
  }
  if (!running.is_read) return;
  ++flying_reads_;
  throttle_.on_read_started(running.started);
}

void Queue::expire(std::vector<Completion>& completions) {
  const Nanoseconds now = clock_.now();
  if (now < next_deadline_) return;
  next_deadline_ = kNoDeadline;
  for (auto& waiting : waiting_) {
    std::erase_if(waiting, [&](const Waiting& item) {
      if (now < item.transfer.deadline) return false;
      completions.push_back(
          {item.transfer.token, {Code::kDeadline, "the deadline passed in the disk queue"}});
      --waiting_count_;
      return true;
    });
    for (const Waiting& item : waiting) {
      next_deadline_ = std::min(next_deadline_, item.transfer.deadline);
    }
  }
}

void Queue::finish(std::vector<Completion>& completions) {
  scratch_.clear();
  backend_.poll(scratch_);
  for (Completion& completion : scratch_) {
    TERRACE_CHECK(completion.token < running_.size());
    const auto place = static_cast<std::uint32_t>(completion.token);
    Running running = std::move(running_[place]);
    flying_bytes_[index_of(running.io_class)] -= running.bytes;
    --flying_[index_of(running.io_class)];
    if (running.is_read) {
      --flying_reads_;
      const Nanoseconds now = clock_.now();
      throttle_.on_read_finished(running.bytes, running.ahead, now - running.started, now);
    }
    places_.push_back(place);
    end(std::move(running), std::move(completion.status), completions);
  }
}

void Queue::poll(std::vector<Completion>& completions) {
  finish(completions);
  expire(completions);
  start_waiting(completions);
}

void Queue::cancel(IoClass io_class, const Status& status, std::vector<Completion>& completions) {
  auto& waiting = waiting_[index_of(io_class)];
  for (const Waiting& item : waiting) completions.push_back({item.transfer.token, status});
  waiting_count_ -= waiting.size();
  waiting.clear();
}

}  // namespace terrace::transfer
