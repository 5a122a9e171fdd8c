// Looks at what a read brings while it comes: bytes that were just copied are in the processor's
// cache, and when the last ones are in, those before have been looked at. Who reads by itself calls
// it (the threads of `dir`, `s3` and `threads`); a backend whose bytes the device puts there does
// not, and a decorator that spoils bytes afterwards keeps it from those below. So what was not
// shown is looked at by who asked, when the answer is in. Threading: for one read never by two
// threads at once, and before its answer; otherwise by any. Waits: never.
#pragma once

#include <cstdint>

namespace terrace::transfer {

class Arrivals {
 public:
  virtual ~Arrivals() = default;
  // Bytes [from, to) of what was asked for are in the caller's memory, where nobody writes any more
  // unless the read begins anew: then `from` is 0 again. Else `from` is where the last call ended.
  virtual void on_bytes(std::uint64_t from, std::uint64_t to) = 0;
};

}  // namespace terrace::transfer
