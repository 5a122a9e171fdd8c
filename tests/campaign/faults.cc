#include "campaign/faults.h"

#include <algorithm>
#include <filesystem>

#include "campaign/disk_storm.h"
#include "campaign/hostile_server.h"
#include "campaign/object_storm.h"
#include "campaign/queue_storm.h"
#include "campaign/rest_damage.h"
#include "terrace/testing/memory_object_store.h"
#include "terrace/transfer/backends/dir/seeded_calls_rig.h"
#include "terrace/transfer/backends/s3/s3_store.h"

namespace terrace::campaign {

namespace {
constexpr unsigned kDepth = 8;

std::unique_ptr<transfer::ObjectStore> dir_store(const std::string& path,
                                                 transfer::dir::CallFaults& faults) {
  transfer::DirStoreOptions options;
  options.path = path;
  options.depth = kDepth;
  options.threads = 2;
  return transfer::dir::make_seeded_store(options, faults);
}

std::unique_ptr<transfer::ObjectStore> s3_store(const HostileServer& server, const Clock& clock,
                                                LogSink& log) {
  transfer::S3Options options;
  options.endpoint = server.url();
  options.bucket = "bucket";
  options.prefix = "kv";
  options.credentials = {"KEYID", "the-secret", ""};
  options.depth = kDepth;
  options.signs_payload = false;
  options.stall_limit = milliseconds(500);
  auto made = transfer::make_s3_store(options, clock, log);
  return made ? *std::move(made) : nullptr;
}

void take(const std::string& backend, const std::map<std::string, std::uint64_t>& injected,
          Figures& figures) {
  for (const auto& [kind, count] : injected) figures.inject(backend, kind, count);
}

void storm_memory(std::uint64_t seed, int percent, Figures& figures) {
  const auto place = std::make_shared<testing::MemoryPlace>();
  const auto make = [&](const Clock&) {
    place->asked.clear();
    return std::make_unique<testing::MemoryObjectStore>(place, kDepth);
  };
  ObjectStorm("memory", make, seed, figures).run(3, 50 * percent);
  storm_object_queue("memory", make(SystemClock()), seed, 80 * percent, figures);
}

void storm_dir(std::uint64_t seed, int percent, Figures& figures) {
  const tier::disk::ScratchDirectory scratch;
  const std::size_t descriptors = open_descriptors();
  const std::size_t threads = live_threads();
  transfer::dir::CallFaults calls(seed, 4);
  const auto make = [&](const Clock&) { return dir_store(scratch.path(), calls); };
  ObjectStorm("dir", make, seed, figures).run(2, 40 * percent);
  storm_object_queue("dir", make(SystemClock()), seed, 40 * percent, figures);
  take("dir", calls.injected(), figures);
  if (open_descriptors() != descriptors || !are_threads_back_to(threads)) {
    figures.find(figures.leaks, "dir: descriptors or threads are left");
  }
}

void storm_s3(std::uint64_t seed, int percent, Figures& figures) {
  const std::size_t descriptors = open_descriptors();
  const std::size_t threads = live_threads();
  {
    NullLog log;
    HostileServer server(seed, 25);
    const auto make = [&](const Clock& clock) { return s3_store(server, clock, log); };
    if (make(SystemClock()) == nullptr) return figures.find(figures.hangs, "s3: no store");
    ObjectStorm("s3", make, seed, figures).run(1, 30 * percent, [&] { server.be_kind(); });
    take("s3", server.injected(), figures);
  }
  {
    NullLog log;
    const SystemClock clock;
    HostileServer server(seed + 1, 25);
    storm_object_queue("s3", s3_store(server, clock, log), seed, 30 * percent, figures);
    take("s3", server.injected(), figures);
  }
  if (open_descriptors() != descriptors || !are_threads_back_to(threads)) {
    figures.find(figures.leaks, "s3: descriptors or threads are left");
  }
}
}  // namespace

void run_faults(std::uint64_t seed, int percent, Figures& figures) {
  for (const char* backend : {"io_uring", "threads"}) {
    DiskStorm(backend, seed, figures).run(4, 20 * percent);
    storm_queue(backend, seed, 200 * percent, figures);
    damage_disk(backend, seed, std::max(percent / 2, 15), figures);
  }
  damage_packs(seed, 10 * percent, figures);
  storm_memory(seed, percent, figures);
  storm_dir(seed, percent, figures);
  storm_s3(seed, percent, figures);
}

}  // namespace terrace::campaign
