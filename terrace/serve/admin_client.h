// The other side of the admin socket: finds the engines of a directory and asks one of them.
// Threading: pure functions of the file system; each call has its own socket.  Waits: up to the
// given limit.  Source: docs/formats/admin.md.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "terrace/base/clock.h"
#include "terrace/base/status.h"

namespace terrace::serve {

// Paths of all admin sockets in `directory`, dead ones too, sorted; none when it is not there.
// Errors: kIo.
[[nodiscard]] Result<std::vector<std::string>> admin_sockets(const std::string& directory);

struct AdminReply {
  unsigned code = 0;  // As in HTTP.
  std::string body;
};

// Errors: kUnavailable = nobody listens there (its engine has ended); kDeadline = connecting,
// asking and the whole answer took longer than `limit`; kRefused = not for this user; kInvalid =
// the answer is no HTTP, or too long; kIo.
[[nodiscard]] Result<AdminReply> ask_admin(const std::string& path, std::string_view method,
                                           std::string_view target, std::string_view body,
                                           Nanoseconds limit, const Clock& clock);

}  // namespace terrace::serve
