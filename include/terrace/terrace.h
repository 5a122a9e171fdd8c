/* Terrace: a tiered store for the KV cache of LLM inference engines. The C ABI.
 *
 * Two kinds of object. The OWNER holds the catalog and does all I/O below the host tier; it lives
 * where the engine schedules. A WORKER lives in each of the engine's ranks; it copies between the
 * engine's own KV memory and the host tier, and verifies. The two meet over a Unix socket whose
 * name follows from the engine's instance id. Their daily traffic is opaque byte strings that the
 * engine carries: ORDERS (owner -> every worker, one string a step) and REPORTS (each worker ->
 * owner).
 *
 * Rules for all functions
 * - Nothing throws, aborts, prints or calls back. Every result is a code; text by
 * terrace_last_error() (per thread). After a broken invariant of ours the instance is POISONED:
 * look-ups miss, health says why, the process lives. A call that finds no memory fails alone, with
 * EXHAUSTED; in the middle of a change of an owner's state that is a broken invariant.
 * - Structs begin with `struct_size`, set by the caller to sizeof; in an array all have one size.
 * An older caller's is shorter: what it lacks counts as 0. A newer caller's is longer: it is taken
 * while its surplus bytes are 0, else the call is INVALID, for it asks for what is unknown here.
 * - Pointers given are borrowed for the call only. Handles are not shared across fork(): in the
 * child every call returns TERRACE_CLOSED.
 * - "Thread-safe": may be called at any time from any thread. "Engine thread": not concurrently
 * with other engine-thread calls on the same handle. "Never blocks": no I/O, no waiting,
 * microseconds.
 * - Lengths are in bytes, counts in elements, times in nanoseconds.
 * - An array may be NULL only where its count is 0. Bounds, beyond which a call is INVALID and the
 * text names the field: 2^20 tokens a block; 2^26 tokens a request, over all calls; 2^26 block
 * table entries and aliases a call; 2^16 extra keys with 2^24 bytes of identities in all.
 */
#ifndef TERRACE_TERRACE_H
#define TERRACE_TERRACE_H

#include <stddef.h>
#include <stdint.h>

#if defined(__GNUC__)
#define TERRACE_API __attribute__((visibility("default")))
#else
#define TERRACE_API
#endif

#ifdef __cplusplus
extern "C" {
#endif

#define TERRACE_ABI_VERSION 1u

/* What the caller does next. */
typedef enum terrace_code {
  TERRACE_OK = 0,
  TERRACE_INVALID = 1,     /* The input is wrong: tell whoever gave it. */
  TERRACE_NOT_FOUND = 2,   /* Unknown handle, request or name. */
  TERRACE_EXHAUSTED = 3,   /* No room, or no memory: the work is dropped. */
  TERRACE_UNAVAILABLE = 4, /* Not yet: ask again. */
  TERRACE_DEADLINE = 5,    /* Too late: recompute. */
  TERRACE_CORRUPT = 6,     /* Bytes did not verify: recompute. */
  TERRACE_IO = 7,          /* A medium failed. */
  TERRACE_REFUSED = 8,     /* Permission, version or layout of the other side. */
  TERRACE_CLOSED = 9,      /* Closed, or called in a forked child. */
  TERRACE_INTERNAL = 10    /* Poisoned. */
} terrace_code;

typedef struct terrace_owner terrace_owner;
typedef struct terrace_worker terrace_worker;
typedef uint64_t terrace_request; /* 0 is never a request. */

/* Bytes owned by the library; valid until the calling thread's next call of the same function. */
typedef struct terrace_bytes {
  const uint8_t* data;
  uint64_t length;
} terrace_bytes;

/* ---- Library -------------------------------------------------------------------------------- */

/* TERRACE_ABI_VERSION of the library. Thread-safe. Never blocks. */
TERRACE_API uint32_t terrace_abi_version(void);
/* "0.1.0". Thread-safe. Never blocks. */
TERRACE_API const char* terrace_version(void);
/* Text of the calling thread's last failed call; "" if none. Valid until its next call.
 * Thread-safe. Never blocks. */
TERRACE_API const char* terrace_last_error(void);

/* ---- Pure functions (for tests, routers and tools). -------------------------------------------
 */

typedef struct terrace_extra_key {
  uint32_t struct_size;
  uint32_t kind; /* 1 salt, 2 LoRA identity, 3 multimodal item */
  const uint8_t* identity;
  uint64_t identity_length;
  uint64_t first_token; /* kind 3: where the item starts, and how many tokens it covers */
  uint64_t token_count;
} terrace_extra_key;

/* Writes 16 bytes per full block to `hashes` (room for token_count / block_tokens of them).
 * Errors: INVALID for block_tokens 0 or beyond 2^20, or a malformed extra key. Thread-safe. No I/O;
 * the longer the sequence, the longer it takes. */
TERRACE_API terrace_code terrace_hash_sequence(uint32_t block_tokens, const uint32_t* tokens,
                                               uint64_t token_count,
                                               const terrace_extra_key* extra_keys,
                                               uint64_t extra_key_count, uint8_t* hashes);
/* Payload checksum, docs/formats/checksum.md. NULL with a length has none: 0, and a text in
 * terrace_last_error(). Thread-safe. No I/O; reads all of `bytes`. */
TERRACE_API uint64_t terrace_checksum_bytes(const uint8_t* bytes, uint64_t length);
/* Fingerprint of a model's weights: safetensors headers, sizes, first/middle/last page of every
 * tensor. Reads files: BLOCKS. Writes 64 hex digits and a NUL to `digest`.
 * Errors: NOT_FOUND = no safetensors there, IO, CORRUPT = a header that is none. Thread-safe. */
TERRACE_API terrace_code terrace_digest_weights(const char* model_directory, char digest[65]);

/* ---- Owner ---------------------------------------------------------------------------------- */

typedef struct terrace_group_layout {
  uint32_t struct_size;
  uint32_t piece_count;        /* Layers of the group. */
  const uint64_t* piece_bytes; /* Bytes of one block in each, per rank. */
  uint64_t window_tokens;      /* 0: a token sees all before it; else itself and window - 1. */
  uint32_t null_block;         /* Stands in the group's block tables for "none". */
  uint32_t has_null_block;
} terrace_group_layout;

typedef struct terrace_owner_options {
  uint32_t struct_size;
  uint32_t block_tokens;
  uint32_t rank_count;
  uint32_t group_count;
  const terrace_group_layout* groups;
  const char* engine_id;       /* Names the rendezvous; equal for owner and workers. */
  const char* settings_json;   /* The engine's own part of the settings: a JSON object, or "". */
  const char* fingerprint;     /* Lines `content.name=value` and `layout.name=value`. */
  const char* model_directory; /* Its weights go into the content fingerprint; "" = none. */
  uint32_t can_store;          /* 0: look up only. */
  uint32_t can_load;           /* 0: store only. */
} terrace_owner_options;

/* Reads settings, starts threads, returns at once; tiers open in the background
 * (terrace_read_status). Errors: INVALID names the setting. Thread-safe. Does not wait for I/O. */
TERRACE_API terrace_code terrace_open_owner(const terrace_owner_options* options,
                                            terrace_owner** owner);
/* Flushes for at most `deadline_ns` and the setting shutdown.flush, stops threads, frees.
 * Durability does not depend on it. BLOCKS up to the deadline, and where something hangs at most 2
 * s more for each of these: the ports and ledger.file, the threads, the shared store, the disk.
 * What hangs even then (a file system that does not answer) is left behind, and so is the handle's
 * memory: the handle is gone for the caller all the same. NULL is allowed. Not thread-safe against
 * any other call on the handle. */
TERRACE_API void terrace_close_owner(terrace_owner* owner, int64_t deadline_ns);

/* One engine request. Tokens are copied and hashed here, once. `flags`: */
#define TERRACE_REQUEST_UNKEYABLE \
  1u /* Carries something that cannot be keyed: neither load nor store. */
#define TERRACE_REQUEST_NO_LOAD 2u /* Only store (prompt log-probabilities and the like). */
#define TERRACE_REQUEST_NO_STORE 4u
typedef struct terrace_request_options {
  uint32_t struct_size;
  uint32_t flags;
  const uint32_t* tokens; /* The prompt. */
  uint64_t token_count;
  const terrace_extra_key* extra_keys;
  uint64_t extra_key_count;
  uint64_t prompt_tokens; /* For offload.scope = prompt; 0 = token_count. */
  /* For people who ask later why this request hit or missed; of each the first 95 bytes are kept,
   * NULL is as "". */
  const char* name;      /* The engine's id of it. */
  const char* unkeyable; /* With TERRACE_REQUEST_UNKEYABLE: what of it cannot be keyed. */
} terrace_request_options;

/* Hashes, probes, and starts prefetching what lies below the host tier. Engine thread. Never
 * blocks. */
TERRACE_API terrace_code terrace_begin_request(terrace_owner* owner,
                                               const terrace_request_options* options,
                                               terrace_request* request);
/* What a request's client says of it. Weights only: eviction that learns believes them as far as
 * they have come true, and nothing else changes, whatever they say. Zero fields say nothing. What
 * is out of range, unknown, or at odds with another is ignored and counted; it is no error.
 * `flags`: */
#define TERRACE_HINT_SESSION_OVER 1u /* Nobody goes on after this answer. */
#define TERRACE_HINT_TOOL_CALL 2u    /* Somebody comes back with what a tool found. */
/* `priority`: */
#define TERRACE_PRIORITY_NORMAL 0u
#define TERRACE_PRIORITY_HIGH 1u
#define TERRACE_PRIORITY_LOW 2u
typedef struct terrace_hints {
  uint32_t struct_size;
  uint32_t flags;
  const uint8_t* session;  /* Names the conversation: any bytes, 1 to 256 of them. */
  uint64_t session_length; /* 0 = not said */
  int64_t return_ns;       /* From the end of the answer to the next request; 0 = not said. */
  uint32_t priority;
  uint32_t ignored; /* Others that the caller could not read and has told of: only counted. */
} terrace_hints;
/* In place of what was said of this request before; best before its first poll. Errors: NOT_FOUND,
 * INVALID for a struct or pointer that is none. Engine thread. Never blocks. */
TERRACE_API terrace_code terrace_hint_request(terrace_owner* owner, terrace_request request,
                                              const terrace_hints* hints);
/* How many tokens beyond `local_tokens` (a multiple of block_tokens) can be loaded now, at most
 * `limit_tokens` in all (local included). OK: `*external_tokens` (0 = miss) is pinned for
 * lookup.pin_time; of several groups, or one with a window, all of it can be accepted or none.
 * UNAVAILABLE: ask again next step; never for longer than lookup.deadline (or attach.lookup_wait
 * while opening). Repeating the call is harmless. Engine thread. Never blocks.
 */
TERRACE_API terrace_code terrace_poll_request(terrace_owner* owner, terrace_request request,
                                              uint64_t local_tokens, uint64_t limit_tokens,
                                              uint64_t* external_tokens);
/* The engine allocated device blocks: load `external_tokens` (0 = none wanted: pins are dropped)
 * after `local_tokens` into them. `blocks[g]` is group g's block table from token 0,
 * `block_counts[g]` long. Of several groups, or one with a window, a load that fails in part has
 * failed: the request's look-ups miss from then on. Each accepted load ends in the report of the
 * step whose orders carry it. Engine thread. Never blocks. */
TERRACE_API terrace_code terrace_accept_load(terrace_owner* owner, terrace_request request,
                                             uint64_t local_tokens, uint64_t external_tokens,
                                             const uint32_t* const* blocks,
                                             const uint64_t* block_counts);
/* What a step brings a request to; terrace_advance_request says what is what. */
typedef struct terrace_progress {
  uint32_t struct_size;
  uint32_t reserved;
  terrace_request request;
  uint64_t computed_tokens;
  const uint32_t* new_tokens;
  uint64_t new_token_count;
  const uint32_t* const* blocks;
  const uint64_t* block_counts;
  const uint64_t* aliases;
  uint64_t alias_first;
  uint64_t alias_count;
} terrace_progress;
/* This step brings the request to `computed_tokens` (full blocks below it are offloaded when the
 * step is over). `new_tokens` continue the token ids given so far; `aliases` (may be NULL, then
 * alias_count is 0) are the engine's own hashes, low 64 bits, of blocks [alias_first, alias_first +
 * alias_count), for events only. `blocks`/`block_counts` as above, the whole table. Call only when
 * a block became full, or the table was replaced after a preemption. Errors: INVALID for more than
 * 2^26 tokens in all: what is stored stays, nothing more of the request is. Engine thread. Never
 * blocks. */
TERRACE_API terrace_code terrace_advance_request(terrace_owner* owner,
                                                 const terrace_progress* progress);
/* Ends the step: the orders for all workers. Empty (length 0) when nothing is due. Without orders,
 * or on any other code than OK, every load accepted for this step has failed. Engine thread. Never
 * blocks. */
TERRACE_API terrace_code terrace_build_orders(terrace_owner* owner, terrace_bytes* orders);
/* One worker's report, or several concatenated. Unknown, old, cut or foreign ones are refused and
 * counted. Engine thread. Never blocks. */
TERRACE_API terrace_code terrace_take_report(terrace_owner* owner, const uint8_t* report,
                                             uint64_t length);
/* The engine names blocks as bad that no load of ours should have filled: those of another
 * connector beside this one. What it computed on them must not be stored: nothing is of the steps
 * that not all workers have reported, nor of the one being put together. Counted as tainted, and
 * offered again while their requests live. Call it before that step's reports are taken. Engine
 * thread. Never blocks. */
TERRACE_API terrace_code terrace_taint_steps(terrace_owner* owner);
/* The request is over (finished or aborted, at any state). Unknown ids are TERRACE_NOT_FOUND and
 * harmless. A load accepted for a step without orders yet fails in them, all of it. `*ledger_json`
 * (may be NULL): tokens per tier, those whose load is not reported yet, reason of the first miss,
 * where the time went.
 * Engine thread. Never blocks. */
TERRACE_API terrace_code terrace_end_request(terrace_owner* owner, terrace_request request,
                                             terrace_bytes* ledger_json);
/* How an answer ended, as the engine says. `reason`, of which unknown ones count as 0: */
#define TERRACE_ENDING_UNKNOWN 0u
#define TERRACE_ENDING_STOP 1u /* The model ended it, or a stop string. */
#define TERRACE_ENDING_LENGTH 2u
#define TERRACE_ENDING_ABORT 3u
#define TERRACE_ENDING_TOOL_CALL 4u
typedef struct terrace_ending {
  uint32_t struct_size;
  uint32_t reason;
  uint64_t answer_tokens; /* 0 = as many as terrace_advance_request told of beyond the prompt. */
} terrace_ending;
/* As terrace_end_request, with what the engine knows of the answer: a weight, as hints are.
 * `ending` may be NULL. Errors: the same, and INVALID for a struct that is none, which leaves the
 * request as it is. Engine thread. Never blocks. */
TERRACE_API terrace_code terrace_finish_request(terrace_owner* owner, terrace_request request,
                                                const terrace_ending* ending,
                                                terrace_bytes* ledger_json);

/* Events since the last call, as a JSON array (docs/formats/events.md); "" when there are none.
 * Engine thread. Never blocks. */
TERRACE_API terrace_code terrace_take_events(terrace_owner* owner, terrace_bytes* events_json);
/* Health, tiers, queues, hits and misses as one JSON object. Thread-safe. Never blocks. */
TERRACE_API terrace_code terrace_read_status(terrace_owner* owner, terrace_bytes* status_json);
/* Counters and gauges as Prometheus text. Thread-safe. Never blocks. */
TERRACE_API terrace_code terrace_read_metrics(terrace_owner* owner, terrace_bytes* text);
/* Log lines since the last call, one `level text` a line. Thread-safe. Never blocks. */
TERRACE_API terrace_code terrace_read_log(terrace_owner* owner, terrace_bytes* lines);
/* Becomes readable when events wait, when a block that a look-up waits for has been read (or could
 * not be), and when the canary has opened the tiers; up to 20 ms late. terrace_take_events makes it
 * unreadable again. Log lines alone do not make it readable: fetch them at leisure. -1 if there is
 * none, or in a forked child. Owned by the library. Thread-safe. */
TERRACE_API int terrace_owner_event_fd(const terrace_owner* owner);
/* Forget every block of this owner's namespace in every tier. Nothing old matches in this process
 * from the call on, whatever it returns. OK = nothing old can match any more, in no later owner
 * either. TERRACE_UNAVAILABLE = a path of disk.paths could not be told so yet: its blocks would
 * match after a restart; the status names it, and the owner goes on trying while it lives.
 * What is stored afterwards is served from host and disk as before, and ends with this owner: it
 * may be of weights that only this process has.
 * Thread-safe. WAITS for the disk up to 5 seconds, mostly for one sync: the engine is paused for a
 * reset, and asks for few. */
TERRACE_API terrace_code terrace_reset_owner(terrace_owner* owner);

/* ---- Worker --------------------------------------------------------------------------------- */

/* One piece of a group: block b's bytes lie at address + b * block_stride, `piece_bytes` long. */
typedef struct terrace_region {
  uint32_t struct_size;
  uint32_t reserved;
  uint8_t* address;
  uint64_t block_stride;
  uint64_t piece_bytes;
} terrace_region;

typedef struct terrace_group_regions {
  uint32_t struct_size;
  uint32_t region_count;
  const terrace_region* regions;
  uint64_t block_count;
  uint32_t null_block; /* A block that the engine never uses: the canary borrows it. */
  uint32_t has_null_block;
} terrace_group_regions;

typedef struct terrace_worker_options {
  uint32_t struct_size;
  uint32_t rank;
  uint32_t rank_count;
  uint32_t block_tokens;
  uint32_t group_count;
  uint32_t reserved;
  const terrace_group_regions* groups;
  const char* engine_id;
  const char* settings_json;
} terrace_worker_options;

/* Registers the engine's memory (which outlives the worker) and returns at once; a thread of ours
 * waits for the owner, maps, populates and attaches. Errors: INVALID. Thread-safe. Does not wait.
 */
TERRACE_API terrace_code terrace_open_worker(const terrace_worker_options* options,
                                             terrace_worker** worker);
/* Lets a call that another thread is in finish, stops threads, frees; the engine's memory is not
 * touched afterwards. BLOCKS up to `deadline_ns` for that call, and at most 1 s more for the
 * threads to end, as a rule some 10 ms. A copy or a thread that hangs even then is left behind, and
 * so is the handle's memory: the handle is gone for the caller all the same, and the engine's
 * memory has to stay until that call returns. NULL is allowed. Not thread-safe against a second
 * close. */
TERRACE_API void terrace_close_worker(terrace_worker* worker, int64_t deadline_ns);

/* Runs the canary if the orders ask for it. Before any other work of the step. Engine thread.
 * Copies one block. */
TERRACE_API terrace_code terrace_run_canary(terrace_worker* worker, const uint8_t* orders,
                                            uint64_t length);
/* Copies in and verifies all loads of the orders. `failed_blocks` receives the device blocks (of
 * any group) that must not be used, `*failed_count` how many there are; if that exceeds
 * `failed_capacity`, nothing is written: call again with the same orders and more room, and the
 * work is not repeated. Other orders are run, and the list that was not fetched is gone. OK: no bad
 * block is missing from the list. On every other code EVERY block that the step was to load counts
 * as failed, whatever the list says (it may be empty: orders that cannot be read name no blocks).
 * Engine thread. Copies: release interpreter locks. */
TERRACE_API terrace_code terrace_run_loads(terrace_worker* worker, const uint8_t* orders,
                                           uint64_t length, uint32_t* failed_blocks,
                                           uint64_t failed_capacity, uint64_t* failed_count);
/* Copies out and checksums all saves. UNAVAILABLE = the loads of these orders were not run: what
 * was computed on them is not saved. Engine thread. Copies. */
TERRACE_API terrace_code terrace_run_saves(terrace_worker* worker, const uint8_t* orders,
                                           uint64_t length);
/* What the worker did since the last call; empty when nothing. Engine thread. Never blocks. */
TERRACE_API terrace_code terrace_build_report(terrace_worker* worker, terrace_bytes* report);
/* Whether it is attached or poisoned, and the problem, as one JSON object. Engine thread. Never
 * blocks. */
TERRACE_API terrace_code terrace_read_worker_status(terrace_worker* worker,
                                                    terrace_bytes* status_json);
/* As terrace_read_log. Engine thread. Never blocks. */
TERRACE_API terrace_code terrace_read_worker_log(terrace_worker* worker, terrace_bytes* lines);

#ifdef __cplusplus
}
#endif
#endif
