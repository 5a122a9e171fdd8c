#include "terrace/transfer/queue.h"

#include <algorithm>

#include "terrace/base/check.h"

namespace terrace::transfer {

namespace {
// Share of the depth that a class may fill, in eighths: reads for a first token may have all of it.
constexpr std::array<unsigned, kIoClassCount> kDepthShare{8, 6, 4, 1};

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
  waiting_[index_of(transfer.io_class)].push_back(transfer);
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

bool Queue::start_front(std::size_t io_class, std::vector<Completion>& completions) {
  Transfer transfer = waiting_[io_class].front();
  if (!may_start(transfer)) return false;
  if (options_.prepare && !options_.prepare(transfer)) return false;
  const std::uint32_t place = places_.back();
  Running running = running_of(transfer);
  transfer.token = place;
  Status status = backend_.submit(transfer);
  if (status.code() == Code::kExhausted) return false;
  waiting_[io_class].pop_front();
  --waiting_count_;
  if (!status.is_ok()) {
    completions.push_back({running.token, std::move(status)});
    return true;
  }
  places_.pop_back();
  running.ahead = flying_reads_;
  running.started = clock_.now();
  running_[place] = running;
  note_start(running);
  return true;
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
    std::erase_if(waiting, [&](const Transfer& transfer) {
      if (now < transfer.deadline) return false;
      completions.push_back(
          {transfer.token, {Code::kDeadline, "the deadline passed in the disk queue"}});
      --waiting_count_;
      return true;
    });
    for (const Transfer& transfer : waiting) {
      next_deadline_ = std::min(next_deadline_, transfer.deadline);
    }
  }
}

void Queue::finish(std::vector<Completion>& completions) {
  scratch_.clear();
  backend_.poll(scratch_);
  for (Completion& completion : scratch_) {
    TERRACE_CHECK(completion.token < running_.size());
    const auto place = static_cast<std::uint32_t>(completion.token);
    const Running& running = running_[place];
    flying_bytes_[index_of(running.io_class)] -= running.bytes;
    --flying_[index_of(running.io_class)];
    if (running.is_read) {
      --flying_reads_;
      const Nanoseconds now = clock_.now();
      throttle_.on_read_finished(running.bytes, running.ahead, now - running.started, now);
    }
    places_.push_back(place);
    completions.push_back({running.token, std::move(completion.status)});
  }
}

void Queue::poll(std::vector<Completion>& completions) {
  finish(completions);
  expire(completions);
  start_waiting(completions);
}

void Queue::cancel(IoClass io_class, const Status& status, std::vector<Completion>& completions) {
  auto& waiting = waiting_[index_of(io_class)];
  for (const Transfer& transfer : waiting) completions.push_back({transfer.token, status});
  waiting_count_ -= waiting.size();
  waiting.clear();
}

}  // namespace terrace::transfer
