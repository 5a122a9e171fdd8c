#include "fuzz/ends.h"
#include "terrace/serve/http/foreign_bytes_fixture.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size);
int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  return terrace::fuzz::run_end<terrace::serve::PortUnderBytes>(data, size);
}
