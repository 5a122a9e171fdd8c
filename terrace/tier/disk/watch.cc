#include <fmt/format.h>

#include <cmath>

#include "terrace/tier/disk/health_internal.h"
#include "terrace/tier/disk/reader_internal.h"
#include "terrace/tier/disk/slots_internal.h"
#include "terrace/tier/disk/volume_internal.h"
#include "terrace/tier/disk/watch_internal.h"

namespace terrace::tier::disk {

namespace {
constexpr Nanoseconds kLookTime = seconds(1);
constexpr Nanoseconds kLate = seconds(5);
constexpr std::size_t kReads = Reader::kMostReads;

bool is_frame(const Ticket& ticket) {
  return ticket.purpose == Purpose::kReadFrame || ticket.purpose == Purpose::kWriteFrame;
}
}  // namespace

// Every frame that can be under way has a place: those of reads, then those of writes.
Watch::Watch(Context& context)
    : context_(context),
      pace_(context.volumes.size(), (kReads + context.options.queue_blocks) * context.ranks(),
            context.clock),
      flights_(context.volumes.size(), context.clock),
      speeds_(context.volumes.size()),
      shown_(context.volumes.size()),
      noted_(context.volumes.size()),
      looking_(context.volumes.size()),
      hangs_(context.volumes.size()) {}

std::size_t Watch::place_of(const Ticket& ticket) const {
  const std::size_t first = ticket.purpose == Purpose::kReadFrame ? 0 : kReads;
  return (first + ticket.number) * context_.ranks() + ticket.rank;
}

void Watch::began(const Ticket& ticket, const transfer::Transfer& transfer) {
  if (is_frame(ticket) && !pace_.began(place_of(ticket), transfer.volume, transfer.bytes())) return;
  flights_.began(ticket.purpose, transfer.volume);
}

void Watch::ended(const Ticket& ticket, bool is_answer) {
  // Of all others the number is the volume, and none comes back that was not there.
  const auto volume =
      is_frame(ticket) ? pace_.ended(place_of(ticket)) : std::optional(ticket.number);
  if (volume) flights_.ended(ticket.purpose, *volume, is_answer);
}

void Watch::look() {
  for (std::uint32_t v = 0; v < context_.volumes.size(); ++v) note_sight(v);
  const Nanoseconds now = context_.clock.now();
  if (now < next_look_) return;
  is_late_ = next_look_ != kNever && now - next_look_ > kLate;
  next_look_ = now + kLookTime;
  for (std::uint32_t v = 0; v < context_.volumes.size(); ++v) {
    Looker& looker = context_.lookers[v];
    if (!looker.sight().is_linked) continue;
    looker.begin();
    note_sight(v);
    if (!looker.sight().is_linked) continue;
    note_hang(v);
    note_pace(v);
    speeds_[v] = pace_.speed(v);
    shown_[v].set(std::llround(speeds_[v]));
  }
  if (speeds_.size() > 1) context_.slots.set_speeds(speeds_);
}

void Watch::note_sight(std::uint32_t volume) {
  Looker& looker = context_.lookers[volume];
  looker.take();
  if (looker.number() == noted_[volume]) return;
  noted_[volume] = looker.number();
  const Sight& sight = looker.sight();
  if (!sight.is_linked) {
    if (context_.health.lost(volume)) context_.slots.forget_volume(volume);
  } else if (!sight.place.is_ok()) {
    context_.health.gone(volume, sight.place.message());
  } else {
    context_.health.found(volume);
  }
}

void Watch::note_hang(std::uint32_t volume) {
  const Looker& looker = context_.lookers[volume];
  looking_[volume].set(looker.under_way_for().value());
  const bool is_lost = looker.under_way_for() > kHanging;
  if (is_lost && !is_late_) {
    const bool is_new =
        context_.health.hangs(volume, looker.where() + " has not come back for 10 s");
    if (is_new) hangs_[volume].at(static_cast<std::size_t>(looker.call())).add();
  }
  if (is_lost || is_late_) return;
  const bool is_direct = context_.volumes[volume]->is_direct();
  const auto silent = flights_.hanging(volume, is_direct);
  if (!silent) return context_.health.let_go(volume);
  if (!context_.health.hangs(volume, text_of_hang(*silent, is_direct))) return;
  hangs_[volume].at(kLookCallCount + static_cast<std::size_t>(hang_kind_of(*silent))).add();
}

void Watch::note_pace(std::uint32_t volume) {
  if (pace_.is_slow(volume)) {
    context_.health.slow(volume, pace_.last(volume), pace_.norm(volume));
  } else {
    context_.health.quick(volume);
  }
}

void Watch::visit_metrics(MetricVisitor& visitor) const {
  for (std::size_t v = 0; v < shown_.size(); ++v) {
    const std::string volume = fmt::format("volume=\"{}\"", v);
    visitor.gauge("terrace_disk_device_bytes_per_second", volume,
                  static_cast<double>(shown_[v].value()));
    visitor.gauge("terrace_disk_look_seconds", volume,
                  static_cast<double>(looking_[v].value()) * 1e-9);
    for (std::size_t i = 0; i < hangs_[v].size(); ++i) {
      const auto operation = i < kLookCallCount
                                 ? to_string(static_cast<LookCall>(i))
                                 : to_string(static_cast<HangKind>(i - kLookCallCount));
      visitor.counter("terrace_disk_hangs_total",
                      fmt::format("{},operation=\"{}\"", volume, operation), hangs_[v][i].value());
    }
  }
}

void Watch::hide_unreadable() {
  for (std::uint32_t v = 0; v < context_.volumes.size(); ++v) {
    context_.slots.hide_volume(v, !context_.health.may_read(v));
  }
}

}  // namespace terrace::tier::disk
