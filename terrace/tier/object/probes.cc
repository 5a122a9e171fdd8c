#include <fmt/format.h>

#include <algorithm>

#include "terrace/base/check.h"
#include "terrace/tier/object/probes_internal.h"

namespace terrace::tier::object {

const SequenceHash& Probes::last_of(const Probe& probe, std::uint64_t pack) const {
  return probe.chain[(pack + 1) * context_.geometry.blocks() - 1];
}

bool Probes::is_known_absent(const SequenceHash& pack) const {
  const MutexLock lock(context_.mutex);
  return context_.known.is_absent(pack, context_.clock.now());
}

bool Probes::is_known_damaged(const PackName& name) const {
  const MutexLock lock(context_.mutex);
  return context_.known.is_damaged(name, context_.clock.now());
}

Status Probes::begin(std::uint64_t token, std::span<const SequenceHash> chain,
                     Nanoseconds deadline) {
  if (probes_.size() >= context_.options.most_probes) {
    return {Code::kExhausted, "too many look-ups in the store under way"};
  }
  const std::uint64_t blocks = context_.geometry.blocks();
  const std::uint64_t packs = chain.size() / blocks;
  std::uint64_t known = 0;
  {
    const MutexLock lock(context_.mutex);
    known = context_.known.match(chain, context_.clock.now()) / blocks;
  }
  const auto whole = chain.first(packs * blocks);
  context_.counters.probes.add();
  probes_.emplace(++last_number_, Probe{.token = token,
                                        .chain = {whole.begin(), whole.end()},
                                        .deadline = deadline,
                                        .search = Search(known, packs),
                                        .unasked = {},
                                        .variants = {},
                                        .open = 0,
                                        .status = {}});
  return {};
}

bool Probes::ask(std::uint64_t number, Probe& probe) {
  while (!probe.unasked.empty() && probe.status.is_ok()) {
    const Asking asking = probe.unasked.back();
    const SequenceHash& last = last_of(probe, asking.pack);
    if (asking.variant == 0 && is_known_absent(last)) {
      probe.search.answer(asking.pack, false);
      probe.unasked.pop_back();
      continue;
    }
    if (is_known_damaged({last, asking.variant})) {
      probe.unasked.pop_back();
      go_on(probe, asking);
      continue;
    }
    transfer::ObjectRequest request;
    request.op = transfer::ObjectOp::kHead;
    request.name = context_.name_of(last, asking.variant);
    request.deadline = probe.deadline;
    const std::uint64_t question = ++last_question_;
    request.token = context_.token(Part::kProbe, question);
    Status status = context_.queue.push(transfer::IoClass::kTtftRead, std::move(request));
    if (status.code() == Code::kExhausted) return false;
    probe.unasked.pop_back();
    if (!status.is_ok()) {
      probe.status = std::move(status);
      break;
    }
    context_.counters.heads.add();
    questions_.emplace(question, Question{.probe = number, .asking = asking});
    ++probe.open;
  }
  return true;
}

void Probes::advance(std::vector<ObjectDone>& done) {
  for (auto it = probes_.begin(); it != probes_.end();) {
    auto& [number, probe] = *it;
    if (!ask(number, probe)) return;
    // A round may be over at once, where all of it is known.
    while (probe.open == 0 && probe.status.is_ok()) {
      for (const std::uint64_t pack : probe.search.next()) probe.unasked.push_back({.pack = pack});
      if (probe.unasked.empty()) break;
      std::ranges::reverse(probe.unasked);
      if (!ask(number, probe)) return;
    }
    if (probe.open > 0) {
      ++it;
      continue;
    }
    settle(probe, done);
    it = probes_.erase(it);
  }
}

void Probes::take(const transfer::ObjectAnswer& answer, std::uint64_t number) {
  auto question = questions_.extract(number);
  TERRACE_CHECK(!question.empty());
  Probe& probe = probes_.at(question.mapped().probe);
  --probe.open;
  const auto [pack, variant] = question.mapped().asking;
  const SequenceHash& last = last_of(probe, pack);
  if (answer.status.is_ok() && answer.info.bytes == context_.geometry.bytes()) {
    probe.search.answer(pack, true);
    probe.variants[pack] = variant;
    return;
  }
  const bool is_damaged = answer.status.is_ok();
  if (!is_damaged && answer.status.code() != Code::kNotFound) {
    probe.search.answer(pack, false);
    probe.status = answer.status;  // The store says nothing about it.
    return;
  }
  if (is_damaged) {
    context_.note_damage({.name = {last, variant}, .bytes = answer.info.bytes},
                         fmt::format("it has {} bytes, its layout says {}", answer.info.bytes,
                                     context_.geometry.bytes()));
  }
  go_on(probe, {pack, variant});
}

void Probes::go_on(Probe& probe, const Asking& asked) {
  if (asked.variant + std::size_t{1} < context_.variants.size()) {
    probe.unasked.push_back(
        {.pack = asked.pack, .variant = static_cast<std::uint8_t>(asked.variant + 1)});
    return;
  }
  probe.search.answer(asked.pack, false);
  const MutexLock lock(context_.mutex);
  context_.known.add_absent(last_of(probe, asked.pack), context_.clock.now());
}

void Probes::settle(const Probe& probe, std::vector<ObjectDone>& done) {
  const std::uint64_t blocks = context_.geometry.blocks();
  ObjectDone result;
  result.kind = ObjectDone::Kind::kProbe;
  result.token = probe.token;
  result.status = probe.status;
  if (!context_.is_reset.load()) {
    const std::span<const SequenceHash> chain(probe.chain);
    {
      const MutexLock lock(context_.mutex);
      const Nanoseconds now = context_.clock.now();
      // What was not asked about is guessed to lie beside what comes after it; a read finds out.
      std::uint8_t variant = 0;
      for (std::uint64_t pack = probe.search.found(); pack-- > 0;) {
        const auto asked = probe.variants.find(pack);
        if (asked != probe.variants.end()) variant = asked->second;
        context_.known.add(chain.subspan(pack * blocks, blocks), now, variant,
                           asked == probe.variants.end());
      }
      result.blocks = context_.known.match(chain, now);
    }
    touches_.note(chain, result.blocks / blocks);
  }
  done.push_back(std::move(result));
}

}  // namespace terrace::tier::object
