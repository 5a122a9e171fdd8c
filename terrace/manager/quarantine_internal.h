// A namespace that was found to lie, written down for its later owners: one small file that
// somebody has to take away before anything of it is served again. Threading: the opening thread
// reads, the I/O thread writes.  Waits: for files. Errors: a file that is there and cannot be read
// counts as a quarantine. Source: docs/adr/0036-a-share-of-hits-is-checked.md.
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "terrace/base/status.h"
#include "terrace/manager/options.h"

namespace terrace::manager {

// The file's path; empty where the options name no directory for it.
[[nodiscard]] std::string quarantine_path(const ShadowOptions& options,
                                          const Fingerprint& fingerprint);
// What an earlier owner wrote there; nothing = it wrote nothing.
[[nodiscard]] std::optional<std::string> read_quarantine(const std::string& path);
// On the medium when it returns ok. Errors: of the file; the quarantine then ends with the process.
[[nodiscard]] Status write_quarantine(const std::string& path, std::string_view reason);

}  // namespace terrace::manager
