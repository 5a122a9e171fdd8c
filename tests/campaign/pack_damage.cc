#include <fmt/format.h>

#include <algorithm>

#include "campaign/object_storm.h"
#include "campaign/rest_damage.h"
#include "terrace/wire/frame.h"
#include "terrace/wire/pack.h"

namespace terrace::campaign {

namespace {
using tier::object::ChainMemory;
constexpr std::uint32_t kPackBlocks = 4;
constexpr std::uint64_t kChains = 4;

class DamagedPacks {
 public:
  DamagedPacks(std::uint64_t seed, Figures& figures)
      : rng_(seed), figures_(figures), pack_(layout(), kPackBlocks) {
    options_.layout = layout();
    options_.fingerprint.content = {{"model", "a"}};
    options_.fingerprint.layout = {{"block_tokens", "16"}};
    options_.pack_blocks = kPackBlocks;
    options_.queue.seed = 1;
    for (std::uint64_t chain = 0; chain < kChains; ++chain) {
      hashes_.push_back(tier::object::chain_of(chain, kPackBlocks));
      memory_.push_back(std::make_unique<ChainMemory>(options_.layout, kPackBlocks, chain + 1));
    }
  }
  void run(int rounds) {
    open();
    for (std::uint64_t chain = 0; chain < kChains; ++chain) {
      (void)tier_->begin_write(chain + 1, hashes_[chain], memory_[chain]->range(0, kPackBlocks));
      (void)polled();
    }
    clean_ = place_->objects;
    std::erase_if(clean_, [](const auto& item) { return !item.first.ends_with(".pack"); });
    if (clean_.size() != kChains) figures_.find(figures_.hangs, "packs cannot be written");
    for (int i = 0; i < rounds && figures_.findings.empty(); ++i) {
      for (const auto& [name, bytes] : clean_) damage(place_->objects[name]);
      open();  // What was known to be damaged is forgotten with it.
      for (std::uint64_t chain = 0; chain < kChains; ++chain) look(chain);
      for (const auto& [name, bytes] : clean_) place_->objects[name] = bytes;
    }
  }

 private:
  static Layout layout() {
    Layout layout;
    layout.block_tokens = Tokens(16);
    layout.ranks = 1;
    layout.groups = {{GroupId(0), {Bytes(4096)}}};
    return layout;
  }
  void open() {
    auto store = std::make_unique<testing::MemoryObjectStore>(place_, 8);
    tier_ = tier::ObjectTier::create(options_, std::move(store), clock_, log_).value();
    (void)polled();
    place_->asked.clear();
  }
  std::vector<tier::ObjectDone> polled() {
    std::vector<tier::ObjectDone> done;
    for (int i = 0; i < 8; ++i) tier_->poll(done);
    return done;
  }
  void flip(std::vector<std::byte>& bytes, std::uint64_t start, std::uint64_t length,
            const char* kind) {
    bytes[start + rng_.below(length)] ^= static_cast<std::byte>(1U << rng_.below(8));
    figures_.inject("memory", kind);
  }
  void damage(std::vector<std::byte>& bytes) {
    const std::uint64_t frame = pack_.frame_bytes(GroupId(0));
    const std::uint64_t start = rng_.below(kPackBlocks) * frame;
    const std::uint64_t other = rng_.below(kPackBlocks) * frame;
    const auto at = [&](std::uint64_t offset) {
      return bytes.begin() + static_cast<std::ptrdiff_t>(offset);
    };
    switch (rng_.below(8)) {
      case 0:
        return flip(bytes, start, 128, "rest.frame_fields");
      case 1:
        return flip(bytes, start, wire::kFrameHeaderBytes, "rest.frame_page");
      case 2:
      case 3:
        return flip(bytes, start + wire::kFrameHeaderBytes, 4096, "rest.payload");
      case 4:
        return flip(bytes, pack_.footer_offset(), pack_.footer_bytes(), "rest.footer");
      case 5:
        std::swap_ranges(at(start), at(start + frame), at(other));
        figures_.inject("memory", "rest.swapped_blocks", start == other ? 0 : 1);
        return;
      case 6:
        bytes.resize(rng_.below(bytes.size()));
        figures_.inject("memory", "rest.truncated");
        return;
      default:  // The whole object of another name.
        bytes = std::next(clean_.begin(), static_cast<std::ptrdiff_t>(rng_.below(kChains)))->second;
        figures_.inject("memory", "rest.replaced_object");
        return;
    }
  }
  void look(std::uint64_t chain) {
    (void)tier_->begin_probe(1, hashes_[chain], kNoDeadline);
    (void)polled();
    for (std::uint64_t block = 0; block < kPackBlocks; ++block) {
      ChainMemory memory(options_.layout, 1, 0);
      ++figures_.operations;
      if (!tier_
               ->begin_read(2, GroupId(0), hashes_[chain][block], memory.at(0, 0).ranks,
                            transfer::IoClass::kTtftRead, kNoDeadline)
               .is_ok()) {
        continue;
      }
      const auto done = polled();
      if (done.size() != 1) return figures_.find(figures_.hangs, "a read of a pack does not end");
      const tier::PackShards& wanted = memory_[chain]->at(block, 0);
      if (done[0].status.is_ok() &&
          (!ChainMemory::same(memory.at(0, 0), wanted) || done[0].checksums != wanted.checksums)) {
        figures_.find(figures_.wrong_bytes,
                      fmt::format("damaged pack: wrong bytes of block {}", block));
      }
    }
  }

  Rng rng_;
  Figures& figures_;
  testing::FakeClock clock_;
  NullLog log_;
  wire::PackGeometry pack_;
  tier::ObjectTier::Options options_;
  std::shared_ptr<testing::MemoryPlace> place_ = std::make_shared<testing::MemoryPlace>();
  std::map<std::string, std::vector<std::byte>> clean_;
  std::vector<std::vector<SequenceHash>> hashes_;
  std::vector<std::unique_ptr<ChainMemory>> memory_;
  std::unique_ptr<tier::ObjectTier> tier_;
};
}  // namespace

void damage_packs(std::uint64_t seed, int rounds, Figures& figures) {
  DamagedPacks(seed, figures).run(rounds);
}

}  // namespace terrace::campaign
