// A rank in a process of its own (attach_worker.cc), driven over two pipes: fill, run orders, stop.
// Threading: one test thread.  Waits: for a reply, at most 60 s.
#pragma once

#include <fcntl.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstring>
#include <string>
#include <utility>
#include <vector>

#include "terrace/base/file.h"
#include "terrace/block/checksum.h"
#include "terrace/wire/orders.h"

namespace terrace::scenario {

inline constexpr std::size_t kPiece = 40'000;
inline constexpr std::uint32_t kStopped = 77;

struct Reply {
  std::uint32_t code = UINT32_MAX;
  std::string bytes;
};

struct StepResult {
  std::uint32_t code = UINT32_MAX;
  std::vector<std::uint32_t> failed;
  wire::Report report;
};

template <typename T>
std::string raw(T value) {
  return {reinterpret_cast<const char*>(&value), sizeof value};
}

// A rank: tests/scenario/attach_worker.cc.
class RankProcess {
 public:
  RankProcess(const std::string& directory, unsigned rank, unsigned ranks,
              std::size_t piece = kPiece) {
    int to[2] = {-1, -1};
    int from[2] = {-1, -1};
    EXPECT_EQ(::pipe2(to, O_CLOEXEC), 0);
    EXPECT_EQ(::pipe2(from, O_CLOEXEC), 0);
    const std::string number = std::to_string(rank);
    const std::string count = std::to_string(ranks);
    const std::string bytes = std::to_string(piece);
    pid_ = ::fork();
    if (pid_ == 0) {
      ::dup2(to[0], 0);
      ::dup2(from[1], 1);
      ::execl(TERRACE_ATTACH_WORKER, "attach_worker", directory.c_str(), "engine", number.c_str(),
              count.c_str(), bytes.c_str(), nullptr);
      ::_exit(127);
    }
    ::close(to[0]);
    ::close(from[1]);
    to_ = UniqueFd(to[1]);
    from_ = UniqueFd(from[0]);
  }
  RankProcess(const RankProcess&) = delete;
  RankProcess& operator=(const RankProcess&) = delete;
  ~RankProcess() { kill(); }

  void kill() {
    if (pid_ <= 0) return;
    ::kill(pid_, SIGKILL);
    ::waitpid(pid_, nullptr, 0);
    pid_ = 0;
  }
  // As a machine that swaps or a debugger does; it goes on where it was.
  void suspend() {
    ASSERT_EQ(::kill(pid_, SIGSTOP), 0);
    ASSERT_EQ(::waitpid(pid_, nullptr, WUNTRACED), pid_);
  }
  void resume() { ASSERT_EQ(::kill(pid_, SIGCONT), 0); }
  void send(char operation, const std::string& bytes) {
    const std::string out = operation + raw(static_cast<std::uint32_t>(bytes.size())) + bytes;
    EXPECT_EQ(::write(to_.get(), out.data(), out.size()), static_cast<ssize_t>(out.size()));
  }
  Reply receive() {
    Reply reply;
    std::uint32_t length = 0;
    if (!read_all(&reply.code, 4) || !read_all(&length, 4)) return {};
    reply.bytes.resize(length);
    return read_all(reply.bytes.data(), length) ? reply : Reply{};
  }
  Reply call(char operation, const std::string& bytes = {}) {
    send(operation, bytes);
    return receive();
  }
  [[nodiscard]] bool is_attached() { return call('a').code == 0; }
  [[nodiscard]] std::string problem() { return call('a').bytes; }
  void fill(std::uint32_t block, std::uint64_t seed) {
    EXPECT_EQ(call('f', raw(block) + raw(seed)).code, 0U);
  }
  Checksum checksum(std::uint32_t block) {
    const Reply reply = call('c', raw(block));
    Checksum checksum;
    EXPECT_EQ(reply.bytes.size(), sizeof checksum.value);
    std::memcpy(&checksum.value, reply.bytes.data(), reply.bytes.size());
    return checksum;
  }
  StepResult run(const wire::Orders& orders) { return result_of(call('o', encode(orders))); }
  // In two halves, for ranks that answer late.
  void order(const std::string& orders) { send('o', orders); }
  StepResult result() { return result_of(receive()); }

 private:
  bool read_all(void* target, std::size_t bytes) {
    auto* at = static_cast<char*>(target);
    while (bytes > 0) {
      pollfd entry{from_.get(), POLLIN, 0};
      if (::poll(&entry, 1, 60'000) != 1) return false;
      const ssize_t got = ::read(from_.get(), at, bytes);
      if (got <= 0) return false;
      at += got;
      bytes -= static_cast<std::size_t>(got);
    }
    return true;
  }
  static StepResult result_of(const Reply& reply) {
    StepResult result;
    result.code = reply.code;
    if (reply.bytes.size() < 4) return result;
    std::uint32_t count = 0;
    std::memcpy(&count, reply.bytes.data(), 4);
    result.failed.resize(count);
    for (std::uint32_t i = 0; i < count; ++i) {
      std::memcpy(&result.failed[i], reply.bytes.data() + 4 + i * std::size_t{4}, 4);
    }
    const std::string rest = reply.bytes.substr(4 + count * std::size_t{4});
    auto reports = wire::decode_reports(std::as_bytes(std::span(rest.data(), rest.size())));
    EXPECT_TRUE(reports.has_value() && reports->size() <= 1);
    if (reports.has_value() && !reports->empty()) result.report = reports->front();
    return result;
  }

  pid_t pid_ = 0;
  UniqueFd to_;
  UniqueFd from_;
};

}  // namespace terrace::scenario
