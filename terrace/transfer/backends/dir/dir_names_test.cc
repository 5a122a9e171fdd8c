// Names of files as docs/formats/object-dir.md has them.
#include <gtest/gtest.h>

#include <map>
#include <set>

#include "terrace/base/rng.h"
#include "terrace/testing/vectors.h"
#include "terrace/transfer/backends/dir/dir_rig.h"
#include "terrace/transfer/backends/dir/names_internal.h"
#include "terrace/transfer/object_store.h"

namespace terrace::transfer::dir {
namespace {

TEST(DirNamesTest, TheDocumentsExamplesLieWhereItSays) {
  EXPECT_EQ(place_of("models/a1/0001.pack").path(), "models/a1/=f1e/0001.pack");
  EXPECT_EQ(place_of("x").path(), "=0bf/x");
}

// docs/formats/vectors/object-dir.tsv, which a second implementation made from the document alone.
using DirVectorsTest = DirTest;

TEST_F(DirVectorsTest, ObjectsLieWhereTheSecondImplementationHasThem) {
  open();
  std::set<std::string> names;
  for (const auto& row : testing::read_vectors("object-dir.tsv")) {
    if (row[0] != "object") continue;
    SCOPED_TRACE(row[1]);
    EXPECT_EQ(place_of(row[1]).path(), row[2]);
    ASSERT_TRUE(put(row[1], content(8)).status.is_ok());
    EXPECT_EQ(read_text(root() + "/" + row[2]).size(), 8U);
    names.insert(row[1]);
  }
  EXPECT_FALSE(names.empty());
}

TEST_F(DirVectorsTest, FilesOfTheSecondImplementationAreObjectsAndNothingElseIs) {
  open();
  std::multiset<std::string> names;
  std::size_t foreign = 0;
  for (const auto& row : testing::read_vectors("object-dir.tsv")) {
    const bool is_object = row[0] == "object";
    if (is_object) names.insert(row[1]);
    foreign += is_object ? 0 : 1;
    const std::string path = root() + "/" + row.back();
    if (!std::filesystem::exists(path)) write_text(path, "content");  // The marker is there.
  }
  EXPECT_NE(foreign, 0U);
  const std::vector<std::string> found = list();
  EXPECT_EQ(std::multiset<std::string>(found.begin(), found.end()), names);
  for (const std::string& name : names) EXPECT_EQ(get_all(name).size(), 7U) << name;
}

TEST(DirNamesTest, NamesAreSpreadEvenly) {
  std::map<std::string, int> buckets;
  constexpr int kNames = 4096 * 16;
  Rng rng(1);
  for (int i = 0; i < kNames; ++i) {
    ++buckets[bucket_of(std::to_string(rng.next()) + ".pack")];
  }
  EXPECT_EQ(buckets.size(), 4096U);
  int most = 0;
  for (const auto& [bucket, count] : buckets) {
    EXPECT_TRUE(is_bucket(bucket)) << bucket;
    most = std::max(most, count);
  }
  EXPECT_LT(most, 48);  // 16 expected; of numbered names, too:
  buckets.clear();
  for (int i = 0; i < kNames; ++i) ++buckets[bucket_of(std::to_string(i))];
  for (const auto& [bucket, count] : buckets) EXPECT_LT(count, 64) << bucket;
}

TEST(DirNamesTest, TheStoresOwnNamesAreNoNamesOfObjects) {
  const std::string leftover = leftover_name("Host/../\n\xff", 4194304, ~0UL);
  EXPECT_EQ(leftover, "=new-Host_..___-4194304-ffffffffffffffff");
  EXPECT_LT(leftover_name(std::string(300, 'h'), 4194304, ~0UL).size(), 128U);
  EXPECT_TRUE(is_leftover(leftover));
  for (const std::string& own : {leftover, std::string(kMarkerName), bucket_of("x")}) {
    EXPECT_FALSE(check_object_name(own).is_ok()) << own;
  }
  EXPECT_FALSE(is_bucket("=12"));
  EXPECT_FALSE(is_bucket("=12g"));
  EXPECT_FALSE(is_bucket("=1234"));
}

}  // namespace
}  // namespace terrace::transfer::dir
