// What kind of file system a slot file lies on, where that matters to somebody who runs an engine:
// one that copies on write keeps no promise of space, one that is in memory or in a container's own
// layer keeps nothing, and a file with holes can run out of space in the middle.
// Threading: thread-safe.  Waits: never for long (fstatfs, ioctl).
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace terrace::tier::disk {

struct Medium {
  std::uint64_t type = 0;    // As fstatfs has it; 0 = not known.
  bool is_no_copy = false;   // The file is marked to be written in place (chattr +C).
  std::uint64_t size = 0;    // Of the file,
  std::uint64_t blocks = 0;  // of which this much has blocks on the medium.
};
[[nodiscard]] Medium medium_of(int file);
// What to tell, each with a way out; empty for most.
[[nodiscard]] std::vector<std::string> notes_on(const Medium& medium);

}  // namespace terrace::tier::disk
