// Disturbances that a cache meets beside its users, mixed into a workload, and a workload to mix
// them into where nobody has recorded one. Equal seeds give equal requests.
// Threading: thread-compatible.  Waits: never.  Memory: that of the requests made.
#pragma once

#include <cstdint>

#include "terrace/trace/workload.h"

namespace terrace::trace {

// Users who come, talk for some turns and go: each prompt is the one before, its answer and a few
// blocks more, after one of three system prompts.
struct ChatOptions {
  std::uint64_t seed = 1;
  Nanoseconds span = seconds(3600);
  std::uint32_t conversations = 2'400;
  std::uint32_t block_tokens = 64;
};
[[nodiscard]] Workload make_chat(const ChatOptions& options);

// Questions about documents: each prompt is the system's, one to three documents in the order in
// which they were found, and a question that nobody else asks. Few documents are asked about often
// (Zipf), nobody asks on.
struct RagOptions {
  std::uint64_t seed = 1;
  Nanoseconds span = seconds(3600);
  std::uint32_t questions = 6'000;
  std::uint32_t documents = 1'000;
  std::uint32_t block_tokens = 64;
};
[[nodiscard]] Workload make_rag(const RagOptions& options);

// A job that sends each of its prompts once, evenly: the same instructions, then an item.
struct BatchOptions {
  std::uint64_t seed = 1;
  Nanoseconds span = seconds(3600);
  std::uint32_t items = 5'000;
  std::uint32_t block_tokens = 64;
};
[[nodiscard]] Workload make_batch(const BatchOptions& options);

// A batch job that reads many prompts once, as long as those of the trace, which share nothing and
// never come back: over the middle half of the time, `share` times as many blocks as the trace asks
// for in it.
// False, and nothing is mixed in, if the trace asks for nothing then.
[[nodiscard]] bool mix_scan(Workload& workload, std::uint64_t seed, double share = 1);

// A rush: over the middle twentieth of the time `users` times as many other users, who ask for as
// much as those of the trace do then, and share nothing with them.
// False, and nothing is mixed in, if no request of theirs is there then.
[[nodiscard]] bool mix_burst(Workload& workload, std::uint64_t seed, std::uint32_t users = 5);

}  // namespace terrace::trace
