#include "terrace/base/status.h"

#include <gtest/gtest.h>

#include <cerrno>

namespace terrace {
namespace {

Result<int> half(int n) {
  if (n % 2 != 0) return fail(Code::kInvalid, "odd");
  return n / 2;
}
Result<std::string> describe(int n) {
  TERRACE_ASSIGN_OR_RETURN(const int h, half(n));
  return std::to_string(h);
}
Status check_even(int n) {
  TERRACE_ASSIGN_OR_RETURN([[maybe_unused]] const int h, half(n));
  return {};
}
Result<int> twice(int n) {
  TERRACE_RETURN_IF_ERROR(check_even(n));
  return 2 * n;
}

TEST(StatusTest, MacrosPassErrorsThroughBothKindsOfFunction) {
  EXPECT_EQ(describe(4).value(), "2");
  EXPECT_EQ(describe(3).error().code(), Code::kInvalid);
  EXPECT_EQ(twice(4).value(), 8);
  EXPECT_EQ(twice(3).error().message(), "odd");
}

TEST(StatusTest, ErrnoTextNamesOperationPathAndError) {
  const Status status = Status::from_errno(EIO, "pread", "/kv/0.slots");
  EXPECT_EQ(status.message(), "pread /kv/0.slots: EIO (5: Input/output error)");
  EXPECT_EQ(status.code(), Code::kIo);
}

}  // namespace
}  // namespace terrace
