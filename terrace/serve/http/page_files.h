// The web page's files, which the build puts into the program (`page/`, `embed.cmake`).
// Threading: immutable.  Waits: never.
#pragma once

#include <span>
#include <string_view>

namespace terrace::serve {

struct PageFile {
  std::string_view name;  // "page.css".
  std::string_view content;
};

[[nodiscard]] std::span<const PageFile> page_files();

}  // namespace terrace::serve
