#include "terrace/tier/object/collector.h"

#include <fmt/format.h>

#include <algorithm>
#include <bit>

#include "terrace/wire/pack.h"

namespace terrace::tier {

namespace {
using transfer::ObjectAnswer;
using transfer::ObjectInfo;
using transfer::ObjectOp;
using transfer::ObjectRequest;
using Phase = CollectReport::Phase;

constexpr std::uint64_t kMainToken = 0;
constexpr unsigned kMostFailures = 16;  // Removals in a row; then the store is left alone.
constexpr Nanoseconds kMostBurst = milliseconds(100);
constexpr std::uint64_t kKeptTurns = 86'400;  // Seconds, and never fewer than two turns.
constexpr std::uint64_t kFineSeconds = 64;
constexpr int kFineBits = 6;

std::uint64_t in_seconds(Nanoseconds time) {
  return static_cast<std::uint64_t>(std::max<std::int64_t>(time / seconds(1), 1));
}
}  // namespace

void PackTotals::add(const PackTotals& more) {
  packs += more.packs;
  bytes += more.bytes;
  blocks += more.blocks;
}

void PackTotals::remove(const PackTotals& less) {
  packs -= std::min(packs, less.packs);
  bytes -= std::min(bytes, less.bytes);
  blocks -= std::min(blocks, less.blocks);
}

std::string_view to_string(Phase phase) {
  switch (phase) {
    case Phase::kTurn:
      return "turn";
    case Phase::kCount:
      return "count";
    case Phase::kRemove:
      return "remove";
    case Phase::kOver:
      return "over";
  }
  return "unknown";
}

std::size_t Collector::Ages::cell_of(std::uint64_t age) {
  if (age < kFineSeconds) return age;
  const int shift = static_cast<int>(std::bit_width(age)) - kFineBits - 1;
  const std::size_t cell =
      (static_cast<std::size_t>(shift) + 1) * kFineSeconds + ((age >> shift) & (kFineSeconds - 1));
  return std::min(cell, kCells - 1);
}

std::uint64_t Collector::Ages::age_of(std::size_t cell) {
  if (cell < kFineSeconds) return cell;
  return (kFineSeconds + cell % kFineSeconds) << (cell / kFineSeconds - 1);
}

Collector::Collector(const Options& options, const Clock& clock)
    : options_(options), clock_(clock), turn_(0), packs_(std::string(wire::kAllPacks)) {
  turn_ = present_turn();
  if (!options_.is_dry_run) return;
  now_seconds_ = clock_.wall_seconds();
  report_.phase = Phase::kCount;
  step_ = Step::kListPacks;
}

std::uint64_t Collector::present_turn() const {
  const auto now = static_cast<std::uint64_t>(std::max<std::int64_t>(clock_.wall_seconds(), 0));
  if (!options_.gives_way) return now;
  const std::uint64_t every = in_seconds(options_.every);
  return now / every * every;
}

bool Collector::has_turn_passed() const {
  return options_.gives_way && !options_.is_dry_run && present_turn() > turn_;
}

ObjectRequest Collector::request(ObjectOp op, std::string name) {
  ObjectRequest made;
  made.op = op;
  made.name = std::move(name);
  made.deadline = clock_.now() + options_.request_time;
  const std::uint64_t each = 1'000'000'000ULL / std::max(options_.requests_per_second, 1U);
  const Nanoseconds now = clock_.now();
  not_before_ = std::max(not_before_, now - std::min(now, kMostBurst)) +
                Nanoseconds(static_cast<std::int64_t>(each));
  return made;
}

std::optional<ObjectRequest> Collector::next() {
  if (is_over() || !stop_.is_ok() || clock_.now() < not_before_) return std::nullopt;
  if (!is_asking_ && has_turn_passed()) {  // A long round goes on only if nobody else begins one.
    turn_ = present_turn();
    if (step_ != Step::kPutTurn) resume_ = step_;
    step_ = Step::kPutTurn;
  }
  if (step_ != Step::kPutTurn && !victims_.empty()) {
    if (removals_.size() >= options_.most_removals) return std::nullopt;
    ObjectRequest made = request(ObjectOp::kRemove, victims_.front().name);
    made.token = ++last_token_;
    removals_.emplace(made.token, std::move(victims_.front()));
    victims_.pop_front();
    return made;
  }
  if (is_asking_ || !removals_.empty()) return std::nullopt;
  return ask();
}

std::optional<ObjectRequest> Collector::ask() {
  ObjectRequest made;
  switch (step_) {
    case Step::kPutTurn:
      made = request(ObjectOp::kPut, wire::turn_name(turn_));
      made.pieces = {{reinterpret_cast<std::byte*>(content_.data()), content_.size()}};
      made.is_lasting = false;
      break;
    case Step::kHeadTurn:
      made = request(ObjectOp::kHead, wire::turn_name(turn_));
      break;
    case Step::kListTurns:
      made = request(ObjectOp::kList, std::string(wire::kTurns));
      break;
    case Step::kListPacks:
      made = request(ObjectOp::kList, std::string(wire::kAllPacks));
      made.after = packs_.after();
      break;
    case Step::kNone:
      return std::nullopt;
  }
  made.token = kMainToken;
  is_asking_ = true;
  return made;
}

void Collector::take(const ObjectAnswer& answer) {
  if (answer.token == kMainToken) {
    is_asking_ = false;
    if (answer.status.is_ok()) {
      if (stop_.is_ok()) take_main(answer);
    } else {
      stop(answer.status);
    }
  } else if (const auto node = removals_.extract(answer.token); !node.empty()) {
    take_removal(answer, node.mapped());
  }
  end_if_done();
}

void Collector::take_main(const ObjectAnswer& answer) {
  switch (step_) {
    case Step::kPutTurn:
      if (answer.was_there && options_.gives_way) {
        report_.is_others_turn = true;
        return end({});
      }
      step_ = resume_;
      return;
    case Step::kHeadTurn:
      now_seconds_ = answer.info.modified_seconds;
      step_ = Step::kListTurns;
      return;
    case Step::kListTurns:
      return take_turns(answer);
    case Step::kListPacks:
      return take_packs(answer);
    case Step::kNone:
      return;
  }
}

void Collector::take_removal(const ObjectAnswer& answer, const Victim& victim) {
  if (answer.status.is_ok()) {
    failures_ = 0;
    if (victim.is_pack) ++report_.gone;
    return;
  }
  ++report_.failed;
  // Who may not remove one may remove none.
  const bool is_hopeless = answer.status.code() == Code::kRefused || ++failures_ >= kMostFailures;
  if (is_hopeless) stop(answer.status);
}

void Collector::stop(const Status& why) {
  if (is_over() || !stop_.is_ok()) return;
  stop_ = why.is_ok() ? Status(Code::kClosed, "stopped") : why;
  end_if_done();
}

void Collector::end_if_done() {
  if (is_over() || !is_idle()) return;
  if (!stop_.is_ok()) return end(stop_);
  if (step_ == Step::kNone && victims_.empty()) end({});
}

void Collector::take_turns(const ObjectAnswer& answer) {
  const std::uint64_t kept = std::max(kKeptTurns, 2 * in_seconds(options_.every));
  for (const ObjectInfo& info : answer.found) {
    const auto turn = wire::turn_of(info.name);
    if (turn && *turn + kept < turn_) victims_.push_back({.name = info.name, .is_pack = false});
  }
  report_.phase = Phase::kCount;
  step_ = Step::kListPacks;
}

void Collector::take_packs(const ObjectAnswer& answer) {
  if (Status status = packs_.take(answer); !status.is_ok()) return stop(status);
  for (const ObjectInfo& info : answer.found) consider(info);
  if (packs_.after().empty()) end_listing();
}

void Collector::consider(const ObjectInfo& info) {
  const bool is_counting = report_.phase == Phase::kCount;
  const auto name = wire::parse_pack_name(info.name);
  if (!name) {
    if (is_counting) ++report_.foreign;
    return;
  }
  const PackTotals pack{.packs = 1, .bytes = info.bytes, .blocks = name->blocks};
  const std::int64_t since = std::min(info.modified_seconds, now_seconds_);
  const auto age = static_cast<std::uint64_t>(now_seconds_ - since);
  const ObjectBounds& bounds = options_.bounds;
  const bool is_old = bounds.max_age > Nanoseconds(0) && age > in_seconds(bounds.max_age);
  if (is_counting) {
    report_.found.add(pack);
    add_to_key(name->key, pack);
    if (!is_old) {
      kept_.add(pack);
      ages_.at(Ages::cell_of(age)).add(pack);
      return;
    }
    report_.too_old.add(pack);
  } else {
    if (is_old || !is_over_line(Ages::cell_of(age), pack)) return;
    report_.too_many.add(pack);
  }
  if (!options_.is_dry_run) victims_.push_back({.name = info.name, .is_pack = true});
}

void Collector::add_to_key(std::string_view key, const PackTotals& pack) {
  auto found = report_.by_key.find(key);
  if (found == report_.by_key.end()) {
    if (report_.by_key.size() >= CollectReport::kMostKeys) return;
    found = report_.by_key.emplace(key, PackTotals()).first;
  }
  found->second.add(pack);
}

bool Collector::is_over_line(std::size_t cell, const PackTotals& pack) {
  if (cell != line_) return cell > line_;
  if (at_line_.bytes == 0 && at_line_.blocks == 0) return false;
  at_line_.remove(pack);
  return true;
}

void Collector::end_listing() {
  const bool was_counting = report_.phase == Phase::kCount;
  if (was_counting) {
    report_.is_counted = true;
    draw_line();
  }
  report_.phase = Phase::kRemove;
  packs_ = transfer::ObjectListing(std::string(wire::kAllPacks));
  if (!was_counting || line_ == Ages::kCells) step_ = Step::kNone;
}

// Above which age packs have to go so that the rest fits.
void Collector::draw_line() {
  const ObjectBounds& bounds = options_.bounds;
  PackTotals over;
  if (bounds.bytes > 0 && kept_.bytes > bounds.bytes) over.bytes = kept_.bytes - bounds.bytes;
  if (bounds.blocks > 0 && kept_.blocks > bounds.blocks) over.blocks = kept_.blocks - bounds.blocks;
  std::size_t oldest = Ages::kCells;
  for (std::size_t cell = Ages::kCells; cell-- > 0;) {
    const PackTotals& here = ages_.at(cell);
    if (here.packs == 0) continue;
    if (over.bytes == 0 && over.blocks == 0) {
      oldest = cell;
      break;
    }
    line_ = cell;
    at_line_ = over;
    if (here.bytes > over.bytes && here.blocks > over.blocks) {
      oldest = cell;
      break;
    }
    over.remove(here);
  }
  if (oldest < Ages::kCells) {
    report_.oldest_seconds = static_cast<std::int64_t>(Ages::age_of(oldest));
  }
}

void Collector::end(Status status) {
  report_.phase = Phase::kOver;
  report_.status = std::move(status);
  step_ = Step::kNone;
}

}  // namespace terrace::tier
