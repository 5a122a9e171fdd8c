#include "terrace/manager/weights.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <deque>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <utility>
#include <vector>

#include "terrace/base/file.h"
#include "terrace/block/digest.h"

namespace terrace::manager {

namespace {

constexpr std::uint64_t kPage = 4096;
constexpr std::uint64_t kHeaderLimit = 100'000'000;  // As the safetensors library has it.

struct TensorRange {
  std::string name;
  std::uint64_t begin = 0;
  std::uint64_t end = 0;
};

Result<std::string> read_range(const UniqueFd& file, std::uint64_t offset, std::uint64_t length,
                               const std::string& path) {
  std::string bytes(length, '\0');
  std::uint64_t done = 0;
  while (done < length) {
    const ssize_t got =
        ::pread(file.get(), bytes.data() + done, length - done, static_cast<off_t>(offset + done));
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return fail(Status::from_errno(errno, "pread", path));
    if (got == 0)
      return fail(Code::kCorrupt, fmt::format("{}: ends at byte {}", path, offset + done));
    done += static_cast<std::uint64_t>(got);
  }
  return bytes;
}

Result<std::vector<TensorRange>> parse_header(const std::string& header, std::uint64_t data_bytes,
                                              const std::string& path) {
  const auto json = nlohmann::json::parse(header, nullptr, false);
  if (!json.is_object())
    return fail(Code::kCorrupt, path + ": safetensors header is no JSON object");
  std::vector<TensorRange> ranges;
  for (const auto& [name, tensor] : json.items()) {
    if (name == "__metadata__") continue;
    const auto offsets = tensor.is_object() ? tensor.find("data_offsets") : tensor.end();
    if (!tensor.is_object() || offsets == tensor.end() || !offsets->is_array() ||
        offsets->size() != 2 || !(*offsets)[0].is_number_unsigned() ||
        !(*offsets)[1].is_number_unsigned()) {
      return fail(Code::kCorrupt, fmt::format("{}: tensor {} has no data_offsets", path, name));
    }
    TensorRange range{name, (*offsets)[0].get<std::uint64_t>(), (*offsets)[1].get<std::uint64_t>()};
    if (range.begin > range.end || range.end > data_bytes) {
      return fail(Code::kCorrupt, fmt::format("{}: tensor {} lies outside the file", path, name));
    }
    ranges.push_back(std::move(range));
  }
  std::ranges::sort(ranges, {}, &TensorRange::begin);
  return ranges;
}

// First, middle and last page of one tensor; small tensors whole.
Status add_tensor(Digest& digest, const UniqueFd& file, std::uint64_t data_start,
                  const TensorRange& range, const std::string& path) {
  const std::uint64_t bytes = range.end - range.begin;
  const std::uint64_t start = data_start + range.begin;
  if (bytes <= 3 * kPage) {
    TERRACE_ASSIGN_OR_RETURN(const std::string all, read_range(file, start, bytes, path));
    digest.add_field(all);
    return {};
  }
  for (const std::uint64_t offset : {std::uint64_t{0}, (bytes / 2) & ~(kPage - 1), bytes - kPage}) {
    TERRACE_ASSIGN_OR_RETURN(const std::string page, read_range(file, start + offset, kPage, path));
    digest.add_field(page);
  }
  return {};
}

Result<std::string> digest_file(const std::string& path) {
  TERRACE_ASSIGN_OR_RETURN(const UniqueFd file, open_regular_file(path, O_RDONLY));
  struct stat facts{};
  if (::fstat(file.get(), &facts) != 0) return fail(Status::from_errno(errno, "fstat", path));
  const auto size = static_cast<std::uint64_t>(facts.st_size);
  TERRACE_ASSIGN_OR_RETURN(const std::string prefix, read_range(file, 0, 8, path));
  std::uint64_t header_bytes = 0;
  std::memcpy(&header_bytes, prefix.data(), 8);
  if (header_bytes > kHeaderLimit || header_bytes + 8 > size) {
    return fail(
        Code::kCorrupt,
        fmt::format("{}: header length {} is not that of a safetensors file", path, header_bytes));
  }
  TERRACE_ASSIGN_OR_RETURN(const std::string header, read_range(file, 8, header_bytes, path));
  const std::uint64_t data_start = 8 + header_bytes;
  TERRACE_ASSIGN_OR_RETURN(const auto ranges, parse_header(header, size - data_start, path));
  Digest digest;
  digest.add_field(fmt::format("{}", size));
  digest.add_field(header);
  for (const TensorRange& range : ranges) {
    TERRACE_RETURN_IF_ERROR(add_tensor(digest, file, data_start, range, path));
  }
  return digest.hex();
}

Result<struct stat> facts_of(const std::string& path, bool follows_links) {
  struct stat facts{};
  const int failed = follows_links ? ::stat(path.c_str(), &facts) : ::lstat(path.c_str(), &facts);
  if (failed != 0) return fail(Status::from_errno(errno, "stat", path));
  return facts;
}

Nanoseconds at(const timespec& time) {
  return Nanoseconds(static_cast<std::int64_t>(time.tv_sec) * 1'000'000'000 + time.tv_nsec);
}

bool is_hex(std::string_view text, std::size_t length) {
  return text.size() == length &&
         text.find_first_not_of("0123456789abcdef") == std::string_view::npos;
}

// In Hugging Face's cache a link `snapshots/<commit>/<file>` leads to `blobs/<SHA-256>`: neither
// name ever stands for other bytes, so it does not matter when they came.
bool is_named_by_content(const std::filesystem::path& file) {
  std::error_code error;
  const auto real = std::filesystem::canonical(file, error);
  return !error && real.parent_path().filename() == "blobs" &&
         is_hex(real.filename().string(), 64) &&
         is_hex(file.parent_path().filename().string(), 40) &&
         file.parent_path().parent_path().filename() == "snapshots";
}

Result<std::vector<std::filesystem::path>> list_weights(const std::string& directory) {
  std::error_code error;
  std::vector<std::filesystem::path> files;
  for (std::filesystem::directory_iterator it(directory, error), end; !error && it != end;
       it.increment(error)) {
    if (it->path().extension() == ".safetensors") files.push_back(it->path());
  }
  if (error) return fail(Status::from_errno(error.value(), "read directory", directory));
  if (files.empty()) return fail(Code::kNotFound, directory + ": no *.safetensors file");
  std::ranges::sort(files);
  return files;
}

Status check_age(const std::string& path, Nanoseconds changed, Nanoseconds since,
                 std::string_view advice = "") {
  // File systems stamp with a clock that lags by up to 10 ms; no engine begins to load that soon.
  if (changed < since) return {};
  return {
      Code::kRefused,
      fmt::format("{} changed after the engine's process started, so nobody knows which weights "
                  "it loaded; start the engine again, and change the model's files only while "
                  "it does not run{}",
                  path, advice)};
}

// Of every link that the path leads through: one that was turned leads to what the engine did not
// load, however old that is.
Status check_links(const std::string& path, Nanoseconds since) {
  namespace fs = std::filesystem;
  constexpr int kMostLinks = 40;  // As Linux has it.
  std::error_code error;
  const fs::path whole = fs::absolute(path, error);
  if (error) return Status::from_errno(error.value(), "absolute path", path);
  fs::path reached = whole.root_path();
  std::deque<fs::path> ahead;
  for (const fs::path& part : whole.relative_path()) ahead.push_back(part);
  for (int links = 0; !ahead.empty();) {
    const fs::path part = std::exchange(ahead.front(), {});
    ahead.pop_front();
    if (part.empty() || part == ".") continue;
    if (part == "..") {
      reached = reached.parent_path();
      continue;
    }
    const fs::path next = reached / part;
    TERRACE_ASSIGN_OR_RETURN(const struct stat facts, facts_of(next.string(), false));
    if (!S_ISLNK(facts.st_mode)) {
      reached = next;
      continue;
    }
    TERRACE_RETURN_IF_ERROR(check_age(next.string(), at(facts.st_ctim), since,
                                      ", or, if that link is made whenever it starts, name the "
                                      "folder that it leads to"));
    const fs::path target = fs::read_symlink(next, error);
    if (error || ++links > kMostLinks) {
      return Status::from_errno(error ? error.value() : ELOOP, "read link", next.string());
    }
    if (target.is_absolute()) reached = target.root_path();
    const fs::path rest = target.relative_path();
    ahead.insert(ahead.begin(), rest.begin(), rest.end());
  }
  return {};
}

// Of what the name stands for, and of what leads there.
Status check_file(const std::string& path, Nanoseconds since) {
  TERRACE_ASSIGN_OR_RETURN(const struct stat facts, facts_of(path, true));
  TERRACE_RETURN_IF_ERROR(check_age(path, std::max(at(facts.st_ctim), at(facts.st_mtim)), since));
  return check_links(path, since);
}

}  // namespace

Result<std::string> digest_weights(const std::string& directory) {
  TERRACE_ASSIGN_OR_RETURN(const auto files, list_weights(directory));
  Digest digest;
  for (const auto& file : files) {
    digest.add_field(file.filename().string());
    TERRACE_ASSIGN_OR_RETURN(const std::string one, digest_file(file.string()));
    digest.add_field(one);
  }
  return digest.hex();
}

Status check_unchanged(const std::string& directory, Nanoseconds since) {
  TERRACE_ASSIGN_OR_RETURN(const auto files, list_weights(directory));
  if (std::ranges::all_of(files, is_named_by_content)) return {};
  for (const auto& file : files) {
    if (is_named_by_content(file)) continue;
    TERRACE_RETURN_IF_ERROR(check_file(file.string(), since));
  }
  // A file that went leaves no other trace, nor does a folder that took the name of another.
  return check_file(directory, since);
}

Status add_weights(Fingerprint& fingerprint, std::string digest) {
  return fingerprint.add_content("weights", std::move(digest), "the model's directory");
}

}  // namespace terrace::manager
