// An owner directory of the disk tier with one file of any content: it opens or says why not, and
// what it serves is right. The first byte says which file.
#include <cstdlib>
#include <filesystem>
#include <fstream>

#include "terrace/policy/returns/return_model.h"
#include "terrace/tier/disk/disk_rig.h"
#include "terrace/tier/disk/inspect.h"

namespace {

namespace fs = std::filesystem;
namespace disk = terrace::tier::disk;

constexpr std::uint64_t kBlocks = 8;
constexpr const char* kFiles[] = {"ns-0001/slots.meta", "extents.meta", "ns-0001/fingerprint.txt",
                                  "ns-0001/used.txt",   "0.slots",      "ns-0001/learned.meta"};

const std::shared_ptr<terrace::policy::ReturnModel>& returns() {
  static const auto made = *terrace::policy::ReturnModel::create();
  return made;
}

void configure(disk::Rig& rig) {
  rig.options().returns = returns();
  rig.options().blocks = kBlocks;
  rig.options().backend = "threads";
  rig.options().io.threads = 1;
}

// Sealed blocks of a tier that was closed; made once.
const disk::ScratchDirectory& good_directory() {
  static const auto* const made = [] {
    auto* scratch = new disk::ScratchDirectory();
    disk::Rig rig({1, {4096}});
    configure(rig);
    if (!rig.open().is_ok()) std::abort();
    for (std::uint64_t n = 0; n < kBlocks; ++n) {
      if (!rig.write(n).is_ok()) std::abort();
    }
    rig.tier().keep_learned(returns()->save());
    rig.settle();
    rig.close();
    fs::copy(rig.path(), scratch->path(), fs::copy_options::recursive);
    return scratch;
  }();
  return *made;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size);
int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size < 4) return 0;
  disk::Rig rig({1, {4096}});
  configure(rig);
  fs::copy(good_directory().path(), rig.path(), fs::copy_options::recursive);
  const std::string path = rig.owner() + "/" + kFiles[data[0] % std::size(kFiles)];
  {
    // Whole, or laid over what is there from some place on.
    const auto mode = std::ios::binary | std::ios::in | std::ios::out;
    std::fstream file(path, data[1] == 0 ? mode | std::ios::trunc : mode);
    if (data[1] != 0) file.seekp(static_cast<std::streamoff>(data[2]) * 64);
    file.write(reinterpret_cast<const char*>(data + 3), static_cast<std::streamsize>(size - 3));
  }
  (void)terrace::tier::inspect_directory(rig.path());
  if (!rig.open().is_ok()) return 0;
  (void)returns()->load(rig.tier().learned());
  for (std::uint64_t n = 0; n < kBlocks; ++n) {
    if (rig.read(n).code() == terrace::Code::kInternal) std::abort();
  }
  if (rig.write(100).is_ok() && !rig.read(100).is_ok()) std::abort();
  return 0;
}
