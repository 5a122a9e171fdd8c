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

// 64 hex digits. Nothing is remembered between starts: 10 GB in 500 tensors take 90 ms from an SSD
// and 6 ms once the engine has read them. Errors: kNotFound = no *.safetensors there; kCorrupt = a
// header that is none; kInvalid = not a regular file; kIo.
[[nodiscard]] Result<std::string> digest_weights(const std::string& directory);

// Whether the digest, taken before this call, is that of what an engine loaded that started at
// `since` (wall clock, since 1970): no weights file, and no entry of the directory, has changed
// from then on. Files of Hugging Face's cache need no such proof: they are named by their content.
// Errors: kRefused = one has, or may have; names it and the way out; kNotFound, kIo.
[[nodiscard]] Status check_unchanged(const std::string& directory, Nanoseconds since);

// Their digest as a field of the fingerprint. Errors: kInvalid when the engine gave it too.
[[nodiscard]] Status add_weights(Fingerprint& fingerprint, std::string digest);

}  // namespace terrace::manager
