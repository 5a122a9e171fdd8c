// What the planner decides about a look-up, and when a load is not waited for any longer.
#include <algorithm>

#include "terrace/manager/look_ups_internal.h"

namespace terrace::manager {

Nanoseconds LookUps::deadline_of(const LookUp& look_up) const {
  return std::min(*look_up.first_probe + context_.options.lookup_deadline, look_up.gives_up);
}

policy::PromptPart LookUps::part_of(const Request& request, std::uint64_t first,
                                    std::uint64_t found) const {
  const Tokens block_tokens = context_.options.layout.block_tokens;
  const Tokens prompt = std::max(request.ledger.prompt, block_tokens * (first + found));
  return {.before = block_tokens * first,
          .behind = prompt - block_tokens * (first + found),
          .most_wait = context_.options.lookup_deadline};
}

std::uint64_t LookUps::worth(Request& request, std::uint64_t found,
                             const std::vector<policy::SourceRun>& runs, Nanoseconds now) {
  if (found == 0) return 0;
  LookUp& look_up = request.look_up;
  const auto queued = reads_.queued_beside(request.chain.hashes().subspan(look_up.first, found));
  const auto plan = context_.planner.plan(runs, queued, part_of(request, look_up.first, found));
  const std::uint64_t blocks = std::min(found, plan.blocks);
  if (plan.probe_blocks > 0) {
    const std::uint64_t from = look_up.first + blocks;
    read_probe(request, from, std::min(from + plan.probe_blocks, look_up.first + found), now);
  }
  if (request.has_given_up) return blocks;  // The decision that counts was another.
  const Tokens block_tokens = context_.options.layout.block_tokens;
  request.ledger.decision = Decision{.found = block_tokens * found,
                                     .planned = block_tokens * blocks,
                                     .slowest = plan.slowest,
                                     .predicted_load = plan.predicted_load,
                                     .predicted_recompute = plan.predicted_recompute};
  look_up.planned_at = now;
  look_up.awaited = plan.awaited;
  const bool is_patient = plan.patience == Nanoseconds(INT64_MAX);
  look_up.gives_up = is_patient ? plan.patience : now + plan.patience;
  return blocks;
}

void LookUps::read_probe(Request& request, std::uint64_t first, std::uint64_t end,
                         Nanoseconds now) {
  for (std::uint64_t block = first; block < end; ++block) {
    for (std::uint16_t number = 0; number < context_.groups.count(); ++number) {
      const BlockKey key = context_.key_of(GroupId(number), request.chain.hashes()[block]);
      if (context_.pool().contains(key)) continue;
      if (!want(request, GroupId(number), block, Purpose::kProbe, now)) return;
    }
  }
}

void LookUps::give_up(Request& request, Nanoseconds now) {
  LookUp& look_up = request.look_up;
  look_up.is_host_only = true;
  request.has_given_up = true;
  const bool is_planned = now >= look_up.gives_up;
  if (!is_planned) is_disk_stuck_ = last_read_ < *look_up.first_probe;
  Bytes missing{0};
  for (const Strand& strand : look_up.strands) {
    missing += context_.groups.bytes(strand.group()) * strand.missing();
    for (std::uint64_t block = strand.tail_from();
         is_planned && block < strand.from() + strand.size(); ++block) {
      if (!strand.is_missing(block)) continue;
      reads_.leave({.group = strand.group(), .hash = request.chain.hashes()[block]}, request.id);
    }
  }
  if (auto& decision = request.ledger.decision) {
    decision->is_abandoned = true;
    decision->load = now - look_up.planned_at;
    context_.counters.abandoned_loads.add();
    context_.planner.observe_abandoned({.slowest = decision->slowest,
                                        .awaited = look_up.awaited,
                                        .missing = missing,
                                        .predicted = decision->predicted_load,
                                        .elapsed = decision->load});
    context_.planner.settle(decision->slowest, decision->predicted_load, decision->load);
  }
  for (const Strand& strand : look_up.strands) {
    if (const auto block = strand.first_missing()) {
      return cut(request, strand.group(), *block, MissReason::kLate);
    }
  }
}

}  // namespace terrace::manager
