// The I/O thread's work with a shared store: asking what is there, and putting packs.
#include <ranges>

#include "terrace/manager/io_driver_internal.h"

namespace terrace::manager {

bool IoDriver::begin_probes(tier::ObjectTier* objects, const std::vector<ProbeJob>& probes) {
  bool has_begun = false;
  for (const ProbeJob& job : probes) {
    Status status(Code::kUnavailable, "object: not there any more");
    if (objects != nullptr) {
      status = objects->begin_probe(job.request.value(), job.chain, job.deadline);
    }
    has_begun = has_begun || status.is_ok();
    if (status.is_ok()) continue;
    // Too many at once, or the store is away: the request does without.
    const MutexLock lock(shared_.mutex);
    shared_.core.on_probed(job.request, clock_.now());
  }
  return has_begun;
}

bool IoDriver::begin_packs(tier::ObjectTier* objects, const std::vector<PackJob>& packs) {
  std::vector<std::uint64_t> back;
  bool has_begun = false;
  for (const PackJob& job : packs) {
    Status status(Code::kUnavailable, "object: not there any more");
    if (!back.empty()) {
      status = {Code::kExhausted, ""};
    } else if (objects != nullptr) {
      const std::size_t groups = job.shards.size() / job.hashes->size();
      std::vector<tier::PackShards> shards;
      for (std::size_t i = 0; i < job.shards.size(); ++i) {
        const GroupId group(static_cast<std::uint16_t>(i % groups));
        shards.push_back({memory_of(job.shards[i].slot, group), job.shards[i].checksums});
      }
      status = objects->begin_write(job.token, *job.hashes, std::move(shards));
    }
    if (status.code() == Code::kExhausted) {
      back.push_back(job.token);
    } else if (!status.is_ok()) {
      const MutexLock lock(shared_.mutex);
      shared_.core.on_pack(job.token, status);
    } else {
      has_begun = true;
    }
  }
  if (back.empty()) return has_begun;  // The usual case takes no lock.
  const MutexLock lock(shared_.mutex);
  for (const std::uint64_t token : std::views::reverse(back)) shared_.core.put_back_pack(token);
  return has_begun;
}

void IoDriver::apply_objects() {
  if (objects_done_.empty()) return;
  const MutexLock lock(shared_.mutex);
  const Nanoseconds now = clock_.now();
  for (const tier::ObjectDone& done : objects_done_) {
    switch (done.kind) {
      case tier::ObjectDone::Kind::kProbe:
        shared_.core.on_probed(RequestId(done.token), now);
        break;
      case tier::ObjectDone::Kind::kRead:
        shared_.core.on_read(done.token & ~kReadBit, done.status, done.checksums, 0, now);
        break;
      case tier::ObjectDone::Kind::kWrite:
        shared_.core.on_pack(done.token, done.status);
        break;
    }
  }
  objects_done_.clear();
}

}  // namespace terrace::manager
