#include "terrace/manager/weights.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <vector>

#include "terrace/base/file.h"
#include "terrace/block/digest.h"

namespace terrace::manager {

namespace {

constexpr std::uint64_t kPage = 4096;
constexpr std::uint64_t kHeaderLimit = 100'000'000;  // As the safetensors library has it.
constexpr std::int64_t kSettledSeconds = 2;

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

Result<std::string> digest_file(const std::string& path, std::uint64_t size) {
  TERRACE_ASSIGN_OR_RETURN(const UniqueFd file, open_regular_file(path, O_RDONLY));
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

// Where the digest of a file of this identity is remembered; empty when it must not be.
std::string cache_path(const std::string& cache_directory, const struct stat& facts) {
  if (cache_directory.empty()) return "";
  const std::int64_t now = SystemClock().wall_seconds();
  if (now - facts.st_ctim.tv_sec < kSettledSeconds ||
      now - facts.st_mtim.tv_sec < kSettledSeconds) {
    return "";
  }
  Digest identity;
  identity.add_field(fmt::format("{}.{}.{}.{}.{}.{}.{}", facts.st_dev, facts.st_ino, facts.st_size,
                                 facts.st_mtim.tv_sec, facts.st_mtim.tv_nsec, facts.st_ctim.tv_sec,
                                 facts.st_ctim.tv_nsec));
  return fmt::format("{}/weights-{}", cache_directory, identity.hex().substr(0, 32));
}

bool is_digest(const std::string& text) {
  return text.size() == 64 && text.find_first_not_of("0123456789abcdef") == std::string::npos;
}

Result<std::string> digest_file_cached(const std::string& path,
                                       const std::string& cache_directory) {
  struct stat facts{};
  if (::stat(path.c_str(), &facts) != 0) return fail(Status::from_errno(errno, "stat", path));
  const std::string remembered = cache_path(cache_directory, facts);
  if (!remembered.empty()) {
    if (const auto known = read_file(remembered, 1_KiB); known && is_digest(*known)) return *known;
  }
  TERRACE_ASSIGN_OR_RETURN(std::string digest,
                           digest_file(path, static_cast<std::uint64_t>(facts.st_size)));
  if (!remembered.empty() && make_directories(cache_directory).is_ok()) {
    // A cache that cannot be written costs only time.
    [[maybe_unused]] const Status ignored = write_file_atomic(remembered, digest);
  }
  return digest;
}

}  // namespace

Result<std::string> digest_weights(const std::string& directory,
                                   const std::string& cache_directory) {
  std::error_code error;
  std::vector<std::filesystem::path> files;
  for (std::filesystem::directory_iterator it(directory, error), end; !error && it != end;
       it.increment(error)) {
    if (it->path().extension() == ".safetensors") files.push_back(it->path());
  }
  if (error) return fail(Status::from_errno(error.value(), "read directory", directory));
  if (files.empty()) return fail(Code::kNotFound, directory + ": no *.safetensors file");
  std::ranges::sort(files);
  Digest digest;
  for (const auto& file : files) {
    digest.add_field(file.filename().string());
    TERRACE_ASSIGN_OR_RETURN(const std::string one,
                             digest_file_cached(file.string(), cache_directory));
    digest.add_field(one);
  }
  return digest.hex();
}

Status add_weights(Fingerprint& fingerprint, std::string digest) {
  return fingerprint.add_content("weights", std::move(digest), "the model's directory");
}

}  // namespace terrace::manager
