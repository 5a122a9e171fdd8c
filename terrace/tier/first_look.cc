#include "terrace/tier/first_look.h"

#include <dirent.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <sys/statvfs.h>

#include <algorithm>
#include <cerrno>
#include <utility>

#include "terrace/base/mutex.h"
#include "terrace/base/sync_point.h"

namespace terrace::tier {

namespace {
constexpr Nanoseconds kNap = milliseconds(20);  // Between two looks at the clock.

void list(const std::string& folder) {
  DIR* const stream = ::opendir(folder.c_str());
  if (stream == nullptr) return;
  while (::readdir(stream) != nullptr) {  // NOLINT(concurrency-mt-unsafe): own stream
  }
  ::closedir(stream);
}

// With the hands that are at it, however long.
class Round {
 public:
  explicit Round(std::span<const std::string> paths)
      : paths_(paths.begin(), paths.end()), places_(paths.size()) {}

  // By a hand of that path.
  void look(std::size_t path) {
    try {
      ask(path);
    } catch (...) {  // No memory for words: the opening will need some as well, and says so.
      return pass(path);
    }
    pass(path);
    TERRACE_SYNC_POINT("first_look.back");
  }
  void pass(std::size_t path) {
    const MutexLock lock(mutex_);
    places_[path].is_back = true;
    came_back_.notify_all();
  }
  void wait(Nanoseconds limit, const Clock& clock, const std::stop_token& stop) {
    const Nanoseconds deadline = clock.now() + limit;
    const MutexLock lock(mutex_);
    while (!is_over() && !stop.stop_requested() && clock.now() < deadline) {
      (void)came_back_.wait_for(mutex_, kNap);
    }
  }
  // At which call the path is; empty = it is back.
  [[nodiscard]] std::string where(std::size_t path) {
    const char* call = nullptr;
    std::string on;
    {
      const MutexLock lock(mutex_);
      if (places_[path].is_back) return {};
      call = places_[path].call;
      on = places_[path].on;
    }
    return fmt::format("{} {}", call, on.empty() ? paths_[path] : on);
  }

 private:
  struct Place {
    const char* call = "stat";
    std::string on;
    bool is_back = false;
  };
  [[nodiscard]] bool is_over() const TERRACE_REQUIRES(mutex_) {
    return std::ranges::all_of(places_, &Place::is_back);
  }
  void go_to(std::size_t path, const char* call, std::string on) {
    {
      const MutexLock lock(mutex_);
      places_[path].call = call;
      places_[path].on.swap(on);
    }
    TERRACE_SYNC_POINT(call);
  }
  // What opening asks first. Of the answers none counts but that they came.
  void ask(std::size_t path) {
    std::string folder = paths_[path];
    struct stat facts{};
    go_to(path, "stat", folder);
    while (::stat(folder.c_str(), &facts) != 0) {  // Not there yet: what it will be made in.
      const auto slash = folder.rfind('/');
      if ((errno != ENOENT && errno != ENOTDIR) || slash == std::string::npos || folder == "/") {
        return;
      }
      folder.resize(std::max<std::size_t>(slash, 1));
      go_to(path, "stat", folder);
    }
    if (folder == paths_[path]) {
      go_to(path, "opendir", folder);
      list(folder);
    }
    struct statvfs room{};
    go_to(path, "statvfs", folder);
    (void)::statvfs(folder.c_str(), &room);
  }

  const std::vector<std::string> paths_;
  Mutex mutex_;
  CondVar came_back_;
  std::vector<Place> places_ TERRACE_GUARDED_BY(mutex_);  // [path]
};

std::string seconds_of(Nanoseconds limit) {
  return fmt::format("{:g} s", static_cast<double>(limit.value()) / 1e9);
}
}  // namespace

bool FirstLook::is_silent(std::string_view path) const {
  return std::ranges::any_of(silent, [&](const SilentPath& one) { return one.path == path; });
}

bool FirstLook::is_in_silence(std::string_view place) const {
  return std::ranges::any_of(silent, [&](const SilentPath& one) {
    return place == one.path ||
           (place.starts_with(one.path) && place.substr(one.path.size()).starts_with('/'));
  });
}

std::vector<std::string> FirstLook::answering(std::span<const std::string> paths) const {
  std::vector<std::string> all;
  std::ranges::copy_if(paths, std::back_inserter(all),
                       [&](const std::string& path) { return !is_silent(path); });
  return all;
}

FirstLook look_first(std::span<const std::string> paths, const MakeHand& make_hand,
                     Nanoseconds limit, const Clock& clock, LogSink& log,
                     const std::stop_token& stop) {
  FirstLook found;
  if (!make_hand || paths.empty()) return found;
  const auto round = std::make_shared<Round>(paths);
  std::vector<std::unique_ptr<Hands>> hands;
  for (std::size_t i = 0; i < paths.size(); ++i) {
    auto hand = make_hand(fmt::format("terrace-path-{}", i));
    if (!hand) {
      log.write(
          LogLevel::kWarn,
          fmt::format("path={} first_look=none reason=\"{}\": should its file system hang, so "
                      "does whoever opens it",
                      paths[i], hand.error().message()));
      round->pass(i);
      continue;
    }
    (*hand)->post([round, i] { round->look(i); }, false);
    hands.push_back(*std::move(hand));
  }
  round->wait(limit, clock, stop);
  for (std::size_t i = 0; i < paths.size(); ++i) {
    const std::string where = round->where(i);
    if (where.empty()) continue;
    const std::string waited = stop.stop_requested()
                                   ? std::string("had not come back when the engine closed")
                                   : "has not come back in " + seconds_of(limit);
    found.silent.push_back({paths[i], fmt::format("{} {}", where, waited)});
  }
  return found;
}

std::string text_of(const SilentPath& silent) {
  return fmt::format(
      "disk.paths {}: {}: its blocks are missed until the engine restarts; see why its file system "
      "does not answer, or name another directory in disk.paths",
      silent.path, silent.why);
}

}  // namespace terrace::tier
