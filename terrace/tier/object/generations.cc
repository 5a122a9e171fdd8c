#include <fmt/format.h>

#include <algorithm>

#include "terrace/tier/object/generations_internal.h"

namespace terrace::tier::object {

namespace {
constexpr Nanoseconds kAskTime = seconds(10);
constexpr Nanoseconds kAskAgain = seconds(5);
}  // namespace

void Generations::advance() {
  if (context_.generation || is_asking_ || context_.clock.now() < ask_at_) return;
  highest_ = 0;
  ask({});
}

void Generations::ask(const std::string& after) {
  transfer::ObjectRequest request;
  request.op = transfer::ObjectOp::kList;
  request.name = context_.names.resets();
  request.after = after;
  request.deadline = context_.clock.now() + kAskTime;
  request.token = context_.token(Part::kOpening, 0);
  is_asking_ = context_.queue.push(transfer::IoClass::kTtftRead, std::move(request)).is_ok();
  if (!is_asking_) ask_at_ = context_.clock.now() + kAskAgain;
}

void Generations::take_listing(const transfer::ObjectAnswer& answer) {
  is_asking_ = false;
  if (!answer.status.is_ok()) {
    ask_at_ = context_.clock.now() + kAskAgain;
    const std::string text = fmt::format("{}: {}: nothing of it is served until it answers",
                                         context_.store->place(), answer.status.text());
    if (!std::exchange(has_told_, true)) {
      context_.log.write(LogLevel::kError, fmt::format("event=object_away reason=\"{}\"", text));
    }
    const MutexLock lock(context_.mutex);
    context_.problem = text;
    return;
  }
  for (const transfer::ObjectInfo& info : answer.found) {
    highest_ = std::max(highest_, context_.names.generation_of(info.name).value_or(0));
  }
  if (!answer.next.empty()) return ask(answer.next);
  context_.generation = highest_;
  {
    const MutexLock lock(context_.mutex);
    context_.problem.clear();
  }
  context_.is_open.store(true);
  context_.log.write(LogLevel::kInfo,
                     fmt::format("event=object_open place=\"{}\" generation={} pack_blocks={}",
                                 context_.store->place(), highest_, context_.geometry.blocks()));
}

Status Generations::begin_reset(std::uint64_t token, Nanoseconds deadline) {
  if (reset_token_) return {Code::kExhausted, "a reset is under way"};
  // By the clock, so that of two nodes that reset the later one counts for both.
  const auto by_clock =
      static_cast<std::uint64_t>(std::max<std::int64_t>(context_.clock.wall_seconds(), 1));
  transfer::ObjectRequest request;
  request.op = transfer::ObjectOp::kPut;
  request.name = context_.names.reset(std::max(by_clock, context_.generation.value_or(0) + 1));
  request.pieces = {{reinterpret_cast<std::byte*>(content_.data()), content_.size()}};
  request.deadline = deadline;
  request.token = context_.token(Part::kReset, 0);
  TERRACE_RETURN_IF_ERROR(context_.queue.push(transfer::IoClass::kTtftRead, std::move(request)));
  reset_token_ = token;
  return {};
}

void Generations::take_reset(const transfer::ObjectAnswer& answer, std::vector<ObjectDone>& done) {
  ObjectDone result;
  result.kind = ObjectDone::Kind::kReset;
  result.token = reset_token_.value_or(0);
  result.status = answer.status;
  reset_token_.reset();
  done.push_back(std::move(result));
}

}  // namespace terrace::tier::object
