// What the readers of the single formats share.
// Threading: thread-safe.  Waits: never.
#pragma once

#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "terrace/base/rng.h"
#include "terrace/trace/reader.h"

namespace terrace::trace {

// Of zstd frames, or the bytes as they are if they are none. Errors: kInvalid = torn or damaged.
[[nodiscard]] Result<std::string> unpacked(const std::string& path, std::string bytes);

struct Member {
  std::string name;
  std::string_view content;
};
[[nodiscard]] bool is_tar(std::string_view bytes);
// The regular files of an archive, in order. Errors: kInvalid = torn or damaged.
[[nodiscard]] Result<std::vector<Member>> tar_members(const std::string& path,
                                                      std::string_view bytes);

// `where` in messages is the file, and the archive's member. Both add to `workload`.
[[nodiscard]] Status read_lines(const std::string& where, std::string_view text,
                                const ReadOptions& options, Workload& workload);
[[nodiscard]] Status read_conversation(const std::string& where, std::string_view text,
                                       Nanoseconds start, const ReadOptions& options,
                                       Workload& workload);

// Prompts as text, of one file or of several by the same clock.
[[nodiscard]] bool has_texts(std::string_view text);
class TextRequests {
 public:
  TextRequests(const ReadOptions& options, Workload& workload);
  [[nodiscard]] Status read(const std::string& where, std::string_view text);
  // All files were read.
  [[nodiscard]] Status finish(const std::string& where);

 private:
  const ReadOptions& options_;
  Workload& workload_;
  Scope scope_;  // They talk to one engine: equal beginnings are equal blocks.
  std::vector<Request> requests_;
};
// Lengths alone: no prompt shares a block with another.
inline constexpr std::uint32_t kMostPromptTokens = 1U << 24U;
[[nodiscard]] bool has_lengths(std::string_view text);
[[nodiscard]] Status read_lengths(const std::string& where, std::string_view text,
                                  const ReadOptions& options, Workload& workload);

// Of traces that have no blocks of their own. Errors: kInvalid = others than the files before.
[[nodiscard]] Result<std::uint32_t> choose_blocks(const std::string& where,
                                                  const ReadOptions& options, Workload& workload);
[[nodiscard]] std::string_view first_line(std::string_view text);
[[nodiscard]] Status bad_line(const std::string& where, std::size_t line, std::string_view what);
// Times from the first of them on, `rate` times as dense. Errors: kInvalid = that lasts too long.
[[nodiscard]] Status add_spread(const std::string& where, std::vector<Request> requests,
                                double rate, Workload& workload);

// Every `group`th id: with chained ids, the last of a group stands for all of it. What is left over
// at the end is no whole block.
void coarsen(std::vector<std::uint64_t>& ids, std::size_t group);

}  // namespace terrace::trace
