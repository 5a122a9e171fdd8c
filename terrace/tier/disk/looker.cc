#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <sys/statvfs.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <span>
#include <tuple>
#include <utility>

#include "terrace/base/sync_point.h"
#include "terrace/tier/disk/flights_internal.h"
#include "terrace/tier/disk/geometry_internal.h"
#include "terrace/tier/disk/looker_internal.h"
#include "terrace/tier/disk/volume_internal.h"

namespace terrace::tier::disk {

namespace {
constexpr std::uint8_t kLock = 3;  // Behind the files.

// At which call a look is, for who waits for it.
class Whereabouts {
 public:
  void set(LookCall call, std::size_t on) {
    now_.store(static_cast<std::uint16_t>(static_cast<unsigned>(call) << 8U | on),
               std::memory_order_relaxed);
    TERRACE_SYNC_POINT(std::string(to_string(call)).c_str());
  }
  [[nodiscard]] LookCall call() const {
    return static_cast<LookCall>(now_.load(std::memory_order_relaxed) >> 8U);
  }
  [[nodiscard]] std::size_t on() const { return now_.load(std::memory_order_relaxed) & 0xFFU; }

 private:
  std::atomic<std::uint16_t> now_{0};
};

// What the open files are, asked before anything of their paths.
struct OpenFiles {
  std::array<struct stat, std::tuple_size_v<decltype(LookedAt::files)>> facts{};
  bool is_linked = true;
  Status status;  // The first failure.
};

OpenFiles look_at_open(const LookedAt& at, Whereabouts& here) {
  OpenFiles open;
  for (std::size_t i = 0; i < at.files.size(); ++i) {
    const auto& [file, path] = at.files[i];
    here.set(LookCall::kFstat, i);
    if (::fstat(file.get(), &open.facts[i]) == 0) {
      if (open.facts[i].st_nlink == 0) open.is_linked = false;
    } else if (open.status.is_ok()) {
      // Its file system was shut down, or who answers for it is away: the file may come back.
      open.status = Status::from_errno(errno, "fstat", path);
    }
  }
  return open;
}

Status check_place(const LookedAt& at, const OpenFiles& open, Whereabouts& here) {
  if (!open.status.is_ok()) return open.status;
  for (std::size_t i = 0; i < at.files.size(); ++i) {
    const std::string& path = at.files[i].path;
    struct stat named{};
    here.set(LookCall::kLstat, i);
    if (::lstat(path.c_str(), &named) != 0) {
      return {Code::kNotFound, Status::from_errno(errno, "lstat", path).message()};
    }
    if (open.facts[i].st_dev != named.st_dev || open.facts[i].st_ino != named.st_ino) {
      return {Code::kNotFound, path + " is another file now"};
    }
  }
  here.set(LookCall::kStat, kLock);
  if (!is_lock_of(at.directory, at.lock)) {
    return {Code::kNotFound, at.directory + "/owner.lock is another file now"};
  }
  return {};
}

Sight look(const LookedAt& at, bool is_afresh, Whereabouts& here) {
  Sight sight;
  const OpenFiles open = look_at_open(at, here);
  sight.is_linked = open.is_linked;
  if (!sight.is_linked) return sight;
  sight.place = check_place(at, open, here);
  struct statvfs facts{};
  here.set(LookCall::kFstatvfs, 0);
  if (::fstatvfs(at.files[0].open.get(), &facts) == 0) {
    sight.total_bytes = facts.f_blocks * facts.f_frsize;
    sight.free_bytes = facts.f_bavail * facts.f_frsize;
  }
  if (!is_afresh || !sight.place.is_ok()) return sight;
  // From the medium, not from what the kernel remembers of it.
  for (std::size_t i = 1; i < at.files.size(); ++i) {
    here.set(LookCall::kFadvise, i);
    (void)::posix_fadvise(at.files[i].open.get(), 0, 0, POSIX_FADV_DONTNEED);
  }
  return sight;
}
}  // namespace

std::string_view to_string(LookCall call) {
  switch (call) {
    case LookCall::kFstat:
      return "fstat";
    case LookCall::kLstat:
      return "lstat";
    case LookCall::kStat:
      return "stat";
    case LookCall::kFstatvfs:
      return "fstatvfs";
    case LookCall::kFadvise:
      return "posix_fadvise";
  }
  return "?";
}

std::string lack_of_room(const Sight& sight, std::uint64_t bytes) {
  if (sight.total_bytes == 0) return {};
  const std::uint64_t kept = reserve_of(sight.total_bytes) / 2;
  if (sight.free_bytes >= kept + bytes) return {};
  return fmt::format("others have used its file system up: its last {} MiB stay free for them",
                     kept >> 20U);
}

struct Looker::Shared {
  explicit Shared(LookedAt at_in) : at(std::move(at_in)) {}
  // By whoever's hand.
  void look_now(bool is_afresh) {
    std::optional<Sight> found;
    try {
      found = look(at, is_afresh, here);
    } catch (...) {  // No memory for words: the next look may have some.
    }
    const MutexLock lock(mutex);
    outcome = std::move(found);
    is_back = true;
    came_back.notify_all();
  }

  const LookedAt at;
  Whereabouts here;
  Mutex mutex;
  CondVar came_back;
  bool is_back TERRACE_GUARDED_BY(mutex) = false;
  std::optional<Sight> outcome TERRACE_GUARDED_BY(mutex);
};

Looker::Looker(std::shared_ptr<Shared> shared, std::unique_ptr<Hands> hand, const Clock& clock)
    : clock_(clock), shared_(std::move(shared)), hand_(std::move(hand)) {}

Result<std::unique_ptr<Looker>> Looker::create(const Volume& volume, std::unique_ptr<Hands> hand,
                                               const Clock& clock) {
  TERRACE_ASSIGN_OR_RETURN(LookedAt at, volume.looked_at());
  return std::unique_ptr<Looker>(
      new Looker(std::make_shared<Shared>(std::move(at)), std::move(hand), clock));
}

void Looker::begin() {
  if (!is_under_way_) start();
}

std::uint64_t Looker::ask(bool is_afresh) {
  is_afresh_ = is_afresh_ || is_afresh;
  const std::uint64_t number = begun_ + 1;
  wanted_ = number;
  begin();
  return number;
}

void Looker::start() {
  is_under_way_ = true;
  ++begun_;
  began_at_ = clock_.now();
  const bool is_afresh = std::exchange(is_afresh_, false);
  if (hand_ == nullptr) {
    shared_->look_now(is_afresh);
    return take();
  }
  hand_->post([shared = shared_, is_afresh] { shared->look_now(is_afresh); }, false);
}

void Looker::take() {
  if (!is_under_way_) return;
  std::optional<Sight> found;
  {
    const MutexLock lock(shared_->mutex);
    if (!shared_->is_back) return;
    shared_->is_back = false;
    found.swap(shared_->outcome);
  }
  is_under_way_ = false;
  if (found) {
    sight_ = *std::move(found);
    number_ = begun_;
    seen_at_ = began_at_;
  }
  // With what was asked for meanwhile.
  if (wanted_ > number_ && hand_ != nullptr) start();
}

Nanoseconds Looker::under_way_for() const {
  return is_under_way_ ? clock_.now() - began_at_ : Nanoseconds(0);
}

LookCall Looker::call() const { return shared_->here.call(); }

std::string Looker::where() const {
  const std::size_t on = shared_->here.on();
  const LookedAt& at = shared_->at;
  return fmt::format("{} {}", to_string(call()),
                     on < at.files.size() ? at.files[on].path : at.directory + "/owner.lock");
}

bool Looker::end(Nanoseconds limit) {
  wanted_ = 0;
  take();
  if (!is_under_way_) return true;
  if (under_way_for() > kHanging) return false;
  const SystemClock clock;
  const Nanoseconds deadline = clock.now() + limit;
  const MutexLock lock(shared_->mutex);
  while (!shared_->is_back) {
    const Nanoseconds left = deadline - clock.now();
    if (left <= Nanoseconds(0)) return false;
    (void)shared_->came_back.wait_for(shared_->mutex, left);
  }
  return true;
}

Result<Lookers> Lookers::create(const std::vector<std::unique_ptr<Volume>>& volumes,
                                const MakeHand& make_hand, const Clock& clock, LogSink& log) {
  Lookers made;
  for (const auto& volume : volumes) {
    std::unique_ptr<Hands> hand;
    if (make_hand) {
      auto own = make_hand(fmt::format("terrace-look-{}", made.all_.size()));
      if (own) {
        hand = *std::move(own);
      } else {
        log.write(LogLevel::kWarn,
                  fmt::format("disk path={} looks=in_turn reason=\"{}\": where its file system "
                              "hangs, all tiers below host do",
                              volume->directory(), own.error().message()));
      }
    }
    TERRACE_ASSIGN_OR_RETURN(auto looker, Looker::create(*volume, std::move(hand), clock));
    made.all_.push_back(std::move(looker));
  }
  return made;
}

bool Lookers::end(Nanoseconds limit, LogSink& log) {
  const SystemClock clock;
  const Nanoseconds deadline = clock.now() + limit;
  bool have_ended = true;
  for (const auto& looker : all_) {
    if (looker->end(std::max(deadline - clock.now(), Nanoseconds(0)))) continue;
    have_ended = false;
    log.write(LogLevel::kWarn,
              fmt::format("disk look=left: {} has not come back: its thread, and the files of the "
                          "disk tier, stay until the process ends, or it answers",
                          looker->where()));
  }
  // None but the one that hangs is there afterwards.
  for (const auto& looker : all_) looker->leave();
  return have_ended;
}

}  // namespace terrace::tier::disk
