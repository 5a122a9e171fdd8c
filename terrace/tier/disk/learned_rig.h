// What tests of learned.meta share: lessons that the tier keeps, an owner that leaves them, and
// what the next one is to do. Threading: thread-compatible.  Waits: for the disk.
#pragma once

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

#include "terrace/policy/returns/return_model.h"
#include "terrace/tier/disk/disk_fixture.h"

namespace terrace::tier::disk {

inline const std::string kName = "ns-0001/learned.meta";

// Different in each byte and length.
inline std::string lesson(std::uint64_t number) {
  std::string bytes(100'000 + number * 1000, '\0');
  Rng rng(number);
  for (char& byte : bytes) byte = static_cast<char>(rng.next());
  return bytes;
}

// In words; the bytes would fill the screen.
inline std::string name_of(const std::string& bytes) {
  for (std::uint64_t n = 0; n < 110; ++n) {
    if (bytes.size() == 100'000 + n * 1000 && bytes == lesson(n))
      return "lesson " + std::to_string(n);
  }
  return bytes.empty() ? "nothing" : "something else";
}

class DiskLearnedTest : public DiskFixture {
 protected:
  DiskLearnedTest() { rig_.options().returns = *policy::ReturnModel::create(); }
  void open() { ASSERT_EQ(rig_.open().text(), Status().text()); }
  [[nodiscard]] std::string found() { return name_of(rig_.tier().learned()); }
  void keep(std::uint64_t number) {
    rig_.tier().keep_learned(lesson(number));
    rig_.settle();
  }
  // Of an owner that kept so many, and closed.
  void leave(std::uint64_t lessons) {
    open();
    expect_serving();  // A namespace without blocks goes at the next start.
    for (std::uint64_t n = 1; n <= lessons; ++n) keep(n);
    rig_.close();
  }
  // Of the write budget.
  std::int64_t charged_for_a_lesson() {
    rig_.use_clock(clock_);
    rig_.options().write_budget = Bytes(24 << 20U);
    open();
    clock_.advance(seconds(3600));
    rig_.settle();
    const std::int64_t before = rig_.tier().flow().budget_left;
    rig_.tier().keep_learned(lesson(1));
    EXPECT_TRUE(poll_until([&] { return rig_.tier().is_idle(); }));
    return before - rig_.tier().flow().budget_left;
  }
  void expect_serving() {
    EXPECT_TRUE(rig_.write(next_).is_ok());
    EXPECT_TRUE(rig_.read(next_++).is_ok());
  }
  // Nothing is found and the log says why; what is kept from now on is found by the next one.
  void expect_new_start(const std::string& why) {
    open();
    EXPECT_EQ(found(), "nothing");
    EXPECT_THAT(rig_.log(), ::testing::HasSubstr(why));
    expect_serving();
    keep(9);
    ASSERT_EQ(rig_.reopen().text(), Status().text());
    EXPECT_EQ(found(), "lesson 9");
  }
  // Something that cannot be opened lies in its place.
  void expect_off() {
    open();
    EXPECT_EQ(found(), "nothing");
    EXPECT_THAT(rig_.log(), ::testing::HasSubstr("learned=off"));
    keep(9);
    expect_serving();
    EXPECT_TRUE(rig_.tier().problems().empty());
  }

  std::uint64_t next_ = 1;
};

}  // namespace terrace::tier::disk
