#include "terrace/testing/foreign_bytes.h"

#include <gtest/gtest.h>

#include "terrace/serve/http/foreign_bytes_fixture.h"

namespace terrace::serve {
namespace {

TEST(HttpForeignBytesTest, ThePortOutlivesWhateverIsAsked) {
  PortUnderBytes port;
  testing::expect_to_stand(port, 20261134);
}

}  // namespace
}  // namespace terrace::serve
