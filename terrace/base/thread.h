// A named thread that is a guest in somebody else's process: all signals blocked, CPU affinity
// reset to what the process was given (engines pin their threads), Breach caught and reported.
// Threading: owned by its creator.  Waits: join() only in the destructor, after request_stop().
#pragma once

#include <functional>
#include <stop_token>
#include <string>
#include <thread>

#include "terrace/base/status.h"

namespace terrace {

// Starts `body`; `on_breach` is called in the thread with the message if an exception escapes it.
// Errors: kExhausted when the system refuses another thread.
[[nodiscard]] Result<std::jthread> start_thread(const std::string& name,
                                                std::function<void(std::stop_token)> body,
                                                std::function<void(const char*)> on_breach);

}  // namespace terrace
