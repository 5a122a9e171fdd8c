#include "terrace/transfer/object_queue.h"

#include <fmt/format.h>

#include <algorithm>
#include <numeric>

#include "terrace/base/check.h"

namespace terrace::transfer {

namespace {
// Share of the depth that a class may fill, in eighths, as in the disk's queue.
constexpr std::array<unsigned, kIoClassCount> kDepthShare{8, 6, 4, 1};

// Of all classes but the highest together, while one of them waits at its own share.
constexpr unsigned kLowerShare = 7;
// That hang side by side: each may hold one of the store's threads for good.
constexpr std::size_t kMostTrials = 2;
// How names begin that are asked for when asking for what failed last did not help: that one may
// lie where nothing answers while all the rest does. No object has such a name.
constexpr std::string_view kTrialName = "trial";

std::size_t index_of(IoClass io_class) { return static_cast<std::size_t>(io_class); }

// The store or the way to it is in trouble, not the request.
bool is_failure_of_store(const Status& status) {
  return status.code() == Code::kUnavailable || status.code() == Code::kIo ||
         status.code() == Code::kDeadline;
}

ObjectAnswer answer_of(const ObjectRequest& request, Status status) {
  ObjectAnswer answer;
  answer.token = request.token;
  answer.status = std::move(status);
  return answer;
}

// Tells whether the store answers, and changes nothing there.
ObjectRequest trial_of(const ObjectRequest& request) {
  ObjectRequest trial;
  trial.op = request.op == ObjectOp::kList ? ObjectOp::kList : ObjectOp::kHead;
  trial.name = request.name;
  trial.after = request.after;
  return trial;
}
}  // namespace

ObjectQueue::ObjectQueue(ObjectStore& store, const Clock& clock, Options options)
    : store_(store),
      clock_(clock),
      options_(options),
      rng_(options.seed == 0 ? random_u64() : options.seed) {}

std::string ObjectQueue::problem() const {
  if (!is_away()) return {};
  if (!hang_.empty()) {
    return fmt::format(
        "{}: it hangs: {}, and nothing has come back since it began; left alone until "
        "it answers",
        store_.place(), hang_);
  }
  return fmt::format("{}: left alone after {} failures in a row, the last one: {}", store_.place(),
                     failures_, last_failure_);
}

Status ObjectQueue::push(IoClass io_class, ObjectRequest request) {
  if (is_away()) return {Code::kUnavailable, problem()};
  if (waiting() >= options_.capacity) return {Code::kExhausted, "object queue is full"};
  enqueue({.request = std::move(request), .io_class = io_class, .failure = {}});
  return {};
}

void ObjectQueue::enqueue(Entry entry) {
  waiting_[index_of(entry.io_class)].push_back(std::move(entry));
  ++waiting_count_;
}

bool ObjectQueue::may_start(std::size_t io_class, bool is_past) const {
  const unsigned depth = store_.depth();
  const unsigned share = std::max(1U, depth * kDepthShare[io_class] / 8);
  if (store_.in_flight() >= depth || flying_[io_class] >= share) return false;
  if (!is_past) return true;
  // Whoever is at its share leaves places to lower ones, though not all: the next read for a first
  // token finds one.
  const unsigned lower = std::accumulate(flying_.begin() + 1, flying_.end(), 0U);
  return lower < depth * kLowerShare / 8;
}

Status ObjectQueue::submit(Entry& entry) {
  const std::uint64_t token = ++last_token_;
  ObjectRequest request = entry.request;
  request.token = token;
  ++entry.tries;
  entry.started = clock_.now();
  TERRACE_RETURN_IF_ERROR(store_.submit(std::move(request)));
  if (!entry.is_trial) ++flying_[index_of(entry.io_class)];
  running_.emplace(token, std::move(entry));
  return {};
}

void ObjectQueue::start_front(std::size_t io_class, std::vector<ObjectAnswer>& answers) {
  Entry entry = std::move(waiting_[io_class].front());
  waiting_[io_class].pop_front();
  --waiting_count_;
  passed_over_[io_class] = 0;
  for (std::size_t lower = io_class + 1; lower < waiting_.size(); ++lower) {
    passed_over_[lower] = waiting_[lower].empty() ? 0 : passed_over_[lower] + 1;
  }
  Status status = submit(entry);
  if (!status.is_ok()) answers.push_back(answer_of(entry.request, std::move(status)));
}

void ObjectQueue::start_waiting(std::vector<ObjectAnswer>& answers) {
  if (is_away()) return;
  for (std::size_t io_class = 1; io_class < waiting_.size(); ++io_class) {
    const bool is_due = passed_over_[io_class] >= kFloorStarts && !waiting_[io_class].empty();
    if (is_due && may_start(io_class, false)) start_front(io_class, answers);
  }
  bool is_past = false;
  for (std::size_t io_class = 0; io_class < waiting_.size(); ++io_class) {
    while (!waiting_[io_class].empty() && may_start(io_class, is_past)) {
      start_front(io_class, answers);
    }
    is_past = is_past || !waiting_[io_class].empty();
  }
}

std::size_t ObjectQueue::trials() const {
  return static_cast<std::size_t>(
      std::ranges::count_if(running_, [](const auto& item) { return item.second.is_trial; }));
}

ObjectRequest ObjectQueue::next_trial() {
  if (trials() == 0 && asked_ % 2 == 0) return trial_;
  ObjectRequest other;
  other.op = ObjectOp::kHead;
  // Another one each time: that it is not there could come from a cache.
  other.name = fmt::format("{}-{:016x}", kTrialName, rng_.next());
  return other;
}

void ObjectQueue::start_trial() {
  if (!is_away() || clock_.now() < rests_until_) return;
  const bool is_trying = std::ranges::any_of(
      running_, [](const auto& item) { return item.second.is_trial && !item.second.is_overdue; });
  if (is_trying) return;
  Entry trial{.request = next_trial(), .failure = {}, .is_trial = true};
  ++asked_;
  trial.request.deadline = clock_.now() + options_.trial_time;
  // Where it is full of what hangs, any answer tells as much.
  if (trials() >= kMostTrials || !submit(trial).is_ok()) rest();
}

Nanoseconds ObjectQueue::overdue_at(const Entry& entry) const {
  if (entry.is_overdue) return kNoDeadline;
  return std::max(entry.request.deadline, entry.started + options_.hang_after);
}

void ObjectQueue::watch() {
  const Nanoseconds now = clock_.now();
  for (auto& [token, entry] : running_) {
    if (now < overdue_at(entry)) continue;
    entry.is_overdue = true;
    const bool is_hang = entry.started >= answered_at_;
    const std::string what = fmt::format("{} {} has no answer, though its deadline is over",
                                         to_string(entry.request.op), entry.request.name);
    if (is_hang && hang_.empty()) hang_ = what;
    note(entry, {Code::kDeadline, what});
    if (is_hang) rest();
  }
}

void ObjectQueue::expire(std::vector<ObjectAnswer>& answers) {
  const Nanoseconds now = clock_.now();
  const auto end = [&](const Entry& entry) {
    if (is_away()) {
      answers.push_back(answer_of(entry.request, {Code::kUnavailable, problem()}));
    } else if (now >= entry.request.deadline) {
      counters_.expired.add();
      const std::string why = entry.failure.empty() ? "" : ", after: " + entry.failure;
      answers.push_back(answer_of(
          entry.request, {Code::kDeadline, "the deadline passed in the object queue" + why}));
    } else {
      return false;
    }
    return true;
  };
  for (auto& waiting : waiting_) waiting_count_ -= std::erase_if(waiting, end);
  std::erase_if(resting_, [&](const auto& item) { return end(item.second); });
}

Nanoseconds ObjectQueue::pause_before(unsigned tries) {
  Nanoseconds most = options_.first_pause;
  for (unsigned i = 1; i < tries && most < options_.longest_pause; ++i) most = most + most;
  most = std::min(most, options_.longest_pause);
  return Nanoseconds(
      static_cast<std::int64_t>(rng_.below(static_cast<std::uint64_t>(most.value()) + 1)));
}

bool ObjectQueue::try_again(Entry& entry, const ObjectAnswer& answer) {
  if (answer.status.code() != Code::kUnavailable || entry.tries >= options_.most_tries) {
    return false;
  }
  const Nanoseconds now = clock_.now();
  // What the store asks for is the least; a request that cannot wait so long ends now.
  const Nanoseconds pause = std::max(pause_before(entry.tries), answer.retry_after);
  if (is_away() || pause >= entry.request.deadline - now) return false;
  counters_.retries.add();
  entry.failure = answer.status.text();
  resting_.emplace(now + pause, std::move(entry));
  return true;
}

void ObjectQueue::note(const Entry& entry, const Status& status) {
  if (!is_failure_of_store(status)) {
    failures_ = 0;
    asked_ = 0;
    rests_until_ = Nanoseconds(0);
    hang_.clear();
    return;
  }
  last_failure_ = status.text();
  if (!entry.is_trial) trial_ = trial_of(entry.request);
  ++failures_;
  if (failures_ >= options_.failures_to_rest || is_away()) rest();
}

void ObjectQueue::rest() {
  if (clock_.now() < rests_until_) return;  // What was under way when the rest began.
  rests_until_ = clock_.now() + options_.rest;
  counters_.rests.add();
}

void ObjectQueue::finish(std::vector<ObjectAnswer>& answers) {
  scratch_.clear();
  store_.poll(scratch_);
  for (ObjectAnswer& answer : scratch_) {
    auto node = running_.extract(answer.token);
    TERRACE_CHECK(!node.empty());
    Entry& entry = node.mapped();
    // A deadline's passing is what a store that hangs says, too.
    if (answer.status.code() != Code::kDeadline) {
      answered_at_ = clock_.now();
      hang_.clear();
    }
    if (answer.status.code() != Code::kDeadline || !entry.is_overdue) {
      note(entry, answer.status);
    }
    if (entry.is_trial) continue;
    --flying_[index_of(entry.io_class)];
    const std::uint64_t token = entry.request.token;
    if (try_again(entry, answer)) continue;
    answer.token = token;
    answers.push_back(std::move(answer));
  }
}

void ObjectQueue::return_rested() {
  const Nanoseconds now = clock_.now();
  while (!resting_.empty() && resting_.begin()->first <= now) {
    auto node = resting_.extract(resting_.begin());
    enqueue(std::move(node.mapped()));
  }
}

void ObjectQueue::poll(std::vector<ObjectAnswer>& answers) {
  finish(answers);
  return_rested();
  watch();
  expire(answers);
  start_trial();
  start_waiting(answers);
}

void ObjectQueue::wait(Nanoseconds limit) {
  const Nanoseconds now = clock_.now();
  Nanoseconds due = kNoDeadline;
  if (!resting_.empty()) due = resting_.begin()->first;
  for (const auto& waiting : waiting_) {
    for (const Entry& entry : waiting) due = std::min(due, entry.request.deadline);
  }
  for (const auto& [token, entry] : running_) due = std::min(due, overdue_at(entry));
  if (now < rests_until_) due = std::min(due, rests_until_);
  store_.wait(std::min(limit, due <= now ? Nanoseconds(0) : due - now));
}

void ObjectQueue::cancel(IoClass io_class, const Status& status,
                         std::vector<ObjectAnswer>& answers) {
  auto& waiting = waiting_[index_of(io_class)];
  for (const Entry& entry : waiting) answers.push_back(answer_of(entry.request, status));
  waiting_count_ -= waiting.size();
  waiting.clear();
  std::erase_if(resting_, [&](const auto& item) {
    if (item.second.io_class != io_class) return false;
    answers.push_back(answer_of(item.second.request, status));
    return true;
  });
}

}  // namespace terrace::transfer
