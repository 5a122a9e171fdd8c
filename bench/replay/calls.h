/* A recording of the C calls of one engine, in memory. The text form: README.md of this folder. */
#ifndef TERRACE_BENCH_REPLAY_CALLS_H
#define TERRACE_BENCH_REPLAY_CALLS_H

#include <stdint.h>
#include <stdio.h>

enum Op {
  kBegin,
  kPoll,
  kAccept,
  kAdvance,
  kOrders,
  kCanary,
  kLoads,
  kSaves,
  kReport,
  kTake,
  kEnd,
  kLog,
  kWorkerLog,
  kStep, /* Not a call: what the engine did in the step that begins. */
  kDone, /* The step is over. */
  kPart, /* Name of what follows. */
  kCount
};

extern const char* const kOpNames[kCount];

struct Numbers {
  uint32_t* values;
  uint64_t count;
};

struct Call {
  enum Op op;
  int line;
  /* In the order of the line: request; flags; local or computed tokens; and so on. */
  uint64_t fields[5];
  struct Numbers table;
  struct Numbers tokens;
  char part[16];
};

struct Recording {
  uint32_t block_tokens;
  uint32_t pieces;
  uint64_t piece_bytes;
  uint64_t blocks;
  uint32_t null_block;
  uint64_t requests; /* Numbered from 1. */
  struct Call* calls;
  uint64_t count;
};

/* Reads the whole file. What is wrong with it ends the program with a line that names the place. */
struct Recording read_recording(const char* path);
void free_recording(const struct Recording* recording);

#endif
