#include <fmt/format.h>

#include <algorithm>

#include "terrace/tier/object/generations_internal.h"

namespace terrace::tier::object {

namespace {
constexpr Nanoseconds kAskTime = seconds(10);
constexpr Nanoseconds kAskAgain = seconds(5);
// What an answer to a reset answers.
constexpr std::uint64_t kPut = 0;
constexpr std::uint64_t kLook = 1;
}  // namespace

void Generations::advance() {
  const Nanoseconds now = context_.clock.now();
  if (!context_.generation && !is_asking_ && now >= ask_at_) {
    highest_ = 0;
    listing_ = transfer::ObjectListing(context_.names.resets());
    ask();
  }
  const bool is_to_tell = context_.is_reset.load() && !context_.is_reset_told.load();
  if (is_to_tell && !is_telling_ && now >= tell_at_) tell();
}

Status Generations::list(const std::string& after, Part part, std::uint64_t number) {
  transfer::ObjectRequest request;
  request.op = transfer::ObjectOp::kList;
  request.name = context_.names.resets();
  request.after = after;
  request.deadline = context_.clock.now() + kAskTime;
  request.token = context_.token(part, number);
  return context_.queue.push(transfer::IoClass::kTtftRead, std::move(request));
}

std::uint64_t Generations::highest_of(const transfer::ObjectAnswer& answer) const {
  std::uint64_t highest = 0;
  for (const transfer::ObjectInfo& info : answer.found) {
    highest = std::max(highest, context_.names.generation_of(info.name).value_or(0));
  }
  return highest;
}

void Generations::ask() {
  is_asking_ = list(listing_.after(), Part::kOpening, 0).is_ok();
  if (is_asking_) return;
  ask_at_ = context_.clock.now() + kAskAgain;
  context_.is_settled.store(true);
}

void Generations::take_listing(const transfer::ObjectAnswer& answer) {
  is_asking_ = false;
  context_.is_settled.store(true);
  const Status status = answer.status.is_ok() ? listing_.take(answer) : answer.status;
  if (!status.is_ok()) {
    ask_at_ = context_.clock.now() + kAskAgain;
    const std::string text = fmt::format("{}: {}: nothing of it is served until it answers",
                                         context_.store->place(), status.text());
    if (!std::exchange(has_told_, true)) {
      context_.log.write(LogLevel::kError, fmt::format("event=object_away reason=\"{}\"", text));
    }
    const MutexLock lock(context_.mutex);
    context_.problem = text;
    return;
  }
  highest_ = std::max(highest_, highest_of(answer));
  if (!listing_.after().empty()) return ask();
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

void Generations::tell() {
  // By the clock, so that of two nodes that reset the later one counts for both; but clocks differ
  // and step back, so that above all it is higher than whatever is known.
  const auto by_clock =
      static_cast<std::uint64_t>(std::max<std::int64_t>(context_.clock.wall_seconds(), 1));
  const std::uint64_t known = std::max(highest_seen_, context_.generation.value_or(0));
  told_ = std::max(by_clock, known + 1);
  if (told_ > wire::kMostGeneration) {
    return end_telling({Code::kRefused, fmt::format("no generation is left: remove {}",
                                                    context_.names.reset(known))});
  }
  transfer::ObjectRequest request;
  request.op = transfer::ObjectOp::kPut;
  request.name = context_.names.reset(told_);
  request.pieces = {{reinterpret_cast<std::byte*>(content_.data()), content_.size()}};
  request.deadline = context_.clock.now() + kAskTime;
  request.token = context_.token(Part::kReset, kPut);
  const Status status = context_.queue.push(transfer::IoClass::kTtftRead, std::move(request));
  is_telling_ = status.is_ok();
  if (!status.is_ok()) end_telling(status);
}

void Generations::take_reset(const transfer::ObjectAnswer& answer, std::uint64_t number) {
  if (!answer.status.is_ok()) return end_telling(answer.status);
  if (number == kPut) {
    // Under a name that was there, whoever put it may have stored since.
    highest_seen_ = std::max(highest_seen_, told_);
    if (answer.was_there) return tell();
    look_ = transfer::ObjectListing(context_.names.resets());
  } else {
    highest_seen_ = std::max(highest_seen_, highest_of(answer));
    if (const Status seen = look_.take(answer); !seen.is_ok()) return end_telling(seen);
    if (look_.after().empty()) return highest_seen_ > told_ ? tell() : end_telling({});
  }
  const Status status = list(look_.after(), Part::kReset, kLook);
  if (!status.is_ok()) end_telling(status);
}

void Generations::end_telling(const Status& status) {
  is_telling_ = false;
  tell_at_ = context_.clock.now() + kAskAgain;
  context_.is_reset_told.store(status.is_ok());
  const MutexLock lock(context_.mutex);
  context_.reset_failure = status.is_ok() ? "" : status.text();
}

}  // namespace terrace::tier::object
