// The real server of a test, given on its command line by tests/integration/s3:
//   PROGRAM [gtest's options] ENDPOINT BUCKET KEY SECRET [CA-FILE]
// Threading: set before the tests run, then only read.
#pragma once

#include <gtest/gtest.h>

#include <cstdio>
#include <string>
#include <vector>

#include "terrace/transfer/backends/s3/s3_store.h"

namespace terrace::transfer {

inline S3Options& real_server() {
  static S3Options options;
  return options;
}

inline int run_with_real_server(int argc, char** argv) {
  ::testing::InitGoogleTest(&argc, argv);
  const std::vector<std::string> given(argv + 1, argv + argc);
  if (given.size() < 4) {
    (void)std::fputs("started by tests/integration/s3: ENDPOINT BUCKET KEY SECRET [CA-FILE]\n",
                     stderr);
    return 2;
  }
  S3Options& options = real_server();
  options.endpoint = given[0];
  options.bucket = given[1];
  options.credentials = {given[2], given[3], ""};
  if (given.size() > 4) options.ca_file = given[4];
  return RUN_ALL_TESTS();
}

}  // namespace terrace::transfer
