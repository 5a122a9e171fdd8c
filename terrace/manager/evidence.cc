#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

#include "terrace/base/file.h"
#include "terrace/manager/evidence_internal.h"

namespace terrace::manager {

namespace {

using Json = nlohmann::json;
namespace fs = std::filesystem;

constexpr std::string_view kText = ".json";

std::string_view text_of(std::span<const std::byte> bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

std::string describe(const Options& options, const CompareJob& job, const Compared& found) {
  const NoiseFloor floor = noise_floor(*options.shadow.element, options.shadow.tolerance);
  Json pieces = Json::array();
  for (const Bytes piece : options.layout.groups[job.group.value()].piece_bytes) {
    pieces.push_back(piece.value());
  }
  const Difference& difference = found.difference;
  const Json out = {{"engine", options.engine_id},
                    {"content", options.fingerprint.content_digest()},
                    {"layout", options.fingerprint.layout_digest()},
                    {"key", job.hash.hex()},
                    {"group", job.group.value()},
                    {"rank", found.rank.value()},
                    {"dtype", to_string(*options.shadow.element)},
                    {"piece_bytes", pieces},
                    {"floor", {{"element", floor.element}, {"rms", floor.rms}}},
                    {"difference",
                     {{"elements", difference.elements},
                      {"beyond", difference.beyond},
                      {"element", difference.element},
                      {"rms", difference.rms},
                      {"piece", difference.piece},
                      {"at", difference.at},
                      {"stored", difference.stored},
                      {"computed", difference.computed}}}};
  return out.dump(2, ' ', false, Json::error_handler_t::replace) + "\n";
}

// Room for one more. What cannot be removed stays; then writing says why.
void make_room(const fs::path& directory) {
  std::error_code error;
  std::vector<std::pair<fs::file_time_type, fs::path>> kept;
  for (fs::directory_iterator at(directory, error), end; !error && at != end; at.increment(error)) {
    if (at->path().extension() != kText) continue;
    std::error_code none;
    kept.emplace_back(at->last_write_time(none), at->path());
  }
  std::ranges::sort(kept);
  for (std::size_t i = 0; i + kMostEvidence <= kept.size(); ++i) {
    for (const char* extension : {".stored", ".computed", ".json"}) {
      fs::path gone = kept[i].second;
      fs::remove(gone.replace_extension(extension), error);
    }
  }
}

Status write_all(const Options& options, const std::string& name, const std::string& text,
                 std::span<const std::byte> stored, std::span<const std::byte> computed) {
  TERRACE_RETURN_IF_ERROR(make_directories(options.shadow.evidence));
  make_room(options.shadow.evidence);
  // The text first: what has none is never cleared away.
  TERRACE_RETURN_IF_ERROR(write_file_atomic(name + std::string(kText), text));
  TERRACE_RETURN_IF_ERROR(write_file_atomic(name + ".stored", text_of(stored)));
  return write_file_atomic(name + ".computed", text_of(computed));
}

}  // namespace

std::string keep_evidence(const Options& options, const CompareJob& job, const Compared& found,
                          std::span<const std::byte> stored, std::span<const std::byte> computed) {
  if (options.shadow.evidence.empty()) {
    return "no evidence is kept, as encryption is on and shadow.evidence names no directory";
  }
  const std::string name =
      fmt::format("{}/{}-{}-{}-{}", options.shadow.evidence, job.hash.hex().substr(0, 16),
                  job.group.value(), found.rank.value(), ::getpid());
  const Status status = write_all(options, name, describe(options, job, found), stored, computed);
  if (!status.is_ok()) return fmt::format("no evidence is kept: {}", status.message());
  return fmt::format("both versions are in {}.*", name);
}

}  // namespace terrace::manager
