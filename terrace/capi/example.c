/* A whole "engine" in 60 lines: it computes KV blocks, puts, loses and gets them back. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <terrace/terrace.h>
#include <unistd.h>
enum { BLOCK_TOKENS = 16, BLOCKS = 8, PIECE = 8192, PROMPT = 4 * BLOCK_TOKENS };
static uint8_t kv[BLOCKS][PIECE]; /* One layer. Block 0 is never used: the canary borrows it. */
static const uint32_t table[4] = {1, 2, 3, 4}, *const tables[1] = {table};
static const uint64_t counts[1] = {4}, pieces[1] = {PIECE};
static terrace_owner* owner;
static terrace_worker* worker;
static void ok(terrace_code code) {
  if (code != TERRACE_OK) exit(fprintf(stderr, "code %d: %s\n", (int)code, terrace_last_error()));
}
static uint64_t step(void) { /* Orders out, copies, report back; returns the failed blocks. */
  terrace_bytes orders, report;
  uint32_t failed[BLOCKS];
  uint64_t failures = 0;
  ok(terrace_build_orders(owner, &orders));
  if (orders.length == 0) return 0;
  terrace_run_canary(worker, orders.data, orders.length);
  ok(terrace_run_loads(worker, orders.data, orders.length, failed, BLOCKS, &failures));
  ok(terrace_run_saves(worker, orders.data, orders.length));
  ok(terrace_build_report(worker, &report));
  ok(terrace_take_report(owner, report.data, report.length));
  return failures;
}
static terrace_request begin(uint64_t* hit) { /* Each poll is one (here: empty) engine step. */
  uint32_t tokens[PROMPT];
  for (uint32_t t = 0; t < PROMPT; ++t) tokens[t] = 100 + t;
  const terrace_request_options options = {
      .struct_size = sizeof options, .tokens = tokens, .token_count = PROMPT};
  terrace_request request = 0;
  ok(terrace_begin_request(owner, &options, &request));
  for (; terrace_poll_request(owner, request, 0, PROMPT, hit) == TERRACE_UNAVAILABLE; step())
    usleep(1000);
  return request;
}
int main(void) {
  char id[32], set[] = "{\"host.size\":\"16MiB\"}";
  snprintf(id, sizeof id, "example-%d", (int)getpid());
  const terrace_group_layout layout = {sizeof layout, 1, pieces, 0, 0, 0};
  const terrace_region region = {sizeof region, 0, kv[0], PIECE, PIECE};
  const terrace_group_regions memory = {sizeof memory, 1, &region, BLOCKS, 0, 1};
  terrace_worker_options rank = {sizeof rank, 0, 1, BLOCK_TOKENS, 1, 0, &memory, id, set};
  terrace_owner_options own = {sizeof own, BLOCK_TOKENS, 1, 1, &layout, id, set, "", "", 1, 1};
  ok(terrace_open_worker(&rank, &worker)), ok(terrace_open_owner(&own, &owner));
  uint64_t cold = 0, warm = 0, equal = 1;
  const terrace_request first = begin(&cold); /* Put: "compute" four blocks, a step saves them. */
  for (int block = 1; block <= 4; ++block) memset(kv[block], block, PIECE);
  terrace_progress all = {sizeof all, 0, first, PROMPT, NULL, 0, tables, counts, NULL, 0, 0};
  ok(terrace_advance_request(owner, &all)), step(), memset(kv, 0xEE, sizeof kv); /* Lose. */
  const terrace_request second = begin(&warm);                                   /* Get. */
  ok(terrace_accept_load(owner, second, 0, warm, tables, counts)), equal = step() == 0;
  for (int i = 0; i < 4 * PIECE; ++i) equal &= kv[1 + i / PIECE][i % PIECE] == 1 + i / PIECE;
  printf("%d cold, %d warm tokens, %s\n", (int)cold, (int)warm, equal ? "equal" : "DIFFER");
  terrace_close_owner(owner, 1000000000), terrace_close_worker(worker, 1000000000);
  return equal && warm == PROMPT ? 0 : 1;
}
