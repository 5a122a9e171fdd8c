// Writers that die at any moment, and writers that race: nobody ever sees half an object.
#include <fmt/format.h>
#include <signal.h>
#include <sys/wait.h>

#include "terrace/base/sync_point.h"
#include "terrace/transfer/backends/dir/dir_rig.h"

namespace terrace::transfer::dir {
namespace {

namespace fs = std::filesystem;
using ::testing::IsEmpty;
using ::testing::Not;
using ::testing::SizeIs;

class NoLinksNoRenameNew final : public FileCalls {
 public:
  int link(int, const char*, const char*) override { return errno = EPERM, -1; }
  int rename_new(int, const char*, const char*) override { return errno = EINVAL, -1; }
};

class DirCrashTest : public DirTest {
 protected:
  static constexpr std::size_t kBytes = 300'000;
  // `body` in a child with a store of its own. In the child nothing of gtest is used.
  template <typename Body>
  pid_t in_child(bool has_links, const Body& body) {
    const pid_t child = ::fork();
    if (child != 0) return child;
    std::unique_ptr<FileCalls> calls = std::make_unique<FileCalls>();
    if (!has_links) calls = std::make_unique<NoLinksNoRenameNew>();
    auto made = make_store(options_, std::move(calls));
    if (!made) ::_exit(99);
    take_over(*std::move(made));
    ::_exit(body());
  }
  static int ending_of(pid_t child) {
    int status = 0;
    EXPECT_EQ(::waitpid(child, &status, 0), child);
    return status;
  }
  // Every object that can be found is whole, and one of the two that its name may have.
  void check_all_whole(const std::string& start) {
    for (const std::string& name : list(start)) {
      const Content seen = get_all(name);
      const bool is_whole = seen == content(kBytes, 1) || seen == content(kBytes, 2);
      EXPECT_TRUE(is_whole) << name << " has " << seen.size() << " bytes";
    }
  }
};

TEST_F(DirCrashTest, AWriterKilledAtAnyStepLeavesAllOrNothing) {
  struct Step {
    const char* point;
    bool has_links;
    bool is_there;
  };
  const std::vector<Step> steps = {{"dir.written", true, false},
                                   {"dir.published", true, true},
                                   {"dir.written", false, false},
                                   {"dir.claimed", false, false},
                                   {"dir.published", false, true}};
  open();
  int number = 0;
  for (const Step& step : steps) {
    SCOPED_TRACE(std::string(step.point) + (step.has_links ? " with links" : " without"));
    const std::string name = fmt::format("a/x{}", ++number);
    const pid_t child = in_child(step.has_links, [&] {
      base::set_sync_point(step.point, [] { (void)::raise(SIGKILL); });
      (void)put(name, content(kBytes));
      return 0;
    });
    const int ending = ending_of(child);
    ASSERT_TRUE(WIFSIGNALED(ending) && WTERMSIG(ending) == SIGKILL) << ending;
    EXPECT_EQ(get_all(name), step.is_there ? content(kBytes) : Content());
    EXPECT_THAT(list(name), SizeIs(step.is_there ? 1 : 0));
    // Young: perhaps somebody is still at it. Old: nobody is.
    const std::vector<std::string> left = leftovers();
    EXPECT_THAT(left, SizeIs(step.has_links || !step.is_there ? 1 : 0));
    for (const std::string& path : left) make_old(path, 3500);
    (void)list();
    EXPECT_EQ(leftovers(), left);
    for (const std::string& path : left) make_old(path, 3700);
    (void)list();
    EXPECT_THAT(leftovers(), IsEmpty());
    EXPECT_EQ(get_all(name), step.is_there ? content(kBytes) : Content());
    if (fs::exists(path_of(name))) make_old(path_of(name), 3700);
    EXPECT_EQ(put(name, content(kBytes)).was_there, step.is_there);
    EXPECT_EQ(get_all(name), content(kBytes));
  }
}

TEST_F(DirCrashTest, WritersKilledAnywhereLeaveNoHalfObject) {
  open();
  Rng rng(5);
  for (int round = 0; round < 30; ++round) {
    const bool has_links = round % 2 == 0;
    std::vector<pid_t> children;
    for (std::uint64_t seed = 1; seed <= 2; ++seed) {
      children.push_back(in_child(has_links, [&] {
        const Content bytes = content(kBytes, seed);
        for (int i = 0;; ++i) {
          (void)put(fmt::format("k{}/{}", round, i % 200), bytes);
        }
        return 0;
      }));
    }
    // Until something is there, and a random number of looks more.
    const std::string start = fmt::format("k{}/", round);
    EXPECT_TRUE(testing::eventually([&] { return fs::exists(root() + "/" + start); }));
    for (std::uint64_t looks = rng.below(20); looks > 0; --looks) check_all_whole(start);
    for (const pid_t child : children) (void)::kill(child, SIGKILL);
    for (const pid_t child : children) {
      const int ending = ending_of(child);
      EXPECT_TRUE(WIFSIGNALED(ending)) << ending;
    }
    check_all_whole(start);
  }
  check_all_whole("");
  for (const std::string& path : leftovers()) make_old(path, 3700);
  EXPECT_THAT(leftovers(), Not(IsEmpty()));
  (void)list();
  EXPECT_THAT(leftovers(), IsEmpty());
}

TEST_F(DirCrashTest, OfTwoProcessesThatPutAtOnceOneWins) {
  constexpr int kNames = 60;
  for (const bool has_links : {true, false}) {
    SCOPED_TRACE(has_links);
    options_.path = scratch_.path() + (has_links ? "/links" : "/none");
    fs::create_directory(root());
    open();
    std::vector<pid_t> children;
    std::vector<std::string> files;
    for (std::uint64_t seed = 1; seed <= 2; ++seed) {
      files.push_back(scratch_.path() + "/wins" + std::to_string(seed));
      children.push_back(in_child(has_links, [&] {
        std::string wins;
        for (int i = 0; i < kNames; ++i) {
          const ObjectAnswer answer = put(fmt::format("r/{}", i), content(kBytes, seed));
          if (!answer.status.is_ok()) return 1;
          wins += answer.was_there ? '.' : 'w';
        }
        write_text(files.back(), wins);
        return 0;
      }));
    }
    for (const pid_t child : children) ASSERT_EQ(ending_of(child), 0);
    const std::string first = read_text(files[0]);
    const std::string second = read_text(files[1]);
    ASSERT_EQ(first.size(), static_cast<std::size_t>(kNames));
    for (std::size_t i = 0; i < kNames; ++i) {
      EXPECT_NE(first[i] == 'w', second[i] == 'w') << i;
      EXPECT_EQ(get_all(fmt::format("r/{}", i)), content(kBytes, first[i] == 'w' ? 1 : 2)) << i;
    }
    EXPECT_THAT(leftovers(), IsEmpty());
  }
}

// A node whose clock is wrong by days removes nothing that is young by the file system's, and a
// file system whose clock is wrong loses nothing that is young by the node's.
TEST_F(DirCrashTest, ALeftoverStaysUntilItIsOldByBothClocks) {
  class OtherClock final : public FileCalls {
   public:
    explicit OtherClock(std::int64_t ahead) : ahead_(ahead) {}
    int facts_of(int file, struct stat* facts) override {
      const int result = FileCalls::facts_of(file, facts);
      facts->st_mtim.tv_sec += ahead_;
      return result;
    }

   private:
    const std::int64_t ahead_;
  };
  open();
  ASSERT_TRUE(put("a/x", content(10)).status.is_ok());
  const std::string path =
      fmt::format("{}/{}/{}", root(), place_of("a/x").folder, leftover_name("other", 1, 1));
  write_text(path, "half");
  struct Case {
    std::int64_t ahead;
    std::int64_t age;
  };
  for (const auto& [ahead, age] : {Case{-7200, 5000}, Case{7200, 100}}) {
    SCOPED_TRACE(ahead);
    make_old(path, age);
    auto other = make_store(options_, std::make_unique<OtherClock>(ahead));
    ASSERT_TRUE(other.has_value());
    std::swap(store_, *other);
    EXPECT_THAT(list(), SizeIs(1));
    EXPECT_THAT(leftovers(), SizeIs(1));
    std::swap(store_, *other);
  }
  make_old(path, 5000);
  EXPECT_THAT(list(), SizeIs(1));
  EXPECT_THAT(leftovers(), IsEmpty());
}

}  // namespace
}  // namespace terrace::transfer::dir
