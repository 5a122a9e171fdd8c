// A dir store of whose system calls a part fails, from a seed: with an error, half done, or done
// with the answer lost. Tests only. Threading: thread-safe.
#pragma once

#include <cerrno>
#include <map>
#include <memory>
#include <string>

#include "terrace/base/mutex.h"
#include "terrace/base/rng.h"
#include "terrace/transfer/backends/dir/dir_store_internal.h"

namespace terrace::transfer::dir {

// Outlives the store; what was injected, by kind.
class CallFaults {
 public:
  CallFaults(std::uint64_t seed, unsigned percent) : rng_(seed), percent_(percent) {}
  struct Fault {
    int error = 0;         // 0: none.
    bool is_done = false;  // The call does its work first.
    bool is_short = false;
  };
  Fault draw(bool moves_bytes) {
    const MutexLock lock(mutex_);
    if (percent_ == 0 || !rng_.chance(percent_)) return {};
    static constexpr int kErrors[] = {EIO,       ENOSPC, EINTR, EAGAIN,   EINTR,
                                      ETIMEDOUT, ESTALE, EROFS, ENOTCONN, EDQUOT};
    static constexpr const char* kNames[] = {"EIO",       "ENOSPC", "EINTR", "EAGAIN",   "EINTR",
                                             "ETIMEDOUT", "ESTALE", "EROFS", "ENOTCONN", "EDQUOT"};
    Fault fault;
    if (moves_bytes && rng_.chance(30)) {
      fault.is_short = true;
      ++injected_["short_call"];
      return fault;
    }
    const std::size_t kind = rng_.below(std::size(kErrors));
    fault.error = kErrors[kind];
    fault.is_done = rng_.chance(20);
    ++injected_[std::string(kNames[kind]) + (fault.is_done ? "_done" : "")];
    return fault;
  }
  void stop() {
    const MutexLock lock(mutex_);
    percent_ = 0;
  }
  [[nodiscard]] std::map<std::string, std::uint64_t> injected() const {
    const MutexLock lock(mutex_);
    return injected_;
  }

 private:
  mutable Mutex mutex_;
  Rng rng_ TERRACE_GUARDED_BY(mutex_);
  unsigned percent_ TERRACE_GUARDED_BY(mutex_);
  std::map<std::string, std::uint64_t> injected_ TERRACE_GUARDED_BY(mutex_);
};

class SeededCalls final : public FileCalls {
 public:
  explicit SeededCalls(CallFaults& faults) : faults_(faults) {}
  int open_below(int folder, const char* path, int flags, mode_t mode) override {
    return run([&] { return FileCalls::open_below(folder, path, flags, mode); }, false);
  }
  int facts_of(int file, struct stat* facts) override {
    return run([&] { return FileCalls::facts_of(file, facts); });
  }
  int facts_at(int folder, const char* name, struct stat* facts) override {
    return run([&] { return FileCalls::facts_at(folder, name, facts); });
  }
  ssize_t read_at(int file, const iovec* pieces, int count, std::uint64_t offset) override {
    return move(pieces, count, [&](const iovec* some, int some_count) {
      return FileCalls::read_at(file, some, some_count, offset);
    });
  }
  ssize_t write_at(int file, const iovec* pieces, int count, std::uint64_t offset) override {
    return move(pieces, count, [&](const iovec* some, int some_count) {
      return FileCalls::write_at(file, some, some_count, offset);
    });
  }
  int sync_data(int file) override {
    return run([&] { return FileCalls::sync_data(file); });
  }
  int sync_folder(int folder) override {
    return run([&] { return FileCalls::sync_folder(folder); });
  }
  int make_folder(int folder, const char* name, mode_t mode) override {
    return run([&] { return FileCalls::make_folder(folder, name, mode); });
  }
  int link(int folder, const char* from, const char* to) override {
    return run([&] { return FileCalls::link(folder, from, to); });
  }
  int rename_new(int folder, const char* from, const char* to) override {
    return run([&] { return FileCalls::rename_new(folder, from, to); });
  }
  int rename_over(int folder, const char* from, const char* to) override {
    return run([&] { return FileCalls::rename_over(folder, from, to); });
  }
  int remove(int folder, const char* name) override {
    return run([&] { return FileCalls::remove(folder, name); });
  }
  int remove_folder(int folder, const char* name) override {
    return run([&] { return FileCalls::remove_folder(folder, name); });
  }

 private:
  template <typename Body>
  int run(const Body& body, bool may_be_done = true) {
    const CallFaults::Fault fault = faults_.draw(false);
    if (fault.error == 0) return body();
    // A descriptor whose number is lost would be a leak of the test's own.
    if (fault.is_done && may_be_done) (void)body();
    errno = fault.error;
    return -1;
  }
  template <typename Body>
  ssize_t move(const iovec* pieces, int count, const Body& body) {
    const CallFaults::Fault fault = faults_.draw(true);
    if (fault.is_short && pieces[0].iov_len > 1) {
      const iovec half{pieces[0].iov_base, pieces[0].iov_len / 2};
      return body(&half, 1);
    }
    if (fault.error == 0) return body(pieces, count);
    if (fault.is_done) (void)body(pieces, count);
    errno = fault.error;
    return -1;
  }
  CallFaults& faults_;
};

// Opening may meet a fault: it is tried again, as an owner does.
[[nodiscard]] inline std::unique_ptr<ObjectStore> make_seeded_store(const DirStoreOptions& options,
                                                                    CallFaults& faults) {
  for (int tries = 0; tries < 1000; ++tries) {
    auto made = make_store(options, std::make_unique<SeededCalls>(faults));
    if (made) return *std::move(made);
  }
  return nullptr;
}

}  // namespace terrace::transfer::dir
