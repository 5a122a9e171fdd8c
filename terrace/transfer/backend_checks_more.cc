#include <fmt/format.h>

#include <cstring>

#include "terrace/base/rng.h"
#include "terrace/transfer/backend_checks_internal.h"

namespace terrace::transfer {

namespace {
constexpr std::size_t kPage = kCheckPage;
}

Status check_wakes(CheckRig& rig) {
  const Nanoseconds limit = rig.half();
  const Nanoseconds began = rig.now();
  rig.pair().run([&](std::size_t number) {
    if (number > 0 || rig.pair().size == 1) rig.backend().wake();
    if (number == 0) rig.backend().wait(limit);
  });
  if (rig.now() - began >= limit) return broken_promise("the wait went on to its limit");
  // Who woke may have come after what was looked at for him: a poll does not undo it.
  std::vector<Completion> done;
  rig.backend().wake();
  rig.backend().poll(done);
  rig.backend().wait(limit);
  if (rig.now() - began < limit) return {};
  return broken_promise("a wait that began after wake() and poll() went on to its limit");
}

Status check_idle_wait(CheckRig& rig) {
  const Nanoseconds began = rig.now();
  rig.backend().wait(milliseconds(5));
  return rig.now() - began < rig.half() ? Status() : broken_promise("a wait of 5 ms did not end");
}

Status check_completion_ends_wait(CheckRig& rig) {
  TERRACE_ASSIGN_OR_RETURN(const int file, rig.open("signal"));
  std::byte* const memory = rig.pages(1);
  CheckRig::fill(memory, kPage, 6);
  const Nanoseconds limit = rig.half();
  for (int i = 0; i < 4; ++i) {
    TERRACE_RETURN_IF_ERROR(
        rig.backend().submit(CheckRig::transfer(IoOp::kWrite, file, 0, memory, kPage)));
    const Nanoseconds began = rig.now();
    std::vector<Completion> done;
    while (done.empty() && rig.now() - began < limit) {
      rig.backend().wait(limit);
      rig.backend().poll(done);
    }
    if (rig.now() - began >= limit) {
      return broken_promise("a wait went on to its limit although a transfer had completed");
    }
    TERRACE_RETURN_IF_ERROR(done.front().status);
  }
  return {};
}

Status check_nothing_is_refused(CheckRig& rig) {
  TERRACE_ASSIGN_OR_RETURN(const int file, rig.open("nothing"));
  const Status status = rig.backend().submit(CheckRig::transfer(IoOp::kRead, file, 0, nullptr, 0));
  if (status.code() == Code::kInvalid) return {};
  return broken_promise(fmt::format("'{}' instead of invalid", status.text()));
}

Status check_done_means_done(CheckRig& rig) {
  constexpr std::size_t kPages = 16;
  TERRACE_ASSIGN_OR_RETURN(const int file, rig.open("done"));
  std::byte* const memory = rig.pages(kPages);
  std::byte* const expected = rig.pages(kPages);
  for (std::uint64_t round = 0; round < 8; ++round) {
    CheckRig::fill(expected, kPages * kPage, round);
    std::memcpy(memory, expected, kPages * kPage);
    TERRACE_RETURN_IF_ERROR(
        rig.run(CheckRig::transfer(IoOp::kWrite, file, 0, memory, kPages * kPage)));
    std::memset(memory, 0xEE, kPages * kPage);  // What is read from here now is wrong.
    TERRACE_RETURN_IF_ERROR(
        rig.run(CheckRig::transfer(IoOp::kRead, file, 0, memory, kPages * kPage)));
    if (std::memcmp(memory, expected, kPages * kPage) != 0) {
      return broken_promise("a transfer was reported as done before it was");
    }
  }
  return {};
}

Status check_end(CheckRig& rig) {
  const Nanoseconds began = rig.now();
  rig.stop();
  return rig.now() - began < rig.patience() ? Status() : broken_promise("close() did not return");
}

Status check_quiet_after_the_end(CheckRig& rig) {
  constexpr std::size_t kPages = 32;
  TERRACE_ASSIGN_OR_RETURN(const int file, rig.open("quiet"));
  std::byte* const memory = rig.pages(kPages);
  CheckRig::fill(memory, kPages * kPage, 7);
  const auto at = [&](IoOp op, std::size_t first, std::size_t count) {
    return CheckRig::transfer(op, file, first * kPage, memory + first * kPage, count * kPage);
  };
  TERRACE_RETURN_IF_ERROR(rig.run(at(IoOp::kWrite, 0, kPages)));
  for (std::size_t i = 0; i < kPages; ++i) {
    TERRACE_RETURN_IF_ERROR(rig.backend().submit(at(IoOp::kRead, i, 1)));
  }
  rig.stop();
  std::memset(memory, 0xAA, kPages * kPage);
  // Traffic of a new one takes longer than what an old one might still do.
  TERRACE_RETURN_IF_ERROR(rig.start({}));
  std::byte* const other = rig.pages(kPages);
  for (int i = 0; i < 16; ++i) {
    TERRACE_RETURN_IF_ERROR(
        rig.run(CheckRig::transfer(IoOp::kRead, file, 0, other, kPages * kPage)));
  }
  for (std::size_t i = 0; i < kPages * kPage; ++i) {
    if (memory[i] != std::byte{0xAA}) {
      return broken_promise("memory was written to after the backend's end");
    }
  }
  return {};
}

Status check_random_traffic(CheckRig& rig) {
  constexpr std::size_t kFilePages = 64;
  TERRACE_ASSIGN_OR_RETURN(const int file, rig.open("model"));
  std::byte* const model = rig.pages(kFilePages);
  CheckRig::fill(model, kFilePages * kPage, 5);
  TERRACE_RETURN_IF_ERROR(
      rig.run(CheckRig::transfer(IoOp::kWrite, file, 0, model, kFilePages * kPage)));
  Rng rng(rig.seed());
  std::byte* const memory = rig.pages(8);
  for (int i = 0; i < 200; ++i) {
    const std::size_t count = 1 + rng.below(8);
    const std::uint64_t offset = rng.below(kFilePages - count + 1) * kPage;
    const bool is_write = rng.chance(50);
    if (is_write) {
      CheckRig::fill(memory, count * kPage, rng.next());
      std::memcpy(model + offset, memory, count * kPage);
    }
    TERRACE_RETURN_IF_ERROR(rig.run(CheckRig::transfer(is_write ? IoOp::kWrite : IoOp::kRead, file,
                                                       offset, memory, count * kPage)));
    if (!is_write && std::memcmp(memory, model + offset, count * kPage) != 0) {
      return broken_promise(
          fmt::format("transfer {} of seed {} read other bytes than were written", i, rig.seed()));
    }
  }
  const Backend::Counters& counters = rig.backend().counters();
  if (counters.errors[0].value() != 0 || counters.bytes[0].value() == 0) {
    return broken_promise("the counters do not tell what was read");
  }
  return {};
}

}  // namespace terrace::transfer
