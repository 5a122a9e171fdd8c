// The I/O thread compares: bytes are read outside the lock, in slots that the core holds meanwhile.
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>

#include "terrace/base/thread.h"
#include "terrace/manager/evidence_internal.h"
#include "terrace/manager/io_driver_internal.h"
#include "terrace/manager/quarantine_internal.h"

namespace terrace::manager {

namespace {

std::span<const std::byte> payload_of(const tier::ShardMemory& memory) {
  return {memory.payload, memory.payload_bytes};
}

}  // namespace

Compared IoDriver::compare(const CompareJob& job, const Options& options) const {
  const auto stored = memory_of(job.stored, job.group);
  const auto computed = memory_of(job.computed, job.group);
  const GroupLayout& layout = options.layout.groups[job.group.value()];
  const ElementType type = *options.shadow.element;
  const NoiseFloor floor = noise_floor(type, options.shadow.tolerance);
  Compared found{.token = job.token};
  for (std::size_t rank = 0; rank < stored.size(); ++rank) {
    const auto left = payload_of(stored[rank]);
    const auto right = payload_of(computed[rank]);
    const Difference difference = difference_of(left, right, layout, type, floor);
    if (difference.is_beyond(floor)) {
      const bool is_whole = checksum_of(left) == job.stored_checksums[rank] &&
                            checksum_of(right) == job.computed_checksums[rank];
      found.verdict = is_whole ? Compared::Verdict::kBeyond : Compared::Verdict::kDamaged;
      found.rank = RankId(static_cast<std::uint16_t>(rank));
      found.difference = difference;
      return found;
    }
    found.difference.element = std::max(found.difference.element, difference.element);
    found.difference.rms = std::max(found.difference.rms, difference.rms);
  }
  return found;
}

std::string IoDriver::keep(const CompareJob& job, const Compared& found,
                           const Options& options) const {
  std::vector<std::string> marks;
  std::string reason;
  {
    const MutexLock lock(shared_.mutex);
    marks = shared_.core.shadows().marks();
    reason = shared_.core.shadows().reason();
  }
  const std::size_t rank = found.rank.value();
  // First what keeps later owners from serving the namespace: it is one page each.
  const auto written = write_quarantines(marks, reason, lone_hand);
  // The rest is written here, and not where its mark has not come back.
  const std::string& evidence = options.shadow.evidence;
  const auto is_beside = [&](const std::string& path) { return path.starts_with(evidence + "/"); };
  const bool is_refused = std::ranges::any_of(marks, is_beside) &&
                          !(written && std::ranges::any_of(*written, is_beside));
  const std::string where =
      is_refused
          ? fmt::format("no evidence is kept: {} takes no mark", evidence)
          : keep_evidence(options, job, found, payload_of(memory_of(job.stored, job.group)[rank]),
                          payload_of(memory_of(job.computed, job.group)[rank]));
  if (!written) {
    return fmt::format("{}; in force until the restart: {}", where, written.error().message());
  }
  return fmt::format("{}; in force until {} is removed", where, fmt::join(*written, " and "));
}

bool IoDriver::compare_all(const std::vector<CompareJob>& jobs) {
  if (jobs.empty()) return false;
  const Options* options = nullptr;
  {
    const MutexLock lock(shared_.mutex);
    options = &shared_.core.context().options;  // Immutable, and outlives this thread.
  }
  for (const CompareJob& job : jobs) {
    const Compared found = compare(job, *options);
    {
      const MutexLock lock(shared_.mutex);
      if (!shared_.core.on_compared(found)) continue;
    }
    const std::string where = keep(job, found, *options);
    const MutexLock lock(shared_.mutex);
    shared_.core.on_kept(job.token, where);
  }
  return true;
}

}  // namespace terrace::manager
