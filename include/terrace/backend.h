/* Terrace: the plug-in table of disk backends. A library that offers terrace_backend_describe()
 * moves bytes between memory and files for Terrace's disk tier (`disk.backend_library`).
 * `terrace backend check LIBRARY` tells whether it keeps all that stands here. Plain C11; nothing
 * of Terrace is linked.
 *
 * Rules
 * - Terrace calls open, submit, poll, name_file and close of one instance from one thread at a
 *   time, not always the same one. Instances may live side by side.
 * - No call but close waits for a medium, another process or a lock that is held across I/O. What
 *   takes time is done by the plug-in's own threads or by the kernel.
 * - Nothing throws, calls exit or abort, or leaves a signal handler behind. Threads are started in
 *   open, whose caller has all signals blocked, so that they inherit that.
 * - A transfer that submit took (result 0) comes back from poll exactly once, whatever became of
 *   it, with its own token. Its memory is the plug-in's until then, and not a moment longer.
 * - When something is ready for poll, 1 is written to `event_fd`, as 8 bytes.
 * - Descriptors are close-on-exec.
 * What breaks these rules costs hits, and no answers: Terrace checks tokens, lengths and times here
 * and the bytes above. After a broken promise the instance is closed, and the disk tier only
 * misses. Against code that crashes or overwrites foreign memory nothing helps: it runs in the
 * engine's process, with its rights.
 */
#ifndef TERRACE_BACKEND_H
#define TERRACE_BACKEND_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Raised when an older plug-in would not work any more; Terrace refuses others. */
#define TERRACE_BACKEND_ABI 1u
#define TERRACE_BACKEND_ENTRY "terrace_backend_describe"
#define TERRACE_BACKEND_MAX_PIECES 4u

typedef enum terrace_backend_op {
  TERRACE_BACKEND_READ = 0,
  TERRACE_BACKEND_WRITE = 1,
  TERRACE_BACKEND_SYNC = 2,    /* fdatasync: what was written and completed before is durable. */
  TERRACE_BACKEND_ALLOCATE = 3 /* fallocate of [offset, offset + length), growing the file. */
} terrace_backend_op;

/* I/O priority, highest first; a hint. */
typedef enum terrace_backend_class {
  TERRACE_BACKEND_TTFT_READ = 0,
  TERRACE_BACKEND_PREFETCH = 1,
  TERRACE_BACKEND_OFFLOAD_WRITE = 2,
  TERRACE_BACKEND_SCRUB = 3
} terrace_backend_class;

typedef struct terrace_backend_piece {
  void* data;
  uint64_t bytes;
} terrace_backend_piece;

/* One read or write of the contiguous file range that begins at `offset`, from or to the pieces in
 * their order. Memory, offset and lengths are in multiples of 4096 where the file was opened with
 * O_DIRECT; small ones go to files without it. */
typedef struct terrace_backend_transfer {
  uint64_t token;
  uint32_t op;       /* terrace_backend_op */
  uint32_t io_class; /* terrace_backend_class */
  int32_t file;      /* An open descriptor, Terrace's; valid until the completion. */
  uint32_t piece_count;
  uint64_t offset;
  uint64_t length; /* ALLOCATE only. */
  terrace_backend_piece pieces[TERRACE_BACKEND_MAX_PIECES];
} terrace_backend_transfer;

/* The file ended before the transfer did. Beside errno values, which are positive. */
#define TERRACE_BACKEND_END_OF_FILE (-1)

typedef struct terrace_backend_completion {
  uint64_t token;
  uint64_t bytes;    /* Moved. Of an error-free read or write: all; short ones are gone on with. */
  int32_t error;     /* 0, an errno, or TERRACE_BACKEND_END_OF_FILE. */
  uint32_t reserved; /* 0 */
} terrace_backend_completion;

typedef struct terrace_backend_options {
  uint32_t struct_size;
  uint32_t depth;   /* Most transfers in flight; submit is never called beyond it. */
  uint32_t threads; /* disk.threads: a hint. */
  int32_t event_fd; /* An eventfd, Terrace's; valid until close has returned. */
} terrace_backend_options;

/* The plug-in's own. */
typedef struct terrace_backend terrace_backend;

/* Constant; read once, when the library is loaded. */
typedef struct terrace_backend_table {
  uint32_t abi_version;     /* TERRACE_BACKEND_ABI */
  uint32_t struct_size;     /* sizeof(terrace_backend_table) */
  uint32_t transfer_size;   /* sizeof(terrace_backend_transfer) */
  uint32_t completion_size; /* sizeof(terrace_backend_completion) */
  const char* name;         /* 1 to 31 of a-z, 0-9, _ and -: for the log and the status. */

  /* Required. 0 and an instance, or an errno and a reason of at most `reason_bytes` with its
   * ending 0: it cannot work on this machine. */
  int32_t (*open)(const terrace_backend_options* options, terrace_backend** instance, char* reason,
                  uint32_t reason_bytes);
  /* Required. 0 = taken; else an errno, and no completion comes. `transfer` is borrowed for the
   * call, its pieces' memory until the completion. */
  int32_t (*submit)(terrace_backend* instance, const terrace_backend_transfer* transfer);
  /* Required. Writes what finished, at most `room`, and returns how many; the rest is for the next
   * call. */
  int32_t (*poll)(terrace_backend* instance, terrace_backend_completion* completions,
                  uint32_t room);
  /* Required. Ends all threads and frees the instance, also with transfers in flight: when it
   * returns, nobody touches their memory, the files or `event_fd` any more. May wait for the
   * medium; called in a thread of its own. */
  void (*close)(terrace_backend* instance);
  /* Optional, may be NULL: this descriptor's file is called `path`; NULL = it is about to be
   * closed. For what has to register files. */
  void (*name_file)(terrace_backend* instance, int32_t file, const char* path);
} terrace_backend_table;

/* What the library exports. Never NULL; the same table at every call. Any thread. */
const terrace_backend_table* terrace_backend_describe(void);

#ifdef __cplusplus
}
#endif

#endif /* TERRACE_BACKEND_H */
