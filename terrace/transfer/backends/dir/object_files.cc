#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>

#include "terrace/base/sync_point.h"
#include "terrace/transfer/backends/dir/listing_internal.h"
#include "terrace/transfer/backends/dir/object_files_internal.h"

namespace terrace::transfer::dir {

namespace {
constexpr std::size_t kMostVectors = 64;
constexpr std::uint64_t kStepBytes = 8ULL << 20U;     // Between two looks at the deadline.
constexpr std::uint64_t kShownBytes = 256ULL << 10U;  // Of a read that somebody looks at: in cache.
constexpr std::uint64_t kSectorBytes = 4096;          // What O_DIRECT is content with everywhere.
// From here on a read is worth a call that has all of it begun at once, and nothing behind it read:
// else the kernel goes by windows of its own, from 128 KiB to many times of what is wanted.
constexpr std::uint64_t kWholeBytes = 256ULL << 10U;
constexpr int kMostRetries = 64;
constexpr int kMostFolderRounds = 4;  // Of folders that somebody removes all the time.

std::string host_name() {
  std::array<char, 256> name{};
  return ::gethostname(name.data(), name.size() - 1) == 0 ? name.data() : "unknown";
}

// The next step's pieces, from `done` bytes on.
class Step {
 public:
  Step(const std::vector<MemoryPiece>& pieces, std::uint64_t done, std::uint64_t room) {
    for (const MemoryPiece& piece : pieces) {
      if (done >= piece.bytes) {
        done -= piece.bytes;
        continue;
      }
      if (room == 0 || count_ == vectors_.size()) break;
      const std::uint64_t bytes = std::min<std::uint64_t>(piece.bytes - done, room);
      vectors_[count_++] = {piece.data + done, bytes};
      room -= bytes;
      done = 0;
    }
  }
  [[nodiscard]] const iovec* data() const { return vectors_.data(); }
  [[nodiscard]] int count() const { return static_cast<int>(count_); }

 private:
  std::array<iovec, kMostVectors> vectors_{};
  std::size_t count_ = 0;
};

void describe(const struct stat& facts, ObjectInfo& info) {
  info.bytes = static_cast<std::uint64_t>(facts.st_size);
  info.modified_seconds = facts.st_mtim.tv_sec;
}
}  // namespace

Status check_deadline(const ObjectRequest& request) {
  if (request.deadline == kNoDeadline || SystemClock().now() < request.deadline) return {};
  return {Code::kDeadline, fmt::format("{} {}: too late", to_string(request.op), request.name)};
}

ObjectFiles::ObjectFiles(const DirStoreOptions& options, std::unique_ptr<FileCalls> calls)
    : calls_(std::move(calls)),
      is_direct_(options.is_direct),
      making_{calls_.get(), host_name(), options.is_group_shared,
              options.leftover_age.value() / seconds(1).value()},
      root_(options.path, making_, options.may_begin) {}

ObjectAnswer ObjectFiles::run(const ObjectRequest& request) {
  ObjectAnswer answer;
  answer.status = run_once(request, answer);
  // Once more: the usual ESTALE is a folder on the way that was removed and made again.
  if (answer.status.code() == Code::kUnavailable) {
    answer = {};
    answer.status = run_once(request, answer);
  }
  if (!answer.status.is_ok()) {
    Status status = std::move(answer.status);
    answer = {};
    answer.status = std::move(status);
  }
  return answer;
}

Status ObjectFiles::run_once(const ObjectRequest& request, ObjectAnswer& answer) {
  TERRACE_RETURN_IF_ERROR(check_deadline(request));
  TERRACE_ASSIGN_OR_RETURN(const UniqueFd root, root_.enter());
  TERRACE_RETURN_IF_ERROR(check_deadline(request));
  switch (request.op) {
    case ObjectOp::kPut:
      return put(root.get(), request, answer);
    case ObjectOp::kGet:
      return get(root.get(), request);
    case ObjectOp::kHead:
      return head(root.get(), request, answer.info);
    case ObjectOp::kList:
      return Listing(making_, root.get(), root_.path(), request).run(answer);
    case ObjectOp::kRemove:
      return remove(root.get(), request);
    case ObjectOp::kTouch:
      return touch(root.get(), request);
  }
  return {};
}

Result<bool> ObjectFiles::look(int root, const Place& place, ObjectInfo& info) {
  const std::string path = place.path();
  const UniqueFd file(calls_->open_below(root, path.c_str(), O_PATH, 0));
  if (!file.is_open() && errno == ENOENT) return false;
  if (!file.is_open()) return fail(failure(errno, "open", path_of(path)));
  struct stat facts{};
  if (calls_->facts_of(file.get(), &facts) != 0) {
    return fail(failure(errno, "fstat", path_of(path)));
  }
  if (!S_ISREG(facts.st_mode)) return fail(no_object(facts, path_of(path)));
  describe(facts, info);
  return facts.st_size > 0;  // An empty one is a claim, see publish.cc.
}

Status ObjectFiles::head(int root, const ObjectRequest& request, ObjectInfo& info) {
  info.name = request.name;
  TERRACE_ASSIGN_OR_RETURN(const bool is_there, look(root, place_of(request.name), info));
  return is_there ? Status() : Status(Code::kNotFound, request.name);
}

Result<UniqueFd> ObjectFiles::open_folder(int root, const std::string& folder) {
  UniqueFd opened(calls_->open_below(root, folder.c_str(), O_RDONLY | O_DIRECTORY, 0));
  if (!opened.is_open()) return fail(failure(errno, "open", path_of(folder)));
  return opened;
}

// The folder with all above it.
Result<UniqueFd> ObjectFiles::make_folder(int root, const std::string& folder) {
  UniqueFd above(calls_->open_below(root, ".", O_RDONLY | O_DIRECTORY, 0));
  if (!above.is_open()) return fail(failure(errno, "open", root_.path()));
  for (std::size_t start = 0;;) {
    const std::size_t slash = folder.find('/', start);
    const std::string below = folder.substr(0, slash);
    const std::string part = below.substr(start);
    const bool is_new = calls_->make_folder(above.get(), part.c_str(), making_.folder_mode()) == 0;
    if (!is_new && errno != EEXIST) return fail(away(failure(errno, "mkdir", path_of(below))));
    auto opened = open_folder(above.get(), part);
    if (!opened) return fail(opened.error());
    if (is_new) {
      if (making_.is_group_shared && calls_->set_mode(opened->get(), making_.folder_mode()) != 0) {
        return fail(failure(errno, "chmod", path_of(below)));
      }
      if (start == 0) TERRACE_RETURN_IF_ERROR(root_.keep_marker(root));
    }
    if (slash == std::string::npos) return *std::move(opened);
    above = *std::move(opened);
    start = slash + 1;
  }
}

// Others remove the folder while it is empty. It is not any more once our file is in it.
Result<ObjectFiles::Begun> ObjectFiles::begin(int root, const std::string& folder, int flags) {
  auto opened = open_folder(root, folder);
  for (int round = 0;; ++round) {
    Status status = opened ? Status() : opened.error();
    if (opened) {
      auto file = Unfinished::create(making_, opened->get(), path_of(folder), flags);
      if (file) return Begun{*std::move(opened), *std::move(file)};
      status = file.error();
    }
    if (status.code() != Code::kNotFound || round == kMostFolderRounds) return fail(away(status));
    opened = make_folder(root, folder);
  }
}

Status ObjectFiles::put(int root, const ObjectRequest& request, ObjectAnswer& answer) {
  const Place place = place_of(request.name);
  ObjectInfo known;
  TERRACE_ASSIGN_OR_RETURN(answer.was_there, look(root, place, known));
  if (answer.was_there) return {};
  TERRACE_RETURN_IF_ERROR(check_deadline(request));
  TERRACE_ASSIGN_OR_RETURN(Begun begun, begin(root, place.folder, direct_flag(request)));
  Unfinished& file = begun.file;
  const std::string path = file.path_of(file.name());
  TERRACE_RETURN_IF_ERROR(move(file.file(), request, Direction::kWrite, path, 0));
  TERRACE_SYNC_POINT("dir.written");
  TERRACE_RETURN_IF_ERROR(check_deadline(request));
  if (calls_->sync_data(file.file()) != 0) return failure(errno, "fdatasync", path);
  TERRACE_RETURN_IF_ERROR(check_deadline(request));
  TERRACE_ASSIGN_OR_RETURN(const bool is_ours, file.publish(place.leaf));
  TERRACE_SYNC_POINT("dir.published");
  file.remove();
  answer.was_there = !is_ours;
  return is_ours && request.is_lasting ? sync_folders(root, place.folder, begun.folder.get())
                                       : Status();
}

Status ObjectFiles::sync_folders(int root, const std::string& folder, int opened) {
  if (calls_->sync_folder(opened) != 0) return failure(errno, "fsync", path_of(folder));
  std::string above = folder;
  while (!above.empty()) {
    above.resize(above.rfind('/') == std::string::npos ? 0 : above.rfind('/'));
    TERRACE_ASSIGN_OR_RETURN(const UniqueFd next, open_folder(root, above.empty() ? "." : above));
    if (calls_->sync_folder(next.get()) != 0) return failure(errno, "fsync", path_of(above));
  }
  return {};
}

// Not what the device puts there by itself: in parts it would come more slowly.
bool ObjectFiles::shows(const ObjectRequest& request) const {
  return request.arrivals != nullptr && direct_flag(request) == 0;
}

int ObjectFiles::direct_flag(const ObjectRequest& request) const {
  if (!is_direct_ || request.offset % kSectorBytes != 0) return 0;
  for (const MemoryPiece& piece : request.pieces) {
    const auto address = reinterpret_cast<std::uintptr_t>(piece.data);
    if (address % kSectorBytes != 0 || piece.bytes % kSectorBytes != 0) return 0;
  }
  return O_DIRECT;
}

Result<UniqueFd> ObjectFiles::open_object(int root, const std::string& below, int direct,
                                          struct stat& facts) {
  // A pipe or a device that somebody put there is opened without waiting, and told by its facts.
  const int flags = O_RDONLY | O_NONBLOCK | O_NOCTTY;
  UniqueFd file(calls_->open_below(root, below.c_str(), flags | direct, 0));
  if (!file.is_open() && errno == EINVAL && direct != 0) {
    file = UniqueFd(calls_->open_below(root, below.c_str(), flags, 0));
  }
  if (!file.is_open()) return fail(failure(errno, "open", path_of(below)));
  if (calls_->facts_of(file.get(), &facts) != 0) {
    return fail(failure(errno, "fstat", path_of(below)));
  }
  if (!S_ISREG(facts.st_mode)) return fail(no_object(facts, path_of(below)));
  if (facts.st_size == 0) return fail(Code::kNotFound, path_of(below));  // A claim.
  return file;
}

Status ObjectFiles::get(int root, const ObjectRequest& request) {
  const std::string below = place_of(request.name).path();
  struct stat facts{};
  TERRACE_ASSIGN_OR_RETURN(const UniqueFd file,
                           open_object(root, below, direct_flag(request), facts));
  const auto size = static_cast<std::uint64_t>(facts.st_size);
  const std::uint64_t bytes = request.bytes();
  if (request.offset > size || bytes > size - request.offset) {
    return {Code::kCorrupt, fmt::format("get {}: {} bytes from {} on, and it has {}",
                                        path_of(below), bytes, request.offset, size)};
  }
  // Where that cannot be, the read goes by windows.
  if (bytes >= kWholeBytes) (void)calls_->reads_exactly(file.get());
  if (shows(request)) return show(file.get(), request, path_of(below));
  return move(file.get(), request, Direction::kRead, path_of(below), 0);
}

// As far as it is in memory, at once; the rest is begun as a whole, or it would be asked of the
// medium piece by piece, and looked at as it comes.
Status ObjectFiles::show(int file, const ObjectRequest& request, const std::string& path) {
  const std::uint64_t total = request.bytes();
  std::uint64_t done = 0;
  while (done < total) {
    const Step step(request.pieces, done, kShownBytes);
    const ssize_t moved =
        calls_->read_cached(file, step.data(), step.count(), request.offset + done);
    if (moved <= 0) break;
    const std::uint64_t before = done;
    done += static_cast<std::uint64_t>(moved);
    request.arrivals->on_bytes(before, done);
  }
  if (done == total) return {};
  (void)calls_->begin_reading(file, request.offset + done, total - done);
  return move(file, request, Direction::kRead, path, done);
}

Status ObjectFiles::move(int file, const ObjectRequest& request, Direction direction,
                         const std::string& path, std::uint64_t done) {
  const bool is_read = direction == Direction::kRead;
  const std::uint64_t total = request.bytes();
  Arrivals* const arrivals = is_read && shows(request) ? request.arrivals : nullptr;
  int retries = 0;
  while (done < total) {
    TERRACE_RETURN_IF_ERROR(check_deadline(request));
    const Step step(request.pieces, done, arrivals != nullptr ? kShownBytes : kStepBytes);
    const std::uint64_t offset = is_read ? request.offset + done : done;
    const ssize_t moved = is_read ? calls_->read_at(file, step.data(), step.count(), offset)
                                  : calls_->write_at(file, step.data(), step.count(), offset);
    if (moved > 0) {
      const std::uint64_t before = done;
      done += static_cast<std::uint64_t>(moved);
      if (arrivals != nullptr) arrivals->on_bytes(before, done);
      continue;
    }
    if (moved < 0 && (errno == EINTR || errno == EAGAIN) && ++retries <= kMostRetries) continue;
    if (moved < 0) return failure(errno, is_read ? "preadv" : "pwritev", path);
    return {is_read ? Code::kCorrupt : Code::kIo,
            fmt::format("{} {}: it ends after {} of {} bytes", to_string(request.op), path, done,
                        total)};
  }
  return {};
}

Status ObjectFiles::remove(int root, const ObjectRequest& request) {
  const Place place = place_of(request.name);
  const auto folder = open_folder(root, place.folder);
  if (!folder) {
    return folder.error().code() == Code::kNotFound ? Status() : folder.error();
  }
  if (calls_->remove(folder->get(), place.leaf.c_str()) != 0 && errno != ENOENT) {
    return failure(errno, "unlink", path_of(place.path()));
  }
  remove_if_empty(root, place.folder);
  return {};
}

// Most objects have a folder of their own: what is left of those that are gone would be walked by
// each listing.
void ObjectFiles::remove_if_empty(int root, const std::string& folder) {
  const std::size_t slash = folder.rfind('/');
  const bool is_below = slash != std::string::npos;
  const auto above = open_folder(root, is_below ? folder.substr(0, slash) : ".");
  if (!above) return;
  (void)calls_->remove_folder(above->get(), folder.c_str() + (is_below ? slash + 1 : 0));
}

Status ObjectFiles::touch(int root, const ObjectRequest& request) {
  const std::string below = place_of(request.name).path();
  struct stat facts{};
  TERRACE_ASSIGN_OR_RETURN(const UniqueFd file, open_object(root, below, 0, facts));
  if (calls_->touch(file.get()) == 0) return {};
  return failure(errno, "futimens", path_of(below));
}

}  // namespace terrace::transfer::dir
