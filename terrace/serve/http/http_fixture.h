// What the HTTP port's tests share: a server over hooks that count, on a free port of this machine,
// and raw connections. Threading: test thread.
#pragma once

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <cstdlib>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "terrace/base/file.h"
#include "terrace/serve/http/http_server.h"
#include "terrace/serve/http/listening_port.h"
#include "terrace/testing/eventually.h"
#include "terrace/testing/memory_log.h"
#include "terrace/testing/raw_peer.h"

namespace terrace::serve {

using testing::eventually;
using testing::open_files;
using testing::Raw;

class HttpServerTest : public ::testing::Test {
 protected:
  [[nodiscard]] HttpServer::Options options(Nanoseconds io_limit = seconds(60)) {
    HttpServer::Options options;
    options.io_limit = io_limit;
    options.retry = milliseconds(20);
    options.hooks.status = [this] {
      ++asked_;
      if (fault_) fault_();
      return std::string(R"({"health":"green"})");
    };
    options.hooks.metrics = [this] { return metrics_; };
    options.hooks.visit = [this](MetricVisitor& visitor) {
      visitor.counter("terrace_requests_total", "", ++samples_);
    };
    options.hooks.settings = "{}";
    options.on_breach = [this](const std::string& reason) { breach_ = reason; };
    return options;
  }
  std::unique_ptr<HttpServer> start(HttpServer::Options options) {
    auto created = HttpServer::create(std::move(options), clock_, log_);
    EXPECT_TRUE(created.has_value()) << created.error().text();
    EXPECT_TRUE((*created)->start().is_ok());
    return std::move(*created);
  }
  // Its port is in `port_`.
  std::unique_ptr<HttpServer> serving(Nanoseconds io_limit = seconds(60)) {
    auto server = start(options(io_limit));
    EXPECT_TRUE(eventually([&] { return !server->url().empty(); })) << log_.text();
    port_ = port_of(*server);
    return server;
  }
  // All that comes back.
  std::string answer(std::string_view request) {
    Raw raw(port_);
    raw.send(request);
    return raw.receive();
  }
  std::string first_line(std::string_view request) {
    const std::string text = answer(request);
    return text.substr(0, text.find('\r'));
  }
  std::string get(const std::string& target) {
    return answer("GET " + target + " HTTP/1.1\r\nHost: localhost\r\n\r\n");
  }
  bool answers() { return get("/metrics").starts_with("HTTP/1.1 200 OK"); }

  SystemClock clock_;
  testing::MemoryLog log_;
  std::atomic<std::uint64_t> asked_{0};
  std::atomic<std::uint64_t> samples_{0};
  std::string metrics_ = "terrace_mode 0\n";
  std::string breach_;
  std::function<void()> fault_;
  std::uint16_t port_ = 0;
};

}  // namespace terrace::serve
