// For tests and fuzz targets. Threading: thread-safe.  Waits: never.
#pragma once

#include <cstdint>
#include <cstdlib>
#include <string>

#include "terrace/serve/http/http_server.h"

namespace terrace::serve {

// Where it listens.
inline std::uint16_t port_of(const HttpServer& server) {
  const std::string url = server.url();
  return static_cast<std::uint16_t>(std::atoi(url.c_str() + url.rfind(':') + 1));
}

}  // namespace terrace::serve
