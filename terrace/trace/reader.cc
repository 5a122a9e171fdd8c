#include "terrace/trace/reader.h"

#include "terrace/base/file.h"
#include "terrace/trace/reader_internal.h"

namespace terrace::trace {
namespace {

constexpr Bytes kMostPacked = 1_GiB;

bool ends_with(std::string_view name, std::string_view ending) {
  if (name.ends_with(".zst")) name.remove_suffix(4);
  return name.ends_with(ending);
}

Nanoseconds start_in(Rng& rng, const ReadOptions& options) {
  const auto window =
      static_cast<std::uint64_t>(static_cast<double>(options.window.value()) / options.rate);
  return Nanoseconds(static_cast<std::int64_t>(rng.below(window + 1)));
}

Status read_archive(const std::string& path, std::string_view bytes, const ReadOptions& options,
                    Workload& workload) {
  TERRACE_ASSIGN_OR_RETURN(const auto members, tar_members(path, bytes));
  Rng rng(options.seed);
  TextRequests texts(options, workload);
  bool has_any = false;
  for (const Member& member : members) {
    const bool is_conversation = ends_with(member.name, ".json");
    if (!is_conversation && !ends_with(member.name, ".jsonl")) continue;
    has_any = true;
    const std::string where = path + "(" + member.name + ")";
    TERRACE_ASSIGN_OR_RETURN(const std::string content,
                             unpacked(where, std::string(member.content)));
    if (is_conversation) {
      TERRACE_RETURN_IF_ERROR(
          read_conversation(where, content, start_in(rng, options), options, workload));
    } else {
      TERRACE_RETURN_IF_ERROR(texts.read(where, content));
    }
  }
  if (has_any) return texts.finish(path);
  return {Code::kInvalid,
          path + ": the archive holds no .json of conversations and no .jsonl of texts"};
}

}  // namespace

void coarsen(std::vector<std::uint64_t>& ids, std::size_t group) {
  if (group <= 1) return;
  const std::size_t count = ids.size() / group;
  for (std::size_t i = 0; i < count; ++i) ids[i] = ids[(i + 1) * group - 1];
  ids.resize(count);
}

Result<Workload> read_workload(const std::string& path, const ReadOptions& options) {
  constexpr double kMostWindow = 1e18;  // 30 years.
  if (!(options.rate > 0) || options.window < Nanoseconds(0) ||
      static_cast<double>(options.window.value()) / options.rate > kMostWindow) {
    return fail(Code::kInvalid,
                "the rate must be above 0, the window not below, and what the rate makes of the "
                "window at most 30 years");
  }
  TERRACE_ASSIGN_OR_RETURN(std::string packed, read_file(path, kMostPacked));
  TERRACE_ASSIGN_OR_RETURN(const std::string bytes, unpacked(path, std::move(packed)));
  Workload workload;
  if (is_tar(bytes)) {
    TERRACE_RETURN_IF_ERROR(read_archive(path, bytes, options, workload));
  } else if (ends_with(path, ".json")) {
    Rng rng(options.seed);
    TERRACE_RETURN_IF_ERROR(
        read_conversation(path, bytes, start_in(rng, options), options, workload));
  } else if (has_lengths(bytes)) {
    TERRACE_RETURN_IF_ERROR(read_lengths(path, bytes, options, workload));
  } else if (has_texts(bytes)) {
    TextRequests texts(options, workload);
    TERRACE_RETURN_IF_ERROR(texts.read(path, bytes));
    TERRACE_RETURN_IF_ERROR(texts.finish(path));
  } else {
    TERRACE_RETURN_IF_ERROR(read_lines(path, bytes, options, workload));
  }
  if (workload.references() == 0) {
    return fail(Code::kInvalid, path + ": no request with a block; is it a trace of prompts?");
  }
  workload.sort();
  return workload;
}

}  // namespace terrace::trace
