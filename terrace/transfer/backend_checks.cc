#include "terrace/transfer/backend_checks.h"

#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>

#include "terrace/base/left_behind.h"
#include "terrace/base/rng.h"
#include "terrace/transfer/backend_checks_internal.h"

namespace terrace::transfer {

namespace {
constexpr std::size_t kPage = kCheckPage;

Status expect_code(const Status& status, Code code, std::string_view of) {
  if (status.code() == code) return {};
  return broken_promise(fmt::format("{}: '{}' instead of {}", of, status.text(), to_string(code)));
}

Status check_pieces(CheckRig& rig) {
  TERRACE_ASSIGN_OR_RETURN(const int file, rig.open("pieces"));
  std::byte* const out = rig.pages(8);
  std::byte* const in = rig.pages(8);
  CheckRig::fill(out, 8 * kPage, 1);
  Transfer write = CheckRig::transfer(IoOp::kWrite, file, 3 * kPage, out, kPage);
  write.pieces[1] = {out + kPage, 5 * kPage};
  write.pieces[2] = {out + 6 * kPage, 2 * kPage};
  write.piece_count = 3;
  TERRACE_RETURN_IF_ERROR(rig.run(write));
  Transfer read = CheckRig::transfer(IoOp::kRead, file, 3 * kPage, in, 2 * kPage);
  read.pieces[1] = {in + 2 * kPage, 6 * kPage};
  read.piece_count = 2;
  TERRACE_RETURN_IF_ERROR(rig.run(read));
  if (std::memcmp(in, out, 8 * kPage) == 0) return {};
  return broken_promise("other bytes were read than were written");
}

Status check_each_completes_once(CheckRig& rig) {
  constexpr std::uint64_t kCount = 32;
  constexpr std::uint64_t kFirst = 1000;
  TERRACE_ASSIGN_OR_RETURN(const int file, rig.open("tokens"));
  std::byte* const memory = rig.pages(kCount);
  CheckRig::fill(memory, kCount * kPage, 2);
  for (std::uint64_t i = 0; i < kCount; ++i) {
    Transfer write = CheckRig::transfer(IoOp::kWrite, file, i * kPage, memory + i * kPage, kPage);
    write.token = kFirst + i;
    TERRACE_RETURN_IF_ERROR(rig.backend().submit(write));
  }
  std::array<int, kCount> seen{};
  for (const Completion& completion : rig.drain(kCount)) {
    TERRACE_RETURN_IF_ERROR(completion.status);
    const std::uint64_t number = completion.token - kFirst;
    if (number >= kCount) return broken_promise("a completion has a token that nobody gave");
    ++seen[number];
  }
  for (const int times : seen) {
    if (times != 1) return broken_promise(fmt::format("a transfer completed {} times", times));
  }
  if (rig.backend().in_flight() != 0) return broken_promise("transfers are still in flight");
  return rig.drain_once().empty() ? Status() : broken_promise("a completion came beyond the last");
}

Status check_depth(CheckRig& rig) {
  TERRACE_RETURN_IF_ERROR(rig.start({.depth = 4, .threads = 2}));
  TERRACE_ASSIGN_OR_RETURN(const int file, rig.open("depth"));
  std::byte* const memory = rig.pages(1);
  CheckRig::fill(memory, kPage, 3);
  const Transfer write = CheckRig::transfer(IoOp::kWrite, file, 0, memory, kPage);
  for (int i = 0; i < 4; ++i) TERRACE_RETURN_IF_ERROR(rig.backend().submit(write));
  if (rig.backend().in_flight() != 4) return broken_promise("4 were submitted, not all in flight");
  TERRACE_RETURN_IF_ERROR(
      expect_code(rig.backend().submit(write), Code::kExhausted, "a fifth at depth 4"));
  if (rig.drain(4).size() != 4) return broken_promise("4 were submitted, not all completed");
  TERRACE_RETURN_IF_ERROR(rig.backend().submit(write));
  return rig.drain(1).size() == 1 ? Status() : broken_promise("one more did not complete");
}

Status check_past_the_end(CheckRig& rig) {
  TERRACE_ASSIGN_OR_RETURN(const int file, rig.open("end"));
  std::byte* const memory = rig.pages(4);
  CheckRig::fill(memory, 4 * kPage, 3);
  const auto at = [&](IoOp op, std::uint64_t page, std::size_t count) {
    return rig.run(CheckRig::transfer(op, file, page * kPage, memory, count * kPage));
  };
  TERRACE_RETURN_IF_ERROR(at(IoOp::kWrite, 0, 2));
  const Status status = at(IoOp::kRead, 1, 3);
  TERRACE_RETURN_IF_ERROR(expect_code(status, Code::kCorrupt, "a read over the end"));
  if (status.message().find(rig.path_of("end")) == std::string::npos) {
    return broken_promise(fmt::format("'{}' does not name the file", status.message()));
  }
  return expect_code(at(IoOp::kRead, 8, 1), Code::kCorrupt, "a read behind the end");
}

Status check_ragged_end(CheckRig& rig) {
  TERRACE_ASSIGN_OR_RETURN(const int file, rig.open("ragged"));
  if (::ftruncate(file, static_cast<off_t>(kPage + 100)) != 0) {
    return Status::from_errno(errno, "ftruncate", rig.path_of("ragged"));
  }
  std::byte* const memory = rig.pages(2);
  return expect_code(rig.run(CheckRig::transfer(IoOp::kRead, file, 0, memory, 2 * kPage)),
                     Code::kCorrupt, "a read of a file that ends inside a sector");
}

Status check_errors(CheckRig& rig) {
  TERRACE_ASSIGN_OR_RETURN(const int file, rig.open("readonly", O_RDONLY | O_CREAT));
  std::byte* const memory = rig.pages(1);
  CheckRig::fill(memory, kPage, 5);
  const Status status = rig.run(CheckRig::transfer(IoOp::kWrite, file, 0, memory, kPage));
  TERRACE_RETURN_IF_ERROR(expect_code(status, Code::kIo, "a write to a file opened for reading"));
  const std::string wanted = "pwrite " + rig.path_of("readonly") + ": EBADF";
  if (status.message().find(wanted) != std::string::npos) return {};
  return broken_promise(fmt::format("'{}' instead of '{}'", status.message(), wanted));
}

Status check_small_writes_and_sync(CheckRig& rig) {
  TERRACE_ASSIGN_OR_RETURN(const int file, rig.open("records", O_RDWR | O_CREAT, false));
  constexpr std::size_t kBytes = 64;
  std::byte* const record = rig.pages(1);
  std::byte* const back = rig.pages(1);
  CheckRig::fill(record, kBytes, 4);
  const auto at = [&](IoOp op, std::byte* data, std::size_t bytes) {
    return rig.run(CheckRig::transfer(op, file, 192, data, bytes));
  };
  TERRACE_RETURN_IF_ERROR(at(IoOp::kWrite, record, kBytes));
  TERRACE_RETURN_IF_ERROR(at(IoOp::kSync, nullptr, 0));
  TERRACE_RETURN_IF_ERROR(at(IoOp::kRead, back, kBytes));
  return std::memcmp(back, record, kBytes) == 0
             ? Status()
             : broken_promise("other bytes were read than were written");
}

Status check_allocate(CheckRig& rig) {
  TERRACE_ASSIGN_OR_RETURN(const int file, rig.open("allocate"));
  constexpr std::uint64_t kBytes = 1 << 20;
  Transfer allocate = CheckRig::transfer(IoOp::kAllocate, file, 0, nullptr, 0);
  allocate.length = kBytes;
  TERRACE_RETURN_IF_ERROR(rig.run(allocate));
  struct stat facts{};
  if (::fstat(file, &facts) != 0) {
    return Status::from_errno(errno, "fstat", rig.path_of("allocate"));
  }
  if (facts.st_size != static_cast<off_t>(kBytes) ||
      facts.st_blocks * 512 < static_cast<off_t>(kBytes)) {
    return broken_promise(fmt::format("1 MiB was allocated: the file has {} bytes and {} on disk",
                                      facts.st_size, facts.st_blocks * 512));
  }
  return {};
}

constexpr BackendCheck kChecks[] = {
    {"pieces", "what was written through several pieces is read back", check_pieces},
    {"once", "every transfer completes once, with its own token", check_each_completes_once},
    {"depth", "as many transfers as its depth are in flight, and no more", check_depth},
    {"past_the_end", "a read over the end of a file fails as corrupt", check_past_the_end},
    {"ragged_end", "so does one of a file that ends inside a sector", check_ragged_end},
    {"errors", "an error names operation, file and errno", check_errors},
    {"small_writes", "small writes and syncs work", check_small_writes_and_sync},
    {"allocate", "allocating grows the file and takes its blocks", check_allocate},
    {"wake", "wake() ends a wait from another thread", check_wakes},
    {"idle_wait", "a wait with nothing to do ends at its limit", check_idle_wait},
    {"signal", "a completion ends a wait", check_completion_ends_wait},
    {"nothing", "a transfer of nothing is refused", check_nothing_is_refused},
    {"done_means_done", "after a completion its memory is not looked at", check_done_means_done},
    {"random_traffic", "random reads and writes equal those of an array", check_random_traffic},
};

constexpr BackendCheck kLibraryChecks[] = {
    {"end", "an instance that is not needed any more ends in time", check_end},
    {"quiet_end", "nobody touches memory after the end, in flight or not",
     check_quiet_after_the_end},
};
}  // namespace

Status broken_promise(std::string what) { return {Code::kInvalid, std::move(what)}; }

Status CheckRig::start(const Backend::Options& options) {
  stop();
  TERRACE_ASSIGN_OR_RETURN(backend_, place_.make(options));
  if (backend_ == nullptr) return broken_promise("no backend was made");
  return {};
}

std::string CheckRig::path_of(const std::string& name) const {
  return place_.directory + "/" + name;
}

CheckRig::~CheckRig() {
  stop();
  if (is_left_) leave_behind(std::make_unique<std::vector<Memory>>(std::move(memory_)));
}

void CheckRig::stop() {
  // What it may still write to, if even its end does not stop it, stays.
  is_left_ = is_left_ || (backend_ != nullptr && backend_->in_flight() > 0);
  backend_.reset();
}

Result<int> CheckRig::open(const std::string& name, int flags, bool is_direct) {
  const std::string path = path_of(name);
  auto file = open_file(path, is_direct ? flags | O_DIRECT : flags);
  if (!file && is_direct) file = open_file(path, flags);
  if (!file) return fail(file.error());
  const int number = file->get();
  files_.push_back(*std::move(file));
  backend_->name_file(number, path);
  return number;
}

Status CheckRig::run(Transfer transfer) {
  transfer.token = ++token_;
  TERRACE_RETURN_IF_ERROR(backend_->submit(transfer));
  const std::vector<Completion> done = drain(1);
  if (done.empty()) {
    return broken_promise(fmt::format("{}: no completion came in {} ms", to_string(transfer.op),
                                      patience().value() / 1'000'000));
  }
  if (done.size() > 1 || done.front().token != transfer.token) {
    return broken_promise(
        fmt::format("{}: {} completions, the first with {}", to_string(transfer.op), done.size(),
                    done.front().token == transfer.token ? "its own token" : "a wrong token"));
  }
  return done.front().status;
}

std::vector<Completion> CheckRig::drain_once() {
  std::vector<Completion> completions;
  backend_->wait(milliseconds(50));
  backend_->poll(completions);
  return completions;
}

std::vector<Completion> CheckRig::drain(std::size_t count) {
  const Nanoseconds end = now() + Nanoseconds(3 * patience().value());
  std::vector<Completion> all;
  while (all.size() < count && now() < end) {
    for (Completion& completion : drain_once()) all.push_back(std::move(completion));
  }
  return all;
}

std::byte* CheckRig::pages(std::size_t count) {
  memory_.emplace_back(static_cast<std::byte*>(std::aligned_alloc(kPage, count * kPage)));
  return memory_.back().get();
}

void CheckRig::fill(std::byte* data, std::size_t bytes, std::uint64_t seed) {
  Rng rng(seed);
  std::generate_n(data, bytes, [&] { return static_cast<std::byte>(rng.next()); });
}

Transfer CheckRig::transfer(IoOp op, int file, std::uint64_t offset, std::byte* data,
                            std::size_t bytes) {
  Transfer transfer;
  transfer.op = op;
  transfer.file = file;
  transfer.offset = offset;
  if (bytes > 0) transfer.pieces[transfer.piece_count++] = {data, bytes};
  return transfer;
}

std::span<const BackendCheck> backend_checks() { return kChecks; }

std::span<const BackendCheck> library_checks() { return kLibraryChecks; }

const BackendCheck* find_backend_check(std::string_view name) {
  for (const auto checks : {backend_checks(), library_checks()}) {
    const auto found = std::ranges::find(checks, name, &BackendCheck::name);
    if (found != checks.end()) return &*found;
  }
  return nullptr;
}

Status run_backend_check(const BackendCheck& check, const CheckPlace& place) {
  CheckRig rig(place);
  TERRACE_RETURN_IF_ERROR(rig.start({}));
  return check.run(rig);
}

}  // namespace terrace::transfer
