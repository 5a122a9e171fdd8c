// Listings: pages, what is in the way, and what changes meanwhile.
#include <fmt/format.h>

#include <atomic>
#include <set>
#include <thread>

#include "terrace/transfer/backends/dir/dir_rig.h"

namespace terrace::transfer::dir {
namespace {

namespace fs = std::filesystem;
using ::testing::ElementsAre;
using ::testing::IsEmpty;
using ::testing::UnorderedElementsAre;

class DirListingTest : public DirTest {
 protected:
  DirListingTest() { open(); }
  // As a put would leave it, without its syncs.
  void make_object(const std::string& name) { write_text(path_of(name), "x"); }
  // Gives the page a deadline, and lets the time pass, up to so long before it, at one of its
  // calls.
  void pass_time_at(const char* call, int skip, ObjectRequest& page, Nanoseconds time,
                    Nanoseconds rest) {
    page.deadline = SystemClock().now() + time;
    script_.fail(call,
                 {.skip = skip, .then = [end = page.deadline - rest] {
                    EXPECT_TRUE(testing::eventually([&] { return SystemClock().now() > end; }));
                  }});
  }
};

TEST_F(DirListingTest, AnObjectMayHaveTheNameOfAFolder) {
  for (const char* name : {"a", "a/b", "a/b/c", "ab"}) {
    ASSERT_TRUE(put(name, content(10)).status.is_ok()) << name;
  }
  EXPECT_THAT(list("a"), UnorderedElementsAre("a", "a/b", "a/b/c", "ab"));
  EXPECT_THAT(list("a/"), UnorderedElementsAre("a/b", "a/b/c"));
  EXPECT_THAT(list("a/b/"), ElementsAre("a/b/c"));
  EXPECT_THAT(list("a/b/c/"), IsEmpty());
  ASSERT_TRUE(remove("a").status.is_ok());
  EXPECT_THAT(list("a"), UnorderedElementsAre("a/b", "a/b/c", "ab"));
}

TEST_F(DirListingTest, TellsLengthAndAge) {
  ASSERT_TRUE(put("a/x", content(1234)).status.is_ok());
  make_old(path_of("a/x"), 10'000);
  const ObjectAnswer answer = run(request(ObjectOp::kList, "a/"));
  ASSERT_EQ(answer.found.size(), 1U);
  EXPECT_EQ(answer.found[0].bytes, 1234U);
  EXPECT_NEAR(static_cast<double>(answer.found[0].modified_seconds),
              static_cast<double>(SystemClock().wall_seconds() - 10'000), 120);
}

TEST_F(DirListingTest, ATouchedObjectIsYoung) {
  ASSERT_TRUE(put("a/x", content(100)).status.is_ok());
  make_old(path_of("a/x"), 10'000);
  const std::int64_t before = SystemClock().wall_seconds();
  ASSERT_EQ(touch("a/x").status.text(), Status().text());
  EXPECT_GE(head("a/x").info.modified_seconds, before - 1);
  EXPECT_EQ(get_all("a/x"), content(100));
  EXPECT_EQ(touch("a/none").status.code(), Code::kNotFound);
  write_text(path_of("a/claim"), "");
  EXPECT_EQ(touch("a/claim").status.code(), Code::kNotFound) << "no object, but a claim";
  const std::string outside = scratch_.path() + "/outside";
  write_text(outside, "x");
  make_old(outside, 10'000);
  fs::create_directories(fs::path(path_of("a/link")).parent_path());
  fs::create_symlink(outside, path_of("a/link"));
  EXPECT_EQ(touch("a/link").status.code(), Code::kCorrupt);
  EXPECT_LT(fs::last_write_time(outside), fs::last_write_time(path_of("a/x")));
  script_.fail("touch", {.error = EACCES});
  EXPECT_EQ(touch("a/x").status.code(), Code::kRefused);
}

// Numbers whose names all go to one bucket.
std::vector<std::string> names_of_one_bucket(std::size_t count) {
  std::vector<std::string> names;
  const std::string bucket = bucket_of("0");
  for (std::uint64_t number = 0; names.size() < count; ++number) {
    std::string name = std::to_string(number);
    if (bucket_of(name) == bucket) names.push_back(std::move(name));
  }
  return names;
}

TEST_F(DirListingTest, AFolderOfMoreThanAPageComesInPages) {
  const std::vector<std::string> names = names_of_one_bucket(2 * kMostListed + 10);
  fs::create_directories(root() + "/" + place_of("many/" + names[0]).folder);
  for (const std::string& name : names) make_object("many/" + name);
  std::vector<std::string> seen = list("many/");
  EXPECT_EQ(seen.size(), names.size());
  EXPECT_EQ(std::set(seen.begin(), seen.end()).size(), names.size());
  // What is removed and added between pages costs no other name, and doubles none.
  ObjectRequest page = request(ObjectOp::kList, "many/");
  ObjectAnswer answer = run(page);
  ASSERT_EQ(answer.found.size(), kMostListed);
  std::set<std::string> all;
  for (const ObjectInfo& info : answer.found) {
    all.insert(info.name);
    fs::remove(path_of(info.name));
  }
  page.after = answer.next;
  answer = run(page);
  for (const ObjectInfo& info : answer.found) EXPECT_TRUE(all.insert(info.name).second);
  page.after = answer.next;
  answer = run(page);
  for (const ObjectInfo& info : answer.found) EXPECT_TRUE(all.insert(info.name).second);
  EXPECT_EQ(all.size(), names.size());
  EXPECT_EQ(answer.next, "");
}

TEST_F(DirListingTest, AFolderOfMoreFoldersThanAPageIsWalkedOnce) {
  for (int i = 0; i < 2500; ++i) {
    fs::create_directory(root() + "/" + std::to_string(i));
    if (i % 2 == 0) make_object(std::to_string(i) + "/x");
  }
  const std::vector<std::string> seen = list();
  EXPECT_EQ(seen.size(), 1250U);
  EXPECT_EQ(std::set(seen.begin(), seen.end()).size(), 1250U);
}

// Of a folder with more entries than a page the smallest are kept, and it is read again for more.
TEST_F(DirListingTest, HoldsNoMoreThanAPageOfAFolder) {
  for (int i = 0; i < 2500; ++i) fs::create_directory(root() + "/" + std::to_string(i));
  script_.clear();
  EXPECT_THAT(list(), IsEmpty());
  const std::vector<std::string> calls = script_.calls();
  EXPECT_EQ(std::count(calls.begin(), calls.end(), "open_below"), 2500 + 3);
}

TEST_F(DirListingTest, WhatCannotBeGotIsNotListed) {
  make_object("a/x");
  const std::string bucket = root() + "/" + place_of("a/x").folder;
  write_text(bucket + "/y", "in another's bucket");
  write_text(bucket + "/UPPER", "x");
  write_text(bucket + "/" + leftover_name("host", 1, 1), "x");
  write_text(bucket + "/=123", "x");
  write_text(root() + "/a/plain", "in no bucket");
  write_text(root() + "/Upper/" + bucket_of("x") + "/x", "x");
  write_text(root() + "/a/" + bucket_of("z") + "/sub/z", "too deep");
  EXPECT_THAT(list(), ElementsAre("a/x"));
  EXPECT_THAT(list("a/"), ElementsAre("a/x"));
}

TEST_F(DirListingTest, WhatVanishesMeanwhileIsNotThere) {
  for (const char* name : {"a/x", "b/x", "c/x"}) make_object(name);
  script_.fail("facts_at", {.error = ENOENT});
  EXPECT_THAT(list(), ElementsAre("b/x", "c/x"));
  int opens = 0;
  // Each folder in turn, after its name was read.
  for (int skip = 0; skip < 12; ++skip) {
    for (const char* name : {"a/x", "b/x", "c/x"}) make_object(name);
    script_.clear();
    script_.fail("open_below", {.skip = skip, .then = [&] {
                                  ++opens;
                                  fs::remove_all(root() + "/b");
                                }});
    const std::vector<std::string> seen = list();
    EXPECT_LE(seen.size(), 3U);
    EXPECT_GE(seen.size(), 2U);
  }
  EXPECT_GT(opens, 6);
}

TEST_F(DirListingTest, AFolderThatCannotBeReadFailsTheListing) {
  make_object("a/x");
  script_.fail("open_below", {.error = EIO, .skip = 1});
  const ObjectAnswer answer = run(request(ObjectOp::kList, ""));
  EXPECT_EQ(answer.status.code(), Code::kIo);
  EXPECT_THAT(answer.found, IsEmpty());
}

TEST_F(DirListingTest, APlaceThatNoPageEndedAtIsHarmless) {
  make_object("a/x");
  ObjectRequest page = request(ObjectOp::kList, "a/");
  page.after = "b/=000/x";
  EXPECT_EQ(run(page).status.code(), Code::kInvalid);
  for (const char* after : {"a/", "a/../../etc", "a/=fff/zzz", "a/=fff", "a//", "a/\xff"}) {
    page.after = after;
    EXPECT_EQ(run(page).status.text(), Status().text()) << after;
  }
}

TEST_F(DirListingTest, GoesOnWhileOthersPutAndRemove) {
  for (int i = 0; i < 300; ++i) make_object("stay/" + std::to_string(i));
  std::atomic<bool> is_over = false;
  {
    std::jthread other([&] {
      for (int i = 0; !is_over; ++i) {
        const std::string name = "go/" + std::to_string(i % 50);
        make_object(name);
        if (i % 7 == 0) fs::remove_all(root() + "/go");
      }
    });
    for (int round = 0; round < 20; ++round) {
      const std::vector<std::string> seen = list();
      EXPECT_EQ(std::set(seen.begin(), seen.end()).size(), seen.size());
      EXPECT_EQ(std::count_if(seen.begin(), seen.end(),
                              [](const std::string& name) { return name.starts_with("stay/"); }),
                300);
    }
    is_over = true;
  }
}

TEST_F(DirListingTest, ADeadlineEndsAPageWhereItIs) {
  for (int i = 0; i < 100; ++i) make_object(std::to_string(i) + "/x");
  ObjectRequest page = request(ObjectOp::kList, "");
  pass_time_at("facts_at", 0, page, milliseconds(300), Nanoseconds(0));
  const ObjectAnswer first = run(page);
  EXPECT_EQ(first.status.text(), Status().text());
  ASSERT_EQ(first.found.size(), 1U);
  EXPECT_EQ(first.found[0].name, "0/x");
  page.after = first.next;
  page.deadline = kNoDeadline;
  const ObjectAnswer rest = run(page);
  EXPECT_EQ(rest.found.size(), 99U);
  EXPECT_EQ(rest.next, "");
}

TEST_F(DirListingTest, APageThatPassesNothingInTimeIsLate) {
  for (int i = 0; i < 100; ++i) make_object(std::to_string(i) + "/x");
  for (int skip = 0; skip < 2; ++skip) {  // The root's open, and the first folder's.
    ObjectRequest page = request(ObjectOp::kList, "");
    pass_time_at("open_below", skip, page, milliseconds(300), Nanoseconds(0));
    const ObjectAnswer answer = run(page);
    EXPECT_EQ(answer.status.code(), Code::kDeadline);
    EXPECT_THAT(answer.found, IsEmpty());
  }
}

TEST_F(DirListingTest, ObjectsThatAreGoneLeaveNoFolders) {
  const std::vector<std::string> two = names_of_one_bucket(2);
  std::vector<std::string> names = {"x", "a/b/" + two[0], "a/b/" + two[1]};
  for (int i = 0; i < 100; ++i) names.push_back("a/" + std::to_string(i));
  for (const std::string& name : names) ASSERT_TRUE(put(name, content(10)).status.is_ok());
  for (const std::string& name : names) {
    ASSERT_EQ(remove(name).status.text(), Status().text());
    if (name == names[1]) {
      EXPECT_EQ(get_all(names[2]), content(10)) << "its neighbour stays";
    }
  }
  for (const auto& entry : fs::recursive_directory_iterator(root())) {
    EXPECT_FALSE(is_bucket(entry.path().filename().string())) << entry.path();
  }
}

// As objects leave them that are gone: all of them together take longer than any page may.
TEST_F(DirListingTest, ManyEmptyFoldersAreWalkedPageByPage) {
  for (int i = 0; i < 150; ++i) fs::create_directories(root() + fmt::format("/f/={:03x}", i));
  make_object("f/x");
  ASSERT_EQ(bucket_of("x"), "=0bf") << "the last one";
  const SystemClock clock;
  script_.fail("open_below", {.count = -1, .then = [&] {
                                const Nanoseconds end = clock.now() + milliseconds(10);
                                EXPECT_TRUE(testing::eventually([&] { return clock.now() > end; }));
                              }});
  ObjectRequest page = request(ObjectOp::kList, "f/");
  std::vector<std::string> seen;
  int pages = 0;
  do {
    page.deadline = clock.now() + seconds(1);
    const ObjectAnswer answer = run(page);
    ASSERT_EQ(answer.status.text(), Status().text());
    for (const ObjectInfo& info : answer.found) seen.push_back(info.name);
    page.after = answer.next;
    ASSERT_LE(++pages, 150);
  } while (!page.after.empty());
  EXPECT_THAT(seen, ElementsAre("f/x"));
  EXPECT_GT(pages, 2);
}

TEST_F(DirListingTest, APageThatEndsBehindAFolderSkipsNoOther) {
  for (const char* name : {"a", "a-", "ab"}) {
    fs::create_directories(root() + "/" + name + "/=000");
    make_object(std::string(name) + "/x");
  }
  ObjectRequest page = request(ObjectOp::kList, "");
  std::vector<std::string> seen;
  int pages = 0;
  do {
    pass_time_at("open_below", 2, page, seconds(1), milliseconds(300));
    const ObjectAnswer answer = run(page);
    ASSERT_EQ(answer.status.text(), Status().text());
    for (const ObjectInfo& info : answer.found) seen.push_back(info.name);
    page.after = answer.next;
    ASSERT_LE(++pages, 20);
  } while (!page.after.empty());
  EXPECT_THAT(seen, ElementsAre("a/x", "a-/x", "ab/x"));
  EXPECT_GT(pages, 4);
}

}  // namespace
}  // namespace terrace::transfer::dir
