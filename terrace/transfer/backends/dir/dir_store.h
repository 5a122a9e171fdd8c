// Whole objects as files of a directory that several nodes share, on any mounted file system (NFS,
// Lustre, CephFS, WEKA …). Format and order of writing: docs/formats/object-dir.md.
// Threading: as ObjectStore; the worker threads are its own.  Waits: as ObjectStore. A thread that
// sits in a system call of a file server that does not answer ends when the call does: its request
// is answered then, and the destructor waits for it. close() waits for requests that were begun.
// Bounds: as ObjectStore; `threads` threads, each with at most three descriptors; a listing holds
// at most kMostListed names per folder on its way.
#pragma once

#include <memory>
#include <string>

#include "terrace/transfer/object_store.h"

namespace terrace::transfer {

struct DirStoreOptions {
  std::string path;      // Has to be there: a folder made where nothing is mounted would fill `/`.
  unsigned depth = 32;   // Requests in flight.
  unsigned threads = 8;  // System calls at once; as many as `depth`: no request waits for another.
  // Files 0640 in folders 02770, whatever the umask, so that users of the directory's group share
  // it; else 0600 and 0700 less the umask, for one user.
  bool is_group_shared = false;
  // Past the page cache, where offset, length and memory are in whole 4 KiB; else through it.
  bool is_direct = false;
  // An empty folder becomes an object directory; else it is refused as it is.
  bool may_begin = true;
  // What a writer left unfinished is removed by listings when it is older than this by the clock
  // of this node and by that of the file system.
  Nanoseconds leftover_age = seconds(3600);
};

// Errors: kInvalid = options; kUnavailable = nothing at `path`, or it does not answer: ask again;
// kRefused = no permission, or what is there is not an object directory, or a newer one. Nothing is
// written then. kExhausted = the system refuses threads, or the file system is full.
[[nodiscard]] Result<std::unique_ptr<ObjectStore>> make_dir_store(const DirStoreOptions& options);

}  // namespace terrace::transfer
