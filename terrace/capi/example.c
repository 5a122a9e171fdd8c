/* A whole "engine" in 60 lines: it computes KV blocks, puts, loses and gets them back. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <terrace/terrace.h>
#include <unistd.h>

enum { BLOCK_TOKENS = 16, BLOCKS = 8, LAYERS = 2, PIECE = 8192, PROMPT = 4 * BLOCK_TOKENS };
static uint8_t kv[LAYERS][BLOCKS][PIECE]; /* Block 0 is never used: the canary borrows it. */
static const uint32_t table[4] = {1, 2, 3, 4}, *const tables[1] = {table};
static const uint64_t counts[1] = {4}, pieces[LAYERS] = {PIECE, PIECE};
static terrace_owner* owner;
static terrace_worker* worker;

static void expect(terrace_code code, const char* what) {
  if (code != TERRACE_OK)
    exit(fprintf(stderr, "%s: code %d: %s\n", what, (int)code, terrace_last_error()));
}
static uint64_t step(
    void) { /* Orders out, copies, report back; returns how many blocks failed to load. */
  terrace_bytes orders, report;
  uint32_t failed[BLOCKS];
  uint64_t failures = 0;
  expect(terrace_build_orders(owner, &orders), "build orders");
  terrace_run_canary(worker, orders.data, orders.length);
  terrace_run_loads(worker, orders.data, orders.length, failed, BLOCKS, &failures);
  terrace_run_saves(worker, orders.data, orders.length);
  expect(terrace_build_report(worker, &report), "build report");
  expect(terrace_take_report(owner, report.data, report.length), "take report");
  return failures;
}
static terrace_request begin(uint64_t* hit) { /* Each poll is one (here: empty) engine step. */
  uint32_t tokens[PROMPT];
  for (uint32_t t = 0; t < PROMPT; ++t) tokens[t] = 100 + t;
  const terrace_request_options options = {sizeof options, 0, tokens, PROMPT, NULL, 0, 0};
  terrace_request request = 0;
  expect(terrace_begin_request(owner, &options, &request), "begin request");
  while (terrace_poll_request(owner, request, 0, PROMPT, hit) == TERRACE_UNAVAILABLE)
    usleep(1000), step();
  return request;
}
int main(void) {
  char id[64];
  snprintf(id, sizeof id, "example-%d", (int)getpid());
  const char* settings = "{\"host.size\":\"16MiB\"}";
  const terrace_group_layout layout = {sizeof layout, LAYERS, pieces};
  const terrace_region regions[LAYERS] = {{sizeof regions[0], 0, kv[0][0], PIECE, PIECE},
                                          {sizeof regions[0], 0, kv[1][0], PIECE, PIECE}};
  const terrace_group_regions memory = {sizeof memory, LAYERS, regions, BLOCKS, 0, 1};
  const terrace_worker_options mine = {sizeof mine, 0,       1,  BLOCK_TOKENS, 1,
                                       0,           &memory, id, settings};
  const terrace_owner_options ours = {
      sizeof ours, BLOCK_TOKENS, 1, 1, &layout, id, settings, "content.model=example\n", "", 1, 1};
  expect(terrace_open_worker(&mine, &worker), "open worker");
  expect(terrace_open_owner(&ours, &owner), "open owner");
  uint64_t cold = 0, warm = 0; /* Put: "compute" four blocks; the step saves them. */
  const terrace_request first = begin(&cold);
  for (int i = 0; i < LAYERS * 4; ++i) memset(kv[i / 4][1 + i % 4], i + 1, PIECE);
  const terrace_progress progress = {sizeof progress, 0,      first, PROMPT, NULL, 0,
                                     tables,          counts, NULL,  0,      0};
  expect(terrace_advance_request(owner, &progress), "advance request");
  step();
  memset(kv, 0xEE, sizeof kv);                 /* Lose. */
  const terrace_request second = begin(&warm); /* Get. */
  expect(terrace_accept_load(owner, second, 0, warm, tables, counts), "accept load");
  int equal = step() == 0 && warm == PROMPT;
  for (int i = 0; i < LAYERS * 4 * PIECE; ++i)
    equal &= kv[i / PIECE / 4][1 + i / PIECE % 4][i % PIECE] == i / PIECE + 1;
  printf("cold: %d tokens, warm: %d tokens, bytes %s\n", (int)cold, (int)warm,
         equal ? "equal" : "DIFFER");
  terrace_close_owner(owner, 1000000000), terrace_close_worker(worker, 1000000000);
  return equal ? 0 : 1;
}
