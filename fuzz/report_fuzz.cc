#include "fuzz/messages.h"
#include "terrace/wire/orders.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size);
int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  terrace::fuzz::decode_twice(data, size, terrace::wire::decode_report);
  return 0;
}
