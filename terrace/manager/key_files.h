// Master keys on their way in: files of keys, read with care and made with more.
// Threading: thread-safe.  Waits: file I/O; at the start, or in a tool.
// Source: docs/formats/encryption.md.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "terrace/base/status.h"
#include "terrace/block/key_ring.h"

namespace terrace::manager {

struct KeySources {
  std::string key_file;  // One of these two writes; both empty = nothing is encrypted.
  std::string key;       // As text.
  std::vector<std::string> old_key_files;
};
// Null when there is no key. Errors: those of read_key_file; kInvalid = the text is no key.
[[nodiscard]] Result<std::shared_ptr<const KeyRing>> load_keys(const KeySources& sources);

// Errors say the way out, and nothing of what is in the file: kRefused = others than its owner may
// use it, or it is another user's; kInvalid = it is no key file; kIo, kNotFound.
[[nodiscard]] Result<Secret> read_key_file(const std::string& path);
// A new random key in a new file for its owner alone, durable when this returns. Errors: kInvalid =
// something is there already.
[[nodiscard]] Result<KeyId> make_key_file(const std::string& path);

}  // namespace terrace::manager
