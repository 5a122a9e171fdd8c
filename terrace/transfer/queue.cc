#include "terrace/transfer/queue.h"

#include <algorithm>

#include "terrace/base/check.h"

namespace terrace::transfer {

namespace {
// Share of the depth that a class may fill, in eighths: reads for a first token may have all of it.
constexpr std::array<unsigned, kIoClassCount> kDepthShare{8, 6, 4, 1};

std::size_t index_of(IoClass io_class) { return static_cast<std::size_t>(io_class); }
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

bool Queue::may_start(const Transfer& transfer) const {
  const std::size_t io_class = index_of(transfer.io_class);
  if (places_.empty()) return false;
  if (flying_[io_class] == 0) return true;
  if (flying_[io_class] >= std::max(1U, backend_.depth() * kDepthShare[io_class] / 8)) return false;
  return flying_bytes_[io_class] + transfer.bytes() <= options_.class_bytes[io_class];
}

void Queue::start_waiting(std::vector<Completion>& completions) {
  for (auto& waiting : waiting_) {
    while (!waiting.empty()) {
      Transfer transfer = waiting.front();
      if (!may_start(transfer)) return;
      if (options_.prepare && !options_.prepare(transfer)) return;
      const std::uint32_t place = places_.back();
      const Running running{transfer.token, transfer.io_class, transfer.bytes()};
      transfer.token = place;
      Status status = backend_.submit(transfer);
      if (status.code() == Code::kExhausted) return;
      waiting.pop_front();
      --waiting_count_;
      if (!status.is_ok()) {
        completions.push_back({running.token, std::move(status)});
        continue;
      }
      places_.pop_back();
      running_[place] = running;
      flying_bytes_[index_of(running.io_class)] += running.bytes;
      ++flying_[index_of(running.io_class)];
    }
  }
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
