#include <atomic>
#include <new>

#include "terrace/attach/attach_fixture.h"
#include "terrace/base/sync_point.h"

namespace terrace::attach {
namespace {

TEST_F(AttachTest, WorkerGetsTheOwnersLane) {
  const auto owner = server();
  const auto worker = client();
  ASSERT_TRUE(eventually([&] { return worker->attachment() != nullptr; })) << worker->problem();
  const auto attachment = worker->attachment();
  EXPECT_EQ(attachment->owner, 4711U);
  EXPECT_EQ(attachment->geometry, geometry_);
  attachment->lane.slot(SlotIndex(7))[5] = std::byte{42};
  EXPECT_EQ(lanes_[0].slot(SlotIndex(7))[5], std::byte{42});
  EXPECT_EQ(worker->problem(), "");
  ASSERT_TRUE(eventually([&] { return owner->all_attached(); }));
  EXPECT_EQ(owner->epoch_of(RankId(0)), attachment->epoch);
  EXPECT_NE(attachment->epoch, Epoch(0));
}

// vLLM builds workers first.
TEST_F(AttachTest, WorkerMayComeBeforeTheOwnerAndItsDirectory) {
  const auto worker = client();
  EXPECT_EQ(worker->attachment(), nullptr);
  ASSERT_TRUE(eventually([&] { return has_text(worker->problem(), "no owner"); }));
  const auto owner = server();
  EXPECT_TRUE(eventually([&] { return worker->attachment() != nullptr; })) << worker->problem();
  EXPECT_EQ(log_.count("warn part=attach"), 0U) << "every start begins so\n" << log_.text();
}

TEST_F(AttachTest, ProblemNamesTheSettingAfterTheTimeoutAndTriesGoOn) {
  AttachClient::Options options;
  options.directory = directory();
  options.engine_id = "engine";
  options.layout = layout_of();
  options.timeout = Nanoseconds(0);
  const auto worker = AttachClient::start(options, clock_, log_);
  ASSERT_TRUE(worker.has_value());
  EXPECT_TRUE(eventually([&] { return has_text((*worker)->problem(), "attach.timeout"); }));
  EXPECT_TRUE(eventually([&] { return log_.count("warn part=attach problem=") > 0; }));
  const auto owner = server();
  EXPECT_TRUE(eventually([&] { return (*worker)->attachment() != nullptr; }));
}

TEST_F(AttachTest, EventsComeInOrderAndTheDescriptorSaysWhen) {
  const auto owner = server();
  EXPECT_FALSE(is_readable(owner->event_fd()));
  const auto worker = client();
  ASSERT_TRUE(eventually([&] { return is_readable(owner->event_fd()); }));
  ASSERT_TRUE(comes(*owner, AttachChange::kPopulated));
  ASSERT_EQ(events_.size(), 2U);
  EXPECT_EQ(events_[0].change, AttachChange::kAttached);
  EXPECT_EQ(events_[0].epoch, events_[1].epoch);
  EXPECT_EQ(events_[0].process, ::getpid());
  EXPECT_FALSE(is_readable(owner->event_fd()));
}

TEST_F(AttachTest, EachRankGetsItsOwnLane) {
  const auto owner = server(server_options(2));
  const auto rank_1 = client(1, layout_of(2));
  ASSERT_TRUE(eventually([&] { return rank_1->attachment() != nullptr; }));
  EXPECT_FALSE(owner->all_attached());
  const auto rank_0 = client(0, layout_of(2));
  ASSERT_TRUE(eventually([&] { return owner->all_attached(); }));
  ASSERT_TRUE(eventually([&] { return rank_0->attachment() != nullptr; }));
  rank_0->attachment()->lane.slot(SlotIndex(3))[0] = std::byte{1};
  rank_1->attachment()->lane.slot(SlotIndex(3))[0] = std::byte{2};
  EXPECT_EQ(lanes_[0].slot(SlotIndex(3))[0], std::byte{1});
  EXPECT_EQ(lanes_[1].slot(SlotIndex(3))[0], std::byte{2});
  EXPECT_NE(owner->epoch_of(RankId(0)), owner->epoch_of(RankId(1)));
}

TEST_F(AttachTest, OtherLayoutIsRefusedAndTheFieldNamed) {
  const auto owner = server(server_options(2));
  const auto problem_with = [&](const std::function<void(Layout&)>& change) {
    Layout layout = layout_of(2);
    change(layout);
    const auto worker = client(0, layout);
    EXPECT_TRUE(eventually([&] { return has_text(worker->problem(), "layout."); }));
    EXPECT_EQ(worker->attachment(), nullptr);
    return worker->problem();
  };
  EXPECT_TRUE(has_text(problem_with([](Layout& l) { l.block_tokens = Tokens(64); }),
                       "layout.block_tokens: the owner has 32, the worker 64"));
  EXPECT_TRUE(has_text(problem_with([](Layout& l) { l.ranks = 3; }), "layout.ranks"));
  EXPECT_TRUE(
      has_text(problem_with([](Layout& l) { l.groups.push_back({GroupId(1), {Bytes(1)}}); }),
               "layout.groups: the owner has 1, the worker 2"));
  EXPECT_TRUE(has_text(problem_with([](Layout& l) { l.groups[0].group = GroupId(5); }),
                       "layout.groups[0].group"));
  EXPECT_TRUE(has_text(problem_with([](Layout& l) { l.groups[0].piece_bytes.pop_back(); }),
                       "layout.groups[0].pieces: the owner has 30, the worker 29"));
  EXPECT_TRUE(has_text(problem_with([](Layout& l) { l.groups[0].piece_bytes[7] = Bytes(16); }),
                       "layout.groups[0].piece_bytes[7]: the owner has 8192, the worker 16"));
  ASSERT_TRUE(comes(*owner, AttachChange::kRefused));
  EXPECT_TRUE(has_text(find(AttachChange::kRefused)->detail, "layout.block_tokens"));
  EXPECT_FALSE(owner->all_attached());
}

TEST_F(AttachTest, RankOutsideTheLayoutIsInvalid) {
  AttachClient::Options options;
  options.directory = directory();
  options.engine_id = "engine";
  options.layout = layout_of(2);
  options.rank = RankId(2);
  const auto worker = AttachClient::start(options, clock_, log_);
  ASSERT_FALSE(worker.has_value());
  EXPECT_EQ(worker.error().code(), Code::kInvalid);
}

TEST_F(AttachTest, SecondWorkerOfALivingRankIsRefused) {
  const auto owner = server();
  const auto first = client();
  ASSERT_TRUE(eventually([&] { return owner->all_attached(); }));
  const Epoch epoch = owner->epoch_of(RankId(0));
  const auto second = client();
  ASSERT_TRUE(eventually([&] { return has_text(second->problem(), "is alive"); }));
  EXPECT_EQ(second->attachment(), nullptr);
  EXPECT_EQ(owner->epoch_of(RankId(0)), epoch);
}

TEST_F(AttachTest, EndedAttachmentIsReportedAndTheNextHasAHigherEpoch) {
  const auto owner = server();
  auto first = client();
  ASSERT_TRUE(comes(*owner, AttachChange::kPopulated));
  const Epoch epoch = find(AttachChange::kPopulated)->epoch;
  first.reset();
  ASSERT_TRUE(comes(*owner, AttachChange::kDied));
  EXPECT_EQ(find(AttachChange::kDied)->epoch, epoch);
  EXPECT_EQ(owner->epoch_of(RankId(0)), Epoch(0));
  const auto second = client();
  ASSERT_TRUE(eventually([&] { return owner->all_attached(); }));
  EXPECT_GT(owner->epoch_of(RankId(0)), epoch);
}

TEST_F(AttachTest, KilledProcessIsReportedThoughItsChildKeepsTheConnection) {
  const auto owner = server();
  pid_t grandchild = 0;
  {
    int ends[2] = {-1, -1};
    ASSERT_EQ(::pipe2(ends, O_CLOEXEC), 0);
    Child process([&](const auto& say_ready) {
      const int socket = connected_socket(path());
      Channel channel{UniqueFd(socket)};
      (void)channel.send(wire::AttachHello{RankId(0), layout_of()});
      while (!channel.receive(true).has_value()) (void)::poll(nullptr, 0, 1);  // Welcome.
      while (!channel.receive(true).has_value()) (void)::poll(nullptr, 0, 1);  // Files.
      (void)channel.send(wire::AttachProgress{});
      const pid_t inner = ::fork();  // Keeps a copy of the connection open.
      if (inner == 0) {
        for (;;) ::pause();
      }
      (void)!::write(ends[1], &inner, sizeof inner);
      say_ready();
      for (;;) ::pause();
    });
    ASSERT_EQ(::read(ends[0], &grandchild, sizeof grandchild),
              static_cast<ssize_t>(sizeof grandchild));
    ::close(ends[0]);
    ::close(ends[1]);
    ASSERT_TRUE(comes(*owner, AttachChange::kAttached));
    process.kill();
  }
  EXPECT_TRUE(comes(*owner, AttachChange::kDied));
  EXPECT_EQ(find(AttachChange::kDied)->detail, "process ended");
  ::kill(grandchild, SIGKILL);
}

TEST_F(AttachTest, WorkerAttachesAnewWhenTheOwnerIsReplaced) {
  auto owner = server();
  const auto worker = client();
  ASSERT_TRUE(eventually([&] { return worker->attachment() != nullptr; }));
  const auto old = worker->attachment();
  owner.reset();
  ASSERT_TRUE(eventually([&] { return worker->attachment() == nullptr; }));
  EXPECT_NE(worker->problem(), "");
  AttachServer::Options next = server_options();
  next.owner = 4712;
  owner = server(std::move(next));
  ASSERT_TRUE(eventually([&] { return worker->attachment() != nullptr; })) << worker->problem();
  EXPECT_EQ(worker->attachment()->owner, 4712U);
  old->lane.slot(SlotIndex(0))[0] = std::byte{1};  // Who still uses the old one can.
}

TEST_F(AttachTest, ForkedChildNeitherUnlinksNorHangs) {
  auto owner = server();
  auto worker = client();
  ASSERT_TRUE(eventually([&] { return worker->attachment() != nullptr; }));
  Child child([&](const auto& say_ready) {
    owner.reset();
    worker.reset();
    say_ready();
  });
  child.kill();
  EXPECT_NE(worker->attachment(), nullptr);
  worker.reset();
  ASSERT_TRUE(comes(*owner, AttachChange::kDied));
  const auto next = client();
  EXPECT_TRUE(eventually([&] { return next->attachment() != nullptr; })) << next->problem();
}

// As after a library forked without executing anything.
class ForkedCopyTest : public AttachTest {
 protected:
  static std::unique_ptr<Child> child() {
    return std::make_unique<Child>([](const auto& say_ready) { say_ready(); });
  }
};

TEST_F(ForkedCopyTest, KeepsNoRankFromAttachingAnewInItsProcess) {
  const auto owner = server();
  auto worker = client();
  ASSERT_TRUE(comes(*owner, AttachChange::kPopulated));
  const auto copies = child();
  worker.reset();
  ASSERT_TRUE(comes(*owner, AttachChange::kDied));
  const auto next = client();
  EXPECT_TRUE(eventually([&] { return next->attachment() != nullptr; })) << next->problem();
}

TEST_F(ForkedCopyTest, KeepsNoRankFromAnOwnerOpenedAnewInItsProcess) {
  auto owner = server();
  const auto worker = client();
  ASSERT_TRUE(eventually([&] { return owner->all_attached(); }));
  const auto copies = child();
  owner.reset();
  ASSERT_TRUE(eventually([&] { return worker->attachment() == nullptr; }));
  AttachServer::Options options = server_options();
  options.owner = 4712;
  owner = server(std::move(options));
  ASSERT_TRUE(eventually([&] { return worker->attachment() != nullptr; })) << worker->problem();
  EXPECT_EQ(worker->attachment()->owner, 4712U);
}

TEST_F(ForkedCopyTest, SaysNothingWhenTheChildClosesIt) {
  int ends[2] = {-1, -1};
  ASSERT_EQ(::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends), 0);
  Channel channel{UniqueFd(ends[0])};
  const UniqueFd peer(ends[1]);
  const Child child([&](const auto& say_ready) {
    channel.close();
    say_ready();
  });
  EXPECT_FALSE(has_hung_up(peer));
  channel.close();
  EXPECT_TRUE(has_hung_up(peer));
}

class DeadServerTest : public AttachTest {
 public:
  ~DeadServerTest() override { base::set_sync_point("attach.server.turn", {}); }

 protected:
  void kill_thread() {
    base::set_sync_point("attach.server.turn", [] { throw std::bad_alloc(); });
    const UniqueFd stranger(connected_socket(path()));  // Wakes it.
  }
};

TEST_F(DeadServerTest, EveryAttachmentIsToldAsDiedAndTheProblemSaysWhy) {
  const auto owner = server(server_options(2));
  const auto rank_0 = client(0, layout_of(2));
  const auto rank_1 = client(1, layout_of(2));
  ASSERT_TRUE(eventually([&] { return owner->all_attached(); }));
  const std::vector<Epoch> epochs = {owner->epoch_of(RankId(0)), owner->epoch_of(RankId(1))};
  EXPECT_EQ(owner->problem(), "");
  kill_thread();
  ASSERT_TRUE(comes(*owner, AttachChange::kDied));
  std::vector<Epoch> died(2);
  for (const AttachEvent& event : events_) {
    if (event.change == AttachChange::kDied) died.at(event.rank.value()) = event.epoch;
  }
  EXPECT_EQ(died, epochs);
  EXPECT_EQ(owner->epoch_of(RankId(0)), Epoch(0));
  EXPECT_TRUE(has_text(owner->problem(), "bad_alloc")) << owner->problem();
}

TEST_F(DeadServerTest, WithoutRanksThereIsAProblemAllTheSame) {
  const auto owner = server();
  kill_thread();
  EXPECT_TRUE(eventually([&] { return has_text(owner->problem(), "bad_alloc"); }));
  EXPECT_TRUE(is_readable(owner->event_fd()));
}

class RefusedMemoryTest : public AttachTest {
 protected:
  // A worker to whom the system refuses the memory of `refused` and all later extents.
  std::unique_ptr<AttachClient> poor_client(std::uint32_t refused) {
    AttachClient::Options options;
    options.directory = directory();
    options.engine_id = "engine";
    options.layout = layout_of();
    options.populate = [this, refused](const memory::Lane& lane, std::uint32_t extent) {
      if (extent < refused) return lane.populate(extent);
      at_refusal();
      return Status(Code::kExhausted, "host.size: injected");
    };
    auto started = AttachClient::start(std::move(options), clock_, log_);
    EXPECT_TRUE(started.has_value());
    return std::move(started).value();
  }
  std::function<void()> at_refusal = [] {};
};

TEST_F(RefusedMemoryTest, BeforeAttachingItIsARefusalThatNamesTheSetting) {
  const auto owner = server();
  const auto worker = poor_client(0);
  ASSERT_TRUE(comes(*owner, AttachChange::kRefused));
  EXPECT_TRUE(has_text(find(AttachChange::kRefused)->detail, "host.size"));
  EXPECT_TRUE(eventually([&] { return has_text(worker->problem(), "host.size"); }));
  EXPECT_EQ(worker->attachment(), nullptr);
}

TEST_F(RefusedMemoryTest, LaterItEndsTheAttachmentOnlyAfterTheLastCopy) {
  make_lanes(1, 9 * 136);  // Nine extents: one is not populated before attaching.
  const auto owner = server();
  std::atomic<bool> may_refuse = false;
  at_refusal = [&] { EXPECT_TRUE(eventually([&] { return may_refuse.load(); })); };
  const auto worker = poor_client(8);
  ASSERT_TRUE(comes(*owner, AttachChange::kAttached));
  auto in_use = worker->attachment();
  ASSERT_NE(in_use, nullptr);
  may_refuse = true;
  ASSERT_TRUE(eventually([&] { return worker->attachment() == nullptr; }));
  // The client waits for this thread now; the owner keeps the slots.
  EXPECT_TRUE(owner->all_attached());
  in_use->lane.slot(SlotIndex(0))[0] = std::byte{1};
  in_use.reset();
  EXPECT_TRUE(comes(*owner, AttachChange::kDied));
}

}  // namespace
}  // namespace terrace::attach
