// A backend from a library that was built outside this tree (include/terrace/backend.h): its
// completions are checked, its silence has a limit, and after a broken promise it is closed, in a
// thread of its own. A transfer whose memory it may still touch never completes: as with a device
// that hangs, its memory is lost to the process's end.
// Threading: as Backend.  Waits: the destructor for the plug-in's close(), at most
// ten seconds and Options::patience.
#pragma once

#include <memory>

#include "terrace/transfer/backend.h"

namespace terrace::transfer {

// Options::library and Options::patience count.
// Errors: kInvalid, kRefused = the library cannot be used (says why); kUnavailable = it says that
// it cannot work on this machine.
[[nodiscard]] Result<std::unique_ptr<Backend>> make_plugin_backend(const Backend::Options& options);

}  // namespace terrace::transfer
