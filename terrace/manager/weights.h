// Fingerprint of a model's weights, cheap enough for every start: of each *.safetensors file its
// name, size and header, and of *every* tensor the first, a middle and the last page. A fine-tune
// of one layer saved over the same path therefore differs. Threading: thread-safe.  BLOCKS: reads
// files.  Source: docs/formats/fingerprint.md; the safetensors format (8-byte little-endian header
// length, JSON header, tensor data).
#pragma once

#include <string>

#include "terrace/base/clock.h"
#include "terrace/base/status.h"
#include "terrace/block/fingerprint.h"

namespace terrace::manager {

// 64 hex digits. With a `cache_directory`, a file whose identity (device, inode, size, change and
// modification time) is known is not read again; files changed in the last two seconds are not
// cached, because a further change might leave the same time stamps. Errors: kNotFound = no
// *.safetensors there; kCorrupt = a header that is none; kIo.
[[nodiscard]] Result<std::string> digest_weights(const std::string& directory,
                                                 const std::string& cache_directory = "");

// Their digest as a field of the fingerprint. Errors: kInvalid when the engine gave it too.
[[nodiscard]] Status add_weights(Fingerprint& fingerprint, std::string digest);

}  // namespace terrace::manager
