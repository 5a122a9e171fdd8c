// An owner with its host tier here, ranks in processes of their own: what is saved there is found
// again, what is damaged is named, who dies leaves no half-filled block behind.
#include <gtest/gtest.h>

#include <algorithm>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "scenario/rank_process.h"
#include "terrace/attach/attach_server.h"
#include "terrace/testing/eventually.h"
#include "terrace/testing/keys.h"
#include "terrace/testing/scratch_directory.h"
#include "terrace/tier/host/host_tier.h"
#include "terrace/wire/orders.h"

namespace terrace::scenario {
namespace {

using testing::eventually;

class AttachScenario : public ::testing::Test {
 protected:
  void start_owner(std::uint16_t ranks, std::uint64_t owner = 1) {
    server_.reset();
    filling_.clear();
    tier_.reset();
    owner_ = owner;
    tier::HostTier::Options options;
    options.layout.block_tokens = Tokens(32);
    options.layout.ranks = ranks;
    options.layout.groups = {{GroupId(0), std::vector<Bytes>(6, Bytes(kPiece))}};
    options.blocks = 16;
    auto tier = tier::HostTier::create(options);
    ASSERT_TRUE(tier.has_value()) << tier.error().text();
    tier_ = std::move(*tier);
    attach::AttachServer::Options server;
    server.directory = directory();
    server.engine_id = "engine";
    server.owner = owner;
    server.layout = options.layout;
    server.geometry = tier_->geometry();
    for (const memory::Lane& lane : tier_->lanes()) server.lanes.push_back(&lane);
    auto started = attach::AttachServer::start(std::move(server), clock_, log_);
    ASSERT_TRUE(started.has_value()) << started.error().text();
    server_ = std::move(*started);
  }
  [[nodiscard]] std::string directory() const { return scratch_.path() + "/attach"; }
  std::unique_ptr<RankProcess> rank(unsigned number = 0, unsigned ranks = 1,
                                    std::size_t piece = kPiece) {
    return std::make_unique<RankProcess>(directory(), number, ranks, piece);
  }
  bool comes(attach::AttachChange change) {
    return eventually([&] {
      const auto events = server_->take_events();
      return std::any_of(events.begin(), events.end(),
                         [&](const attach::AttachEvent& event) { return event.change == change; });
    });
  }
  bool attaches(RankProcess& process) {
    return eventually([&] { return process.is_attached(); });
  }

  // Orders that save device block `block` as `number`, its slot being filled.
  wire::Orders save_orders(std::uint64_t number, std::uint32_t block) {
    auto reserved = tier_->pool().reserve(testing::key(number));
    EXPECT_TRUE(reserved.has_value());
    filling_.push_back(std::move(*reserved).begin_fill());
    wire::Orders orders;
    orders.owner = owner_;
    orders.step = StepId(++step_);
    orders.saves = {{filling_.back().slot(), GroupId(0), block}};
    return orders;
  }
  // What a manager does with the reports of one save: all ranks filled, then seal.
  std::optional<catalog::Pin> seal(const std::vector<StepResult>& results) {
    catalog::FillingSlot slot = std::move(filling_.back());
    filling_.pop_back();
    for (const StepResult& result : results) {
      if (result.report.saves.size() != 1 || !result.report.saves[0].is_filled) return {};
      tier_->set_checksum(slot.slot().index, result.report.rank, result.report.saves[0].checksum);
    }
    return std::move(slot).seal();
  }
  wire::Orders load_orders(SlotRef slot, std::uint32_t block) {
    wire::Orders orders;
    orders.owner = owner_;
    orders.step = StepId(++step_);
    wire::LoadOrder load{slot, GroupId(0), block, false, {}};
    for (std::uint16_t i = 0; i < tier_->geometry().lanes; ++i) {
      load.checksums.push_back(tier_->checksum(slot.index, RankId(i)));
    }
    orders.loads = {load};
    return orders;
  }

  testing::ScratchDirectory scratch_;
  SystemClock clock_;
  NullLog log_;
  std::unique_ptr<tier::HostTier> tier_;
  std::unique_ptr<attach::AttachServer> server_;
  std::vector<catalog::FillingSlot> filling_;
  std::uint64_t owner_ = 0;
  std::uint64_t step_ = 0;
};

TEST_F(AttachScenario, BlockOfTwoRanksComesBackAsEachSavedIt) {
  start_owner(2);
  const auto first = rank(0, 2);
  const auto second = rank(1, 2);
  ASSERT_TRUE(attaches(*first) && attaches(*second));
  first->fill(3, 100);
  second->fill(3, 200);
  const Checksum first_bytes = first->checksum(3);
  const Checksum second_bytes = second->checksum(3);
  const wire::Orders saves = save_orders(1, 3);
  const auto pin = seal({first->run(saves), second->run(saves)});
  ASSERT_TRUE(pin.has_value());
  EXPECT_NE(tier_->checksum(pin->slot().index, RankId(0)),
            tier_->checksum(pin->slot().index, RankId(1)));
  first->fill(3, 1);
  second->fill(3, 2);
  const wire::Orders loads = load_orders(pin->slot(), 7);
  EXPECT_TRUE(first->run(loads).failed.empty());
  EXPECT_TRUE(second->run(loads).failed.empty());
  EXPECT_EQ(first->checksum(7), first_bytes);
  EXPECT_EQ(second->checksum(7), second_bytes);
}

TEST_F(AttachScenario, CanaryPassesInARealProcess) {
  start_owner(1);
  const auto process = rank();
  ASSERT_TRUE(attaches(*process));
  process->fill(0, 5);
  const Checksum null_block = process->checksum(0);
  wire::Orders orders;
  orders.owner = owner_;
  orders.step = StepId(1);
  orders.canary_slot = 2;
  const StepResult result = process->run(orders);
  EXPECT_EQ(result.code, 0U);
  EXPECT_EQ(result.report.canary, wire::CanaryResult::kPassed);
  EXPECT_EQ(process->checksum(0), null_block);
}

TEST_F(AttachScenario, ByteDamagedInTheSharedSlotIsAFailedBlockOfThatRank) {
  start_owner(2);
  const auto first = rank(0, 2);
  const auto second = rank(1, 2);
  ASSERT_TRUE(attaches(*first) && attaches(*second));
  const wire::Orders saves = save_orders(1, 3);
  const auto pin = seal({first->run(saves), second->run(saves)});
  ASSERT_TRUE(pin.has_value());
  tier_->shard(pin->slot().index, RankId(1))[6 * kPiece - 1] ^= std::byte{0x40};
  const wire::Orders loads = load_orders(pin->slot(), 7);
  EXPECT_TRUE(first->run(loads).failed.empty());
  const StepResult damaged = second->run(loads);
  EXPECT_EQ(damaged.failed, std::vector<std::uint32_t>{7});
  ASSERT_EQ(damaged.report.failures.size(), 1U);
  EXPECT_EQ(damaged.report.failures[0].slot, pin->slot());
}

TEST_F(AttachScenario, WorkerKilledInACopyLeavesNothingFindableAndNoSlotLost) {
  start_owner(2);
  const auto survivor = rank(0, 2);
  auto victim = rank(1, 2);
  ASSERT_TRUE(attaches(*survivor) && attaches(*victim));
  ASSERT_TRUE(eventually([&] { return server_->all_attached(); }));
  const Epoch epoch = server_->epoch_of(RankId(1));
  const wire::Orders saves = save_orders(1, 3);
  EXPECT_EQ(victim->call('s', raw(std::uint32_t{1})).code, 0U);
  victim->send('o', encode(saves));
  ASSERT_EQ(victim->receive().code, kStopped);  // Bytes are in the slot, no report is out.
  const StepResult half = survivor->run(saves);
  EXPECT_TRUE(half.report.saves.at(0).is_filled);
  const SlotRef slot = filling_.back().slot();
  std::move(filling_.back()).quarantine();
  filling_.pop_back();
  EXPECT_EQ(tier_->pool().count(catalog::SlotState::kQuarantined), 1U);
  victim->kill();
  ASSERT_TRUE(comes(attach::AttachChange::kDied));
  EXPECT_EQ(server_->epoch_of(RankId(1)), Epoch(0));
  EXPECT_TRUE(tier_->pool().release_quarantined(slot));
  EXPECT_EQ(tier_->pool().count(catalog::SlotState::kFree), 16U);
  EXPECT_FALSE(tier_->pool().contains(testing::key(1)));

  victim = rank(1, 2);
  ASSERT_TRUE(attaches(*victim));
  const wire::Orders again = save_orders(1, 3);
  const std::vector<StepResult> results = {survivor->run(again), victim->run(again)};
  EXPECT_GT(results[1].report.epoch, epoch);
  EXPECT_TRUE(seal(results).has_value());
}

TEST_F(AttachScenario, WorkerMayStartBeforeTheOwner) {
  const auto process = rank();
  EXPECT_FALSE(process->is_attached());
  start_owner(1);
  EXPECT_TRUE(attaches(*process)) << process->problem();
}

TEST_F(AttachScenario, WorkerOfAnotherLayoutIsToldTheField) {
  start_owner(1);
  const auto process = rank(0, 1, kPiece + 64);
  ASSERT_TRUE(comes(attach::AttachChange::kRefused));
  EXPECT_TRUE(eventually([&] {
    return process->problem().find("layout.groups[0].piece_bytes[0]") != std::string::npos;
  }));
  EXPECT_FALSE(process->is_attached());
}

// As two engines given one engine id's rank, or a launcher that starts a rank twice.
TEST_F(AttachScenario, SecondProcessOfALivingRankIsRefusedAndTakesItsPlaceOnceItIsFree) {
  start_owner(2);
  auto first = rank(0, 2);
  const auto other = rank(1, 2);
  ASSERT_TRUE(attaches(*first) && attaches(*other));
  ASSERT_TRUE(eventually([&] { return server_->all_attached(); }));
  const Epoch epoch = server_->epoch_of(RankId(0));
  const auto second = rank(0, 2);
  ASSERT_TRUE(comes(attach::AttachChange::kRefused));
  EXPECT_TRUE(eventually([&] {
    return second->problem().find("0 is attached by process") != std::string::npos;
  })) << second->problem();
  EXPECT_FALSE(second->is_attached());
  EXPECT_EQ(server_->epoch_of(RankId(0)), epoch);
  const wire::Orders saves = save_orders(1, 3);
  EXPECT_FALSE(second->run(saves).report.saves.at(0).is_filled);  // It has no lane.
  EXPECT_TRUE(seal({first->run(saves), other->run(saves)}).has_value());
  first->kill();
  ASSERT_TRUE(attaches(*second)) << second->problem();
  EXPECT_TRUE(eventually([&] { return server_->epoch_of(RankId(0)) > epoch; }));
}

TEST_F(AttachScenario, WorkerOfAnotherLayoutDoesNotDisturbTheOneThatIsAttached) {
  start_owner(1);
  const auto process = rank();
  ASSERT_TRUE(attaches(*process));
  const auto other = rank(0, 1, kPiece + 64);
  ASSERT_TRUE(comes(attach::AttachChange::kRefused));
  EXPECT_TRUE(seal({process->run(save_orders(1, 3))}).has_value());
  EXPECT_TRUE(process->is_attached());
  EXPECT_FALSE(other->is_attached());
}

TEST_F(AttachScenario, ReplacedOwnerIsFoundAndTheOldOnesOrdersAreRefused) {
  start_owner(1, 1);
  const auto process = rank();
  ASSERT_TRUE(attaches(*process));
  auto pin = seal({process->run(save_orders(1, 3))});
  ASSERT_TRUE(pin.has_value());
  const wire::Orders old = load_orders(pin->slot(), 7);
  pin.reset();  // Its pool goes with the old owner.
  start_owner(1, 2);
  ASSERT_TRUE(comes(attach::AttachChange::kAttached));
  EXPECT_EQ(process->run(old).failed, std::vector<std::uint32_t>{7});
  const auto fresh = seal({process->run(save_orders(1, 3))});
  ASSERT_TRUE(fresh.has_value());
  EXPECT_TRUE(process->run(load_orders(fresh->slot(), 7)).failed.empty());
  EXPECT_EQ(process->checksum(7), process->checksum(3));
}

TEST_F(AttachScenario, CutOrNewerOrdersAreAnErrorAndTheWorkerGoesOn) {
  start_owner(1);
  const auto process = rank();
  ASSERT_TRUE(attaches(*process));
  const wire::Orders orders = save_orders(1, 3);
  const std::string bytes = encode(orders);
  EXPECT_EQ(process->call('o', bytes.substr(0, bytes.size() - 1)).code,
            static_cast<std::uint32_t>(Code::kInvalid));
  std::string newer = bytes;
  newer[4] = 2;
  EXPECT_EQ(process->call('o', newer).code, static_cast<std::uint32_t>(Code::kRefused));
  EXPECT_TRUE(process->run(orders).report.saves.at(0).is_filled);
}

}  // namespace
}  // namespace terrace::scenario
