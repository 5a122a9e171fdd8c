/* The part of an engine in a replay: made-up KV memory with an owner and a worker over it. */
#ifndef TERRACE_BENCH_REPLAY_ENGINE_H
#define TERRACE_BENCH_REPLAY_ENGINE_H

#include <stdint.h>
#include <terrace/terrace.h>

#include "bench/replay/calls.h"

struct Bytes {
  uint8_t* data;
  uint64_t length;
  uint64_t room;
};

struct Engine {
  const struct Recording* recording;
  terrace_owner* owner;
  terrace_worker* worker;
  char directory[32]; /* For the socket. */
  uint8_t* kv;        /* [pieces][blocks][piece_bytes] */
  terrace_request* requests;
  /* As the engine carries them from hook to hook; made anew in each replay. */
  struct Bytes orders;
  struct Bytes report;
  terrace_bytes given; /* The library's, until settle_call() has copied it. */
  uint32_t* failed;
  uint64_t failed_count;
  uint64_t external; /* Answer of the last poll. */
};

/* Opens owner and worker, and returns when the canary has passed and host memory is populated.
 * Ends the program, saying why, when that does not come about. */
struct Engine open_engine(const struct Recording* recording);
/* One recorded call with the library and nothing else in it. */
terrace_code do_call(struct Engine* engine, const struct Call* call);
/* After the call, not to be counted: takes over what the library handed out and compares the answer
 * with the recorded one. Ends the program where they part. */
void settle_call(struct Engine* engine, const struct Call* call, terrace_code code);
void close_engine(struct Engine* engine);

#endif
