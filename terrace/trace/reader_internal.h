// What the readers of the single formats share.
// Threading: thread-safe.  Waits: never.
#pragma once

#include <functional>
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

// Every `group`th id: with chained ids, the last of a group stands for all of it. What is left over
// at the end is no whole block.
void coarsen(std::vector<std::uint64_t>& ids, std::size_t group);

}  // namespace terrace::trace
