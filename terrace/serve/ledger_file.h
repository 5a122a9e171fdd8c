// Ledgers of requests, or a share of them, as JSON lines in a file: one object a line, as
// `terrace why --json` shows it. When the file is full it is renamed to FILE.1, in the place of the
// one before, so two times its size is the most that lies there. What cannot be written is left out
// and said once; it is tried again. Whoever else renames or removes the file (logrotate) is
// followed, and several engines may write to one file.
// Threading: LedgerWriter is thread-compatible; LedgerFile is thread-safe, with its own thread.
// Waits: close(), up to its deadline.  Source: docs/operations.md.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "terrace/base/clock.h"
#include "terrace/base/file.h"
#include "terrace/base/log.h"
#include "terrace/base/rng.h"
#include "terrace/base/status.h"
#include "terrace/manager/ledger_ring.h"

namespace terrace::serve {

struct LedgerFileOptions {
  std::string path;  // Absolute.
  double share = 1;  // Of the requests, 0 to 1.
  Bytes size{64U << 20U};
  std::string engine_id;
  std::uint64_t seed = 0;             // Of which requests are in the share.
  Nanoseconds every = seconds(1);     // Between looks at the ring.
  Nanoseconds retry = seconds(60);    // After a failure.
  Nanoseconds patience = seconds(5);  // For loads that are reported after a request's end.
};

// The work without the thread. Threading: thread-compatible; it does file I/O, which may hang.
class LedgerWriter {
 public:
  // `ring`, `clock` and `log` outlive it.
  LedgerWriter(LedgerFileOptions options, const manager::LedgerRing& ring, const Clock& clock,
               LogSink& log);
  // Writes what has ended since. `is_last`: waits for nothing that is reported later.
  void tick(bool is_last = false);
  // Requests whose line is not there though they are in the share, or that had left the ring.
  [[nodiscard]] std::uint64_t lost() const { return lost_; }

 private:
  // The next lines, at most some hundred; empty = none are due.
  [[nodiscard]] std::string collect(bool is_last, std::uint64_t& lines);
  [[nodiscard]] Status write(const std::string& lines);
  // The file that has the path's name, with `size_` and `is_torn_` as they are now.
  [[nodiscard]] Status open();
  [[nodiscard]] Status rotate();
  [[nodiscard]] bool is_current() const;
  void on_failure(const Status& status, std::uint64_t lines);

  const LedgerFileOptions options_;
  const manager::LedgerRing& ring_;
  const Clock& clock_;
  LogSink& log_;
  Rng rng_;
  UniqueFd file_;
  std::uint64_t size_ = 0;
  bool is_torn_ = false;    // It ends within a line.
  std::uint64_t next_ = 1;  // Number in the ring.
  std::uint64_t lost_ = 0;
  bool is_failing_ = false;
  bool has_written_ = false;
  Nanoseconds retry_at_{0};
};

// A writer and its thread, `terrace-ledger`: a file system that hangs holds up nobody else.
// Threading: thread-safe. A forked child's destructor does nothing.
class LedgerFile {
 public:
  // Errors: kExhausted = no thread.
  static Result<std::unique_ptr<LedgerFile>> start(LedgerFileOptions options,
                                                   const manager::LedgerRing& ring,
                                                   const Clock& clock, LogSink& log);
  // As close() with a deadline of its own; a thread that hangs is left behind, with what it uses.
  ~LedgerFile();
  // Writes what is there and ends the thread. False: it hangs in the system, and goes on one day
  // with all that was given to start().
  [[nodiscard]] bool close(Nanoseconds deadline);

 private:
  struct State;
  explicit LedgerFile(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

}  // namespace terrace::serve
