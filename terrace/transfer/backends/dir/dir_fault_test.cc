// What the file system refuses, loses or gets wrong, and what others put in the way.
#include <fmt/format.h>
#include <sys/socket.h>
#include <sys/sysmacros.h>
#include <sys/un.h>

#include <atomic>

#include "terrace/transfer/backends/dir/dir_rig.h"

namespace terrace::transfer::dir {
namespace {

namespace fs = std::filesystem;
using ::testing::AnyOf;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

class DirFaultTest : public DirTest {
 protected:
  DirFaultTest() { DirTest::open(); }
  [[nodiscard]] std::vector<std::string> calls_of_a_put() {
    script_.clear();
    EXPECT_TRUE(put("order/x", content(10)).status.is_ok());
    return script_.calls();
  }
};

struct CallFault {
  const char* call;
  const char* operation;  // As the message has it.
  int skip;
};

TEST_F(DirFaultTest, APutThatFailsAnywhereIsToldAndLeavesNothing) {
  const std::vector<CallFault> faults = {
      {"open_root", "open", 0},      {"open_below", "open", 0}, {"make_folder", "mkdir", 0},
      {"make_folder", "mkdir", 1},   {"create", "create", 0},   {"write_at", "pwritev", 0},
      {"sync_data", "fdatasync", 0}, {"link", "link", 0},
  };
  int number = 0;
  for (const CallFault& fault : faults) {
    SCOPED_TRACE(fmt::format("{} {}", fault.call, fault.skip));
    const std::string name = fmt::format("f{}/x", ++number);
    script_.fail(fault.call, {.error = EIO, .skip = fault.skip});
    const ObjectAnswer answer = put(name, content(100'000));
    script_.clear();
    EXPECT_EQ(answer.status.code(), Code::kIo);
    EXPECT_THAT(answer.status.message(), HasSubstr(fmt::format("{} {}", fault.operation, root())));
    EXPECT_THAT(answer.status.message(), HasSubstr("EIO (5"));
    EXPECT_EQ(head(name).status.code(), Code::kNotFound);
    EXPECT_THAT(leftovers(), IsEmpty());
    EXPECT_FALSE(put(name, content(100'000)).was_there);
    EXPECT_EQ(get_all(name), content(100'000));
  }
}

TEST_F(DirFaultTest, APutWhoseLastSyncFailsSaysSoAndIsWhole) {
  ASSERT_TRUE(put("a/x", content(10)).status.is_ok());
  for (int skip = 0; skip < 3; ++skip) {
    ASSERT_TRUE(remove("a/x").status.is_ok());
    script_.fail("sync_folder", {.error = EIO, .skip = skip});
    EXPECT_EQ(put("a/x", content(1000)).status.code(), Code::kIo) << skip;
    EXPECT_EQ(get_all("a/x"), content(1000));
    EXPECT_THAT(leftovers(), IsEmpty());
  }
}

// What no test can see on a medium that never loses power: the order in which it is asked to keep.
TEST_F(DirFaultTest, BytesAreSyncedBeforeTheNameAndTheNameBeforeTheAnswer) {
  std::vector<std::string> calls = calls_of_a_put();
  const auto is_look = [](const std::string& call) {  // The marker's, too.
    return call.starts_with("open") || call.starts_with("facts") || call == "read_at";
  };
  std::erase_if(calls, is_look);
  const std::vector<std::string> whole = {"make_folder", "make_folder", "create", "write_at",
                                          "sync_data",   "link",        "remove"};
  std::vector<std::string> lasting = whole;
  lasting.insert(lasting.end(), 3, "sync_folder");  // Its own, the one that lies in, the root.
  EXPECT_EQ(calls, lasting);
  // One that a crash may undo costs one sync: that of its bytes, before it has a name.
  script_.clear();
  Content bytes = content(10);
  ObjectRequest made = request(ObjectOp::kPut, "other/x");
  made.pieces = {{bytes.data(), bytes.size()}};
  made.is_lasting = false;
  EXPECT_TRUE(run(std::move(made)).status.is_ok());
  calls = script_.calls();
  std::erase_if(calls, is_look);
  EXPECT_EQ(calls, whole);
}

TEST_F(DirFaultTest, CodesSayWhatToDo) {
  const std::vector<std::pair<int, Code>> codes = {{ENOSPC, Code::kExhausted},
                                                   {EDQUOT, Code::kExhausted},
                                                   {EACCES, Code::kRefused},
                                                   {EROFS, Code::kRefused},
                                                   {ESTALE, Code::kUnavailable},
                                                   {ETIMEDOUT, Code::kUnavailable},
                                                   {EMFILE, Code::kUnavailable},
                                                   {EIO, Code::kIo},
                                                   {EBADF, Code::kIo},
                                                   {ENOENT, Code::kUnavailable},
                                                   {ENOTCONN, Code::kUnavailable}};
  for (const auto& [error, code] : codes) {
    script_.fail("create", {.error = error, .count = -1});
    EXPECT_EQ(put("a/x", content(10)).status.code(), code) << error;
    script_.fail("sync_data", {.error = error, .count = -1});
    script_.fail("create", {});
    const Code at_sync = error == ENOENT ? Code::kNotFound : code;
    EXPECT_EQ(put("a/x", content(10)).status.code(), at_sync) << error;
    script_.clear();
  }
}

TEST_F(DirFaultTest, ALargeReadIsStartedWholeAndSucceedsWhereThatCannotBe) {
  const Content bytes = content(1U << 20U);
  ASSERT_TRUE(put("a/x", bytes).status.is_ok());
  const auto starts = [&] {
    const std::vector<std::string> calls = script_.calls();
    return std::count(calls.begin(), calls.end(), "reads_exactly");
  };
  Content small(4096);
  ASSERT_TRUE(get("a/x", small, 100).status.is_ok());
  EXPECT_EQ(starts(), 0);
  Content large(300'000);
  ASSERT_TRUE(get("a/x", large, 100).status.is_ok());
  EXPECT_EQ(starts(), 1);
  script_.fail("reads_exactly", {.error = EINVAL});
  ASSERT_TRUE(get("a/x", large, 100).status.is_ok());
  EXPECT_TRUE(std::equal(large.begin(), large.end(), bytes.begin() + 100));
}

TEST_F(DirFaultTest, WhatIsLookedAtIsBegunAsAWholeWhereItIsNotInMemory) {
  struct Seen final : Arrivals {
    void on_bytes(std::uint64_t from, std::uint64_t to) override {
      if (from == 0) end = 0;
      is_in_order = is_in_order && from == end;
      end = to;
    }
    std::uint64_t end = 0;
    bool is_in_order = true;
  } seen;
  const Content bytes = content(1U << 20U);
  ASSERT_TRUE(put("a/x", bytes).status.is_ok());
  const auto look = [&] {
    Content target(900'000);
    ObjectRequest made = request(ObjectOp::kGet, "a/x");
    made.offset = 100;
    made.pieces = {{target.data(), target.size()}};
    made.arrivals = &seen;
    EXPECT_EQ(run(made).status.text(), Status().text());
    EXPECT_TRUE(std::equal(target.begin(), target.end(), bytes.begin() + 100));
    EXPECT_TRUE(seen.is_in_order);
    EXPECT_EQ(seen.end, target.size());
    const std::vector<std::string> calls = script_.calls();
    return std::count(calls.begin(), calls.end(), "begin_reading");
  };
  const auto before = look();
  script_.fail("read_cached", {.error = EAGAIN});
  EXPECT_EQ(look(), before + 1);
  script_.fail("read_cached", {.error = EOPNOTSUPP, .count = -1});
  script_.fail("begin_reading", {.error = EINVAL, .count = -1});
  EXPECT_EQ(look(), before + 2);
  script_.fail("read_at", {.error = EINTR, .count = 2});
  EXPECT_EQ(look(), before + 3);
  script_.fail("read_at", {.error = ESTALE});  // All of it once more.
  EXPECT_EQ(look(), before + 5);
}

TEST_F(DirFaultTest, AStaleHandleIsTriedOnceMore) {
  ASSERT_TRUE(put("a/x", content(10)).status.is_ok());
  Content target(10);
  script_.fail("read_at", {.error = ESTALE});
  EXPECT_TRUE(get("a/x", target).status.is_ok());
  script_.fail("read_at", {.error = ESTALE, .count = -1});
  EXPECT_EQ(get("a/x", target).status.code(), Code::kUnavailable);
}

TEST_F(DirFaultTest, InterruptedAndShortCallsGoOn) {
  script_.fail("write_at", {.error = EINTR, .count = 3});
  EXPECT_EQ(put("a/x", content(100)).status.text(), Status().text());
  script_.fail("read_at", {.error = EINTR, .count = 3});
  EXPECT_EQ(get_all("a/x"), content(100));
  script_.fail("read_at", {.error = EINTR, .count = -1});
  Content target(100);
  EXPECT_EQ(get("a/x", target).status.code(), Code::kUnavailable);
}

// As over NFS: the server did it, the reply got lost, and the second try fails.
TEST_F(DirFaultTest, LostRepliesDoNotMakeOurObjectAnothers) {
  script_.fail("link", {.error = EEXIST, .is_done = true});
  EXPECT_FALSE(put("a/x", content(100)).was_there);
  EXPECT_EQ(get_all("a/x"), content(100));
  script_.fail("link", {.error = EIO, .is_done = true});
  ObjectAnswer answer = put("a/y", content(100));
  EXPECT_EQ(answer.status.text(), Status().text());
  script_.fail("link", {.error = EOPNOTSUPP, .count = -1});
  script_.fail("rename_new", {.error = ENOENT, .is_done = true});
  answer = put("a/z", content(100));
  EXPECT_EQ(answer.status.text(), Status().text());
  EXPECT_FALSE(answer.was_there);
  EXPECT_EQ(get_all("a/z"), content(100));
  script_.fail("rename_new", {.error = EINVAL, .count = -1});
  script_.fail("rename_over", {.error = ENOENT, .is_done = true});
  answer = put("a/w", content(100));
  EXPECT_EQ(answer.status.text(), Status().text());
  EXPECT_EQ(get_all("a/w"), content(100));
  EXPECT_THAT(leftovers(), IsEmpty());
}

TEST_F(DirFaultTest, AClaimIsNoObjectAndIsTakenOverOnlyWhenItIsOld) {
  for (const bool has_links : {true, false}) {
    SCOPED_TRACE(has_links);
    if (!has_links) {
      script_.fail("link", {.error = EPERM, .count = -1});
      script_.fail("rename_new", {.error = EINVAL, .count = -1});
    }
    const std::string name = has_links ? "a/x" : "a/y";
    write_text(path_of(name), "");
    Content target(1);
    EXPECT_EQ(head(name).status.code(), Code::kNotFound);
    EXPECT_EQ(get(name, target).status.code(), Code::kNotFound);
    EXPECT_THAT(list(name), IsEmpty());
    EXPECT_EQ(put(name, content(100)).status.code(), Code::kUnavailable);
    make_old(path_of(name), 3700);
    const ObjectAnswer answer = put(name, content(100));
    EXPECT_EQ(answer.status.text(), Status().text());
    EXPECT_FALSE(answer.was_there);
    EXPECT_EQ(get_all(name), content(100));
    EXPECT_THAT(leftovers(), IsEmpty());
  }
}

TEST_F(DirFaultTest, AClaimWhoseRenameFailsIsGivenBack) {
  script_.fail("link", {.error = EPERM, .count = -1});
  script_.fail("rename_new", {.error = EINVAL, .count = -1});
  script_.fail("rename_over", {.error = EIO});
  EXPECT_EQ(put("a/x", content(100)).status.code(), Code::kIo);
  EXPECT_FALSE(fs::exists(path_of("a/x")));
  EXPECT_TRUE(put("a/x", content(100)).status.is_ok());
}

TEST_F(DirFaultTest, AFullFileSystemIsExhaustedAndHasRoomAfterwards) {
  testing::SmallDisk disk(4 << 20);
  ASSERT_TRUE(disk.is_mounted()) << "this test mounts a tmpfs: run it as root";
  options_.path = disk.path();
  DirTest::open();
  const ObjectAnswer answer = put("a/big", content(8U << 20U));
  EXPECT_EQ(answer.status.code(), Code::kExhausted);
  EXPECT_THAT(answer.status.message(), HasSubstr("ENOSPC"));
  EXPECT_THAT(leftovers(), IsEmpty());
  EXPECT_THAT(list(), IsEmpty());
  EXPECT_TRUE(put("a/small", content(3U << 20U)).status.is_ok());
  EXPECT_EQ(get_all("a/small"), content(3U << 20U));
}

TEST_F(DirFaultTest, WithoutInodesItIsExhaustedAtWhateverStepThatComes) {
  for (std::uint64_t inodes = 3; inodes < 6; ++inodes) {  // Root, marker and its leftover fit.
    SCOPED_TRACE(inodes);
    const testing::SmallDisk disk(4 << 20, inodes);
    ASSERT_TRUE(disk.is_mounted()) << "this test mounts a tmpfs: run it as root";
    options_.path = disk.path();
    DirTest::open();
    const ObjectAnswer answer = put("a/b/c/x", content(10));
    EXPECT_EQ(answer.status.code(), Code::kExhausted);
    EXPECT_THAT(answer.status.message(), HasSubstr("ENOSPC"));
    EXPECT_THAT(leftovers(), IsEmpty());
  }
}

TEST_F(DirFaultTest, LinksAreNotFollowed) {
  const std::string outside = scratch_.path() + "/outside";
  write_text(outside + "/secret", "do not touch");
  Content target(4);
  for (const std::string& aim : {outside + "/secret", outside + "/new", std::string("/dev/zero")}) {
    fs::create_directories(root() + "/" + place_of("a/x").folder);
    fs::create_symlink(aim, path_of("a/x"));
    EXPECT_EQ(get("a/x", target).status.code(), Code::kCorrupt);
    EXPECT_EQ(head("a/x").status.code(), Code::kCorrupt);
    EXPECT_EQ(put("a/x", content(10)).status.code(), Code::kCorrupt);
    EXPECT_THAT(list(), IsEmpty());
    EXPECT_TRUE(remove("a/x").status.is_ok());  // The link itself.
  }
  // Folders: of the name, and of the store's own.
  fs::create_directory_symlink(outside, root() + "/b");
  fs::create_directory(root() + "/c");
  fs::create_directory_symlink(outside, root() + "/" + place_of("c/x").folder);
  for (const char* name : {"b/x", "b/d/x", "c/x"}) {
    EXPECT_EQ(put(name, content(10)).status.code(), Code::kCorrupt) << name;
    EXPECT_EQ(get(name, target).status.code(), Code::kCorrupt) << name;
    EXPECT_EQ(remove(name).status.code(), Code::kCorrupt) << name;
  }
  EXPECT_THAT(list(), IsEmpty());
  EXPECT_EQ(read_text(outside + "/secret"), "do not touch");
  EXPECT_EQ(std::distance(fs::directory_iterator(outside), fs::directory_iterator()), 1);
}

TEST_F(DirFaultTest, WhatIsNoFileIsCorruptAndNobodyWaitsForIt) {
  Content target(4);
  fs::create_directories(root() + "/" + place_of("a/x").folder);
  const std::string path = path_of("a/x");
  const auto check = [&](const std::string& what) {
    SCOPED_TRACE(what);
    EXPECT_EQ(get("a/x", target).status.code(), Code::kCorrupt);
    EXPECT_EQ(head("a/x").status.code(), Code::kCorrupt);
    const ObjectAnswer answer = put("a/x", content(10));
    EXPECT_EQ(answer.status.code(), Code::kCorrupt);
    EXPECT_THAT(answer.status.message(), HasSubstr(path));
    EXPECT_THAT(list(), IsEmpty());
    EXPECT_THAT(leftovers(), IsEmpty());
    fs::remove(path);
  };
  ASSERT_EQ(::mkfifo(path.c_str(), 0600), 0);
  check("pipe");
  ASSERT_EQ(::mknod(path.c_str(), S_IFCHR | 0600, ::makedev(1, 5)), 0) << "run it as root";
  check("device");
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  ASSERT_LT(path.size(), sizeof address.sun_path);
  path.copy(address.sun_path, path.size());
  const UniqueFd socket(::socket(AF_UNIX, SOCK_STREAM, 0));
  ASSERT_EQ(::bind(socket.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address), 0);
  check("socket");
  fs::create_directory(path);
  EXPECT_THAT(remove("a/x").status.code(), AnyOf(Code::kCorrupt, Code::kRefused));
  check("folder");
  write_text(root() + "/file", "where a folder should be");
  EXPECT_EQ(put("file/x", content(10)).status.code(), Code::kCorrupt);
  EXPECT_EQ(get("file/x", target).status.code(), Code::kCorrupt);
}

// The look before a put may see nothing, and what stands there comes in between.
TEST_F(DirFaultTest, WhatComesInBetweenIsNotReplaced) {
  const std::string outside = scratch_.path() + "/outside";
  write_text(outside, "do not touch");
  script_.fail("link", {.then = [&] { fs::create_symlink(outside, path_of("a/x")); }});
  EXPECT_EQ(put("a/x", content(10)).status.code(), Code::kCorrupt);
  EXPECT_EQ(read_text(outside), "do not touch");
  script_.fail("link", {.then = [&] { write_text(path_of("a/y"), "first"); }});
  EXPECT_TRUE(put("a/y", content(10)).was_there);
  EXPECT_EQ(read_text(path_of("a/y")), "first");
  script_.fail("create", {.then = [&] { fs::remove_all(root() + "/a"); }});
  EXPECT_EQ(put("a/z", content(10)).status.text(), Status().text());  // Once more, from the start.
  EXPECT_EQ(get_all("a/z"), content(10));
  EXPECT_THAT(leftovers(), IsEmpty());
}

// Whoever removes its last object does that, at any moment.
TEST_F(DirFaultTest, APutSurvivesThatItsFolderIsRemoved) {
  const std::string folder = fs::path(path_of("a/x")).parent_path();
  const auto vanish = [&] { (void)::rmdir(folder.c_str()); };  // As long as it is empty.
  for (const char* call : {"create", "make_folder", "open_below"}) {
    for (int skip = 0; skip < 8; ++skip) {
      script_.fail(call, {.skip = skip, .count = 3, .then = vanish});
      EXPECT_EQ(put("a/x", content(10)).status.text(), Status().text()) << call << skip;
      script_.clear();
      EXPECT_EQ(get_all("a/x"), content(10));
      ASSERT_TRUE(remove("a/x").status.is_ok());
    }
  }
}

TEST_F(DirFaultTest, AFolderThatCannotBeRemovedIsLeftAlone) {
  ASSERT_TRUE(put("a/x", content(10)).status.is_ok());
  for (const int error : {EIO, EACCES, ESTALE}) {
    script_.fail("remove_folder", {.error = error, .count = -1});
    EXPECT_EQ(remove("a/x").status.text(), Status().text()) << error;
    EXPECT_FALSE(put("a/x", content(10)).was_there);
  }
}

TEST_F(DirFaultTest, AFileThatOthersCutIsCorrupt) {
  ASSERT_TRUE(put("a/x", content(10'000)).status.is_ok());
  Content target(10'000);
  fs::resize_file(path_of("a/x"), 9'999);
  const ObjectAnswer answer = get("a/x", target);
  EXPECT_EQ(answer.status.code(), Code::kCorrupt);
  EXPECT_THAT(answer.status.message(), HasSubstr("10000 bytes from 0 on, and it has 9999"));
  script_.fail("read_at", {.then = [&] { fs::resize_file(path_of("a/x"), 1); }});
  Content part(5'000);
  EXPECT_EQ(get("a/x", part, 1'000).status.code(), Code::kCorrupt);
}

TEST_F(DirFaultTest, ADeadlineThatPassesInTheMiddleEndsAPutAndLeavesNothing) {
  const SystemClock clock;
  script_.clear();
  for (const char* call : {"write_at", "sync_data"}) {
    const Nanoseconds deadline = clock.now() + milliseconds(500);
    script_.fail(call, {.then = [&] {
                   EXPECT_TRUE(testing::eventually([&] { return clock.now() > deadline; }));
                 }});
    // Two steps of writing.
    EXPECT_EQ(put("a/x", content(9U << 20U), deadline).status.code(), Code::kDeadline) << call;
    const std::vector<std::string> calls = script_.calls();
    const bool is_first = std::string(call) == "write_at";
    EXPECT_EQ(std::count(calls.begin(), calls.end(), "write_at"), is_first ? 1 : 2);
    EXPECT_EQ(head("a/x").status.code(), Code::kNotFound);
    EXPECT_THAT(leftovers(), IsEmpty());
    script_.clear();
  }
}

// All threads sit in a file server that does not answer.
TEST_F(DirFaultTest, RequestsBehindStuckOnesAreAnsweredAtTheirDeadline) {
  std::atomic<bool> is_free = false;
  script_.fail("open_root", {.count = -1, .then = [&] {
                               EXPECT_TRUE(testing::eventually([&] { return is_free.load(); }));
                             }});
  for (int i = 0; i < 3; ++i) {
    ObjectRequest one = request(ObjectOp::kHead, "stuck");
    ASSERT_TRUE(store_->submit(std::move(one)).is_ok());
  }
  ObjectRequest late = request(ObjectOp::kHead, "late");
  late.deadline = SystemClock().now() + milliseconds(300);
  ASSERT_TRUE(store_->submit(std::move(late)).is_ok());
  std::vector<ObjectAnswer> answers;
  EXPECT_TRUE(testing::eventually([&] {
    store_->wait(seconds(600));  // Ends at the deadline.
    store_->poll(answers);
    return !answers.empty();
  }));
  ASSERT_EQ(answers.size(), 1U);
  EXPECT_EQ(answers[0].token, token_);
  EXPECT_EQ(answers[0].status.code(), Code::kDeadline);
  EXPECT_EQ(store_->in_flight(), 3U);
  is_free = true;
  EXPECT_TRUE(testing::eventually([&] {
    store_->wait(milliseconds(20));
    store_->poll(answers);
    return answers.size() == 4;
  }));
}

TEST_F(DirFaultTest, AFileSystemWithoutDirectReadsAndWritesIsServed) {
  options_.is_direct = true;
  DirTest::open();
  struct Free {
    void operator()(std::byte* memory) const { std::free(memory); }
  };
  constexpr std::size_t kBytes = 16U << 20U;  // Two steps.
  const std::unique_ptr<std::byte, Free> memory(
      static_cast<std::byte*>(std::aligned_alloc(4096, kBytes)));
  const Content bytes = content(kBytes);
  for (const bool is_supported : {true, false}) {
    SCOPED_TRACE(is_supported);
    const std::string name = is_supported ? "a/x" : "a/y";
    std::copy(bytes.begin(), bytes.end(), memory.get());
    ObjectRequest whole = request(ObjectOp::kPut, name);
    whole.pieces = {{memory.get(), 4096}, {memory.get() + 4096, kBytes - 4096}};
    if (!is_supported) script_.fail("create", {.error = EINVAL});
    EXPECT_EQ(run(whole).status.text(), Status().text());
    script_.clear();
    EXPECT_EQ(get_all(name), bytes);  // Unaligned memory, most likely: through the cache.
    std::fill_n(memory.get(), kBytes, std::byte{0});
    whole.op = ObjectOp::kGet;
    EXPECT_EQ(run(whole).status.text(), Status().text());
    EXPECT_TRUE(std::equal(bytes.begin(), bytes.end(), memory.get()));
    EXPECT_THAT(leftovers(), IsEmpty());
  }
}

TEST_F(DirFaultTest, ClosingWaitsSoLongForACallThatHangsAndBeginsNothingMore) {
  options_.threads = 1;
  open();
  std::atomic<bool> is_hanging{false};
  std::atomic<bool> is_released{false};
  script_.fail("write_at", {.then = [&] {
                 is_hanging = true;
                 (void)testing::eventually([&] { return is_released.load(); });
               }});
  const Content bytes = content(100'000);
  std::vector<Content> contents{bytes, bytes};
  for (const std::size_t i : {0U, 1U}) {
    ObjectRequest made = request(ObjectOp::kPut, fmt::format("c/{}", i));
    made.pieces = {{contents[i].data(), bytes.size()}};
    ASSERT_TRUE(store_->submit(std::move(made)).is_ok());
  }
  ASSERT_TRUE(testing::eventually([&] { return is_hanging.load(); }));
  EXPECT_FALSE(store_->close(milliseconds(10)));
  is_released = true;
  EXPECT_TRUE(store_->close(testing::kPatience));
  contents.clear();
  open();
  EXPECT_EQ(get_all("c/0"), bytes);
  EXPECT_EQ(head("c/1").status.code(), Code::kNotFound);
}

}  // namespace
}  // namespace terrace::transfer::dir
