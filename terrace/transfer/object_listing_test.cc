#include "terrace/transfer/object_listing.h"

#include <gmock/gmock.h>

namespace terrace::transfer {
namespace {

using ::testing::HasSubstr;

ObjectAnswer page(std::string next, bool has_name = true) {
  ObjectAnswer answer;
  answer.next = std::move(next);
  if (has_name) answer.found.push_back({"v1/x", 1, 1});
  return answer;
}

TEST(ObjectListingTest, GoesFromPageToPageToTheLast) {
  ObjectListing listing("v1/");
  EXPECT_EQ(listing.after(), "");
  for (int i = 0; i < 100'000; ++i) {
    const std::string next = std::to_string(i);
    ASSERT_TRUE(listing.take(page(next)).is_ok());
    ASSERT_EQ(listing.after(), next);
  }
  EXPECT_TRUE(listing.take(page("")).is_ok());
  EXPECT_EQ(listing.after(), "");
}

// Whatever comes before the circle, it is found within three times what it takes to be gone round.
TEST(ObjectListingTest, ACircleOfPagesIsFound) {
  for (const int before : {0, 1, 5, 1000}) {
    for (const int length : {1, 2, 3, 64, 1000}) {
      SCOPED_TRACE(std::to_string(before) + " " + std::to_string(length));
      ObjectListing listing("v1/");
      Status status;
      int pages = 0;
      for (; status.is_ok() && pages < 3 * (before + length) + 3; ++pages) {
        const int at = pages < before ? pages : before + (pages - before) % length;
        status = listing.take(page(std::to_string(at)));
      }
      EXPECT_EQ(status.code(), Code::kCorrupt);
      EXPECT_GT(pages, before + length) << "no page came twice before";
      EXPECT_THAT(status.message(), HasSubstr("list v1/: after page " + std::to_string(pages)));
      EXPECT_THAT(status.message(), HasSubstr(std::to_string(length) + " pages before"));
      EXPECT_EQ(status.scope(), Scope::kBackend);
    }
  }
}

TEST(ObjectListingTest, PagesWithoutANameThatDoNotEndEndAtTheirBound) {
  ObjectListing listing("v1/");
  std::uint64_t next = 0;
  // A page with a name, now and then, is progress.
  for (int round = 0; round < 3; ++round) {
    for (std::uint64_t i = 1; i < ObjectListing::kMostEmptyPages; ++i) {
      ASSERT_TRUE(listing.take(page(std::to_string(++next), false)).is_ok());
    }
    ASSERT_TRUE(listing.take(page(std::to_string(++next))).is_ok());
  }
  Status status;
  std::uint64_t pages = 0;
  while (status.is_ok() && pages < 2 * ObjectListing::kMostEmptyPages) {
    status = listing.take(page(std::to_string(++next), false));
    ++pages;
  }
  EXPECT_EQ(status.code(), Code::kCorrupt);
  EXPECT_EQ(pages, ObjectListing::kMostEmptyPages);
  EXPECT_THAT(status.message(), HasSubstr("list v1/: 10000 pages in a row without a name"));
}

TEST(ObjectListingTest, TheLastOfManyPagesWithoutANameIsTheLast) {
  ObjectListing listing("v1/");
  for (std::uint64_t i = 1; i < ObjectListing::kMostEmptyPages; ++i) {
    ASSERT_TRUE(listing.take(page(std::to_string(i), false)).is_ok());
  }
  EXPECT_TRUE(listing.take(page("", false)).is_ok());
}

}  // namespace
}  // namespace terrace::transfer
