#include "terrace/testing/foreign_bytes.h"

#include <gtest/gtest.h>

#include "terrace/serve/foreign_bytes_fixture.h"

namespace terrace::serve {
namespace {

TEST(ForeignBytesTest, TheServerOutlivesWhateverIsAsked) {
  ServerUnderBytes server;
  testing::expect_to_stand(server, 20261132);
}

TEST(ForeignBytesTest, WhoAsksOutlivesWhateverIsAnswered) {
  ClientUnderBytes client;
  testing::expect_to_stand(client, 20261133);
}

}  // namespace
}  // namespace terrace::serve
