// The HTTP port of an owner that was opened over the C ABI.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <terrace/terrace.h>
#include <unistd.h>

#include <nlohmann/json.hpp>
#include <string>

#include "terrace/testing/eventually.h"
#include "terrace/testing/raw_peer.h"
#include "terrace/testing/scratch_directory.h"

namespace terrace::capi {
namespace {

using ::testing::HasSubstr;
using Json = nlohmann::json;

class CapiHttpTest : public ::testing::Test {
 protected:
  // A port that nobody has, as far as the system knows now.
  static std::uint16_t free_port() {
    const UniqueFd socket(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
    sockaddr_in address = testing::loopback(0);
    socklen_t length = sizeof address;
    EXPECT_EQ(::bind(socket.get(), reinterpret_cast<sockaddr*>(&address), length), 0);
    EXPECT_EQ(::getsockname(socket.get(), reinterpret_cast<sockaddr*>(&address), &length), 0);
    return ntohs(address.sin_port);
  }
  terrace_owner* open(const std::string& name, const std::string& more) {
    const std::string settings =
        R"({"host.size":"1MiB","attach.directory":")" + scratch_.path() + "/s\"," + more + "}";
    const std::uint64_t pieces[] = {512};
    const terrace_group_layout layout = {sizeof layout, 1, pieces, 0, 0, 0};
    terrace_owner_options options = {};
    options.struct_size = sizeof options;
    options.block_tokens = 16;
    options.rank_count = 1;
    options.group_count = 1;
    options.groups = &layout;
    options.engine_id = name.c_str();
    options.settings_json = settings.c_str();
    options.can_store = 1;
    options.can_load = 1;
    terrace_owner* owner = nullptr;
    EXPECT_EQ(terrace_open_owner(&options, &owner), TERRACE_OK) << terrace_last_error();
    return owner;
  }
  [[nodiscard]] static std::string at(std::uint16_t port) {
    return R"("metrics.enabled":true,"metrics.port":)" + std::to_string(port);
  }
  static Json status_of(terrace_owner* owner) {
    terrace_bytes bytes = {};
    EXPECT_EQ(terrace_read_status(owner, &bytes), TERRACE_OK);
    return Json::parse(std::string(reinterpret_cast<const char*>(bytes.data), bytes.length));
  }
  // The body of what the port answers.
  static std::string get(std::uint16_t port, const std::string& target) {
    testing::Raw raw(port);
    raw.send("GET " + target + " HTTP/1.1\r\nHost: localhost\r\n\r\n");
    const std::string text = raw.receive();
    const auto body = text.find("\r\n\r\n");
    return body == std::string::npos ? text : text.substr(body + 4);
  }

  testing::ScratchDirectory scratch_;
};

TEST_F(CapiHttpTest, WhatThePortTellsIsTheOwners) {
  const std::uint16_t port = free_port();
  terrace_owner* const owner = open("shown", at(port));
  ASSERT_TRUE(
      testing::eventually([&] { return !status_of(owner)["page"].get<std::string>().empty(); }));
  EXPECT_EQ(status_of(owner)["page"], "http://127.0.0.1:" + std::to_string(port) + "/");
  const Json status = Json::parse(get(port, "/api/status"));
  EXPECT_EQ(status["engine"], "shown");
  EXPECT_EQ(status["process"], ::getpid());
  EXPECT_THAT(get(port, "/metrics"), HasSubstr("\nterrace_mode 0\n"));
  const Json settings = Json::parse(get(port, "/api/settings"));
  EXPECT_EQ(settings["effective"]["settings"]["host.size"]["value"], "1MiB");
  EXPECT_EQ(settings["explained"][0]["name"], "mode");

  const std::uint32_t tokens[33] = {};
  terrace_request_options asked = {};
  asked.struct_size = sizeof asked;
  asked.tokens = tokens;
  asked.token_count = 33;
  asked.prompt_tokens = 33;
  terrace_request request = 0;
  ASSERT_EQ(terrace_begin_request(owner, &asked, &request), TERRACE_OK) << terrace_last_error();
  ASSERT_EQ(terrace_end_request(owner, request, nullptr), TERRACE_OK);
  const Json ledger = Json::parse(get(port, "/api/ledger"));
  ASSERT_EQ(ledger["requests"].size(), 1U);
  EXPECT_EQ(ledger["requests"][0]["prompt_tokens"], 33);
  EXPECT_THAT(get(port, "/metrics"), HasSubstr("\nterrace_requests_total 1\n"));
  terrace_close_owner(owner, 0);
  EXPECT_FALSE(testing::Raw(port).is_connected());
}

TEST_F(CapiHttpTest, ThereIsNoPortUnlessOneIsWanted) {
  const std::uint16_t port = free_port();
  terrace_owner* const owner = open("quiet", R"("metrics.port":)" + std::to_string(port));
  EXPECT_TRUE(testing::eventually([&] { return status_of(owner)["tiers"][0]["state"] == "open"; }));
  EXPECT_EQ(status_of(owner)["page"], "");
  EXPECT_FALSE(testing::Raw(port).is_connected());
  terrace_close_owner(owner, 0);
}

TEST_F(CapiHttpTest, APortInUseTurnsHealthRedAndTheOwnerGoesOn) {
  const std::uint16_t port = free_port();
  terrace_owner* const first = open("first", at(port));
  ASSERT_TRUE(
      testing::eventually([&] { return !status_of(first)["page"].get<std::string>().empty(); }));
  terrace_owner* const second = open("second", at(port));
  ASSERT_TRUE(testing::eventually([&] { return status_of(second)["health"] == "red"; }));
  const Json status = status_of(second);
  EXPECT_EQ(status["page"], "");
  EXPECT_THAT(status["problems"][0].get<std::string>(), HasSubstr("metrics.port: bind"));
  EXPECT_THAT(status["problems"][0].get<std::string>(), HasSubstr("EADDRINUSE"));
  EXPECT_EQ(status["poisoned"], false);
  EXPECT_EQ(status_of(first)["health"], "green");
  terrace_close_owner(second, 0);
  terrace_close_owner(first, 0);
}

}  // namespace
}  // namespace terrace::capi
