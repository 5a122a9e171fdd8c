/* The example, broken on purpose:
 *   cc -DBREAK_<how> … broken.c
 * Each one must fail `terrace backend check`.
 */
#define EXAMPLE_IS_INCLUDED
#include "example.c" /* NOLINT(bugprone-suspicious-include): all of it, under other hooks. */

#ifdef BREAK_VERSION
#define VERSION (TERRACE_BACKEND_ABI + 1)
#else
#define VERSION TERRACE_BACKEND_ABI
#endif

/* Each transfer before it is moved. */
static terrace_backend_transfer changed(const terrace_backend_transfer* transfer) {
  terrace_backend_transfer other = *transfer;
#ifdef BREAK_OFFSET
  if (other.op == TERRACE_BACKEND_READ) other.offset = 0;
#endif
#ifdef BREAK_PIECES
  if (other.piece_count > 1) --other.piece_count;
#endif
#ifdef BREAK_ALLOCATE
  if (other.op == TERRACE_BACKEND_ALLOCATE) other.op = TERRACE_BACKEND_SYNC;
#endif
  return other;
}

static int32_t broken_submit(terrace_backend* self, const terrace_backend_transfer* transfer) {
  const terrace_backend_transfer other = changed(transfer);
#ifdef BREAK_BLOCKS
  pause();
#endif
#ifdef BREAK_CRASHES
  abort();
#endif
#ifdef BREAK_LOSES
  if (other.op == TERRACE_BACKEND_WRITE) return 0;
#endif
#ifdef BREAK_EARLY
  if (other.op == TERRACE_BACKEND_WRITE) { /* Done, it says, and does it when the next one comes. */
    static terrace_backend_transfer late;
    static int has_late;
    if (has_late) {
      uint64_t moved = 0;
      move(&late, &moved);
    }
    late = other;
    has_late = 1;
    const terrace_backend_completion done = {.token = other.token, .bytes = bytes_of(&other)};
    finish(self, &done);
    return 0;
  }
#endif
#ifdef BREAK_REFUSES
  if (self->waiting_count + self->done_count >= 2) return EAGAIN;
#endif
  return example_submit(self, &other);
}

static int32_t broken_poll(terrace_backend* self, terrace_backend_completion* completions,
                           uint32_t room) {
  int32_t count = example_poll(self, completions, room);
#ifdef BREAK_NEGATIVE
  if (count > 0) return -count;
#endif
#ifdef BREAK_TOO_MANY
  if (count > 0) return (int32_t)room + 1;
#endif
  for (int32_t i = 0; i < count; ++i) {
    terrace_backend_completion* one = &completions[i];
    (void)one;
#ifdef BREAK_LENGTH
    --one->bytes;
#endif
#ifdef BREAK_TOKEN
    one->token += 7;
#endif
#ifdef BREAK_HIDES_ERRORS
    if (one->error > 0) {
      one->error = 0;
      one->bytes = 4096;
    }
#endif
#ifdef BREAK_HIDES_THE_END
    if (one->error == TERRACE_BACKEND_END_OF_FILE) one->error = 0;
#endif
#ifdef BREAK_ERROR
    if (one->error > 0) one->error = -77;
#endif
  }
#ifdef BREAK_TWICE
  if (count > 0 && (uint32_t)count < room) {
    completions[count] = completions[0];
    ++count;
  }
#endif
  return count;
}

static void broken_close(terrace_backend* self) {
#ifdef BREAK_CLOSE
  pause();
#endif
  example_close(self);
}

static int32_t broken_open(const terrace_backend_options* options, terrace_backend** instance,
                           char* reason, uint32_t reason_bytes) {
#ifdef BREAK_OPEN
  (void)options, (void)instance;
  snprintf(reason, reason_bytes, "no such device here");
  return ENODEV;
#elif defined(BREAK_NO_INSTANCE)
  (void)options, (void)instance, (void)reason, (void)reason_bytes;
  return 0;
#else
  terrace_backend_options given = *options;
#ifdef BREAK_SILENT
  given.event_fd = -1;
#endif
  return example_open(&given, instance, reason, reason_bytes);
#endif
}

static const terrace_backend_table kTable = {
    .abi_version = VERSION,
#ifdef BREAK_SHORT
    .struct_size = sizeof(terrace_backend_table) - sizeof(void*),
#else
    .struct_size = sizeof(terrace_backend_table),
#endif
#ifdef BREAK_TRANSFER_SIZE
    .transfer_size = sizeof(terrace_backend_transfer) + 8,
#else
    .transfer_size = sizeof(terrace_backend_transfer),
#endif
    .completion_size = sizeof(terrace_backend_completion),
#ifdef BREAK_NAME
    .name = "not a name",
#else
    .name = "broken",
#endif
    .open = broken_open,
    .submit = broken_submit,
#ifndef BREAK_NO_POLL
    .poll = broken_poll,
#endif
    .close = broken_close,
};

/* Where one of them is not used. */
int32_t (*const kUsedOpen)(const terrace_backend_options*, terrace_backend**, char*,
                           uint32_t) = example_open;
const terrace_backend_table* const kUsed = &kTable;
int32_t (*const kUsedPoll)(terrace_backend*, terrace_backend_completion*, uint32_t) = broken_poll;

#ifndef BREAK_NO_SYMBOL
const terrace_backend_table* terrace_backend_describe(void) {
#ifdef BREAK_NO_TABLE
  return NULL;
#else
  return &kTable;
#endif
}
#endif
