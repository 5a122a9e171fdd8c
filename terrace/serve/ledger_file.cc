#include "terrace/serve/ledger_file.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <thread>
#include <utility>

#include "terrace/base/left_behind.h"
#include "terrace/base/mutex.h"
#include "terrace/base/thread.h"
#include "terrace/serve/ledger_text.h"

namespace terrace::serve {
namespace {

constexpr std::size_t kBatch = 256;  // Entries at a time: some 250 KiB of lines.
constexpr Nanoseconds kJoinGrace = seconds(2);

}  // namespace

LedgerWriter::LedgerWriter(LedgerFileOptions options, const manager::LedgerRing& ring,
                           const Clock& clock, LogSink& log)
    : options_(std::move(options)), ring_(ring), clock_(clock), log_(log), rng_(options_.seed) {}

void LedgerWriter::tick(bool is_last) {
  if (!is_last && clock_.now() < retry_at_) return;
  for (std::size_t left = ring_.capacity() / kBatch + 1; left > 0; --left) {
    const std::uint64_t before = next_;
    std::uint64_t lines = 0;
    const std::string text = collect(is_last, lines);
    if (next_ == before) return;
    if (text.empty()) continue;  // None of them is in the share.
    if (const Status status = write(text); !status.is_ok()) return on_failure(status, lines);
    if (is_failing_ || !has_written_) {
      log_.write(LogLevel::kInfo,
                 fmt::format("event=ledger_file state=writing path=\"{}\" share={} lost={}",
                             options_.path, options_.share, lost_));
    }
    is_failing_ = false;
    has_written_ = true;
  }
}

std::string LedgerWriter::collect(bool is_last, std::uint64_t& lines) {
  std::string text;
  // One in 2^53 is near enough.
  constexpr double kAll = 9007199254740992.0;
  for (const manager::KeptLedger& kept : ring_.read(next_, kBatch)) {
    const bool is_early = kept.state == manager::LedgerState::kReporting &&
                          clock_.now() - kept.ended < options_.patience;
    if (is_early && !is_last) break;
    lost_ += kept.number - next_;
    next_ = kept.number + 1;
    if (static_cast<double>(rng_.next() >> 11U) >= options_.share * kAll) continue;
    text += kept_json(kept, options_.engine_id);
    text += '\n';
    ++lines;
  }
  return text;
}

bool LedgerWriter::is_current() const {
  struct stat named{};
  struct stat ours{};
  return file_.is_open() && ::stat(options_.path.c_str(), &named) == 0 &&
         ::fstat(file_.get(), &ours) == 0 && named.st_ino == ours.st_ino &&
         named.st_dev == ours.st_dev;
}

Status LedgerWriter::open() {
  if (!is_current()) {
    auto opened = open_regular_file(options_.path, O_RDWR | O_APPEND | O_CREAT | O_NOFOLLOW, 0600);
    if (!opened.has_value()) return std::move(opened).error();
    file_ = std::move(*opened);
  }
  struct stat facts{};
  if (::fstat(file_.get(), &facts) != 0) {
    return Status::from_errno(errno, "fstat", options_.path);
  }
  size_ = static_cast<std::uint64_t>(facts.st_size);
  char last = '\n';  // Another one where a write, of ours or of a process that died, was cut.
  if (size_ > 0) (void)!::pread(file_.get(), &last, 1, facts.st_size - 1);
  is_torn_ = last != '\n';
  return {};
}

Status LedgerWriter::rotate() {
  // Of several engines one renames it, and the others see that it has another name now.
  if (::flock(file_.get(), LOCK_EX | LOCK_NB) != 0) return {};
  if (is_current() && ::rename(options_.path.c_str(), (options_.path + ".1").c_str()) != 0) {
    const Status status = Status::from_errno(errno, "rename", options_.path);
    (void)::flock(file_.get(), LOCK_UN);
    return status;
  }
  file_.reset(-1);
  return open();
}

Status LedgerWriter::write(const std::string& lines) {
  TERRACE_RETURN_IF_ERROR(open());
  if (size_ > 0 && size_ + lines.size() > options_.size.value()) TERRACE_RETURN_IF_ERROR(rotate());
  const std::string text = is_torn_ ? '\n' + lines : lines;
  std::size_t done = 0;
  while (done < text.size()) {
    const ssize_t wrote = ::write(file_.get(), text.data() + done, text.size() - done);
    if (wrote < 0 && errno == EINTR) continue;
    if (wrote <= 0) {
      return Status::from_errno(wrote == 0 ? ENOSPC : errno, "write", options_.path);
    }
    done += static_cast<std::size_t>(wrote);
  }
  return {};
}

void LedgerWriter::on_failure(const Status& status, std::uint64_t lines) {
  lost_ += lines;
  retry_at_ = clock_.now() + options_.retry;
  file_.reset(-1);
  if (std::exchange(is_failing_, true)) return;
  log_.write(
      LogLevel::kWarn,
      fmt::format("event=ledger_file state=off path=\"{}\" reason=\"{}\" detail=\"requests are "
                  "served as ever, their ledgers are not in the file; it is tried again every "
                  "{} s: make room, give the engine's user the right to write there, or let "
                  "ledger.file name another place\"",
                  options_.path, status.message(), options_.retry / seconds(1)));
}

struct LedgerFile::State {
  State(LedgerFileOptions options, const manager::LedgerRing& ring, const Clock& its_clock,
        LogSink& log)
      : every(options.every), clock(its_clock), writer(std::move(options), ring, its_clock, log) {}

  const Nanoseconds every;
  const Clock& clock;
  const pid_t process = ::getpid();
  LedgerWriter writer;  // The thread's.
  Mutex mutex;
  CondVar condition;
  bool is_closing TERRACE_GUARDED_BY(mutex) = false;
  ThreadEnd end;
  std::jthread thread;  // Last: joined before what it uses goes.

  void run() {
    for (bool is_last = false; !is_last;) {
      {
        const MutexLock lock(mutex);
        if (!is_closing) condition.wait_for(mutex, every);
        is_last = is_closing;
      }
      writer.tick(is_last);
    }
    end.set();
  }
};

LedgerFile::LedgerFile(std::unique_ptr<State> state) : state_(std::move(state)) {}

Result<std::unique_ptr<LedgerFile>> LedgerFile::start(LedgerFileOptions options,
                                                      const manager::LedgerRing& ring,
                                                      const Clock& clock, LogSink& log) {
  std::unique_ptr<LedgerFile> made(
      new LedgerFile(std::make_unique<State>(std::move(options), ring, clock, log)));
  State* const raw = made->state_.get();
  TERRACE_ASSIGN_OR_RETURN(raw->thread,
                           start_thread(
                               "terrace-ledger", [raw](const std::stop_token&) { raw->run(); },
                               [raw](const char*) { raw->end.set(); }));
  return made;
}

LedgerFile::~LedgerFile() {
  if (state_ == nullptr) return;
  if (state_->process != ::getpid()) {  // In a forked child: the thread is not here.
    (void)state_.release();
    return;
  }
  if (!close(state_->clock.now() + kJoinGrace)) leave_behind(std::move(state_));
}

bool LedgerFile::close(Nanoseconds deadline) {
  State& state = *state_;
  if (!state.thread.joinable()) return true;
  {
    const MutexLock lock(state.mutex);
    state.is_closing = true;
    state.condition.notify_all();
  }
  if (!state.end.wait(deadline, state.clock)) return false;
  state.thread.join();
  return true;
}

}  // namespace terrace::serve
