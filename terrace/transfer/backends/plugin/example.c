/* A disk backend as a plug-in: threads with preadv, pwritev, fdatasync and fallocate. It needs
 * <terrace/backend.h> and nothing else of Terrace:
 *   cc -std=c11 -shared -fPIC -pthread -I include example.c -o libexample.so
 *   terrace backend check ./libexample.so
 * Take it as a start: replace move(), or hand transfers to the kernel in submit().
 */
#define _GNU_SOURCE /* NOLINT(bugprone-reserved-identifier): glibc's own switch. */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>
#include <terrace/backend.h>
#include <unistd.h>

#define SECTOR 512u
#define MOST_THREADS 64u

struct terrace_backend {
  pthread_mutex_t mutex;
  pthread_cond_t work_came;
  uint32_t depth;
  int event;
  int is_closing;
  /* Rings of `depth` places; no more can be in flight. */
  terrace_backend_transfer* waiting;
  uint32_t first_waiting, waiting_count;
  terrace_backend_completion* done;
  uint32_t first_done, done_count;
  pthread_t threads[MOST_THREADS];
  uint32_t thread_count;
};

static uint64_t bytes_of(const terrace_backend_transfer* transfer) {
  uint64_t sum = 0;
  for (uint32_t i = 0; i < transfer->piece_count; ++i) sum += transfer->pieces[i].bytes;
  return sum;
}

/* What is left after `skip` bytes; returns how many vectors. */
static int rest_of(const terrace_backend_transfer* transfer, uint64_t skip, struct iovec* rest) {
  int count = 0;
  for (uint32_t i = 0; i < transfer->piece_count; ++i) {
    const terrace_backend_piece* piece = &transfer->pieces[i];
    if (skip >= piece->bytes) {
      skip -= piece->bytes;
      continue;
    }
    rest[count].iov_base = (char*)piece->data + skip;
    rest[count++].iov_len = piece->bytes - skip;
    skip = 0;
  }
  return count;
}

static int32_t move_bytes(const terrace_backend_transfer* transfer, uint64_t* moved) {
  const uint64_t total = bytes_of(transfer);
  const int is_in_sectors = total % SECTOR == 0 && transfer->offset % SECTOR == 0;
  while (*moved < total) {
    struct iovec rest[TERRACE_BACKEND_MAX_PIECES];
    const int count = rest_of(transfer, *moved, rest);
    const off_t offset = (off_t)(transfer->offset + *moved);
    const ssize_t got = transfer->op == TERRACE_BACKEND_READ
                            ? preadv(transfer->file, rest, count, offset)
                            : pwritev(transfer->file, rest, count, offset);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return errno;
    uint64_t now = *moved + (uint64_t)got;
    if (is_in_sectors) now -= now % SECTOR; /* O_DIRECT goes on at a sector. */
    if (now == *moved) return TERRACE_BACKEND_END_OF_FILE;
    *moved = now;
  }
  return 0;
}

static int32_t move(const terrace_backend_transfer* transfer, uint64_t* moved) {
  switch (transfer->op) {
    case TERRACE_BACKEND_READ:
    case TERRACE_BACKEND_WRITE:
      return move_bytes(transfer, moved);
    case TERRACE_BACKEND_SYNC:
      return fdatasync(transfer->file) == 0 ? 0 : errno;
    case TERRACE_BACKEND_ALLOCATE:
      return fallocate(transfer->file, 0, (off_t)transfer->offset, (off_t)transfer->length) == 0
                 ? 0
                 : errno;
    default:
      return EINVAL;
  }
}

static void finish(terrace_backend* self, const terrace_backend_completion* completion) {
  const uint64_t one = 1;
  pthread_mutex_lock(&self->mutex);
  self->done[(self->first_done + self->done_count++) % self->depth] = *completion;
  pthread_mutex_unlock(&self->mutex);
  /* Full means that a waiter will come anyway. */
  if (write(self->event, &one, sizeof one) < 0) return;
}

static void* work(void* argument) {
  terrace_backend* self = argument;
  for (;;) {
    pthread_mutex_lock(&self->mutex);
    while (self->waiting_count == 0 && !self->is_closing) {
      pthread_cond_wait(&self->work_came, &self->mutex);
    }
    if (self->is_closing) {
      pthread_mutex_unlock(&self->mutex);
      return NULL;
    }
    const terrace_backend_transfer transfer = self->waiting[self->first_waiting];
    self->first_waiting = (self->first_waiting + 1) % self->depth;
    --self->waiting_count;
    pthread_mutex_unlock(&self->mutex);
    terrace_backend_completion completion = {.token = transfer.token};
    completion.error = move(&transfer, &completion.bytes);
    finish(self, &completion);
  }
}

static void example_close(terrace_backend* self) {
  pthread_mutex_lock(&self->mutex);
  self->is_closing = 1;
  pthread_cond_broadcast(&self->work_came);
  pthread_mutex_unlock(&self->mutex);
  for (uint32_t i = 0; i < self->thread_count; ++i) pthread_join(self->threads[i], NULL);
  pthread_cond_destroy(&self->work_came);
  pthread_mutex_destroy(&self->mutex);
  free(self->waiting);
  free(self->done);
  free(self);
}

static int32_t example_open(const terrace_backend_options* options, terrace_backend** instance,
                            char* reason, uint32_t reason_bytes) {
  terrace_backend* self = calloc(1, sizeof *self);
  if (self == NULL) return ENOMEM;
  self->depth = options->depth;
  self->event = options->event_fd;
  self->waiting = calloc(self->depth, sizeof *self->waiting);
  self->done = calloc(self->depth, sizeof *self->done);
  pthread_mutex_init(&self->mutex, NULL);
  pthread_cond_init(&self->work_came, NULL);
  int error = self->waiting == NULL || self->done == NULL ? ENOMEM : 0;
  while (error == 0 && self->thread_count < options->threads && self->thread_count < MOST_THREADS) {
    error = pthread_create(&self->threads[self->thread_count], NULL, work, self);
    if (error == 0) ++self->thread_count;
  }
  if (error != 0) {
    snprintf(reason, reason_bytes, "no memory or threads: %s", strerror(error));
    example_close(self);
    return error;
  }
  *instance = self;
  return 0;
}

static int32_t example_submit(terrace_backend* self, const terrace_backend_transfer* transfer) {
  pthread_mutex_lock(&self->mutex);
  self->waiting[(self->first_waiting + self->waiting_count++) % self->depth] = *transfer;
  pthread_cond_signal(&self->work_came);
  pthread_mutex_unlock(&self->mutex);
  return 0;
}

static int32_t example_poll(terrace_backend* self, terrace_backend_completion* completions,
                            uint32_t room) {
  int32_t count = 0;
  pthread_mutex_lock(&self->mutex);
  while (self->done_count > 0 && (uint32_t)count < room) {
    completions[count++] = self->done[self->first_done];
    self->first_done = (self->first_done + 1) % self->depth;
    --self->done_count;
  }
  pthread_mutex_unlock(&self->mutex);
  return count;
}

#ifndef EXAMPLE_IS_INCLUDED
static const terrace_backend_table kTable = {
    .abi_version = TERRACE_BACKEND_ABI,
    .struct_size = sizeof(terrace_backend_table),
    .transfer_size = sizeof(terrace_backend_transfer),
    .completion_size = sizeof(terrace_backend_completion),
    .name = "example",
    .open = example_open,
    .submit = example_submit,
    .poll = example_poll,
    .close = example_close,
};

const terrace_backend_table* terrace_backend_describe(void) { return &kTable; }
#endif
