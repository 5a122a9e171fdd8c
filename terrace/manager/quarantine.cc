#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <memory>
#include <system_error>

#include "terrace/base/file.h"
#include "terrace/base/mutex.h"
#include "terrace/manager/quarantine_internal.h"

namespace terrace::manager {

namespace {

namespace fs = std::filesystem;

constexpr Bytes kMostText(4096);  // A reason has some hundred.
// Of 64 digits: a file's name must not be longer than 255 bytes, and people read it.
constexpr std::size_t kDigits = 16;

}  // namespace

std::vector<std::string> quarantine_paths(const ShadowOptions& options,
                                          const Fingerprint& fingerprint) {
  std::vector<std::string> paths;
  for (const std::string& directory : options.marks) {
    paths.push_back(fmt::format("{}/{}-{}.quarantined", directory,
                                fingerprint.content_digest().substr(0, kDigits),
                                fingerprint.layout_digest().substr(0, kDigits)));
  }
  return paths;
}

std::optional<std::string> read_quarantine(const std::string& path) {
  if (path.empty()) return std::nullopt;
  std::error_code error;
  const fs::file_status found = fs::symlink_status(path, error);
  if (found.type() == fs::file_type::not_found) return std::nullopt;
  if (error) return fmt::format("{} cannot be looked at: {}", path, error.message());
  auto text = read_file(path, kMostText);
  if (!text) return fmt::format("what it says cannot be read: {}", text.error().message());
  // One line of a log.
  text->resize(std::min(text->size(), text->find('\n')));
  std::ranges::replace_if(*text, [](unsigned char one) { return one < ' ' || one == '"'; }, ' ');
  return *std::move(text);
}

std::optional<FoundQuarantine> find_quarantine(std::span<const std::string> paths) {
  std::optional<FoundQuarantine> found;
  for (const std::string& path : paths) {
    auto text = read_quarantine(path);
    if (!text) continue;
    if (!found) found.emplace(*std::move(text));
    found->paths.push_back(path);
  }
  return found;
}

Status write_quarantine(const std::string& path, std::string_view reason) {
  TERRACE_RETURN_IF_ERROR(make_directories(fs::path(path).parent_path().string()));
  return write_file_atomic(path, fmt::format("{}\n", reason));
}

namespace {

// With the hands that are at it, however long.
class Writing {
 public:
  explicit Writing(std::size_t paths) : ended_(paths) {}
  void end(std::size_t path, Status status) {
    const MutexLock lock(mutex_);
    ended_[path] = std::move(status);
    changed_.notify_all();
  }
  // Of each path how it ended; nothing = it has not.
  std::vector<std::optional<Status>> wait(Nanoseconds limit) {
    constexpr Nanoseconds kNap = milliseconds(10);
    const MutexLock lock(mutex_);
    for (Nanoseconds waited(0); waited < limit && !is_over(); waited = waited + kNap) {
      (void)changed_.wait_for(mutex_, kNap);
    }
    return ended_;
  }

 private:
  [[nodiscard]] bool is_over() const TERRACE_REQUIRES(mutex_) {
    return std::ranges::all_of(ended_, [](const auto& one) { return one.has_value(); });
  }
  Mutex mutex_;
  CondVar changed_;
  std::vector<std::optional<Status>> ended_ TERRACE_GUARDED_BY(mutex_);
};

}  // namespace

Result<std::vector<std::string>> write_quarantines(std::span<const std::string> paths,
                                                   std::string_view reason,
                                                   const tier::MakeHand& make_hand,
                                                   Nanoseconds limit) {
  const auto writing = std::make_shared<Writing>(paths.size());
  std::vector<std::unique_ptr<Hands>> hands;
  for (std::size_t i = 0; i < paths.size(); ++i) {
    const auto write = [writing, i, path = paths[i], text = std::string(reason)] {
      writing->end(i, write_quarantine(path, text));
    };
    auto hand = make_hand ? make_hand("terrace-mark") : Result<std::unique_ptr<Hands>>(nullptr);
    if (hand && *hand != nullptr) {
      (*hand)->post(write, true);
      hands.push_back(*std::move(hand));
    } else {
      write();
    }
  }
  Status failed(Code::kInvalid, "no directory is named for it");
  std::vector<std::string> written;
  const auto ended = writing->wait(limit);
  for (std::size_t i = 0; i < paths.size(); ++i) {
    if (ended[i] && ended[i]->is_ok()) {
      written.push_back(paths[i]);
    } else {
      failed = ended[i] ? *ended[i]
                        : Status(Code::kDeadline, paths[i] + ": its file system does not answer");
    }
  }
  if (written.empty()) return fail(std::move(failed));
  return written;
}

}  // namespace terrace::manager
