#include "bench/replay/engine.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const char* const kSettingsForm =
    "{\"host.size\":\"256MiB\",\"planner.enabled\":false,\"worker.threads\":1,"
    "\"attach.lookup_wait\":\"60s\",\"attach.directory\":\"%s\"}";
enum { kReadyTries = 60 * 1000 }; /* Of a millisecond each. */

static _Noreturn void stop(const char* what, const char* detail) {
  fprintf(stderr, "replay: %s: %s\n", what, detail);
  exit(1);
}

static void expect(terrace_code code, const char* what) {
  if (code != TERRACE_OK) stop(what, terrace_last_error());
}

static void* must(void* memory) {
  if (memory == NULL) stop("memory", "there is no more");
  return memory;
}

static void keep(struct Bytes* kept, const terrace_bytes* given) {
  if (given->length > kept->room) {
    kept->room = 2 * given->length;
    kept->data = must(realloc(kept->data, kept->room));
  }
  if (given->length > 0) memcpy(kept->data, given->data, given->length);
  kept->length = given->length;
}

static void open_both(struct Engine* engine, const char* engine_id, const char* settings) {
  const struct Recording* recording = engine->recording;
  uint64_t* pieces = must(calloc(recording->pieces, sizeof *pieces));
  terrace_region* regions = must(calloc(recording->pieces, sizeof *regions));
  for (uint32_t i = 0; i < recording->pieces; ++i) {
    pieces[i] = recording->piece_bytes;
    regions[i] = (terrace_region){
        .struct_size = sizeof(terrace_region),
        .address = engine->kv + i * recording->blocks * recording->piece_bytes,
        .block_stride = recording->piece_bytes,
        .piece_bytes = recording->piece_bytes,
    };
  }
  const terrace_group_layout layout = {sizeof layout, recording->pieces, pieces, 0, 0, 0};
  const terrace_owner_options owner = {
      .struct_size = sizeof owner,
      .block_tokens = recording->block_tokens,
      .rank_count = 1,
      .group_count = 1,
      .groups = &layout,
      .engine_id = engine_id,
      .settings_json = settings,
      .fingerprint = "content.engine=replay\n",
      .model_directory = "",
      .can_store = 1,
      .can_load = 1,
  };
  const terrace_group_regions group = {
      .struct_size = sizeof group,
      .region_count = recording->pieces,
      .regions = regions,
      .block_count = recording->blocks,
      .null_block = recording->null_block,
      .has_null_block = 1,
  };
  const terrace_worker_options worker = {
      .struct_size = sizeof worker,
      .rank = 0,
      .rank_count = 1,
      .block_tokens = recording->block_tokens,
      .group_count = 1,
      .groups = &group,
      .engine_id = engine_id,
      .settings_json = settings,
  };
  expect(terrace_open_owner(&owner, &engine->owner), "open_owner");
  expect(terrace_open_worker(&worker, &engine->worker), "open_worker");
  free(regions);
  free(pieces);
}

static int is_ready(terrace_owner* owner) {
  terrace_bytes status;
  unsigned long long populated = 0;
  unsigned long long slots = 1;
  expect(terrace_read_status(owner, &status), "read_status");
  const char* text = (const char*)status.data;
  const char* detail = strstr(text, "\"detail\":\"");
  if (detail == NULL || strstr(text, "\"canary\":\"passed\"") == NULL) return 0;
  if (sscanf(detail, "\"detail\":\"%llu of %llu slots populated", &populated, &slots) != 2)
    return 0;
  return populated == slots;
}

/* Steps without requests, as an engine takes them, until the canary's report is in. */
static void make_ready(struct Engine* engine) {
  for (int tries = 0; !is_ready(engine->owner); ++tries) {
    if (tries == kReadyTries) {
      terrace_bytes status;
      expect(terrace_read_status(engine->owner, &status), "read_status");
      fprintf(stderr, "%.*s\n", (int)status.length, (const char*)status.data);
      stop("start", "not ready within its time");
    }
    usleep(1000);
    terrace_bytes orders;
    terrace_bytes report;
    expect(terrace_build_orders(engine->owner, &orders), "build_orders");
    if (orders.length == 0) continue;
    expect(terrace_run_canary(engine->worker, orders.data, orders.length), "run_canary");
    expect(terrace_build_report(engine->worker, &report), "build_report");
    expect(terrace_take_report(engine->owner, report.data, report.length), "take_report");
  }
}

struct Engine open_engine(const struct Recording* recording) {
  struct Engine made = {.recording = recording, .directory = "/tmp/terrace-replay-XXXXXX"};
  char settings[512];
  char engine_id[32];
  const uint64_t kv_bytes = recording->pieces * recording->blocks * recording->piece_bytes;
  if (mkdtemp(made.directory) == NULL) stop("no folder for the socket", made.directory);
  snprintf(settings, sizeof settings, kSettingsForm, made.directory);
  snprintf(engine_id, sizeof engine_id, "replay-%ld", (long)getpid());
  made.kv = must(malloc(kv_bytes));
  for (uint64_t i = 0; i < kv_bytes; ++i) made.kv[i] = (uint8_t)(i ^ (i >> 9u));
  made.requests = must(calloc(recording->requests + 1, sizeof *made.requests));
  made.failed = must(calloc(recording->blocks, sizeof *made.failed));
  open_both(&made, engine_id, settings);
  make_ready(&made);
  return made;
}

terrace_code do_call(struct Engine* engine, const struct Call* call) {
  const uint64_t* fields = call->fields;
  const terrace_request request = engine->requests[fields[0]];
  const uint32_t* const tables[1] = {call->table.values};
  switch (call->op) {
    case kBegin: {
      const terrace_request_options options = {
          .struct_size = sizeof options,
          .flags = (uint32_t)fields[1],
          .tokens = call->tokens.values,
          .token_count = call->tokens.count,
          .prompt_tokens = call->tokens.count,
          .name = "chatcmpl-0123456789abcdef0123456789abcdef", /* As long as an engine's. */
      };
      return terrace_begin_request(engine->owner, &options, &engine->requests[fields[0]]);
    }
    case kPoll:
      return terrace_poll_request(engine->owner, request, fields[1], fields[2], &engine->external);
    case kAccept:
      return terrace_accept_load(engine->owner, request, fields[1], fields[2], tables,
                                 &call->table.count);
    case kAdvance: {
      const terrace_progress progress = {
          .struct_size = sizeof progress,
          .request = request,
          .computed_tokens = fields[1],
          .new_tokens = call->tokens.values,
          .new_token_count = call->tokens.count,
          .blocks = tables,
          .block_counts = &call->table.count,
      };
      return terrace_advance_request(engine->owner, &progress);
    }
    case kOrders:
      return terrace_build_orders(engine->owner, &engine->given);
    case kCanary:
      return terrace_run_canary(engine->worker, engine->orders.data, engine->orders.length);
    case kLoads:
      return terrace_run_loads(engine->worker, engine->orders.data, engine->orders.length,
                               engine->failed, engine->recording->blocks, &engine->failed_count);
    case kSaves:
      return terrace_run_saves(engine->worker, engine->orders.data, engine->orders.length);
    case kReport:
      return terrace_build_report(engine->worker, &engine->given);
    case kTake:
      return terrace_take_report(engine->owner, engine->report.data, engine->report.length);
    case kEnd:
      return terrace_end_request(engine->owner, request, NULL); /* Nobody asked for the ledger. */
    case kLog:
      return terrace_read_log(engine->owner, &engine->given);
    case kWorkerLog:
      return terrace_read_worker_log(engine->worker, &engine->given);
    case kStep:
    case kDone:
    case kPart:
    case kCount:
      break;
  }
  return TERRACE_OK;
}

static void compare(const struct Call* call, const char* what, uint64_t recorded, uint64_t found) {
  if (recorded == found) return;
  fprintf(stderr, "replay: line %d, %s: %s was %llu in the recording, is %llu here\n", call->line,
          kOpNames[call->op], what, (unsigned long long)recorded, (unsigned long long)found);
  exit(1);
}

void settle_call(struct Engine* engine, const struct Call* call, terrace_code code) {
  compare(call, "code", call->op == kPoll ? call->fields[3] : TERRACE_OK, code);
  switch (call->op) {
    case kPoll:
      compare(call, "external tokens", call->fields[4], engine->external);
      return;
    case kLoads:
      compare(call, "failed blocks", 0, engine->failed_count);
      return;
    case kOrders:
      compare(call, "being there", call->fields[0], engine->given.length > 0);
      keep(&engine->orders, &engine->given);
      return;
    case kReport:
      compare(call, "being there", call->fields[0], engine->given.length > 0);
      keep(&engine->report, &engine->given);
      return;
    default:
      return;
  }
}

void close_engine(struct Engine* engine) {
  terrace_close_owner(engine->owner, 1000000000);
  terrace_close_worker(engine->worker, 1000000000);
  if (rmdir(engine->directory) != 0) perror(engine->directory);
  free(engine->orders.data);
  free(engine->report.data);
  free(engine->failed);
  free(engine->requests);
  free(engine->kv);
}
