#include "terrace/attach/attach_fixture.h"

namespace terrace::attach {
namespace {

class HostilePeerTest : public AttachTest {};

TEST_F(HostilePeerTest, SilentPeerIsDroppedAtTheDeadlineAndHoldsUpNobody) {
  AttachServer::Options options = server_options();
  options.handshake_limit = seconds(1);
  const auto owner = server(std::move(options));
  const UniqueFd silent(connected_socket(path()));
  const auto worker = client();
  ASSERT_TRUE(comes(*owner, AttachChange::kAttached));
  ASSERT_TRUE(comes(*owner, AttachChange::kRefused));
  EXPECT_TRUE(has_text(find(AttachChange::kRefused)->detail, "in time"));
  EXPECT_TRUE(owner->all_attached());
}

TEST_F(HostilePeerTest, ManySilentPeersCannotKeepAWorkerOut) {
  const auto owner = server();
  std::vector<UniqueFd> silent;
  for (int i = 0; i < 100; ++i) {
    ASSERT_TRUE(eventually([&] {
      const int fd = connected_socket(path());
      if (fd >= 0) silent.emplace_back(fd);
      return fd >= 0;
    }));
  }
  const auto worker = client();
  EXPECT_TRUE(eventually([&] { return worker->attachment() != nullptr; })) << worker->problem();
}

TEST_F(HostilePeerTest, GarbageIsRefusedAndTheServerLives) {
  const auto owner = server();
  const auto hello = wire::encode(wire::AttachHello{RankId(0), layout_of()});
  ASSERT_TRUE(hello.has_value());
  std::string newer = *hello;
  newer[4] = 2;
  const auto progress = wire::encode(wire::AttachProgress{});
  const std::vector<std::string> inputs = {"x",
                                           std::string(60'000, 'A'),
                                           hello->substr(0, hello->size() - 1),
                                           newer,
                                           *progress,
                                           *hello + "tail",
                                           std::string(70'000, 'B')};
  for (const std::string& input : inputs) {
    const UniqueFd peer(connected_socket(path()));
    ASSERT_EQ(::send(peer.get(), input.data(), input.size(), MSG_NOSIGNAL),
              static_cast<ssize_t>(input.size()));
    ASSERT_TRUE(eventually([&] { return has_hung_up(peer); }));
  }
  for (int i = 0; i < 200; ++i) {  // Each is an event; not all of them wait.
    const UniqueFd peer(connected_socket(path()));
    (void)::send(peer.get(), "x", 1, MSG_NOSIGNAL);
    ASSERT_TRUE(eventually([&] { return has_hung_up(peer); }));
  }
  EXPECT_LE(owner->take_events().size(), 64U);
  const auto worker = client();
  EXPECT_TRUE(eventually([&] { return worker->attachment() != nullptr; })) << worker->problem();
  EXPECT_EQ(owner->problem(), "");
}

// It is of the same user, and attached as it should: it may say once that its memory is there.
TEST_F(HostilePeerTest, AnAttachedPeerCannotFillTheBoard) {
  const auto owner = server();
  Channel channel{UniqueFd(connected_socket(path()))};
  ASSERT_TRUE(channel.send(wire::AttachHello{RankId(0), layout_of()}).is_ok());
  for (int message = 0; message < 2; ++message) {  // Welcome, files.
    ASSERT_TRUE(eventually([&] { return channel.receive(true).has_value(); }));
  }
  ASSERT_TRUE(channel.send(wire::AttachProgress{}).is_ok());
  ASSERT_TRUE(eventually([&] { return owner->epoch_of(RankId(0)) != Epoch(0); }));
  const wire::AttachProgress again{wire::AttachStage::kPopulated};
  for (int i = 0; i < 2'000 && channel.send(again).is_ok(); ++i) {
  }
  EXPECT_TRUE(eventually([&] { return owner->epoch_of(RankId(0)) == Epoch(0); }));
  std::size_t populated = 0;
  for (const AttachEvent& event : owner->take_events()) {
    populated += event.change == AttachChange::kPopulated ? 1 : 0;
  }
  EXPECT_EQ(populated, 1U);
}

// It has no rank, and it says nothing of ours: who it is, and why, as a warning; a few times.
TEST_F(HostilePeerTest, StrangersAreToldByProcessAndUserAndDoNotFloodTheLog) {
  constexpr std::size_t kStrangers = 50;
  auto owner = server();
  for (std::size_t i = 0; i < kStrangers; ++i) {
    const UniqueFd peer(connected_socket(path()));
    (void)::send(peer.get(), "x", 1, MSG_NOSIGNAL);
    ASSERT_TRUE(eventually([&] { return has_hung_up(peer); }));
  }
  // A worker whose layout differs is told all the same, with its rank: somebody must act.
  const auto worker = client(0, layout_of(3));
  ASSERT_TRUE(eventually([&] { return log_.count("error part=attach event=refused") > 0; }));
  owner.reset();
  const std::string who =
      "process=" + std::to_string(::getpid()) + " user=" + std::to_string(::geteuid());
  const std::size_t lines =
      log_.count("warn part=attach event=stranger_refused " + who + " reason=\"");
  EXPECT_GE(lines, 1U) << log_.text();
  EXPECT_LE(lines, kStrangers / 2);
  EXPECT_EQ(lines + log_.sum("stranger_refused left_out="), kStrangers);
  EXPECT_EQ(
      log_.count("error part=attach event=refused rank=0 " + who + " reason=\"rank 0: layout"), 1U)
      << log_.text();
}

TEST_F(HostilePeerTest, DescriptorsSentUninvitedAreNotTaken) {
  const auto owner = server();
  const auto open_here = [] {
    int count = 0;
    for (int fd = 0; fd < 1024; ++fd) count += ::fcntl(fd, F_GETFD) >= 0 ? 1 : 0;
    return count;
  };
  const UniqueFd peer(connected_socket(path()));
  const UniqueFd file(::open("/dev/null", O_RDONLY | O_CLOEXEC));
  const int before = open_here();
  Channel channel{UniqueFd(::dup(peer.get()))};
  std::vector<UniqueFd> files;
  files.emplace_back(::dup(file.get()));
  ASSERT_TRUE(channel.send(wire::AttachFiles{0, 1}, files).is_ok());
  ASSERT_TRUE(eventually([&] { return channel.has_hung_up(); }));
  files.clear();
  channel.close();
  EXPECT_LE(open_here(), before);
}

// ---- A worker facing an owner that is not what it says.

class FalseOwnerTest : public AttachTest {
 protected:
  FalseOwnerTest() {
    EXPECT_EQ(::mkdir(directory().c_str(), 0700), 0);
    listener_ = UniqueFd(listening_socket(path()));
  }
  Channel accepted() {
    return Channel(UniqueFd(::accept4(listener_.get(), nullptr, nullptr, SOCK_CLOEXEC)));
  }
  void expect_problem(const AttachClient& worker, const std::string& part) {
    EXPECT_TRUE(eventually([&] { return has_text(worker.problem(), part); })) << worker.problem();
    EXPECT_EQ(worker.attachment(), nullptr);
  }
  UniqueFd listener_;
};

TEST_F(FalseOwnerTest, OneThatNeverAnswersIsLeftAfterTheLimit) {
  client_limit_ = milliseconds(20);
  const auto worker = client();
  const Channel silent = accepted();
  expect_problem(*worker, "does not answer");
}

TEST_F(FalseOwnerTest, UnsealedOrMissingFilesAreNeverMapped) {
  make_lanes(1);
  const wire::AttachWelcome welcome{1, Epoch(1), geometry_.slot_bytes, geometry_.slots, 1, 1};
  const auto worker = client();
  {
    Channel channel = accepted();
    std::vector<UniqueFd> files;
    files.emplace_back(::memfd_create("unsealed", MFD_CLOEXEC | MFD_ALLOW_SEALING));
    ASSERT_EQ(::ftruncate(files[0].get(), static_cast<off_t>(geometry_.lane_bytes().value())), 0);
    ASSERT_TRUE(channel.send(welcome).is_ok());
    ASSERT_TRUE(channel.send(wire::AttachFiles{0, 1}, files).is_ok());
    expect_problem(*worker, "no sealed memfd");
  }
  {
    Channel channel = accepted();
    ASSERT_TRUE(channel.send(welcome).is_ok());
    ASSERT_TRUE(channel.send(wire::AttachFiles{0, 1}).is_ok());  // Promised, not sent.
    expect_problem(*worker, "disorder");
  }
}

TEST_F(FalseOwnerTest, GeometryThatDoesNotFitIsRefused) {
  const auto worker = client();
  const auto answer = [&](const wire::AttachWelcome& welcome, const std::string& problem) {
    Channel channel = accepted();
    ASSERT_TRUE(channel.send(welcome).is_ok());
    expect_problem(*worker, problem);
  };
  answer({1, Epoch(1), Bytes(4096), 12, 1, 1}, "too small");
  answer({1, Epoch(1), Bytes(UINT64_MAX), 12, 1, 1}, "slot_bytes");
  answer({1, Epoch(1), Bytes(30ULL * 8192), 12, 2, 1}, "does not fit its layout");
  answer({1, Epoch(1), Bytes(30ULL * 8192), 12, 1, UINT32_MAX}, "does not fit its layout");
}

}  // namespace
}  // namespace terrace::attach
