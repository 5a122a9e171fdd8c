#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "terrace/manager/packs_internal.h"

namespace terrace::manager {

std::size_t Packs::limit() const {
  if (context_.objects == nullptr || context_.host == nullptr) return 0;
  const std::size_t slots = context_.host->geometry().slots;
  const std::size_t each = std::size_t{context_.objects->pack_blocks()} * context_.groups.count();
  return std::min<std::size_t>(context_.options.object.queue_packs, slots / 4 / each);
}

std::string Packs::problem() const {
  if (context_.objects == nullptr || context_.host == nullptr || limit() > 0) return {};
  const std::uint32_t blocks = context_.objects->pack_blocks();
  return fmt::format(
      "object: host has {} slots, less than four packs of {} blocks need in {} KV group(s), so "
      "nothing is put into the shared store: raise host.size, or lower object.pack_blocks in all "
      "engines that share it",
      context_.host->geometry().slots, blocks, context_.groups.count());
}

PackHashes Packs::pack_of(std::span<const SequenceHash> chain, std::uint64_t block) {
  if (context_.objects == nullptr) return nullptr;
  const std::uint64_t blocks = context_.objects->pack_blocks();
  const std::uint64_t first = block / blocks * blocks;
  if (first + blocks > chain.size()) return nullptr;
  const auto hashes = chain.subspan(first, blocks);
  if (latest_ == nullptr || latest_->back() != hashes.back()) {
    latest_ = std::make_shared<const std::vector<SequenceHash>>(hashes.begin(), hashes.end());
  }
  return latest_;
}

std::vector<catalog::PinRun> Packs::hold(const std::vector<SequenceHash>& hashes) {
  std::vector<catalog::PinRun> pins;
  for (std::uint16_t group = 0; group < context_.groups.count(); ++group) {
    pins.push_back(context_.pool().pin_run(context_.name_space, GroupId(group), hashes));
    if (pins.back().size() < hashes.size()) return {};
  }
  return pins;
}

void Packs::offer(const PackHashes& pack, Nanoseconds now) {
  if (is_stopped_ || context_.objects == nullptr || names_.contains(pack->back()) ||
      context_.objects->contains(GroupId(0), pack->back())) {
    return;
  }
  auto pins = hold(*pack);
  if (pins.empty()) return;  // Its other blocks are still to come, or gone.
  if (!context_.pack_admission->admit(context_.key_of(GroupId(0), pack->back()), now)) {
    context_.counters.drop_pack_admission.add(pack->size());
    return;
  }
  if (packs_.size() >= limit()) {
    context_.counters.drop_pack.add(pack->size());
    return;
  }
  const std::uint64_t token = ++last_token_;
  packs_.emplace(token, Pack{.hashes = pack,
                             .name_space = context_.name_space,
                             .pins = std::move(pins),
                             .is_begun = false});
  names_.insert(pack->back());
  queue_.push_back(token);
}

void Packs::offer_found(std::span<const SequenceHash> chain, std::uint64_t found, Nanoseconds now) {
  if (is_stopped_ || context_.objects == nullptr) return;
  const std::uint64_t blocks = context_.objects->pack_blocks();
  const std::uint64_t packs = std::min<std::uint64_t>(found, chain.size()) / blocks;
  for (std::uint64_t pack = 0; pack < std::min(packs, kMostLooks); ++pack) {
    if (packs_.size() >= limit()) return;  // The next request with this chain goes on.
    if (!context_.objects->wants(chain[(pack + 1) * blocks - 1])) continue;
    offer(pack_of(chain, pack * blocks), now);
  }
}

void Packs::take(std::size_t limit, std::vector<PackJob>& jobs) {
  for (; has_jobs() && limit > 0; --limit) {
    const std::uint64_t token = queue_.front();
    queue_.pop_front();
    const auto found = packs_.find(token);
    if (found == packs_.end()) continue;
    Pack& pack = found->second;
    pack.is_begun = true;
    PackJob job{.token = token, .hashes = pack.hashes, .shards = {}};
    for (std::size_t block = 0; block < pack.hashes->size(); ++block) {
      for (const catalog::PinRun& pins : pack.pins) {
        PackJob::Shard shard{.slot = pins.slot(block).index, .checksums = {}};
        for (std::uint16_t rank = 0; rank < context_.options.layout.ranks; ++rank) {
          shard.checksums.push_back(context_.host->checksum(shard.slot, RankId(rank)));
        }
        job.shards.push_back(std::move(shard));
      }
    }
    jobs.push_back(std::move(job));
  }
}

void Packs::put_back(std::uint64_t token) {
  const auto found = packs_.find(token);
  if (found == packs_.end()) return;
  if (is_stopped_) return erase(found);
  found->second.is_begun = false;
  queue_.push_front(token);
}

void Packs::finish(std::uint64_t token, const Status& status) {
  const auto found = packs_.find(token);
  if (found == packs_.end()) return;
  const std::size_t blocks = found->second.hashes->size();
  if (status.is_ok()) {
    std::uint64_t bytes = 0;
    for (std::uint16_t group = 0; group < context_.groups.count(); ++group) {
      bytes += context_.groups.bytes(GroupId(group)).value();
    }
    context_.counters.pack_blocks.add(blocks * context_.groups.count());
    context_.counters.pack_bytes.add(blocks * bytes);
  } else if (status.code() != Code::kInvalid) {  // kInvalid: it is there already, as wanted.
    context_.counters.drop_pack.add(blocks);
  }
  erase(found);
}

void Packs::erase(std::unordered_map<std::uint64_t, Pack>::iterator pack) {
  names_.erase(pack->second.hashes->back());
  packs_.erase(pack);
}

void Packs::stop() {
  is_stopped_ = true;
  for (const std::uint64_t token : std::exchange(queue_, {})) {
    const auto found = packs_.find(token);
    if (found == packs_.end()) continue;
    context_.counters.drop_pack.add(found->second.hashes->size());
    erase(found);
  }
}

void Packs::forget_stale() {
  for (auto it = packs_.begin(); it != packs_.end();) {
    const auto current = it++;
    if (!current->second.is_begun && current->second.name_space != context_.name_space) {
      erase(current);
    }
  }
}

}  // namespace terrace::manager
