// Test support: object tiers of several nodes over one place in memory, and blocks to put there.
// Threading: tests only.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <memory>
#include <string>
#include <vector>

#include "terrace/base/log.h"
#include "terrace/base/rng.h"
#include "terrace/testing/fake_clock.h"
#include "terrace/testing/memory_object_store.h"
#include "terrace/tier/object/object_tier.h"

namespace terrace::tier::object {

// A shard group of each block of a chain, for all groups and ranks, with memory of its own.
class ChainMemory {
 public:
  ChainMemory(const Layout& layout, std::uint64_t blocks, std::uint64_t seed) : layout_(layout) {
    Rng rng(seed);
    for (std::uint64_t block = 0; block < blocks; ++block) {
      for (const GroupLayout& group : layout.groups) {
        PackShards& shards = shards_.emplace_back();
        for (std::uint16_t rank = 0; rank < layout.ranks; ++rank) {
          const std::size_t payload = group.shard_bytes().value();
          const std::size_t padded = (payload + 4095) / 4096 * 4096;
          auto* memory = static_cast<std::byte*>(std::aligned_alloc(4096, padded));
          memory_.emplace_back(memory);
          for (std::size_t i = 0; i < padded; ++i) {
            memory[i] = seed == 0 ? std::byte{0} : static_cast<std::byte>(rng.next());
          }
          shards.ranks.push_back({memory, payload, padded});
          shards.checksums.push_back(checksum_of({memory, payload}));
        }
      }
    }
  }
  [[nodiscard]] PackShards& at(std::uint64_t block, std::size_t group) {
    return shards_[block * layout_.groups.size() + group];
  }
  [[nodiscard]] std::vector<PackShards> range(std::uint64_t first, std::uint64_t blocks) const {
    const std::size_t groups = layout_.groups.size();
    const auto begin = shards_.begin() + static_cast<std::ptrdiff_t>(first * groups);
    return {begin, begin + static_cast<std::ptrdiff_t>(blocks * groups)};
  }
  static bool same(const PackShards& one, const PackShards& other) {
    for (std::size_t rank = 0; rank < one.ranks.size(); ++rank) {
      const ShardMemory& shard = one.ranks[rank];
      if (!std::equal(shard.payload, shard.payload + shard.payload_bytes,
                      other.ranks[rank].payload)) {
        return false;
      }
    }
    return true;
  }

 private:
  struct Free {
    void operator()(std::byte* memory) const { std::free(memory); }
  };
  Layout layout_;
  std::vector<std::unique_ptr<std::byte, Free>> memory_;
  std::vector<PackShards> shards_;
};

inline std::vector<SequenceHash> chain_of(std::uint64_t number, std::uint64_t blocks) {
  Rng rng(number + 1);
  std::vector<SequenceHash> hashes(blocks);
  for (SequenceHash& hash : hashes) hash = {rng.next(), rng.next()};
  return hashes;
}

class ObjectTierRig : public ::testing::Test {
 protected:
  static constexpr std::uint32_t kPackBlocks = 4;

  ObjectTierRig() {
    options_.layout.block_tokens = Tokens(16);
    options_.layout.ranks = 2;
    options_.layout.groups = {{GroupId(0), {Bytes(4096), Bytes(4096)}},
                              {GroupId(1), {Bytes(5000)}}};
    options_.fingerprint.content = {{"model", "a"}};
    options_.fingerprint.layout = {{"block_tokens", "16"}};
    options_.pack_blocks = kPackBlocks;
    options_.queue.seed = 3;
    options_.queue.most_tries = 2;
    tier_ = open();
  }

  std::unique_ptr<ObjectTier> make(const ObjectTier::Options& options) {
    return make(options, clock_);
  }
  std::unique_ptr<ObjectTier> make(const ObjectTier::Options& options, const Clock& clock) {
    auto store = std::make_unique<testing::MemoryObjectStore>(place_, 8);
    auto tier = ObjectTier::create(options, std::move(store), clock, log_);
    EXPECT_TRUE(tier.has_value());
    return *std::move(tier);
  }
  // Of another node, or of this one after a restart.
  std::unique_ptr<ObjectTier> open() {
    auto tier = make(options_);
    (void)settle(*tier);
    return tier;
  }
  // Polls until nothing is under way.
  static std::vector<ObjectDone> settle(ObjectTier& tier) {
    std::vector<ObjectDone> done;
    for (int i = 0; i < 20; ++i) tier.poll(done);
    return done;
  }

  void pass(ObjectTier& tier, int seconds_to_pass) {
    for (int i = 0; i < 10 * seconds_to_pass; ++i) {
      clock_.advance(milliseconds(100));
      (void)settle(tier);
    }
  }

  std::uint64_t probe(ObjectTier& tier, std::span<const SequenceHash> chain) {
    EXPECT_EQ(tier.begin_probe(1, chain, kNoDeadline).text(), Status().text());
    const auto done = settle(tier);
    EXPECT_EQ(done.size(), 1U);
    if (done.empty()) return 0;
    EXPECT_EQ(done[0].kind, ObjectDone::Kind::kProbe);
    EXPECT_EQ(done[0].status.text(), Status().text());
    return done[0].blocks;
  }
  Status write(ObjectTier& tier, std::span<const SequenceHash> chain, const ChainMemory& memory,
               std::uint64_t pack) {
    const auto hashes = chain.subspan(pack * kPackBlocks, kPackBlocks);
    TERRACE_RETURN_IF_ERROR(
        tier.begin_write(7, hashes, memory.range(pack * kPackBlocks, kPackBlocks)));
    const auto done = settle(tier);
    EXPECT_EQ(done.size(), 1U);
    return done.empty() ? Status(Code::kInternal, "nothing came") : done[0].status;
  }
  Status read(ObjectTier& tier, const SequenceHash& hash, std::uint16_t group, PackShards& into) {
    TERRACE_RETURN_IF_ERROR(tier.begin_read(9, GroupId(group), hash, into.ranks,
                                            transfer::IoClass::kTtftRead, kNoDeadline));
    const auto done = settle(tier);
    EXPECT_EQ(done.size(), 1U);
    if (done.empty()) return {Code::kInternal, "nothing came"};
    into.checksums = done[0].checksums;
    return done[0].status;
  }
  // The one object below the namespace whose name ends so.
  std::vector<std::byte>& object(const std::string& end = ".pack") {
    for (auto& [name, bytes] : place_->objects) {
      if (name.ends_with(end)) return bytes;
    }
    ADD_FAILURE() << "no object " << end;
    static std::vector<std::byte> none;
    return none;
  }
  std::size_t packs() const {
    return static_cast<std::size_t>(std::ranges::count_if(
        place_->objects, [](const auto& item) { return item.first.ends_with(".pack"); }));
  }
  static std::uint64_t counter(const ObjectTier& tier, const std::string& name,
                               const std::string& labels = {}) {
    struct Reader final : MetricVisitor {
      std::string wanted;
      std::uint64_t found = 0;
      void counter(std::string_view given, std::string_view labels, std::uint64_t value) override {
        if (std::string(given) + std::string(labels) == wanted) found = value;
      }
      void gauge(std::string_view, std::string_view, double) override {}
    } reader;
    reader.wanted = name + labels;
    tier.visit_metrics(reader);
    return reader.found;
  }
  std::size_t asked(const std::string& op) const {
    return static_cast<std::size_t>(std::ranges::count_if(
        place_->asked, [&](const std::string& text) { return text.starts_with(op + " v1/"); }));
  }

  std::shared_ptr<testing::MemoryPlace> place_ = std::make_shared<testing::MemoryPlace>();
  testing::FakeClock clock_;
  NullLog log_;
  ObjectTier::Options options_;
  std::unique_ptr<ObjectTier> tier_;
};

}  // namespace terrace::tier::object
