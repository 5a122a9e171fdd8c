/* A whole "engine" in 60 lines: it computes KV blocks, loses them, and gets them back from Terrace. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <terrace/terrace.h>
#include <unistd.h>

enum { BLOCK_TOKENS = 16, BLOCKS = 8, LAYERS = 2, PIECE = 8192, PROMPT = 4 * BLOCK_TOKENS };
static uint8_t kv[LAYERS][BLOCKS][PIECE]; /* Block 0 is never used: the canary borrows it. */

static void expect(terrace_code code, const char* what) {
  if (code == TERRACE_OK) return;
  fprintf(stderr, "%s: code %d: %s\n", what, (int)code, terrace_last_error());
  exit(1);
}

/* One engine step: orders out, copies, report back. Returns how many blocks failed to load. */
static uint64_t step(terrace_owner* owner, terrace_worker* worker) {
  terrace_bytes orders, report;
  uint32_t failed[BLOCKS];
  uint64_t failed_count = 0;
  expect(terrace_build_orders(owner, &orders), "build orders");
  if (orders.length > 0) {
    terrace_run_canary(worker, orders.data, orders.length);
    terrace_run_loads(worker, orders.data, orders.length, failed, BLOCKS, &failed_count);
    terrace_run_saves(worker, orders.data, orders.length);
  }
  expect(terrace_build_report(worker, &report), "build report");
  if (report.length > 0) expect(terrace_take_report(owner, report.data, report.length), "report");
  return failed_count;
}

/* Polls until Terrace knows; each poll is one (here: empty) engine step. */
static uint64_t match(terrace_owner* owner, terrace_worker* worker, terrace_request request) {
  uint64_t tokens = 0;
  while (terrace_poll_request(owner, request, 0, PROMPT, &tokens) == TERRACE_UNAVAILABLE) {
    step(owner, worker);
    usleep(1000);
  }
  return tokens;
}

int main(void) {
  const uint64_t pieces[LAYERS] = {PIECE, PIECE};
  const terrace_group_layout layout = {sizeof layout, LAYERS, pieces};
  terrace_region regions[LAYERS];
  for (int l = 0; l < LAYERS; ++l) regions[l] = (terrace_region){sizeof regions[l], 0, kv[l][0], PIECE, PIECE};
  const terrace_group_regions memory = {sizeof memory, LAYERS, regions, BLOCKS, 0, 1};
  char engine[64];
  snprintf(engine, sizeof engine, "example-%d", (int)getpid());
  terrace_owner_options owner_options = {sizeof owner_options, BLOCK_TOKENS, 1, 1, &layout, engine,
      "{\"host.size\":\"16MiB\"}", "content.model=example\nlayout.block_tokens=16\n", "", 1, 1};
  terrace_worker_options worker_options = {sizeof worker_options, 0, 1, BLOCK_TOKENS, 1, 0, &memory,
      engine, "{\"host.size\":\"16MiB\"}"};
  terrace_owner* owner = NULL;
  terrace_worker* worker = NULL;
  expect(terrace_open_worker(&worker_options, &worker), "open worker");
  expect(terrace_open_owner(&owner_options, &owner), "open owner");

  uint32_t tokens[PROMPT];
  for (uint32_t t = 0; t < PROMPT; ++t) tokens[t] = 100 + t;
  terrace_request_options request_options = {sizeof request_options, 0, tokens, PROMPT, NULL, 0, 0};
  const uint32_t table[4] = {1, 2, 3, 4};
  const uint32_t* tables[1] = {table};
  const uint64_t counts[1] = {4};

  terrace_request first = 0, second = 0; /* Put: "compute" four blocks and let the step save them. */
  expect(terrace_begin_request(owner, &request_options, &first), "begin");
  printf("cold: %llu tokens from Terrace\n", (unsigned long long)match(owner, worker, first));
  for (int l = 0; l < LAYERS; ++l)
    for (int b = 1; b <= 4; ++b) memset(kv[l][b], 16 * l + b, PIECE);
  terrace_progress progress = {sizeof progress, 0, first, PROMPT, NULL, 0, tables, counts, NULL, 0, 0};
  expect(terrace_advance_request(owner, &progress), "advance");
  step(owner, worker);
  expect(terrace_end_request(owner, first, NULL), "end");

  memset(kv, 0xEE, sizeof kv); /* Lose. */

  expect(terrace_begin_request(owner, &request_options, &second), "begin"); /* Get. */
  const uint64_t hit = match(owner, worker, second);
  expect(terrace_accept_load(owner, second, 0, hit, tables, counts), "accept");
  const uint64_t failed = step(owner, worker);
  int equal = hit == PROMPT && failed == 0;
  for (int l = 0; l < LAYERS; ++l)
    for (int b = 1; b <= 4; ++b)
      for (int i = 0; i < PIECE; ++i) equal &= kv[l][b][i] == 16 * l + b;
  printf("warm: %llu tokens from Terrace, bytes %s\n", (unsigned long long)hit, equal ? "equal" : "DIFFER");
  terrace_close_owner(owner, 1000000000);
  terrace_close_worker(worker, 1000000000);
  return equal ? 0 : 1;
}
