/* Allocations of the calling thread since it started. */
#ifndef TERRACE_BENCH_REPLAY_ALLOCATIONS_H
#define TERRACE_BENCH_REPLAY_ALLOCATIONS_H

#include <stdint.h>

/* -1 in builds that do not count: the sanitizers have an allocator of their own. */
int64_t count_allocations(void);

#endif
