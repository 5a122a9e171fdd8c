#include "terrace/testing/foreign_bytes.h"

#include <gtest/gtest.h>

#include "terrace/attach/foreign_bytes_fixture.h"

namespace terrace::attach {
namespace {

TEST(ForeignBytesTest, AnOwnerOutlivesWhateverAWorkerSends) {
  OwnerUnderBytes owner;
  testing::expect_to_stand(owner, 20261130);
  EXPECT_EQ(owner.run(OwnerUnderBytes::seeds().front()), "");  // As an honest one does.
  EXPECT_TRUE(owner.has_seen(AttachChange::kAttached));
  EXPECT_TRUE(owner.has_seen(AttachChange::kDied));
}

TEST(ForeignBytesTest, AWorkerOutlivesWhateverAnOwnerSends) {
  WorkerUnderBytes worker;
  testing::expect_to_stand(worker, 20261131);
}

}  // namespace
}  // namespace terrace::attach
