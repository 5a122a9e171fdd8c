// A tier over two directories, between which its blocks alternate, with faults under it: for tests
// of one that fails while the other goes on.
// Threading: thread-compatible.  Waits: for the disk, as DiskFixture.
#pragma once

#include <string>

#include "terrace/tier/disk/disk_fixture.h"

namespace terrace::tier::disk {

class TwoDirectories : public DiskFixture {
 protected:
  static constexpr std::uint64_t kBlocks = 16;

  // On the fixture's clock; what follows may be changed before open_and_fill().
  void SetUp() override {
    rig_.use_clock(clock_);
    rig_.options().blocks = kBlocks;
    rig_.options().paths = {rig_.path() + "/a", rig_.path() + "/b"};
  }
  void open_and_fill() {
    open_with_faults();
    write_blocks(0, kBlocks);
    rig_.settle();
  }
  [[nodiscard]] std::string owner(char path) const {
    return rig_.path() + "/" + path + "/terrace-00";
  }
  // Blocks that the tier says it has.
  [[nodiscard]] std::uint64_t seen() const {
    std::uint64_t count = 0;
    for (std::uint64_t n = 0; n < kBlocks; ++n) count += rig_.has(n) ? 1U : 0U;
    return count;
  }
  // The first one; empty = none.
  [[nodiscard]] std::string problem() {
    const auto problems = rig_.tier().problems();
    return problems.empty() ? "" : problems.front();
  }
};

}  // namespace terrace::tier::disk
