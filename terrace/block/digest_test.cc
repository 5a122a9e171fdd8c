#include "terrace/block/digest.h"

#include <gtest/gtest.h>

namespace terrace {
namespace {

// SHA-256 of 03 00 00 00 00 00 00 00 'a' 'b' 'c', computed with Python's hashlib.
TEST(DigestTest, IsSha256OverLengthPrefixedFields) {
  Digest digest;
  digest.add_field("abc");
  EXPECT_EQ(digest.hex(), "ce91dc5eec0139adf091900d225971d6ad246a845bad791b5693a9d0d55dd391");
}

TEST(DigestTest, CutsOfTheSameBytesDiffer) {
  Digest one;
  one.add_field("ab");
  one.add_field("c");
  Digest two;
  two.add_field("a");
  two.add_field("bc");
  EXPECT_NE(one.hex(), two.hex());
}

}  // namespace
}  // namespace terrace
