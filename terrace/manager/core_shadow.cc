// Blocks of requests that are checked: copied out beside the stored ones, compared, and what
// follows when they differ.
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <bit>
#include <cmath>

#include "terrace/manager/core_internal.h"

namespace terrace::manager {

namespace {

// Each takes some milliseconds, and requests wait for what the I/O thread reads: it looks after
// those between any two.
constexpr std::size_t kComparisonsPerTick = 1;

void raise(Gauge& gauge, double ratio) {
  gauge.set(std::max(gauge.value(), static_cast<std::int64_t>(std::llround(ratio * 1e6))));
}

}  // namespace

void Core::order_comparisons(Request& request, const Progress& progress) {
  Shadow& shadow = request.shadow;
  shadow.has_begun = true;
  if (progress.block_tables.empty() || !gate_.is_serving() || is_poisoned() || is_closing_ ||
      context_.is_paused() || shadow.cursor >= shadow.end) {
    return;
  }
  const std::uint64_t end =
      std::min<std::uint64_t>({shadow.end, progress.computed / context_.options.layout.block_tokens,
                               blocks_in(progress.block_tables)});
  for (; shadow.cursor < end; ++shadow.cursor) {
    if (is_step_full()) return;
    for (std::uint16_t group = 0; group < context_.groups.count(); ++group) {
      order_comparison(request, GroupId(group), progress.block_tables[group][shadow.cursor]);
    }
  }
  if (shadow.cursor == shadow.end) shadows_.release(request);
}

void Core::order_comparison(const Request& request, GroupId group, std::uint32_t device_block) {
  const Shadow& shadow = request.shadow;
  const auto stored = shadow.strands[group.value()].slot_of(shadow.cursor);
  if (!stored) return;  // Out of the group's window.
  std::optional<catalog::Pin> pin;
  Result<catalog::FillingSlot> slot = fail(Code::kExhausted, "not asked for");
  // A block out of its window is gone from the engine.
  if (!context_.groups.is_null(group, device_block) && steps_.has_room() &&
      context_.spare_what_only_host_has()) {
    pin = context_.pool().pin(*stored);
    slot = context_.reserve(shadows_.next_key(group));
  }
  if (!pin || !slot) {
    context_.counters.shadow_skipped.add();
    return;
  }
  const SlotRef place = slot->slot();
  steps_.add_save({.request = request.id,
                   .block = shadow.cursor,
                   .key = context_.key_of(group, request.chain.hashes()[shadow.cursor]),
                   .slot = std::move(*slot),
                   .place = place,
                   .device_block = device_block,
                   .alias = 0,
                   .event = std::nullopt,
                   .pack = {},
                   .filled = 0,
                   .checksums = {},
                   .stored = std::move(*pin),
                   .tally = shadows_.count_one()});
}

void Core::finish_comparisons(Step& step) {
  if (std::ranges::none_of(step.saves, &Save::is_to_compare)) return;
  std::vector<Save> others;
  others.reserve(step.saves.size());
  for (Save& save : step.saves) {
    if (!save.is_to_compare()) {
      others.push_back(std::move(save));
      continue;
    }
    if (step.is_quarantined) context_.pool().release_quarantined(save.place);
    const bool is_there = !step.is_tainted && !step.has_lost_reports &&
                          std::popcount(save.filled) == context_.options.layout.ranks;
    if (is_there && save.key.name_space == context_.name_space) judge(std::move(save));
  }
  step.saves = std::move(others);
}

void Core::judge(Save save) {
  context_.counters.shadow_bytes.add(context_.groups.bytes(save.key.group).value());
  bool is_equal = true;
  for (std::uint16_t rank = 0; rank < context_.options.layout.ranks; ++rank) {
    const SlotIndex stored = save.stored.slot().index;
    is_equal = is_equal && context_.host->checksum(stored, RankId(rank)) == save.checksums[rank];
  }
  if (is_equal) return save.tally.settle(context_.counters.shadow_equal);
  comparisons_.emplace(++last_check_, Comparison{.stored = std::move(save.stored),
                                                 .computed = std::move(save.slot),
                                                 .tally = std::move(save.tally),
                                                 .key = save.key,
                                                 .checksums = std::move(save.checksums)});
}

void Core::take_comparisons(Jobs& jobs) {
  for (auto& [token, one] : comparisons_) {
    if (jobs.comparisons.size() >= kComparisonsPerTick) return;
    if (std::exchange(one.is_begun, true)) continue;
    CompareJob job{.token = token,
                   .group = one.key.group,
                   .hash = one.key.hash,
                   .stored = one.stored.slot().index,
                   .computed = one.computed.slot().index,
                   .computed_checksums = one.checksums};
    for (std::uint16_t rank = 0; rank < context_.options.layout.ranks; ++rank) {
      job.stored_checksums.push_back(context_.host->checksum(job.stored, RankId(rank)));
    }
    jobs.comparisons.push_back(std::move(job));
  }
}

bool Core::on_compared(const Compared& found) {
  const auto node = comparisons_.find(found.token);
  if (node == comparisons_.end()) return false;
  Comparison& one = node->second;
  // Reset meanwhile: of other weights, perhaps.
  const bool is_current = one.key.name_space == context_.name_space;
  if (is_current && found.verdict == Compared::Verdict::kBeyond) {
    one.tally.settle(context_.counters.shadow_beyond);
    quarantine(fmt::format("block {} of group {}, rank {}: {}", one.key.hash.hex(),
                           one.key.group.value(), found.rank.value(), found.difference.text()));
    return true;
  }
  if (is_current && found.verdict == Compared::Verdict::kWithin) {
    one.tally.settle(context_.counters.shadow_within);
    note_noise(found.difference);
  }
  const SlotRef stored = one.stored.slot();
  comparisons_.erase(node);
  if (is_current && found.verdict == Compared::Verdict::kDamaged) question(stored);
  return false;
}

void Core::on_kept(std::uint64_t token, const std::string& where) {
  comparisons_.erase(token);
  context_.note(LogLevel::kError, fmt::format("event=evidence reason=\"{}\"", where));
  shadows_.add_to_reason(where);
}

void Core::open_quarantine(std::vector<std::string> marks,
                           const std::optional<FoundQuarantine>& found) {
  shadows_.set_marks(std::move(marks));
  if (!found) return;
  quarantine(fmt::format("found by an earlier start: {}; in force until {} is removed", found->text,
                         fmt::join(found->paths, " and ")));
}

void Core::note_noise(const Difference& difference) {
  const ShadowOptions& options = context_.options.shadow;
  const NoiseFloor floor = noise_floor(*options.element, options.tolerance);
  if (options.tolerance <= 0) return;  // There is none.
  raise(context_.counters.shadow_element, difference.element / floor.element);
  raise(context_.counters.shadow_rms, difference.rms / floor.rms);
}

void Core::quarantine(std::string reason) {
  context_.note(LogLevel::kError, fmt::format("event=quarantined reason=\"{}\"", reason));
  if (shadows_.is_quarantined()) return;
  shadows_.quarantine(std::move(reason));
  context_.counters.shadow_quarantined.set(1);
  context_.answers.revoke_all();
  reset();
}

}  // namespace terrace::manager
