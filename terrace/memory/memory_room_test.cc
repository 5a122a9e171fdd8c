#include "terrace/memory/memory_room.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <string>

#include "terrace/testing/scratch_directory.h"

namespace terrace::memory {
namespace {

class MemoryRoomTest : public ::testing::Test {
 protected:
  void put(const std::string& path, const std::string& content) {
    const std::filesystem::path file = root_.path() + path;
    std::filesystem::create_directories(file.parent_path());
    std::ofstream(file) << content;
  }
  [[nodiscard]] MemoryRoom room() const { return memory_room(root_.path()); }

 private:
  testing::ScratchDirectory root_;
};

TEST_F(MemoryRoomTest, NothingReadableDoesNotLimit) { EXPECT_EQ(room().bytes, Bytes(UINT64_MAX)); }

TEST_F(MemoryRoomTest, AvailableMemoryLimits) {
  put("/proc/meminfo", "MemTotal: 900 kB\nMemFree:   1 kB\nMemAvailable:     200 kB\n");
  EXPECT_EQ(room().bytes, 200_KiB);
}

TEST_F(MemoryRoomTest, GroupAboveLimitsToo) {
  put("/proc/meminfo", "MemAvailable: 900000 kB\n");
  put("/proc/self/cgroup", "0::/pod/engine\n");
  put("/sys/fs/cgroup/pod/engine/memory.max", "max\n");
  put("/sys/fs/cgroup/pod/engine/memory.current", "5000\n");
  put("/sys/fs/cgroup/pod/memory.max", "1000000\n");
  put("/sys/fs/cgroup/pod/memory.current", "600000\n");
  put("/sys/fs/cgroup/pod/memory.stat", "anon 1\ninactive_file 50000\nslab 3\n");
  EXPECT_EQ(room().bytes, Bytes(450'000));
  EXPECT_NE(room().limit.find("/pod/memory.max"), std::string::npos);
}

TEST_F(MemoryRoomTest, UsageOverTheLimitLeavesNothing) {
  put("/proc/self/cgroup", "0::/\n");
  put("/sys/fs/cgroup/memory.max", "1000\n");
  put("/sys/fs/cgroup/memory.current", "5000\n");
  EXPECT_EQ(room().bytes, Bytes(0));
}

// In a container with its own view of the groups its group is their root.
TEST_F(MemoryRoomTest, RootOfAPrivateNamespaceLimits) {
  for (const char* path : {"/", "/init.scope", "/../beside"}) {
    put("/proc/self/cgroup", std::string("0::") + path + "\n");
    put("/sys/fs/cgroup/memory.max", "9000\n");
    put("/sys/fs/cgroup/memory.current", "5000\n");
    put("/sys/fs/cgroup/memory.stat", "anon 1\ninactive_file 2000\n");
    EXPECT_EQ(room().bytes, Bytes(6000)) << path;
    EXPECT_TRUE(room().limit.ends_with("/sys/fs/cgroup/memory.max")) << path;
  }
}

// In a container without its own view of the groups the path is the host's.
TEST_F(MemoryRoomTest, FirstVersionsGroupsAreFoundAtTheirRoot) {
  put("/proc/self/cgroup", "12:cpu,cpuacct:/docker/abc\n5:memory:/docker/abc\n0::/docker/abc\n");
  put("/sys/fs/cgroup/memory/memory.limit_in_bytes", "8000\n");
  put("/sys/fs/cgroup/memory/memory.usage_in_bytes", "3000\n");
  put("/sys/fs/cgroup/memory/memory.stat", "inactive_file 7\ntotal_inactive_file 1000\n");
  EXPECT_EQ(room().bytes, Bytes(6000));
}

TEST_F(MemoryRoomTest, FirstVersionsControllersMayBeMountedTogether) {
  put("/proc/self/cgroup", "7:memoryless:/\n5:hugetlb,memory:/pod\n");
  put("/sys/fs/cgroup/memory/pod/memory.limit_in_bytes", "8000\n");
  put("/sys/fs/cgroup/memory/pod/memory.usage_in_bytes", "3000\n");
  EXPECT_EQ(room().bytes, Bytes(5000));
}

TEST_F(MemoryRoomTest, GarbageDoesNotLimit) {
  put("/proc/meminfo", "MemAvailable: none\n");
  put("/proc/self/cgroup", "::\n:\n\n0\nx::relative");
  put("/sys/fs/cgroup/memory.max", "");
  EXPECT_EQ(room().bytes, Bytes(UINT64_MAX));
}

TEST(MemoryRoomHereTest, ThisMachineHasSome) { EXPECT_GT(memory_room().bytes, 1_MiB); }

}  // namespace
}  // namespace terrace::memory
