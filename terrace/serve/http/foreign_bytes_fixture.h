// The HTTP port facing a peer that sends what an input says: of the test with seeded changes and of
// the fuzz target. An input is the bytes as they are.
// Threading: test thread.  Waits: for the other end to close, at most kPatience.
#pragma once

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <cstdlib>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "terrace/serve/http/http_server.h"
#include "terrace/serve/http/listening_port.h"
#include "terrace/testing/eventually.h"
#include "terrace/testing/raw_peer.h"

namespace terrace::serve {

class PortUnderBytes {
 public:
  PortUnderBytes() {
    HttpServer::Options options;
    options.io_limit = seconds(600);  // The peer ends its sending; nothing waits for time.
    options.hooks.status = [] { return std::string(R"({"health":"green"})"); };
    options.hooks.metrics = [] { return std::string("terrace_mode 0\n"); };
    options.hooks.settings = "{}\n";
    options.on_breach = [this](const std::string&) { is_broken_.store(true); };
    auto created = HttpServer::create(std::move(options), clock_, log_);
    if (!created.has_value() || !(*created)->start().is_ok()) std::abort();
    server_ = std::move(*created);
    if (!testing::eventually([&] { return !server_->url().empty(); })) std::abort();
    port_ = port_of(*server_);
  }

  static std::vector<std::string> seeds() {
    return {"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
            "GET /metrics HTTP/1.1\r\nHost: 127.0.0.1:6880\r\nConnection: close\r\n\r\n",
            "HEAD /api/history?seconds=600 HTTP/1.1\r\nHost: [::1]:1\r\n\r\n",
            "GET /api/history?a=b&seconds=86400&seconds=x HTTP/1.0\r\n\r\n",
            "GET /page.js HTTP/1.1\r\nHost: evil.example\r\nUpgrade: h2c\r\n\r\n",
            "POST /api/ledger HTTP/1.1\r\nContent-Length: 2\r\n\r\n{}",
            "GET /api/settings HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n"};
  }

  // "", or what the port did that it must not.
  [[nodiscard]] std::string run(std::string_view input) {
    testing::Raw raw(port_);
    // A fuzzer that is quick uses up this machine's own ports, which rest for a minute.
    if (!raw.is_connected() && errno == EADDRNOTAVAIL) return "";
    if (!raw.is_connected()) return "the port does not listen any more";
    raw.send(input);
    raw.end_sending();
    const std::string answer = raw.receive();
    if (is_broken_.load()) return "a hook broke an invariant";
    if (!answer.empty() && !answer.starts_with("HTTP/1.1 ")) return "no HTTP: " + answer;
    if (raw.has_waited_in_vain()) return "it holds on to a peer";
    return server_->url().empty() ? "the port has ended" : "";
  }

 private:
  SystemClock clock_;
  NullLog log_;
  std::uint16_t port_ = 0;
  std::atomic<bool> is_broken_{false};
  std::unique_ptr<HttpServer> server_;
};

}  // namespace terrace::serve
