// Replays a trace of prompts through a host pool above a disk pool, as the manager uses them: what
// a request computes is sealed in host and offered to the disk's admission filter, what it hits is
// a sighting and written when the filter wants it by then, and what host evicts is asked about
// again. Threading: thread-compatible.  Waits: never.
#pragma once

#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

#include "terrace/catalog/pool.h"
#include "terrace/policy/admission/admission.h"
#include "terrace/testing/keys.h"
#include "terrace/testing/prefix_trace.h"

namespace terrace::testing {

class AdmissionReplay {
 public:
  struct Counts {
    std::uint64_t blocks = 0;  // Of all prompts.
    std::uint64_t host_hits = 0;
    std::uint64_t disk_hits = 0;  // Prefix-contiguous, as those of host.
    std::uint64_t writes = 0;     // Blocks written to disk.
    [[nodiscard]] double hit_percent() const {
      return 100.0 * static_cast<double>(host_hits + disk_hits) / static_cast<double>(blocks);
    }
  };
  AdmissionReplay(std::uint32_t host_slots, std::uint32_t disk_slots,
                  std::unique_ptr<policy::AdmissionFilter> filter)
      : host_(catalog::Pool::create({.slots = host_slots}).value()),
        disk_(catalog::Pool::create({.slots = disk_slots}).value()),
        filter_(std::move(filter)) {}

  // Requests come evenly over `span`.
  Counts run(const PrefixTrace& trace, Nanoseconds span) {
    for (std::size_t request = 0; request < trace.requests(); ++request) {
      now_ = Nanoseconds(static_cast<std::int64_t>(static_cast<double>(span.value()) *
                                                   static_cast<double>(request) /
                                                   static_cast<double>(trace.requests())));
      serve(trace.blocks(request));
    }
    return counts_;
  }

 private:
  void serve(const std::vector<std::uint32_t>& blocks) {
    std::vector<SequenceHash> hashes;
    hashes.reserve(blocks.size());
    for (const std::uint32_t block : blocks) hashes.push_back(hash(block));
    counts_.blocks += hashes.size();
    catalog::PinRun run;
    std::size_t at = 0;
    for (; at < hashes.size(); ++at) {  // What leads, from wherever it lies.
      const BlockKey key = key_of(hashes[at]);
      auto pin = host_->pin(key);
      if (pin) {
        ++counts_.host_hits;
        run.add(std::move(*pin));
      } else if (disk_->contains(key) && store(key, run)) {
        ++counts_.disk_hits;
      } else {
        break;
      }
    }
    disk_->touch_chain(NamespaceId(1), GroupId(0), hashes);
    for (std::size_t i = 0; i < at; ++i) sight(key_of(hashes[i]));
    for (; at < hashes.size(); ++at) {  // Computed.
      const BlockKey key = key_of(hashes[at]);
      const bool is_new = !host_->contains(key);
      if (!store(key, run)) break;
      if (is_new && !disk_->contains(key) && filter_->admit(key, now_)) write(key);
    }
  }
  static BlockKey key_of(const SequenceHash& hash) { return {NamespaceId(1), GroupId(0), hash}; }
  void sight(const BlockKey& key) {
    if (disk_->contains(key)) return;
    filter_->on_hit(key, now_);
    if (filter_->is_wanted(key, now_)) write(key);
  }
  bool store(const BlockKey& key, catalog::PinRun& run) {
    auto pin = host_->pin(key);
    if (!pin) {
      auto reserved = host_->reserve(key);
      for (const catalog::Eviction& gone : host_->take_evicted()) {
        if (!disk_->contains(gone.key) && filter_->is_wanted(gone.key, now_)) write(gone.key);
      }
      if (!reserved) return false;
      pin = std::move(*reserved).begin_fill().seal();
    }
    if (!pin) return false;
    run.add(std::move(*pin));
    return true;
  }
  void write(const BlockKey& key) {
    auto reserved = disk_->reserve(key);
    (void)disk_->take_evicted();
    if (!reserved) return;
    const auto pin = std::move(*reserved).begin_fill().seal();
    if (pin) ++counts_.writes;
  }

  std::unique_ptr<catalog::Pool> host_;
  std::unique_ptr<catalog::Pool> disk_;
  std::unique_ptr<policy::AdmissionFilter> filter_;
  Nanoseconds now_{0};
  Counts counts_;
};

}  // namespace terrace::testing
