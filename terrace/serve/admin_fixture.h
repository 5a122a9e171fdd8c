// What the admin socket's tests share: a server over hooks that count, raw connections, facts about
// this process. Threading: test thread.
#pragma once

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <filesystem>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "terrace/base/check.h"
#include "terrace/base/file.h"
#include "terrace/base/log.h"
#include "terrace/base/mutex.h"
#include "terrace/serve/admin_client.h"
#include "terrace/serve/admin_server.h"
#include "terrace/testing/eventually.h"
#include "terrace/testing/memory_log.h"
#include "terrace/testing/raw_peer.h"
#include "terrace/testing/scratch_directory.h"

namespace terrace::serve {

using testing::eventually;
using testing::open_files;
using testing::Raw;

class AdminServerTest : public ::testing::Test {
 protected:
  [[nodiscard]] std::string directory() const { return scratch_.path() + "/s"; }
  [[nodiscard]] std::string path() const { return admin_path(directory(), "engine").value(); }

  [[nodiscard]] AdminServer::Options options(Nanoseconds io_limit = seconds(60)) {
    AdminServer::Options options;
    options.directory = directory();
    options.engine_id = "engine";
    options.io_limit = io_limit;
    options.hooks.status = [this] {
      ++asked_;
      if (fault_) fault_();
      return std::string(R"({"health":"green"})");
    };
    options.hooks.metrics = [this] { return metrics_; };
    options.hooks.set_mode = [this](manager::Mode mode, std::string_view by) {
      mode_.store(mode);
      by_ = by;
      return refusal_;
    };
    options.on_breach = [this](const std::string& reason) { breach_ = reason; };
    return options;
  }
  std::unique_ptr<AdminServer> start(AdminServer::Options options) {
    auto started = AdminServer::start(std::move(options), clock_, log_);
    EXPECT_TRUE(started.has_value()) << started.error().text();
    return std::move(*started);
  }
  std::unique_ptr<AdminServer> serving(Nanoseconds io_limit = seconds(60)) {
    auto server = start(options(io_limit));
    EXPECT_TRUE(eventually([&] { return server->is_open(); })) << log_.text();
    return server;
  }
  AdminReply ask(std::string_view method, std::string_view target, std::string_view body = "") {
    auto reply = ask_admin(path(), method, target, body, seconds(60), clock_);
    EXPECT_TRUE(reply.has_value()) << reply.error().text();
    return reply.has_value() ? std::move(*reply) : AdminReply{};
  }
  // The status line of what comes back, or what else does.
  std::string first_line(std::string_view request) {
    Raw raw(path());
    raw.send(request);
    const std::string answer = raw.receive();
    return answer.substr(0, answer.find('\r'));
  }
  bool answers() { return ask("GET", "/status").code == 200; }

  testing::ScratchDirectory scratch_;
  SystemClock clock_;
  testing::MemoryLog log_;
  std::atomic<std::uint64_t> asked_{0};
  std::atomic<manager::Mode> mode_{manager::Mode::kOn};
  Status refusal_;  // Of the next switches.
  std::string by_;
  std::string metrics_ = "terrace_mode 0\n";
  std::string breach_;
  std::function<void()> fault_;
};

}  // namespace terrace::serve
