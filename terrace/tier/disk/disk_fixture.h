// What tests of the disk tier share: blocks that are written, faults between the tier and its
// files, bytes that change under it, and rounds of its work. Threading: thread-compatible.  Waits:
// for the disk, up to 20 s for what a test waits for.
#pragma once

#include <gtest/gtest.h>

#include <fstream>
#include <memory>
#include <string>
#include <vector>

#include "terrace/testing/fake_clock.h"
#include "terrace/tier/disk/disk_rig.h"
#include "terrace/transfer/backends/fault/fault_backend.h"

namespace terrace::tier::disk {

// Of the rig's blocks, one rank.
inline constexpr std::uint64_t kPayload = 8192;
inline constexpr std::uint64_t kFrame = 4096 + kPayload;

class DiskFixture : public ::testing::Test {
 protected:
  // From the next open() on, faults_ stands between the tier and its files.
  void add_faults(std::uint64_t seed = 1) {
    rig_.options().decorate = [this, seed](std::unique_ptr<transfer::Backend> inner) {
      auto faults = std::make_unique<transfer::FaultBackend>(std::move(inner), seed);
      faults_ = faults.get();
      return faults;
    };
  }
  void open_with_faults(std::uint64_t seed = 1) {
    add_faults(seed);
    ASSERT_EQ(rig_.open().text(), Status().text());
  }
  void write_blocks(std::uint64_t first, std::uint64_t end, std::size_t group = 0) {
    for (std::uint64_t n = first; n < end; ++n) {
      ASSERT_EQ(rig_.write(n, group).text(), Status().text()) << n;
    }
  }

  // ---- Files under the tier. Slots are filled in order from 0.
  [[nodiscard]] std::string file(const std::string& name) const {
    return rig_.owner() + "/" + name;
  }
  [[nodiscard]] std::string slots() const { return file("0.slots"); }
  [[nodiscard]] std::string bytes_of(const std::string& name, std::uint64_t offset,
                                     std::size_t count) const {
    std::ifstream source(file(name), std::ios::binary);
    source.seekg(static_cast<std::streamoff>(offset));
    std::string bytes(count, '\0');
    source.read(bytes.data(), static_cast<std::streamsize>(count));
    return bytes;
  }
  void patch(const std::string& name, std::uint64_t offset, const std::string& bytes) const {
    std::fstream target(file(name), std::ios::in | std::ios::out | std::ios::binary);
    ASSERT_TRUE(target.good());
    target.seekp(static_cast<std::streamoff>(offset));
    target.write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
  }

  // ---- Rounds.
  void poll() {
    std::vector<DiskDone> done;
    rig_.tier().wait(milliseconds(5));
    rig_.tier().poll(done);
  }
  template <typename Condition>
  bool poll_until(Condition&& condition) {
    const Nanoseconds limit = rig_.clock().now() + seconds(20);
    while (!condition() && rig_.clock().now() < limit) poll();
    return condition();
  }

  testing::FakeClock clock_;
  Rig rig_;
  transfer::FaultBackend* faults_ = nullptr;
};

}  // namespace terrace::tier::disk
