#include "terrace/transfer/object_store.h"

#include <gtest/gtest.h>

namespace terrace::transfer {
namespace {

TEST(ObjectNameTest, PartsOfPlainBytesAreNames) {
  for (const auto* name : {"a", "a/b", "0123/abc-def_9.pack", "a.b", "..a", "...", "-"}) {
    EXPECT_EQ(check_object_name(name).text(), Status().text()) << name;
  }
  EXPECT_TRUE(check_object_name(std::string(200, 'x')).is_ok());
}

TEST(ObjectNameTest, WhatIsWrongIsSaidInPlainLetters) {
  EXPECT_EQ(check_object_name("a//b").message(), "object name 'a//b' has an empty part");
  EXPECT_EQ(check_object_name("a/../b").message(),
            "object name 'a/../b' has a part that means another folder");
  EXPECT_EQ(check_object_name("a\n").message(),
            "object name 'a\\x0a' has bytes outside a-z, 0-9, '.', '_', '-' and '/'");
  EXPECT_EQ(check_object_name(std::string(600, 'a')).message(),
            "object name '" + std::string(64, 'a') + "…' is longer than 512 bytes");
  EXPECT_EQ(check_object_name(std::string(201, 'a')).code(), Code::kInvalid);
}

}  // namespace
}  // namespace terrace::transfer
