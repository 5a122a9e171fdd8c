/* Replays recorded calls over the library, and prints a line for each part, step and call:
 *   part NAME
 *   step REQUESTS TOKENS FILLED ENGINE_CPU_US
 *   call IN_STEP NAME ALLOCATIONS CPU_NANOSECONDS
 * A call stands below its step; IN_STEP is 0 for calls between steps. Usage: replay RECORDING.
 * Under callgrind, replay_mark() after each call says where to dump. What is made of it: README.md
 * of this folder. */
#include <stdlib.h>
#include <time.h>

#include "bench/replay/allocations.h"
#include "bench/replay/calls.h"
#include "bench/replay/engine.h"

struct Count {
  int64_t allocations;
  int64_t nanoseconds;
};

void replay_mark(void);
__attribute__((noinline)) void replay_mark(void) { __asm__ volatile("" ::: "memory"); }

/* Of the thread: what others do on this machine does not count. */
static int64_t cpu_time(void) {
  struct timespec time;
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time);
  return (int64_t)time.tv_sec * 1000000000 + time.tv_nsec;
}

static int is_call(const struct Call* call) { return call->op < kStep; }

static void print(const struct Recording* recording, const struct Count* counts) {
  int is_in_step = 0;
  for (uint64_t i = 0; i < recording->count; ++i) {
    const struct Call* call = &recording->calls[i];
    const uint64_t* fields = call->fields;
    if (call->op == kPart) printf("part %s\n", call->part);
    if (call->op == kStep || call->op == kDone) is_in_step = call->op == kStep;
    if (call->op == kStep) {
      printf("step %llu %llu %llu %llu\n", (unsigned long long)fields[1],
             (unsigned long long)fields[2], (unsigned long long)fields[3],
             (unsigned long long)fields[4]);
    }
    if (is_call(call)) {
      printf("call %d %s %lld %lld\n", is_in_step, kOpNames[call->op],
             (long long)counts[i].allocations, (long long)counts[i].nanoseconds);
    }
  }
}

int main(int argc, char** argv) {
  if (argc != 2) {
    fprintf(stderr, "usage: replay RECORDING\n");
    return 2;
  }
  const struct Recording recording = read_recording(argv[1]);
  struct Count* counts = calloc(recording.count, sizeof *counts);
  struct Engine engine = open_engine(&recording);
  if (counts == NULL) return 1;
  replay_mark();
  for (uint64_t i = 0; i < recording.count; ++i) {
    const struct Call* call = &recording.calls[i];
    if (!is_call(call)) continue;
    const int64_t allocations = count_allocations();
    const int64_t begin = cpu_time();
    const terrace_code code = do_call(&engine, call);
    counts[i].nanoseconds = cpu_time() - begin;
    counts[i].allocations = count_allocations() - allocations;
    replay_mark();
    settle_call(&engine, call, code);
  }
  print(&recording, counts);
  close_engine(&engine);
  free(counts);
  free_recording(&recording);
  return 0;
}
