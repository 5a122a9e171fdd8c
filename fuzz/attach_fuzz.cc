#include <cstdlib>

#include "terrace/wire/attach_messages.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size);
int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const auto bytes = std::as_bytes(std::span(data, size));
  const auto message = terrace::wire::decode_attach(bytes);
  if (!message.has_value()) return 0;
  const auto encoded = encode(*message);
  if (!encoded.has_value()) return 0;  // Unfolded runs may need more room than the original.
  const auto again =
      terrace::wire::decode_attach(std::as_bytes(std::span(encoded->data(), encoded->size())));
  if (!again.has_value() || again->index() != message->index()) std::abort();
  return 0;
}
