// A shared directory whose file system really is full, or turns read-only under a running store:
// ext4 where the machine has loop devices, else a tmpfs.
#include <iostream>

#include "terrace/testing/real_disk.h"
#include "terrace/transfer/backends/dir/dir_rig.h"

namespace terrace::transfer::dir {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

class DirRealTest : public DirTest {
 protected:
  void SetUp() override {
    ASSERT_TRUE(disk_.is_mounted()) << "this test mounts a file system: run it as root";
    std::cout << "on " << disk_.kind() << "\n";
    options_.path = disk_.path() + "/objects";
    fs::create_directory(options_.path);
  }
  testing::RealDisk disk_{32 << 20};
};

TEST_F(DirRealTest, FullInTheMiddleItTakesNothingKeepsEverythingAndGoesOn) {
  open();
  const Content bytes = content(1U << 20U);
  ASSERT_EQ(put("a/before", bytes).status.text(), Status().text());
  disk_.fill_up("hog");
  for (const char* name : {"a/x", "b/c/x"}) {
    const ObjectAnswer answer = put(name, bytes);
    EXPECT_EQ(answer.status.code(), Code::kExhausted);
    EXPECT_THAT(answer.status.message(), HasSubstr("ENOSPC"));
    EXPECT_EQ(head(name).status.code(), Code::kNotFound);
  }
  EXPECT_THAT(leftovers(), IsEmpty());
  EXPECT_EQ(get_all("a/before"), bytes);
  fs::remove(disk_.path() + "/hog");
  EXPECT_EQ(put("a/x", bytes).status.text(), Status().text());
  EXPECT_EQ(get_all("a/x"), bytes);
}

TEST_F(DirRealTest, FullFromTheStartItIsRefusedOrServesAndHasRoomLater) {
  disk_.fill_up("hog");
  auto made = make();
  if (!made) {  // The marker did not fit.
    EXPECT_EQ(made.error().code(), Code::kExhausted);
    EXPECT_THAT(made.error().message(), HasSubstr("ENOSPC"));
  }
  fs::remove(disk_.path() + "/hog");
  open();
  EXPECT_EQ(put("a/x", content(1000)).status.text(), Status().text());
}

TEST_F(DirRealTest, TurnedReadOnlyItServesAndIsWrittenAgainOnceItCanBe) {
  open();
  const Content bytes = content(100'000);
  ASSERT_EQ(put("a/before", bytes).status.text(), Status().text());
  ASSERT_TRUE(disk_.turn_read_only());
  for (int i = 0; i < 3; ++i) {
    const ObjectAnswer answer = put("a/x", bytes);
    EXPECT_EQ(answer.status.code(), Code::kRefused);
    EXPECT_THAT(answer.status.message(), HasSubstr("EROFS"));
  }
  EXPECT_EQ(remove("a/before").status.code(), Code::kRefused);
  EXPECT_EQ(get_all("a/before"), bytes);
  EXPECT_EQ(list(), std::vector<std::string>{"a/before"});
  // The store holds nothing open, and is not told.
  ASSERT_TRUE(disk_.turn_writable());
  EXPECT_EQ(get_all("a/before"), bytes);
  EXPECT_EQ(put("a/x", bytes).status.text(), Status().text());
  EXPECT_EQ(get_all("a/x"), bytes);
  EXPECT_THAT(leftovers(), IsEmpty());
}

}  // namespace
}  // namespace terrace::transfer::dir
