// A pause between two tries of what tells nobody when it could go on: a file lock, a name that a
// file server shows late.
// Threading: any thread.  Waits: for the time given, at most.
#pragma once

#include "terrace/base/mutex.h"

namespace terrace {

inline void nap(Nanoseconds time) {
  Mutex mutex;
  CondVar nobody;
  const MutexLock lock(mutex);
  (void)nobody.wait_for(mutex, time);
}

}  // namespace terrace
