// The tier over a store that fails in every way that its model knows: each request is answered,
// once and in time, and what is said to be right is right.
#include <gmock/gmock.h>

#include <map>

#include "terrace/tier/object/object_tier.h"
#include "terrace/tier/object/object_tier_rig.h"
#include "terrace/transfer/backends/fault/fault_store.h"

namespace terrace::tier::object {
namespace {

constexpr std::uint64_t kChains = 6;
constexpr std::uint64_t kBlocks = 12;
constexpr Nanoseconds kStep = milliseconds(10);
// The store's model answers up to eight polls late.
constexpr Nanoseconds kLate = milliseconds(100);

class ObjectFaultTest : public ObjectTierRig {
 protected:
  struct Wanted {
    Nanoseconds deadline{0};
    PackShards into;  // Read.
    const PackShards* right = nullptr;
  };

  void start(std::uint64_t seed) {
    rng_ = Rng(seed);
    place_->objects.clear();
    chains_.clear();
    contents_.clear();
    for (std::uint64_t chain = 0; chain < kChains; ++chain) {
      chains_.push_back(chain_of(100 * seed + chain, kBlocks));
      contents_.push_back(std::make_unique<ChainMemory>(options_.layout, kBlocks, seed + chain));
    }
    into_ = std::make_unique<ChainMemory>(options_.layout, kBlocks, 0);
    ObjectTier::Options options = options_;
    options.queue.most_tries = 4;
    options.write_time = seconds(2);
    options.collect.requests_per_second = 1'000;
    options.collect.bounds.blocks = kChains * kBlocks / 2;
    options.collect.every = seconds(1);
    auto store = std::make_unique<transfer::FaultStore>(
        std::make_unique<testing::MemoryObjectStore>(place_, 8), seed);
    fault_ = store.get();
    auto made = ObjectTier::create(options, std::move(store), clock_, log_);
    ASSERT_TRUE(made.has_value());
    faulty_ = *std::move(made);
  }
  void act() {
    const std::uint64_t chain = rng_.below(kChains);
    const std::uint64_t token = ++last_token_;
    Wanted wanted{.deadline = clock_.now() + milliseconds(200 + static_cast<int>(rng_.below(800))),
                  .into = {},
                  .right = nullptr};
    Status status;
    switch (rng_.below(3)) {
      case 0:
        status = faulty_->begin_probe(token, chains_[chain], wanted.deadline);
        break;
      case 1: {
        if (is_reading_) return;  // One buffer of each block is enough.
        const std::uint64_t block = rng_.below(kBlocks);
        const auto group = static_cast<std::uint16_t>(rng_.below(2));
        wanted.into = into_->at(block, group);
        wanted.right = &contents_[chain]->at(block, group);
        status =
            faulty_->begin_read(token, GroupId(group), chains_[chain][block], wanted.into.ranks,
                                transfer::IoClass::kTtftRead, wanted.deadline);
        is_reading_ = status.is_ok();
        break;
      }
      default: {
        const std::uint64_t pack = rng_.below(kBlocks / kPackBlocks);
        wanted.deadline = clock_.now() + seconds(2);
        status = faulty_->begin_write(
            token, std::span(chains_[chain]).subspan(pack * kPackBlocks, kPackBlocks),
            contents_[chain]->range(pack * kPackBlocks, kPackBlocks));
      }
    }
    if (status.is_ok()) wanted_.emplace(token, std::move(wanted));
  }
  void turn() {
    clock_.advance(kStep);
    std::vector<ObjectDone> done;
    faulty_->poll(done);
    for (const ObjectDone& one : done) {
      const auto node = wanted_.extract(one.token);
      ASSERT_FALSE(node.empty()) << "answered twice, or never asked";
      EXPECT_LE(clock_.now(), node.mapped().deadline + kLate);
      if (one.kind != ObjectDone::Kind::kRead) continue;
      is_reading_ = false;
      if (!one.status.is_ok()) continue;
      ++right_reads_;
      ASSERT_TRUE(ChainMemory::same(node.mapped().into, *node.mapped().right));
      EXPECT_EQ(one.checksums, node.mapped().right->checksums);
    }
  }

  Rng rng_{1};
  std::vector<std::vector<SequenceHash>> chains_;
  std::vector<std::unique_ptr<ChainMemory>> contents_;
  std::unique_ptr<ChainMemory> into_;
  transfer::FaultStore* fault_ = nullptr;
  std::unique_ptr<ObjectTier> faulty_;
  std::map<std::uint64_t, Wanted> wanted_;
  std::uint64_t last_token_ = 0;
  std::uint64_t right_reads_ = 0;
  bool is_reading_ = false;
};

TEST_F(ObjectFaultTest, EachRequestIsAnsweredOnceInTimeAndRightOrNot) {
  std::uint64_t injected = 0;
  for (std::uint64_t seed = 1; seed <= 12; ++seed) {
    SCOPED_TRACE(seed);
    start(seed);
    fault_->set_rates({.error = 3,
                       .busy = 10,
                       .full = 3,
                       .flipped = 8,
                       .short_object = 4,
                       .misplaced = 4,
                       .landed_and_failed = 4,
                       .falsely_there = 4,
                       .delayed = 20});
    for (int i = 0; i < 1'500; ++i) {
      if (rng_.chance(60)) act();
      turn();
      if (HasFatalFailure()) return;
    }
    // It recovers: nothing hangs, and what is put from now on is found.
    fault_->set_rates({});
    for (int i = 0; i < 1'000; ++i) turn();
    EXPECT_TRUE(wanted_.empty());
    injected += fault_->injected();
  }
  EXPECT_GT(injected, 1'000U);
  EXPECT_GT(right_reads_, 100U);
}

TEST_F(ObjectFaultTest, ABusyStoreIsTriedAgainAndServesWithinTheDeadline) {
  start(1);
  for (int i = 0; i < 20; ++i) turn();
  const auto hashes = std::span(chains_[0]).first(kPackBlocks);
  ASSERT_TRUE(faulty_->begin_write(1, hashes, contents_[0]->range(0, kPackBlocks)).is_ok());
  std::vector<ObjectDone> done;
  for (int i = 0; i < 50; ++i) faulty_->poll(done);
  ASSERT_EQ(done.size(), 1U);
  ASSERT_EQ(done[0].status.text(), Status().text());
  // kPatience is asked for, twice.
  fault_->aim(transfer::ObjectFault::kBusy, transfer::ObjectOp::kGet, 2);
  for (const bool is_patient : {true, false}) {
    SCOPED_TRACE(is_patient);
    if (!is_patient) fault_->aim(transfer::ObjectFault::kBusy, transfer::ObjectOp::kGet, 2);
    done.clear();
    const Nanoseconds begun = clock_.now();
    const Nanoseconds limit = is_patient ? seconds(2) : milliseconds(400);
    PackShards& into = into_->at(0, 0);
    ASSERT_TRUE(faulty_
                    ->begin_read(2, GroupId(0), chains_[0][0], into.ranks,
                                 transfer::IoClass::kTtftRead, begun + limit)
                    .is_ok());
    while (done.empty() && clock_.now() < begun + seconds(5)) {
      clock_.advance(kStep);
      faulty_->poll(done);
    }
    ASSERT_EQ(done.size(), 1U);
    EXPECT_EQ(done[0].status.is_ok(), is_patient) << done[0].status.text();
    EXPECT_LE(clock_.now() - begun, limit + kStep);
    if (is_patient) {
      EXPECT_GE(clock_.now() - begun, transfer::FaultStore::kPatience * 2);
    }
  }
}

// The store misplaces a read onto the pack of before the reset: the same blocks, of other weights.
class ObjectEraTest : public ObjectTierRig {};

TEST_F(ObjectEraTest, APackOfBeforeAResetIsCorruptUnderTheNameOfAfterIt) {
  const std::vector<SequenceHash> chain = chain_of(1, kPackBlocks);
  const ChainMemory first(options_.layout, kPackBlocks, 5);
  ASSERT_EQ(write(*tier_, chain, first, 0).text(), Status().text());
  const std::vector<std::byte> before = object();
  tier_->forget_all();
  (void)settle(*tier_);
  std::erase_if(place_->objects, [](const auto& item) { return item.first.ends_with(".pack"); });
  const auto later = open();
  const ChainMemory others(options_.layout, kPackBlocks, 99);
  ASSERT_EQ(write(*later, chain, others, 0).text(), Status().text());
  ChainMemory into(options_.layout, kPackBlocks, 0);
  const auto reader = open();
  ASSERT_EQ(probe(*reader, chain), 4U);
  ASSERT_EQ(read(*reader, chain[1], 0, into.at(1, 0)).text(), Status().text());
  ASSERT_EQ(object().size(), before.size());
  object() = before;
  EXPECT_EQ(read(*reader, chain[2], 1, into.at(2, 1)).code(), Code::kCorrupt);
  EXPECT_FALSE(read(*reader, chain[1], 0, into.at(1, 0)).is_ok());
}

}  // namespace
}  // namespace terrace::tier::object
