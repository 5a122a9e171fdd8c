// What the root may be, and what becomes of a store whose root goes and comes.
#include <sys/wait.h>

#include <map>
#include <thread>

#include "terrace/testing/vectors.h"
#include "terrace/transfer/backends/dir/dir_rig.h"

namespace terrace::transfer::dir {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

class DirRootTest : public DirTest {
 protected:
  // What opening says; nothing may have changed by it.
  Status refusal() {
    const auto before = names();
    const auto made = make();
    EXPECT_EQ(names(), before);
    return made ? Status() : made.error();
  }
  std::vector<std::string> names() const {
    std::vector<std::string> all;
    if (!fs::is_directory(root())) return all;
    for (const auto& entry : fs::recursive_directory_iterator(root())) {
      all.push_back(entry.path().string());
    }
    std::sort(all.begin(), all.end());
    return all;
  }
  // Of a child process, for which the scratch folder is all there is: nobody may not be let into
  // the folders above it.
  [[nodiscard]] bool become_nobody() {
    if (::chroot(scratch_.path().c_str()) != 0 || ::chdir("/") != 0) return false;
    options_.path = "/root";
    return ::setresuid(65534, 65534, 65534) == 0;
  }
  [[nodiscard]] std::string marker() const { return root() + "/TERRACE-OBJECTS"; }
};

TEST_F(DirRootTest, OptionsThatMakeNoSenseAreInvalid) {
  options_.depth = 0;
  EXPECT_EQ(refusal().code(), Code::kInvalid);
  options_.depth = 1;
  options_.threads = 0;
  EXPECT_EQ(refusal().code(), Code::kInvalid);
  options_.threads = 1;
  options_.leftover_age = seconds(1);
  EXPECT_EQ(refusal().code(), Code::kInvalid);
  options_.leftover_age = seconds(60);
  options_.path = "relative";
  EXPECT_EQ(refusal().code(), Code::kInvalid);
}

TEST_F(DirRootTest, AnEmptyFolderBecomesARootWithAMarkerAndNothingElse) {
  fs::create_directory(root() + "/lost+found");
  open();
  EXPECT_EQ(read_text(marker()), "terrace object directory\nformat 1\n");
  EXPECT_EQ(names().size(), 2U);
  EXPECT_EQ(store_->name(), "dir");
  EXPECT_EQ(store_->place(), root());
}

TEST_F(DirRootTest, AMissingRootIsAwayAndIsNotMade) {
  fs::remove(root());
  const Status status = refusal();
  EXPECT_EQ(status.code(), Code::kUnavailable);
  EXPECT_THAT(status.message(), HasSubstr("open " + root() + ": ENOENT"));
  EXPECT_FALSE(fs::exists(root()));
}

TEST_F(DirRootTest, WhatIsNoFolderIsRefused) {
  fs::remove(root());
  write_text(root(), "x");
  const Status status = refusal();
  EXPECT_EQ(status.code(), Code::kRefused);
  EXPECT_THAT(status.message(), HasSubstr("ENOTDIR"));
}

TEST_F(DirRootTest, AFolderOfSomebodyElseIsRefusedByName) {
  write_text(root() + "/thesis.tex", "x");
  const Status status = refusal();
  EXPECT_EQ(status.code(), Code::kRefused);
  EXPECT_THAT(status.message(), HasSubstr(root()));
  EXPECT_THAT(status.message(), HasSubstr("'thesis.tex'"));
}

TEST_F(DirRootTest, ANewerRootIsRefusedByItsFormat) {
  write_text(marker(), "terrace object directory\nformat 2\nmore\n");
  const Status status = refusal();
  EXPECT_EQ(status.code(), Code::kRefused);
  EXPECT_THAT(status.message(), HasSubstr("format 2"));
}

TEST_F(DirRootTest, AMarkerOfSomethingElseIsRefused) {
  write_text(marker(), "hello");
  EXPECT_EQ(refusal().code(), Code::kRefused);
  fs::remove(marker());
  fs::create_symlink(scratch_.path(), marker());
  EXPECT_EQ(refusal().code(), Code::kCorrupt);
  fs::remove(marker());
  ASSERT_EQ(::mkfifo(marker().c_str(), 0600), 0);
  EXPECT_EQ(refusal().code(), Code::kRefused);
}

// docs/formats/vectors/object-dir.tsv, which a second implementation made from the document alone.
TEST_F(DirRootTest, FoldersAreRootsOrBecomeOnesOrNotAsTheSecondImplementationSays) {
  std::map<std::string, int> seen;
  for (const auto& row : testing::read_vectors("object-dir.tsv")) {
    if (row[0] != "marker" && row[0] != "entry") continue;
    SCOPED_TRACE(row[1]);
    fs::remove_all(root());
    fs::create_directory(root());
    const bool is_marker = row[0] == "marker";
    const std::string path = is_marker ? marker() : root() + "/" + row[1];
    write_text(path, is_marker ? testing::from_hex(row[1]) : "");
    make_old(path, 7200);
    ++seen[row[0] + " " + row[2]];
    if (row[2] == "refused") {
      EXPECT_EQ(refusal().code(), Code::kRefused);
      continue;
    }
    const auto made = make();
    ASSERT_TRUE(made.has_value()) << made.error().text();
    if (row[2] == "empty") {
      EXPECT_EQ(read_text(marker()), "terrace object directory\nformat 1\n");
    }
  }
  EXPECT_EQ(seen.size(), 5U) << "markers of all three kinds, entries of two";
}

// On a file system that knows neither links nor renames that replace nothing.
TEST_F(DirRootTest, ARootThatAnotherNodeIsAboutToMakeIsNotRefused) {
  write_text(marker(), "");
  const Status status = refusal();
  EXPECT_EQ(status.code(), Code::kUnavailable) << status.text();
}

TEST_F(DirRootTest, AReadOnlyRootServesAndTakesNothing) {
  testing::SmallDisk disk(16 << 20);
  ASSERT_TRUE(disk.is_mounted()) << "this test mounts a tmpfs: run it as root";
  options_.path = disk.path();
  open();
  const Content bytes = content(5000);
  ASSERT_TRUE(put("a/x", bytes).status.is_ok());
  store_.reset();
  ASSERT_TRUE(disk.make_read_only());
  open();
  EXPECT_EQ(get_all("a/x"), bytes);
  EXPECT_EQ(list(), std::vector<std::string>{"a/x"});
  for (const char* name : {"a/y", "b/y"}) {
    const ObjectAnswer answer = put(name, bytes);
    EXPECT_EQ(answer.status.code(), Code::kRefused);
    EXPECT_THAT(answer.status.message(), HasSubstr("EROFS"));
  }
  EXPECT_EQ(remove("a/x").status.code(), Code::kRefused);
  EXPECT_TRUE(put("a/x", bytes).was_there);
}

TEST_F(DirRootTest, AReadOnlyFolderWithoutAMarkerIsRefused) {
  testing::SmallDisk disk(16 << 20);
  ASSERT_TRUE(disk.is_mounted()) << "this test mounts a tmpfs: run it as root";
  ASSERT_TRUE(disk.make_read_only());
  options_.path = disk.path();
  const Status status = refusal();
  EXPECT_EQ(status.code(), Code::kRefused);
  EXPECT_THAT(status.message(), HasSubstr("EROFS"));
}

// In a process of its own, as another user. Its exit status is the number of the step that failed.
TEST_F(DirRootTest, WithoutPermissionItIsRefused) {
  open();
  ASSERT_TRUE(put("mine/x", content(10)).status.is_ok());
  fs::permissions(scratch_.path(), fs::perms(0755));
  const pid_t child = ::fork();
  if (child == 0) {
    if (!become_nobody()) ::_exit(1);
    const auto made = make();
    if (made || made.error().code() != Code::kRefused) ::_exit(2);
    if (made.error().message().find("EACCES") == std::string::npos) ::_exit(3);
    ::_exit(0);
  }
  int status = 0;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  EXPECT_EQ(WEXITSTATUS(status), 0);
  fs::permissions(root(), fs::perms(0755));
  fs::permissions(marker(), fs::perms(0644));
  const pid_t reader = ::fork();
  if (reader == 0) {
    if (!become_nobody()) ::_exit(1);
    auto made = make();
    if (!made) ::_exit(2);
    take_over(*std::move(made));
    if (put("mine/y", content(10)).status.code() != Code::kRefused) ::_exit(3);
    if (put("y", content(10)).status.code() != Code::kRefused) ::_exit(4);
    if (head("mine/x").status.code() != Code::kRefused) ::_exit(5);
    if (run(request(ObjectOp::kList, "mine/")).status.code() != Code::kRefused) ::_exit(6);
    if (remove("mine/x").status.code() != Code::kRefused) ::_exit(7);
    ::_exit(0);
  }
  ASSERT_EQ(::waitpid(reader, &status, 0), reader);
  EXPECT_EQ(WEXITSTATUS(status), 0);
}

TEST_F(DirRootTest, ARootThatVanishesAndReturnsWorksAgain) {
  open();
  const Content bytes = content(1000);
  ASSERT_TRUE(put("a/x", bytes).status.is_ok());
  const auto all_are_away = [&] {
    Content target(1000);
    EXPECT_EQ(put("a/y", bytes).status.code(), Code::kUnavailable);
    EXPECT_EQ(get("a/x", target).status.code(), Code::kUnavailable);
    EXPECT_EQ(head("a/x").status.code(), Code::kUnavailable);
    EXPECT_EQ(remove("a/x").status.code(), Code::kUnavailable);
    EXPECT_EQ(run(request(ObjectOp::kList, "")).status.code(), Code::kUnavailable);
  };
  fs::rename(root(), root() + ".away");
  all_are_away();
  // As an unmounted file system leaves it: the folder it was mounted on is no place to put things.
  fs::create_directory(root());
  all_are_away();
  EXPECT_TRUE(fs::is_empty(root()));
  fs::remove(root());
  fs::rename(root() + ".away", root());
  EXPECT_EQ(get_all("a/x"), bytes);
  EXPECT_FALSE(put("a/y", bytes).was_there);
}

TEST_F(DirRootTest, ItsFileSystemCanBeUnmountedUnderARunningStore) {
  testing::SmallDisk disk(16 << 20);
  ASSERT_TRUE(disk.is_mounted()) << "this test mounts a tmpfs: run it as root";
  options_.path = disk.path();
  open();
  ASSERT_TRUE(put("a/x", content(10)).status.is_ok());
  EXPECT_TRUE(disk.unmount());
  EXPECT_EQ(put("a/y", content(10)).status.code(), Code::kUnavailable);
  EXPECT_TRUE(fs::is_empty(disk.path()));
}

TEST_F(DirRootTest, AnEmptiedRootGetsItsMarkerBack) {
  open();
  ASSERT_TRUE(put("a/x", content(10)).status.is_ok());
  for (const auto& entry : fs::directory_iterator(root())) fs::remove_all(entry.path());
  EXPECT_EQ(head("a/x").status.code(), Code::kNotFound);
  ASSERT_EQ(put("a/x", content(10)).status.text(), Status().text());
  EXPECT_TRUE(fs::exists(marker()));
  EXPECT_EQ(refusal().text(), Status().text());
}

TEST_F(DirRootTest, NodesThatMakeTheRootAtOnceAllHaveIt) {
  for (int round = 0; round < 20; ++round) {
    options_.path = scratch_.path() + "/r" + std::to_string(round);
    fs::create_directory(root());
    std::vector<std::string> faults(4);
    {
      std::vector<std::jthread> nodes;
      nodes.reserve(faults.size());
      for (std::string& fault : faults) {
        nodes.emplace_back([&] {
          const auto made = make_dir_store(options_);
          if (!made) fault = made.error().text();
        });
      }
    }
    for (const std::string& fault : faults) EXPECT_EQ(fault, "");
    EXPECT_THAT(leftovers(), IsEmpty());
  }
}

TEST_F(DirRootTest, ModesAreForOneUserOrForTheGroupWhateverTheUmask) {
  const auto mode_of = [](const std::string& path) {
    struct stat facts{};
    EXPECT_EQ(::stat(path.c_str(), &facts), 0) << path;
    return facts.st_mode & 07777U;
  };
  const mode_t before = ::umask(077);
  open();
  ASSERT_TRUE(put("one/x", content(10)).status.is_ok());
  EXPECT_EQ(mode_of(path_of("one/x")), 0600U);
  EXPECT_EQ(mode_of(root() + "/one"), 0700U);
  options_.is_group_shared = true;
  options_.path = scratch_.path() + "/group";
  fs::create_directory(root());
  open();
  ASSERT_TRUE(put("all/x", content(10)).status.is_ok());
  ::umask(before);
  EXPECT_EQ(mode_of(path_of("all/x")), 0640U);
  EXPECT_EQ(mode_of(root() + "/all"), 02770U);
  EXPECT_EQ(mode_of(root() + "/" + place_of("all/x").folder), 02770U);
  EXPECT_EQ(mode_of(marker()), 0640U);
}

}  // namespace
}  // namespace terrace::transfer::dir
