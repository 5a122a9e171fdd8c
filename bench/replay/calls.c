#include "bench/replay/calls.h"

#include <stdlib.h>
#include <string.h>

const char* const kOpNames[kCount] = {
    "begin",  "poll", "accept", "advance", "orders",     "canary", "loads", "saves",
    "report", "take", "end",    "log",     "worker_log", "step",   "done",  "part",
};

/* How many numbers stand on the line of each, and whether a block table and tokens follow. */
struct Form {
  int fields;
  int has_table;
  int has_tokens;
};
static const struct Form kForms[kCount] = {
    [kBegin] = {2, 0, 1},  [kPoll] = {5, 0, 0},   [kAccept] = {3, 1, 0}, [kAdvance] = {2, 1, 1},
    [kOrders] = {1, 0, 0}, [kReport] = {1, 0, 0}, [kEnd] = {1, 0, 0},    [kStep] = {5, 0, 0},
};

struct Text {
  const char* path;
  int line;
  char* at; /* Rest of the line. */
};

static _Noreturn void stop(const struct Text* text, const char* what) {
  fprintf(stderr, "%s:%d: %s\n", text->path, text->line, what);
  exit(1);
}

static void* must(void* memory) {
  if (memory == NULL) {
    fprintf(stderr, "replay: out of memory\n");
    exit(1);
  }
  return memory;
}

static uint64_t take_number(struct Text* text) {
  char* end = text->at;
  const unsigned long long value = strtoull(text->at, &end, 10);
  if (end == text->at) stop(text, "a number is missing");
  text->at = end;
  return value;
}

static struct Numbers take_numbers(struct Text* text) {
  struct Numbers list = {NULL, take_number(text)};
  if (list.count > 1u << 20u) stop(text, "a list is too long");
  if (list.count == 0) return list;
  list.values = must(calloc(list.count, sizeof *list.values));
  for (uint64_t i = 0; i < list.count; ++i) list.values[i] = (uint32_t)take_number(text);
  return list;
}

static enum Op find_op(const struct Text* text, const char* word) {
  for (int op = 0; op < kCount; ++op) {
    if (strcmp(word, kOpNames[op]) == 0) return (enum Op)op;
  }
  stop(text, "no such call");
}

static struct Call take_call(struct Text* text) {
  char word[16] = "";
  int length = 0;
  if (sscanf(text->at, "%15s%n", word, &length) != 1) stop(text, "an empty line");
  text->at += length;
  struct Call call = {.op = find_op(text, word), .line = text->line};
  const struct Form form = kForms[call.op];
  for (int i = 0; i < form.fields; ++i) call.fields[i] = take_number(text);
  if (form.has_table) call.table = take_numbers(text);
  if (form.has_tokens) call.tokens = take_numbers(text);
  if (call.op == kPart && sscanf(text->at, "%15s", call.part) != 1) stop(text, "no name");
  return call;
}

static void take_head(struct Text* text, struct Recording* made, const char* line) {
  switch (text->line) {
    case 1:
      if (strcmp(line, "terrace-calls 1\n") != 0) stop(text, "no recording of version 1");
      return;
    case 4:
      if (strncmp(line, "layout ", 7) != 0) stop(text, "no layout");
      text->at += 7;
      made->block_tokens = (uint32_t)take_number(text);
      made->pieces = (uint32_t)take_number(text);
      made->piece_bytes = take_number(text);
      made->blocks = take_number(text);
      made->null_block = (uint32_t)take_number(text);
      return;
    default:
      return; /* Engine and machine: for people. */
  }
}

struct Recording read_recording(const char* path) {
  struct Recording made = {0};
  struct Text text = {path, 0, NULL};
  uint64_t room = 0;
  char* line = NULL;
  size_t capacity = 0;
  FILE* file = fopen(path, "r");
  if (file == NULL) stop(&text, "cannot be opened");
  while (getline(&line, &capacity, file) > 0) {
    ++text.line;
    text.at = line;
    if (text.line <= 4) {
      take_head(&text, &made, line);
      continue;
    }
    if (made.count == room) {
      room = room == 0 ? 1024 : 2 * room;
      made.calls = must(realloc(made.calls, room * sizeof *made.calls));
    }
    const struct Call call = take_call(&text);
    if (call.op == kBegin && call.fields[0] > made.requests) made.requests = call.fields[0];
    made.calls[made.count++] = call;
  }
  free(line);
  fclose(file);
  if (made.count == 0) stop(&text, "no calls");
  return made;
}

void free_recording(const struct Recording* recording) {
  for (uint64_t i = 0; i < recording->count; ++i) {
    free(recording->calls[i].table.values);
    free(recording->calls[i].tokens.values);
  }
  free(recording->calls);
}
