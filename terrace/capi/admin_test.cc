// The admin socket of an owner that was opened over the C ABI: asked as `terrace status` asks.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <terrace/terrace.h>
#include <unistd.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <string>

#include "terrace/base/file.h"
#include "terrace/serve/admin_answers.h"
#include "terrace/serve/admin_client.h"
#include "terrace/testing/eventually.h"
#include "terrace/testing/scratch_directory.h"

namespace terrace::capi {
namespace {

using ::testing::HasSubstr;

class CapiAdminTest : public ::testing::Test {
 protected:
  terrace_owner* open(const std::string& more = "") {
    const std::string settings =
        R"({"host.size":"1MiB","attach.directory":")" + directory() + "\"" + more + "}";
    const std::uint64_t pieces[] = {512};
    const terrace_group_layout layout = {sizeof layout, 1, pieces, 0, 0, 0};
    terrace_owner_options options = {};
    options.struct_size = sizeof options;
    options.block_tokens = 16;
    options.rank_count = 1;
    options.group_count = 1;
    options.groups = &layout;
    options.engine_id = "asked";
    options.settings_json = settings.c_str();
    options.can_store = 1;
    options.can_load = 1;
    terrace_owner* owner = nullptr;
    EXPECT_EQ(terrace_open_owner(&options, &owner), TERRACE_OK) << terrace_last_error();
    return owner;
  }
  [[nodiscard]] std::string directory() const { return scratch_.path() + "/s"; }
  [[nodiscard]] std::string path() const { return serve::admin_path(directory(), "asked").value(); }
  [[nodiscard]] std::string ask(std::string_view method, std::string_view target,
                                std::string_view body = "") const {
    const auto reply = serve::ask_admin(path(), method, target, body, seconds(60), clock_);
    return reply.has_value() ? reply->body : reply.error().text();
  }
  [[nodiscard]] bool listens() const {
    return testing::eventually([&] {
      return serve::ask_admin(path(), "GET", "/status", "", seconds(60), clock_).has_value();
    });
  }
  static std::string text_of(terrace_code (*read)(terrace_owner*, terrace_bytes*),
                             terrace_owner* owner) {
    terrace_bytes bytes = {};
    EXPECT_EQ(read(owner, &bytes), TERRACE_OK);
    return {reinterpret_cast<const char*>(bytes.data), bytes.length};
  }

  testing::ScratchDirectory scratch_;
  SystemClock clock_;
};

TEST_F(CapiAdminTest, StatusMetricsAndModeAreTheOwners) {
  terrace_owner* const owner = open();
  ASSERT_TRUE(listens());
  const auto status = nlohmann::json::parse(ask("GET", "/status"));
  EXPECT_EQ(status["engine"], "asked");
  EXPECT_EQ(status["process"], ::getpid());
  EXPECT_EQ(status["mode"], "on");
  EXPECT_THAT(ask("GET", "/metrics"), HasSubstr("\nterrace_mode 0\n"));
  EXPECT_EQ(ask("PUT", "/mode", R"({"mode":"paused"})"), "{\"mode\":\"paused\"}\n");
  EXPECT_THAT(ask("GET", "/metrics"), HasSubstr("\nterrace_mode 2\n"));
  EXPECT_EQ(nlohmann::json::parse(text_of(terrace_read_status, owner))["mode"], "paused");
  EXPECT_THAT(text_of(terrace_read_log, owner),
              HasSubstr("event=mode mode=paused by=\"process " + std::to_string(::getpid())));
  terrace_close_owner(owner, 0);
  EXPECT_NE(::access(path().c_str(), F_OK), 0);
}

TEST_F(CapiAdminTest, ARequestIsFoundByTheEnginesIdWhileItRunsAndAfterwards) {
  terrace_owner* const owner = open(",\"ledger.file\":\"" + scratch_.path() + "/l.jsonl\"");
  ASSERT_TRUE(listens());
  const std::uint32_t tokens[33] = {};
  terrace_request_options options = {};
  options.struct_size = sizeof options;
  options.tokens = tokens;
  options.token_count = 33;
  options.name = "chatcmpl-1";
  terrace_request request = 0;
  ASSERT_EQ(terrace_begin_request(owner, &options, &request), TERRACE_OK);
  auto found = nlohmann::json::parse(ask("GET", "/ledgers?request=chat"));
  EXPECT_EQ(found["engine"], "asked");
  EXPECT_EQ(found["block_tokens"], 16);
  EXPECT_EQ(found["ended"], 0);
  ASSERT_EQ(found["ledgers"].size(), 1U);
  EXPECT_EQ(found["ledgers"][0]["state"], "running");
  ASSERT_EQ(terrace_end_request(owner, request, nullptr), TERRACE_OK);
  options.flags = TERRACE_REQUEST_UNKEYABLE;
  options.name = nullptr;
  options.unkeyable = "a kind of its own";
  ASSERT_EQ(terrace_begin_request(owner, &options, &request), TERRACE_OK);
  ASSERT_EQ(terrace_end_request(owner, request, nullptr), TERRACE_OK);
  found = nlohmann::json::parse(ask("GET", "/ledgers?request=chatcmpl%2D1"));
  EXPECT_EQ(found["ended"], 2);
  ASSERT_EQ(found["ledgers"].size(), 1U);
  EXPECT_EQ(found["ledgers"][0]["state"], "ended");
  EXPECT_EQ(found["ledgers"][0]["prompt_tokens"], 33);
  found = nlohmann::json::parse(ask("GET", "/ledgers?most=1"));
  ASSERT_EQ(found["ledgers"].size(), 1U);
  EXPECT_EQ(found["ledgers"][0]["request"], "");
  EXPECT_EQ(found["ledgers"][0]["unkeyable"], "a kind of its own");
  EXPECT_EQ(found["ledgers"][0]["first_miss"], "unkeyable");
  terrace_close_owner(owner, 0);
  const std::string lines = read_file(scratch_.path() + "/l.jsonl", 1_MiB).value_or("");
  EXPECT_THAT(lines, HasSubstr("{\"request\":\"chatcmpl-1\""));
  EXPECT_EQ(std::ranges::count(lines, '\n'), 2);
}

// A caller that was built before requests had names.
TEST_F(CapiAdminTest, ARequestWithoutANameIsKeptWithoutOne) {
  terrace_owner* const owner = open();
  ASSERT_TRUE(listens());
  terrace_request_options options = {};
  options.struct_size = 48;
  options.name = reinterpret_cast<const char*>(8);  // Not ours to read.
  terrace_request request = 0;
  ASSERT_EQ(terrace_begin_request(owner, &options, &request), TERRACE_OK);
  ASSERT_EQ(terrace_end_request(owner, request, nullptr), TERRACE_OK);
  EXPECT_EQ(nlohmann::json::parse(ask("GET", "/ledgers"))["ledgers"][0]["request"], "");
  terrace_close_owner(owner, 0);
}

TEST_F(CapiAdminTest, ItCanBeSwitchedOff) {
  terrace_owner* const owner = open(R"(,"admin.enabled":false)");
  // The thread that opens the tiers has made the directory by then; the admin thread would have.
  EXPECT_TRUE(testing::eventually([&] {
    return text_of(terrace_read_status, owner).find("\"state\":\"open\"") != std::string::npos;
  }));
  EXPECT_NE(::access(path().c_str(), F_OK), 0);
  terrace_close_owner(owner, 0);
}

TEST_F(CapiAdminTest, AnOwnerThatCannotListenGoesOnAndSaysSo) {
  ASSERT_EQ(::mkdir(directory().c_str(), 0700), 0);
  ASSERT_EQ(::chmod(directory().c_str(), 0711), 0);
  terrace_owner* const owner = open();
  std::string log;
  EXPECT_TRUE(testing::eventually([&] {
    log += text_of(terrace_read_log, owner);
    return log.find("event=admin_off") != std::string::npos;
  }));
  EXPECT_THAT(log, HasSubstr(path()));
  EXPECT_THAT(log, HasSubstr("chmod 700"));
  EXPECT_EQ(nlohmann::json::parse(text_of(terrace_read_status, owner))["mode"], "on");
  terrace_close_owner(owner, 0);
}

TEST_F(CapiAdminTest, AnOwnerThatIsLeftOpenInAChildKeepsTheParentsSocket) {
  terrace_owner* const owner = open();
  ASSERT_TRUE(listens());
  const pid_t child = ::fork();
  if (child == 0) {
    terrace_close_owner(owner, 0);
    ::_exit(::access(path().c_str(), F_OK) == 0 ? 0 : 1);
  }
  int status = -1;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  EXPECT_EQ(status, 0);
  EXPECT_TRUE(listens());
  terrace_close_owner(owner, 0);
}

}  // namespace
}  // namespace terrace::capi
