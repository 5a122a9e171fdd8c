#include <algorithm>
#include <cmath>
#include <utility>

#include "terrace/manager/shadows_internal.h"

namespace terrace::manager {

namespace {

constexpr std::uint64_t kShareOfSlots = 8;
constexpr double kMostHits = 1e15;  // For a share beyond reason.

}  // namespace

Shadows::Shadows(Context& context, std::uint64_t seed)
    : context_(context), rng_(seed), left_(is_on() ? next_gap() : 0) {}

// From half the mean to one and a half of it: no pattern of requests escapes, and the share holds
// within a few hits.
std::uint64_t Shadows::next_gap() {
  const double hits = std::min(kMostHits, 1 / context_.options.shadow.share);
  const auto mean = static_cast<std::uint64_t>(std::llround(hits));
  const std::uint64_t low = std::max<std::uint64_t>(1, mean / 2);
  return low + rng_.below(2 * (mean - low) + 1);
}

bool Shadows::draw() {
  if (--left_ > 0) return false;
  left_ = next_gap();
  return true;
}

bool Shadows::wants(Request& request) {
  if (!is_on() || is_quarantined()) return false;
  if (!request.shadow.is_drawn) {
    request.shadow.is_drawn = true;
    request.shadow.is_wanted = draw();
  }
  return request.shadow.is_wanted;
}

std::uint64_t Shadows::room() const {
  const std::uint64_t most = std::max<std::uint64_t>(1, context_.pool().slots() / kShareOfSlots);
  return most - std::min(most, held_ + under_way_);
}

bool Shadows::claim(Request& request, std::uint64_t blocks, Nanoseconds now) {
  if (!wants(request)) return false;
  Shadow& shadow = request.shadow;
  LookUp& look_up = request.look_up;
  shadow.is_wanted = false;
  const std::uint64_t end = look_up.first + blocks;
  const std::uint64_t most = room() / context_.groups.count();
  for (const Strand& strand : look_up.strands) {
    const std::uint64_t found = std::min(strand.size(), end - std::min(end, strand.from()));
    context_.counters.shadow_skipped.add(found - std::min(found, most));
  }
  if (most == 0) return false;
  shadow.is_on = true;
  shadow.strands = std::exchange(look_up.strands, {});
  shadow.cursor = look_up.first;
  shadow.end = look_up.first;
  shadow.expires = now + context_.options.pin_time;
  for (Strand& strand : shadow.strands) {
    strand.shrink(std::min(most, end - std::min(end, strand.from())));
    held_ += strand.size();
    shadow.end = std::max(shadow.end, strand.from() + strand.size());
  }
  // Nothing is loaded: no plan is kept to its word.
  request.ledger.decision.reset();
  context_.counters.shadow_requests.add();
  context_.counters.shadow_tokens.add(blocks * context_.options.layout.block_tokens.value());
  return true;
}

void Shadows::release(Request& request) {
  Shadow& shadow = request.shadow;
  for (Strand& strand : shadow.strands) {
    const std::uint64_t end = strand.from() + strand.size();
    context_.counters.shadow_skipped.add(end - std::clamp(shadow.cursor, strand.from(), end));
    held_ -= strand.size();
    strand.shrink(0);  // Deepest first.
  }
  shadow.strands.clear();
  shadow.cursor = shadow.end;
}

void Shadows::expire(Request& request, Nanoseconds now) {
  Shadow& shadow = request.shadow;
  if (!shadow.is_on || shadow.has_begun || now < shadow.expires) return;
  release(request);
  shadow.is_on = false;
}

BlockKey Shadows::next_key(GroupId group) {
  // The namespace of nobody; the canary's key there is all zero.
  return {NamespaceId(0), group, SequenceHash{.high = 0, .low = ++last_key_}};
}

}  // namespace terrace::manager
