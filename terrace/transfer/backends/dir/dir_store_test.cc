// The dir store on a disk, in memory, and over file systems that lack calls.
#include "terrace/transfer/backends/dir/dir_store.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <filesystem>
#include <fstream>

#include "contract/object_store_contract.h"
#include "terrace/base/file.h"
#include "terrace/testing/scratch_directory.h"
#include "terrace/transfer/backends/dir/dir_store_internal.h"
#include "terrace/transfer/backends/fault/fault_store.h"

namespace terrace::transfer {
namespace {

using CallsMaker = std::function<std::unique_ptr<dir::FileCalls>()>;

struct Shape {
  std::string parent{};  // Empty = where tests have their files, on a disk.
  bool is_direct = false;
  bool is_faulty = false;  // Under the fault decorator, which injects nothing.
};

class DirPlace final : public ObjectPlace {
 public:
  DirPlace(CallsMaker make_calls, Shape shape)
      : scratch_(shape.parent), make_calls_(std::move(make_calls)), shape_(std::move(shape)) {}
  std::unique_ptr<ObjectStore> open(unsigned depth) override {
    DirStoreOptions options;
    options.path = scratch_.path();
    options.depth = depth;
    options.threads = 4;
    options.is_direct = shape_.is_direct;
    auto store = dir::make_store(options, make_calls_());
    if (!store) ADD_FAILURE() << store.error().message();
    if (!store || !shape_.is_faulty) return store ? *std::move(store) : nullptr;
    return std::make_unique<FaultStore>(*std::move(store), 1);
  }

 private:
  testing::ScratchDirectory scratch_;
  CallsMaker make_calls_;
  Shape shape_;
};

// NFS without hard links, and file systems behind FUSE: how far the store has to go.
class NoLinks : public dir::FileCalls {
 public:
  int link(int, const char*, const char*) override { return errno = EPERM, -1; }
};
class NoLinksNoRenameNew final : public NoLinks {
 public:
  int rename_new(int, const char*, const char*) override { return errno = EINVAL, -1; }
};

class NoOpenat2 final : public dir::FileCalls {
 public:
  int open_below(int folder, const char* path, int flags, mode_t mode) override {
    return open_part_by_part(folder, path, flags, mode);
  }
};

template <typename Calls>
ObjectPlaceMaker maker(std::string name, const Shape& shape) {
  return {std::move(name), [shape] {
            return std::make_unique<DirPlace>([] { return std::make_unique<Calls>(); }, shape);
          }};
}

INSTANTIATE_TEST_SUITE_P(
    Dir, ObjectStoreContract,
    ::testing::Values(maker<dir::FileCalls>("Plain", {}),
                      maker<dir::FileCalls>("Direct", {.is_direct = true}),
                      maker<dir::FileCalls>("InMemory", {.parent = "/dev/shm"}),
                      maker<dir::FileCalls>("UnderFaultDecorator",
                                            {.parent = "/dev/shm", .is_faulty = true}),
                      maker<NoLinks>("WithoutLinks", {.parent = "/dev/shm"}),
                      maker<NoLinksNoRenameNew>("WithPlainRenamesAlone", {.parent = "/dev/shm"}),
                      maker<NoOpenat2>("WithoutOpenat2", {.parent = "/dev/shm"})),
    object_store_name);

TEST(DirStoreTest, PartByPartNoLinkIsFollowedAndNoFolderLeft) {
  const testing::ScratchDirectory scratch;
  std::filesystem::create_directories(scratch.path() + "/in/real");
  std::filesystem::create_directories(scratch.path() + "/out");
  std::ofstream(scratch.path() + "/out/x") << "x";
  std::ofstream(scratch.path() + "/in/real/x") << "x";
  std::filesystem::create_directory_symlink("../out", scratch.path() + "/in/link");
  std::filesystem::create_symlink("real/x", scratch.path() + "/in/x");
  const UniqueFd in(::open((scratch.path() + "/in").c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC));
  dir::FileCalls calls;
  for (const char* path : {"link/x", "x", "../out/x", "real/../../out/x"}) {
    EXPECT_FALSE(UniqueFd(calls.open_below(in.get(), path, O_RDONLY, 0)).is_open()) << path;
    EXPECT_FALSE(UniqueFd(dir::FileCalls::open_part_by_part(in.get(), path, O_RDONLY, 0)).is_open())
        << path;
  }
  EXPECT_TRUE(UniqueFd(calls.open_below(in.get(), "real/x", O_RDONLY, 0)).is_open());
  EXPECT_TRUE(
      UniqueFd(dir::FileCalls::open_part_by_part(in.get(), "real/x", O_RDONLY, 0)).is_open());
}

}  // namespace
}  // namespace terrace::transfer
