#include "terrace/memory/host_segment.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <set>
#include <string>
#include <vector>

#include "terrace/base/check.h"
#include "terrace/base/rng.h"
#include "terrace/base/sync_point.h"

namespace terrace::memory {
namespace {

SegmentGeometry geometry_of(Bytes slot_bytes, std::uint32_t slots, std::uint16_t lanes = 1) {
  return {slot_bytes, slots, lanes};
}

Lane lane_of(const SegmentGeometry& geometry) {
  auto lane = Lane::create(geometry, false, "test");
  EXPECT_TRUE(lane.has_value()) << lane.error().text();
  return std::move(lane).value();
}

std::vector<UniqueFd> duplicates(const Lane& lane) {
  std::vector<UniqueFd> files;
  for (const UniqueFd& file : lane.files()) {
    files.emplace_back(::fcntl(file.get(), F_DUPFD_CLOEXEC, 0));
  }
  return files;
}

// Runs `body` in a forked child; 0 = it returned true. A signal shows as 128 + its number.
int in_child(const std::function<bool()>& body) {
  std::fflush(nullptr);
  const pid_t child = ::fork();
  if (child == 0) ::_exit(body() ? 0 : 1);
  int status = 0;
  EXPECT_EQ(::waitpid(child, &status, 0), child);
  return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

std::uint64_t present_bytes(const Lane& lane) {
  std::uint64_t bytes = 0;
  for (const UniqueFd& file : lane.files()) {
    struct stat facts{};
    EXPECT_EQ(::fstat(file.get(), &facts), 0);
    bytes += static_cast<std::uint64_t>(facts.st_blocks) * 512U;
  }
  return bytes;
}

TEST(SegmentGeometryTest, RefusesWhatCannotBeLaidOut) {
  EXPECT_TRUE(geometry_of(4_KiB, 1).validate().is_ok());
  EXPECT_FALSE(geometry_of(Bytes(0), 1).validate().is_ok());
  EXPECT_FALSE(geometry_of(Bytes(5000), 1).validate().is_ok());
  EXPECT_FALSE(geometry_of(4_KiB, 0).validate().is_ok());
  EXPECT_FALSE(geometry_of(4_KiB, 1, 0).validate().is_ok());
  EXPECT_FALSE(geometry_of(4_KiB, 1, 65).validate().is_ok());
  EXPECT_FALSE(geometry_of(1_GiB, 1U << 20U).validate().is_ok());
  EXPECT_FALSE(geometry_of(Bytes(UINT64_MAX & ~4095ULL), 7).validate().is_ok());
}

TEST(SegmentGeometryTest, ExtentsHoldWholeSlotsUpTo32MiBOrOneLargerSlot) {
  EXPECT_EQ(geometry_of(3_MiB, 100).slots_per_extent(), 10U);
  EXPECT_EQ(geometry_of(3_MiB, 100).extent_bytes(), 30_MiB);
  EXPECT_EQ(geometry_of(3_MiB, 101).extents(), 11U);
  EXPECT_EQ(geometry_of(40_MiB, 3).extent_bytes(), 40_MiB);
  EXPECT_EQ(geometry_of(40_MiB, 3).extents(), 3U);
}

TEST(SegmentGeometryTest, FilesAddUpToTheLaneExactly) {
  constexpr std::uint64_t kSeed = 7;
  std::printf("seed %llu\n", static_cast<unsigned long long>(kSeed));
  Rng rng(kSeed);
  for (int i = 0; i < 10'000; ++i) {
    const auto geometry = geometry_of(4_KiB * (rng.below(20'000) + 1),
                                      static_cast<std::uint32_t>(rng.below(9999) + 1),
                                      static_cast<std::uint16_t>(rng.below(64) + 1));
    Bytes sum;
    for (std::uint32_t file = 0; file < geometry.files(); ++file) sum += geometry.file_bytes(file);
    ASSERT_EQ(sum, geometry.lane_bytes());
    ASSERT_LE(geometry.extents(), geometry.files() * geometry.extents_per_file());
  }
}

TEST(SegmentGeometryTest, EvenTerabytesTakeFewDescriptors) {
  const auto geometry = geometry_of(3_MiB, 1U << 20U, 8);  // 24 TiB.
  EXPECT_LE(geometry.files() * geometry.lanes, kSegmentFiles);
  const auto wide = geometry_of(4_KiB, 100'000, 64);
  EXPECT_LE(wide.files() * wide.lanes, kSegmentFiles + wide.lanes);
}

TEST(LaneTest, SlotsNeverOverlapAndKeepTheirBytes) {
  constexpr std::uint64_t kSeed = 11;
  std::printf("seed %llu\n", static_cast<unsigned long long>(kSeed));
  Rng rng(kSeed);
  for (int round = 0; round < 20; ++round) {
    const auto geometry =
        geometry_of(4_KiB * (rng.below(12) + 1), static_cast<std::uint32_t>(rng.below(300) + 1),
                    static_cast<std::uint16_t>(rng.below(64) + 1));
    const Lane lane = lane_of(geometry);
    for (std::uint32_t i = 0; i < geometry.slots; ++i) {
      const auto slot = lane.slot(SlotIndex(i));
      ASSERT_EQ(slot.size(), geometry.slot_bytes.value());
      ASSERT_EQ(reinterpret_cast<std::uintptr_t>(slot.data()) % 4096, 0U);
      std::memset(slot.data(), static_cast<int>(i % 251), slot.size());
    }
    for (std::uint32_t i = 0; i < geometry.slots; ++i) {
      const auto slot = lane.slot(SlotIndex(i));
      ASSERT_EQ(slot.front(), static_cast<std::byte>(i % 251));
      ASSERT_EQ(slot.back(), static_cast<std::byte>(i % 251));
    }
  }
}

TEST(LaneTest, AnotherMappingSeesTheSameSlots) {
  const auto geometry = geometry_of(20_MiB, 5, 64);  // One slot an extent, several extents a file.
  const Lane owner = lane_of(geometry);
  auto worker = Lane::map(geometry, duplicates(owner));
  ASSERT_TRUE(worker.has_value()) << worker.error().text();
  EXPECT_TRUE(worker->files().empty());  // Closed: a mapping needs none.
  for (std::uint32_t i = 0; i < geometry.slots; ++i) {
    owner.slot(SlotIndex(i)).back() = static_cast<std::byte>(i + 1);
    worker->slot(SlotIndex(i)).front() = static_cast<std::byte>(i + 101);
  }
  for (std::uint32_t i = 0; i < geometry.slots; ++i) {
    EXPECT_EQ(worker->slot(SlotIndex(i)).back(), static_cast<std::byte>(i + 1));
    EXPECT_EQ(owner.slot(SlotIndex(i)).front(), static_cast<std::byte>(i + 101));
  }
}

TEST(LaneTest, SlotOutsideTheGeometryIsABreach) {
  const Lane lane = lane_of(geometry_of(4_KiB, 4));
  EXPECT_THROW((void)lane.slot(SlotIndex(4)), base::Breach);
}

TEST(LaneTest, FilesCannotShrinkOrGrow) {
  const Lane lane = lane_of(geometry_of(4_KiB, 4));
  EXPECT_NE(::ftruncate(lane.files()[0].get(), 4096), 0);
  EXPECT_NE(::ftruncate(lane.files()[0].get(), 1 << 20), 0);
  EXPECT_EQ(::fcntl(lane.files()[0].get(), F_GETFD) & FD_CLOEXEC, FD_CLOEXEC);
}

TEST(LaneTest, MapRefusesFilesWithoutSealsOfOtherSizeOrNumber) {
  const auto geometry = geometry_of(4_KiB, 4);
  const Lane lane = lane_of(geometry);
  const auto code_of = [](const SegmentGeometry& g, std::vector<UniqueFd> files) {
    const auto mapped = Lane::map(g, std::move(files));
    return mapped.has_value() ? Code::kOk : mapped.error().code();
  };
  EXPECT_EQ(code_of(geometry, {}), Code::kRefused);
  EXPECT_EQ(code_of(geometry_of(4_KiB, 3), duplicates(lane)), Code::kRefused);
  EXPECT_EQ(code_of(geometry_of(4_KiB, 5), duplicates(lane)), Code::kRefused);

  std::vector<UniqueFd> unsealed;
  unsealed.emplace_back(::memfd_create("unsealed", MFD_CLOEXEC | MFD_ALLOW_SEALING));
  ASSERT_EQ(::ftruncate(unsealed[0].get(), 4 * 4096), 0);
  EXPECT_EQ(code_of(geometry, std::move(unsealed)), Code::kRefused);

  const std::string path = ::testing::TempDir() + "lane" + std::to_string(::getpid());
  std::vector<UniqueFd> ordinary;
  ordinary.emplace_back(::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600));
  ASSERT_EQ(::ftruncate(ordinary[0].get(), 4 * 4096), 0);
  EXPECT_EQ(code_of(geometry, std::move(ordinary)), Code::kRefused);
  ::unlink(path.c_str());
}

TEST(LaneTest, NothingIsTouchedBeforePopulate) {
  const Lane lane = lane_of(geometry_of(1_MiB, 80));
  EXPECT_EQ(present_bytes(lane), 0U);
  EXPECT_EQ(lane.populated_extents(), 0U);
  ASSERT_TRUE(lane.populate(0).is_ok());
  EXPECT_EQ(present_bytes(lane), (32_MiB).value());
  EXPECT_EQ(lane.populated_extents(), 1U);
  EXPECT_TRUE(lane.is_populated(SlotIndex(31)));
  EXPECT_FALSE(lane.is_populated(SlotIndex(32)));
}

TEST(LaneTest, PopulatingKeepsBytesThatAreThere) {
  const auto geometry = geometry_of(1_MiB, 40);
  const Lane owner = lane_of(geometry);
  const auto worker = Lane::map(geometry, duplicates(owner));
  ASSERT_TRUE(worker.has_value());
  std::memset(owner.slot(SlotIndex(35)).data(), 0x5A, 1 << 20);
  for (std::uint32_t extent = 0; extent < geometry.extents(); ++extent) {
    ASSERT_TRUE(worker->populate(extent).is_ok());
  }
  EXPECT_EQ(worker->populated_extents(), geometry.extents());
  EXPECT_EQ(worker->slot(SlotIndex(35))[1000], std::byte{0x5A});
  EXPECT_EQ(present_bytes(owner), geometry.lane_bytes().value());
  EXPECT_EQ(worker->populate(geometry.extents()).code(), Code::kInvalid);
}

// Where there are no huge pages their refusal opens a hole in the lane's range for a moment.
TEST(LaneTest, MemoryThatOthersMapMeanwhileStaysTheirs) {
  constexpr std::size_t kBytes = 1U << 20U;
  const auto body = [] {
    std::vector<char*> others;
    base::set_sync_point("memory.lane.refused", [&] {
      for (int i = 0; i < 512; ++i) {  // More than the hole holds; the kernel fills holes first.
        void* const got = ::mmap(nullptr, kBytes, PROT_READ | PROT_WRITE,
                                 MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (got == MAP_FAILED) return;
        others.push_back(static_cast<char*>(got));
        others.back()[0] = static_cast<char>(i);
      }
    });
    const auto lane = Lane::create(geometry_of(1_MiB, 64), true, "test");
    base::set_sync_point("memory.lane.refused", {});
    if (!lane.has_value() || (others.empty() && !lane->uses_huge_pages())) return false;
    for (std::size_t i = 0; i < lane->geometry().slots; ++i) {
      std::memset(lane->slot(SlotIndex(static_cast<std::uint32_t>(i))).data(), 0xEE, 4096);
    }
    for (std::size_t i = 0; i < others.size(); ++i) {
      if (others[i][0] != static_cast<char>(i)) return false;
      others[i][0] = 1;
    }
    return true;
  };
  EXPECT_EQ(in_child(body), 0);
}

TEST(LaneTest, WorksWhetherOrNotThereAreHugePages) {
  const auto geometry = geometry_of(1_MiB, 5);
  const auto owner = Lane::create(geometry, true, "test");
  ASSERT_TRUE(owner.has_value()) << owner.error().text();
  const auto worker = Lane::map(geometry, duplicates(*owner));
  ASSERT_TRUE(worker.has_value()) << worker.error().text();
  EXPECT_EQ(worker->uses_huge_pages(), owner->uses_huge_pages());
  ASSERT_TRUE(owner->populate(0).is_ok());
  owner->slot(SlotIndex(4)).back() = std::byte{9};
  EXPECT_EQ(worker->slot(SlotIndex(4)).back(), std::byte{9});
}

TEST(LaneTest, IsLeftOutOfCoreDumpsAndChildren) {
  const Lane lane = lane_of(geometry_of(1_MiB, 4));
  char wanted[32];
  std::snprintf(wanted, sizeof wanted, "%lx-",
                reinterpret_cast<unsigned long>(lane.slot(SlotIndex(0)).data()));
  std::ifstream maps("/proc/self/smaps");
  std::string line;
  bool is_ours = false;
  std::string flags;
  while (std::getline(maps, line)) {
    if (line.find('-') < line.find(' ')) is_ours = line.starts_with(wanted);
    if (is_ours && line.starts_with("VmFlags:")) flags = line;
  }
  EXPECT_NE(flags.find(" dd"), std::string::npos) << flags;
  EXPECT_NE(flags.find(" dc"), std::string::npos) << flags;
}

// A child may use the addresses for something else; the lane's destructor must not unmap that.
TEST(LaneTest, DestructorInAForkedChildLeavesTheChildsMemoryAlone) {
  auto lane = std::make_unique<Lane>(lane_of(geometry_of(1_MiB, 4)));
  EXPECT_EQ(in_child([&] {
              std::byte* const address = lane->slot(SlotIndex(0)).data();
              void* const mine = ::mmap(address, 4096, PROT_READ | PROT_WRITE,
                                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
              // A sanitizer may have put memory of its own there since the fork: as good.
              if (mine != address && errno != EEXIST) return false;
              lane.reset();
              unsigned char presence = 0;
              return ::mincore(address, 4096, &presence) == 0;  // ENOMEM = nothing is mapped.
            }),
            0);
  lane->slot(SlotIndex(0))[0] = std::byte{1};
}

bool names(const Result<Lane>& lane, const std::string& limit) {
  if (lane.has_value() || lane.error().code() != Code::kExhausted) return false;
  const std::string& text = lane.error().message();
  return text.find("host.size") != std::string::npos && text.find(limit) != std::string::npos;
}

bool limit_to(int resource, rlim_t value) {
  const rlimit limit{value, value};
  return ::setrlimit(static_cast<__rlimit_resource>(resource), &limit) == 0;
}

TEST(LaneTest, FileSizeLimitIsAnErrorAndNoSignal) {
  EXPECT_EQ(in_child([] {
              return limit_to(RLIMIT_FSIZE, 1 << 20) &&
                     names(Lane::create(geometry_of(1_MiB, 4), false, "t"), "RLIMIT_FSIZE");
            }),
            0);
}

TEST(LaneTest, AddressSpaceLimitIsAnErrorThatNamesTheSetting) {
  EXPECT_EQ(in_child([] {
              std::ifstream statm("/proc/self/statm");
              std::uint64_t pages = 0;
              statm >> pages;
              return limit_to(RLIMIT_AS, pages * 4096 + (256U << 20U)) &&
                     names(Lane::create(geometry_of(1_MiB, 1024), false, "t"), "RLIMIT_AS");
            }),
            0);
}

TEST(LaneTest, DescriptorLimitIsAnErrorThatNamesIt) {
  EXPECT_EQ(in_child([] {
              return limit_to(RLIMIT_NOFILE, 20) &&
                     names(Lane::create(geometry_of(32_MiB, 100), false, "t"), "RLIMIT_NOFILE");
            }),
            0);
}

}  // namespace
}  // namespace terrace::memory
