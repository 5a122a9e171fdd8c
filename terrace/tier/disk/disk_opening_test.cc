// What a tier writes by itself while it opens.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "terrace/testing/file_calls.h"
#include "terrace/tier/disk/disk_rig.h"
#include "terrace/tier/disk/format_internal.h"

namespace terrace::tier::disk {
namespace {

using ::testing::IsSupersetOf;
using Kind = terrace::testing::FileChange::Kind;

// The changes of one file: the offsets of what was written since its last sync, and all offsets.
class Seen final : public terrace::testing::FileWatch {
 public:
  explicit Seen(std::string path) : path_(std::move(path)) {}
  void on_change(const terrace::testing::FileChange& change) override {
    if (change.path != path_) return;
    if (change.kind == Kind::kWrite) {
      written.push_back(change.offset);
      ++unsynced;
    }
    if (change.kind == Kind::kSync) unsynced = 0;
  }
  std::vector<std::uint64_t> written;
  int unsynced = 0;

 private:
  const std::string path_;
};

// A killed owner may have left them in the system's hands, and a sync that had failed leaves a
// later one nothing to do.
TEST(DiskOpeningTest, HeadersAndClaimsAreWrittenAnewAndSyncedBeforeAnythingIsBuiltOnThem) {
  Rig rig;
  ASSERT_TRUE(rig.open().is_ok());
  ASSERT_TRUE(rig.write(1).is_ok());
  rig.settle();
  rig.close();
  const auto before = tree(rig.path());
  const std::string meta = rig.owner() + "/ns-0001/slots.meta";
  const std::string extents = rig.owner() + "/extents.meta";
  {
    const Seen claims(extents);
    ASSERT_TRUE(rig.open().is_ok());
    EXPECT_THAT(claims.written, IsSupersetOf({std::uint64_t{kPageBytes}}));
    EXPECT_EQ(claims.unsynced, 0);
  }
  EXPECT_TRUE(rig.read(1).is_ok());
  rig.close();
  {
    const Seen headers(meta);
    ASSERT_TRUE(rig.open().is_ok());
    EXPECT_THAT(headers.written, IsSupersetOf({std::uint64_t{0}, std::uint64_t{kPageBytes}}));
    EXPECT_EQ(headers.unsynced, 0);
  }
  EXPECT_TRUE(rig.read(1).is_ok());
  rig.close();
  const auto after = tree(rig.path());
  EXPECT_EQ(after.at(meta), before.at(meta)) << "as they were found";
  EXPECT_EQ(after.at(extents), before.at(extents));
}

}  // namespace
}  // namespace terrace::tier::disk
