// inspect_directory on directories that a real tier has written, whole and damaged: whatever costs
// blocks is a problem that it tells.
#include "terrace/tier/disk/inspect.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <array>
#include <filesystem>
#include <span>
#include <string>

#include "terrace/tier/disk/disk_fixture.h"
#include "terrace/tier/disk/format_internal.h"

namespace terrace::tier::disk {
namespace {

using ::testing::HasSubstr;

class InspectTest : public DiskFixture {
 protected:
  void SetUp() override {
    ASSERT_TRUE(rig_.open().is_ok());
    write_blocks(0, 4);
    rig_.settle();
    rig_.close();
  }
  [[nodiscard]] InspectedOwner owner() const {
    const auto owners = inspect_directory(rig_.path());
    EXPECT_TRUE(owners.has_value());
    if (!owners.has_value() || owners->size() != 1 || owners->front().namespaces.size() != 1) {
      ADD_FAILURE() << "not one owner directory with one namespace";
      InspectedOwner none;
      none.namespaces.resize(1);
      return none;
    }
    return owners->front();
  }
  [[nodiscard]] InspectedNamespace told() const { return owner().namespaces.front(); }
  [[nodiscard]] std::string meta() const { return file("ns-0001/slots.meta"); }
};

TEST_F(InspectTest, AWholeDirectoryHasNoProblem) {
  EXPECT_EQ(told().sealed, 4U);
  EXPECT_EQ(told().problem, "");
  EXPECT_EQ(owner().damaged_extents, 0U);
}

TEST_F(InspectTest, WithoutSlotsMetaItsBlocksAreToldAsMisses) {
  std::filesystem::remove(meta());
  EXPECT_EQ(told().sealed, 0U);
  EXPECT_THAT(told().problem, HasSubstr("slots.meta is missing"));
}

TEST_F(InspectTest, ASlotsMetaThatWasCutIsTold) {
  std::filesystem::resize_file(meta(), kRecordsOffset + 2 * kSlotRecordBytes + 10);
  EXPECT_EQ(told().sealed, 2U);
  EXPECT_THAT(told().problem, HasSubstr("slots.meta was cut, it lacks"));
}

// Whoever may write there must not take the engine's memory: 2^34 records would be a tebibyte.
TEST_F(InspectTest, AHeaderThatAsksForMoreThanTheFileHasCostsNoMemory) {
  std::array<std::byte, kPageBytes> page{};
  const std::string whole = bytes_of("ns-0001/slots.meta", 0, kPageBytes);
  auto header = decode_meta(std::as_bytes(std::span(whole)).first<kPageBytes>());
  ASSERT_TRUE(header.has_value());
  header->run_slots = 1U << 24U;
  header->groups = 1024;
  encode(*header, page);
  for (std::size_t copy = 0; copy < kMetaHeaderCopies; ++copy) {
    patch("ns-0001/slots.meta", copy * kPageBytes,
          std::string(reinterpret_cast<const char*>(page.data()), page.size()));
  }
  EXPECT_LE(told().sealed, 1U);
  EXPECT_THAT(told().problem, HasSubstr("slots.meta was cut, it lacks"));
}

TEST_F(InspectTest, ASlotFileThatWasCutOrIsGoneHoldsNothing) {
  std::filesystem::resize_file(slots(), kFrame);
  EXPECT_EQ(told().sealed, 0U);
  EXPECT_THAT(told().problem, HasSubstr("0.slots was cut: 4 blocks"));
  std::filesystem::remove(slots());
  EXPECT_EQ(told().sealed, 0U);
  EXPECT_THAT(told().problem, HasSubstr("0.slots was cut: 4 blocks"));
}

TEST_F(InspectTest, DamagedClaimsAreTold) {
  flip_bit(file("extents.meta"), kPageBytes + 5);
  EXPECT_EQ(owner().damaged_extents, 1U);
  EXPECT_EQ(told().sealed, 0U);
}

TEST_F(InspectTest, HowFarItIsIsToldRunByRun) {
  std::vector<InspectProgress> told;
  const auto owners = inspect_directory(
      rig_.path(), nullptr, [&](const InspectProgress& progress) { told.push_back(progress); });
  ASSERT_TRUE(owners.has_value());
  ASSERT_FALSE(told.empty());
  EXPECT_EQ(told.front().folder, file("ns-0001"));
  EXPECT_EQ(told.front().extents, 0U);
  EXPECT_GT(told.front().of, 0U);
  EXPECT_LT(told.back().extents, told.back().of);
}

}  // namespace
}  // namespace terrace::tier::disk
