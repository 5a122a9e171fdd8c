// What the checks of backends share: a backend, a file, memory, and waiting with a limit.
// Threading: thread-compatible.  Waits: at most CheckPlace::patience.
#pragma once

#include <fcntl.h>

#include <cstdlib>
#include <memory>
#include <string>
#include <vector>

#include "terrace/base/clock.h"
#include "terrace/base/file.h"
#include "terrace/transfer/backend_checks.h"

namespace terrace::transfer {

inline constexpr std::size_t kCheckPage = 4096;

class CheckRig {
 public:
  explicit CheckRig(const CheckPlace& place) : place_(place) {}
  CheckRig(const CheckRig&) = delete;
  CheckRig& operator=(const CheckRig&) = delete;
  ~CheckRig();
  // A new backend instead of the one before.
  [[nodiscard]] Status start(const Backend::Options& options);
  void stop();
  [[nodiscard]] Backend& backend() { return *backend_; }
  [[nodiscard]] const Crew& pair() const { return place_.pair; }
  [[nodiscard]] std::uint64_t seed() const { return place_.seed; }
  [[nodiscard]] Nanoseconds patience() const { return place_.patience; }
  [[nodiscard]] Nanoseconds half() const { return Nanoseconds(place_.patience.value() / 2); }
  [[nodiscard]] Nanoseconds now() const { return clock_.now(); }

  // O_DIRECT where the file system has it and `is_direct`. Files and memory live as long as the
  // rig, or longer: a check that fails may leave transfers in flight.
  [[nodiscard]] Result<int> open(const std::string& name, int flags = O_RDWR | O_CREAT,
                                 bool is_direct = true);
  [[nodiscard]] std::string path_of(const std::string& name) const;
  // Submits one transfer and waits for its completion.
  [[nodiscard]] Status run(Transfer transfer);
  // Waits until `count` completions came; fewer when the patience ended.
  [[nodiscard]] std::vector<Completion> drain(std::size_t count);
  // What came within 50 ms.
  [[nodiscard]] std::vector<Completion> drain_once();

  [[nodiscard]] std::byte* pages(std::size_t count);
  static void fill(std::byte* data, std::size_t bytes, std::uint64_t seed);
  [[nodiscard]] static Transfer transfer(IoOp op, int file, std::uint64_t offset, std::byte* data,
                                         std::size_t bytes);

 private:
  struct Free {
    void operator()(std::byte* memory) const { std::free(memory); }
  };
  using Memory = std::unique_ptr<std::byte, Free>;

  const CheckPlace& place_;
  const SystemClock clock_;
  std::vector<Memory> memory_;
  std::vector<UniqueFd> files_;
  bool is_left_ = false;  // A backend ended with transfers in flight.
  std::unique_ptr<Backend> backend_;
  std::uint64_t token_ = 0;
};

[[nodiscard]] Status broken_promise(std::string what);

// The second half of the list, in a file of its own.
[[nodiscard]] Status check_wakes(CheckRig& rig);
[[nodiscard]] Status check_idle_wait(CheckRig& rig);
[[nodiscard]] Status check_completion_ends_wait(CheckRig& rig);
[[nodiscard]] Status check_nothing_is_refused(CheckRig& rig);
[[nodiscard]] Status check_done_means_done(CheckRig& rig);
[[nodiscard]] Status check_end(CheckRig& rig);
[[nodiscard]] Status check_quiet_after_the_end(CheckRig& rig);
[[nodiscard]] Status check_random_traffic(CheckRig& rig);

}  // namespace terrace::transfer
