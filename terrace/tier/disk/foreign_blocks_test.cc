#include <gtest/gtest.h>

#include "terrace/tier/disk/disk_rig.h"
#include "terrace/tier/disk/foreign_blocks_internal.h"
#include "terrace/tier/disk/format_internal.h"

namespace terrace::tier::disk {
namespace {

const auto kGoOn = [] { return false; };

void write_as(Rig& rig, const std::string& model, std::uint64_t first, std::uint64_t count) {
  rig.close();
  rig.set_model(model);
  ASSERT_TRUE(rig.open().is_ok());
  for (std::uint64_t n = first; n < first + count; ++n) ASSERT_TRUE(rig.write(n).is_ok());
}

TEST(ForeignBlocksTest, BlocksOfAnotherNamespaceAreKnownAndOwnOnesAreNot) {
  Rig rig;
  write_as(rig, "model-a", 0, 6);
  write_as(rig, "model-b", 100, 3);
  EXPECT_FALSE(rig.tier().is_foreign(hash_of(0))) << "before they were read";
  rig.tier().note_foreign(kGoOn);
  for (std::uint64_t n = 0; n < 6; ++n) {
    EXPECT_TRUE(rig.tier().is_foreign(hash_of(n)));
    EXPECT_FALSE(rig.has(n));
  }
  std::uint64_t wrong = 0;
  for (std::uint64_t n = 100; n < 1100; ++n) wrong += rig.tier().is_foreign(hash_of(n)) ? 1 : 0;
  EXPECT_LE(wrong, 20U);
}

TEST(ForeignBlocksTest, AStoppedReadKnowsNothing) {
  Rig rig;
  write_as(rig, "model-a", 0, 6);
  write_as(rig, "model-b", 100, 1);
  rig.tier().note_foreign([] { return true; });
  EXPECT_FALSE(rig.tier().is_foreign(hash_of(0)));
}

TEST(ForeignBlocksTest, DamagedFilesOfOthersAreNoBlocksAndNoHarm) {
  Rig rig;
  write_as(rig, "model-a", 0, 6);
  write_as(rig, "model-b", 100, 1);
  const std::string meta = rig.owner() + "/ns-0001/slots.meta";
  Rng rng(3);
  for (int round = 0; round < 50; ++round) {
    std::fstream file(meta, std::ios::in | std::ios::out | std::ios::binary);
    for (int i = 0; i < 200; ++i) {
      file.seekp(static_cast<std::streamoff>(rng.next() % (16 * 64 + kRecordsOffset)));
      file.put(static_cast<char>(rng.next()));
    }
    file.close();
    ForeignBlocks blocks;
    blocks.read({rig.owner(), rig.path() + "/not-there"}, "other", "other", kGoOn);
    (void)blocks.may_hold(hash_of(0));
  }
  std::filesystem::resize_file(meta, 100);
  ForeignBlocks cut;
  cut.read({rig.owner()}, rig.options().fingerprint.content_digest(),
           rig.options().fingerprint.layout_digest(), kGoOn);
  EXPECT_FALSE(cut.may_hold(hash_of(0)));
}

}  // namespace
}  // namespace terrace::tier::disk
