#include <fmt/format.h>

#include <algorithm>

#include "terrace/tier/object/upkeep_internal.h"

namespace terrace::tier::object {

namespace {
constexpr Nanoseconds kCheckTime = seconds(30);
}

void Upkeep::advance() {
  check();
  advance_round();
}

void Upkeep::check() {
  const bool is_allowed = context_.generation && context_.is_upkeep_allowed && !context_.is_stopped;
  if (check_ == Check::kDone || is_checking_ || !is_allowed) return;
  if (check_ == Check::kNone) check_ = Check::kFirst;
  transfer::ObjectRequest request;
  request.op = transfer::ObjectOp::kPut;
  request.is_lasting = false;
  request.name = wire::kIfAbsent;
  request.pieces = {{reinterpret_cast<std::byte*>(content_.data()), content_.size()}};
  request.deadline = context_.clock.now() + kCheckTime;
  request.token = context_.token(Part::kCheck, 0);
  is_checking_ = context_.queue.push(transfer::IoClass::kScrub, std::move(request)).is_ok();
  if (!is_checking_) check_ = Check::kDone;
}

void Upkeep::take_check(const transfer::ObjectAnswer& answer) {
  is_checking_ = false;
  const bool is_told = !answer.status.is_ok() || answer.was_there;
  if (!is_told && check_ == Check::kFirst) {
    check_ = Check::kSecond;  // We were the first: is it there now?
    return;
  }
  check_ = Check::kDone;
  if (is_told) return;
  context_.is_replacing.store(true);
  context_.log.write(
      LogLevel::kWarn,
      fmt::format(
          "event=object_replaces place=\"{}\" effect=\"this store replaces an object that is "
          "there, though asked not to: of two nodes that put one pack, the later one's "
          "stays, which is as good; several nodes may look for old packs at once\"",
          context_.store->place()));
}

void Upkeep::advance_round() {
  const CollectOptions& wanted = context_.options.collect;
  if (!wanted.bounds.has_any() || !context_.generation) return;
  const bool is_allowed =
      context_.is_upkeep_allowed && !context_.is_stopped && !context_.is_reset.load();
  if (!collector_) {
    if (!is_allowed || context_.clock.now() < next_at_) return;
    collector_.emplace(Collector::Options{.bounds = wanted.bounds,
                                          .every = wanted.every,
                                          .requests_per_second = wanted.requests_per_second},
                       context_.clock);
    counted_gone_ = 0;
  }
  if (!is_allowed) collector_->stop({Code::kClosed, "storing was switched off"});
  ask();
  count(collector_->report());
  if (collector_->is_over() && collector_->is_idle()) finish();
}

void Upkeep::ask() {
  while (auto request = collector_->next()) {
    const std::uint64_t number = request->token;
    request->token = context_.token(Part::kCollect, number);
    Status status = context_.queue.push(transfer::IoClass::kScrub, *std::move(request));
    if (status.is_ok()) continue;
    transfer::ObjectAnswer refused;
    refused.token = number;
    refused.status = std::move(status);
    collector_->take(refused);
  }
}

void Upkeep::take_round(const transfer::ObjectAnswer& answer, std::uint64_t number) {
  transfer::ObjectAnswer own = answer;
  own.token = number;
  if (collector_) collector_->take(own);
}

void Upkeep::count(const CollectReport& report) {
  context_.counters.collected_packs.add(report.gone - counted_gone_);
  counted_gone_ = report.gone;
}

void Upkeep::finish() {
  const CollectReport& report = collector_->report();
  const Nanoseconds now = context_.clock.now();
  const auto every = context_.options.collect.every;
  const auto turn = static_cast<std::int64_t>(collector_->present_turn());
  const std::int64_t left =
      turn + every / seconds(1) - std::max<std::int64_t>(context_.clock.wall_seconds(), 0);
  // A step of the wall clock neither hurries nor stops the next round.
  next_at_ = now + std::clamp(seconds(left + 1), seconds(1), every + seconds(1));
  if (!report.is_others_turn && report.status.code() != Code::kClosed) {
    const bool is_whole = report.status.is_ok();
    (is_whole ? context_.counters.rounds : context_.counters.failed_rounds).add();
    const std::string text = fmt::format(
        "event=object_gc place=\"{}\" packs={} bytes={} too_old={} too_many={} removed={} "
        "failed={}",
        context_.store->place(), report.found.packs, report.found.bytes, report.too_old.packs,
        report.too_many.packs, report.gone, report.failed);
    context_.log.write(
        is_whole ? LogLevel::kInfo : LogLevel::kWarn,
        is_whole ? text : fmt::format("{} reason=\"{}\"", text, report.status.text()));
    const MutexLock lock(context_.mutex);
    context_.upkeep_problem.clear();
    if (is_whole) {
      context_.counters.store_packs.set(static_cast<std::int64_t>(report.found.packs));
      context_.counters.store_bytes.set(static_cast<std::int64_t>(report.found.bytes));
      context_.last_round = LastRound{.found = report.found, .gone = report.gone, .at = now};
    } else {
      context_.upkeep_problem = fmt::format(
          "{}: old packs are not removed: {}; allow it, or unset object.max_age, object.size and "
          "object.blocks and let the store do it",
          context_.store->place(), report.status.text());
    }
  }
  collector_.reset();
}

}  // namespace terrace::tier::object
