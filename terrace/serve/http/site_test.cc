#include "terrace/serve/http/site.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "terrace/serve/http/page_files.h"
#include "terrace/testing/fake_clock.h"

namespace terrace::serve {
namespace {

using Json = nlohmann::json;
using ::testing::HasSubstr;
using ::testing::Not;

class SiteTest : public ::testing::Test {
 protected:
  [[nodiscard]] Site site(bool is_local = true) {
    return {{.status = [this] { return fmt_status(); },
             .metrics = [] { return std::string("terrace_mode 0\n"); },
             .visit = [](MetricVisitor& to) { to.counter("terrace_requests_total", "", 12); },
             .settings = "{\"effective\":{}}\n",
             .ledgers = &ledgers_},
            is_local,
            clock_};
  }
  [[nodiscard]] std::string fmt_status() { return R"({"asked":)" + std::to_string(++asked_) + "}"; }
  [[nodiscard]] static SiteAnswer get(Site& site, std::string_view target,
                                      std::string_view host = "") {
    return site.answer({.method = "GET", .target = target, .host = host});
  }

  testing::FakeClock clock_;
  manager::LedgerRing ledgers_{64, clock_};
  int asked_ = 0;
};

TEST_F(SiteTest, EachPlaceHasItsTypeAndContent) {
  Site own = site();
  EXPECT_EQ(get(own, "/metrics").body, "terrace_mode 0\n");
  EXPECT_THAT(std::string(get(own, "/metrics").type), HasSubstr("version=0.0.4"));
  EXPECT_EQ(get(own, "/api/status").body, "{\"asked\":1}\n");
  EXPECT_EQ(get(own, "/api/settings").body, "{\"effective\":{}}\n");
  EXPECT_TRUE(Json::parse(get(own, "/api/ledger").body)["requests"].empty());
  EXPECT_EQ(get(own, "/").type, "text/html; charset=utf-8");
  EXPECT_THAT(get(own, "/?theme=dark").body, HasSubstr("<!doctype html>"));
  EXPECT_EQ(get(own, "/page.js").type, "text/javascript; charset=utf-8");
  EXPECT_EQ(get(own, "/page.css").type, "text/css; charset=utf-8");
  EXPECT_EQ(get(own, "/icon.svg").type, "image/svg+xml");
}

TEST_F(SiteTest, TheFilesOfThePageAreInTheProgram) {
  EXPECT_GE(page_files().size(), 6U);
  for (const PageFile& file : page_files()) {
    EXPECT_GT(file.content.size(), 100U) << file.name;
    EXPECT_THAT(std::string(file.content), Not(HasSubstr("//cdn"))) << file.name;
  }
}

TEST_F(SiteTest, StatusIsAskedAtMostOnceASecondWhoeverAsks) {
  Site own = site();
  for (int i = 0; i < 100; ++i) (void)get(own, "/api/status");
  EXPECT_EQ(asked_, 1);
  clock_.advance(Site::kStatusAge);
  EXPECT_EQ(get(own, "/api/status").body, "{\"asked\":2}\n");
}

TEST_F(SiteTest, HistoryTakesASpanAndRefusesOthers) {
  Site own = site();
  own.sample();
  const Json json = Json::parse(get(own, "/api/history?seconds=600").body);
  EXPECT_EQ(json["columns"]["terrace_requests_total"], Json::parse("[12]"));
  EXPECT_EQ(get(own, "/api/history").code, 200U);
  for (const std::string wrong :
       {"0", "-1", "86401", "x", "", "1.5", "99999999999999999999", "1 "}) {
    const SiteAnswer answer = get(own, "/api/history?seconds=" + wrong);
    EXPECT_EQ(answer.code, 400U) << wrong;
    EXPECT_THAT(answer.body, HasSubstr("from 1 to 86400"));
  }
}

TEST_F(SiteTest, ARequestThatEndedIsInTheLedger) {
  Site own = site();
  manager::KeptLedger kept;
  kept.name = manager::Label("cmpl-4");
  kept.ended = clock_.now();
  (void)ledgers_.add(kept);
  EXPECT_EQ(Json::parse(get(own, "/api/ledger").body)["requests"][0]["request"], "cmpl-4");
}

TEST_F(SiteTest, NothingCanBeChanged) {
  Site own = site();
  for (const std::string_view method :
       {"PUT", "POST", "DELETE", "OPTIONS", "PATCH", "TRACE", "X"}) {
    const SiteAnswer answer = own.answer({.method = method, .target = "/", .host = ""});
    EXPECT_EQ(answer.code, 405U) << method;
    EXPECT_EQ(answer.allow, "GET, HEAD");
  }
  EXPECT_EQ(own.answer({.method = "HEAD", .target = "/", .host = ""}).code, 200U);
}

TEST_F(SiteTest, WhatIsNotThereIsSaidAndWhatIsThere) {
  Site own = site();
  for (const std::string_view path :
       {"/status", "/../etc/passwd", "/api", "/api/status/", "/page.js/", "//", "/index.htm"}) {
    const SiteAnswer answer = get(own, path);
    EXPECT_EQ(answer.code, 404U) << path;
    EXPECT_THAT(answer.body, HasSubstr("/metrics"));
  }
  EXPECT_EQ(get(own, "http://x/metrics").code, 400U);
  EXPECT_EQ(get(own, "*").code, 400U);
  EXPECT_LT(get(own, "/" + std::string(7000, 'x')).body.size(), 300U);
  EXPECT_EQ(get(own, "/\xff\xfe").code, 404U);
}

// A page of another host that was given this machine's address must not read what stands here.
TEST_F(SiteTest, WhereOnlyThisMachineCanAskOtherNamesAreRefused) {
  Site own = site();
  for (const std::string_view host : {"localhost", "localhost:6880", "127.0.0.1:6880", "127.0.0.2",
                                      "[::1]:6880", "[::1]", "a.localhost:1", ""}) {
    EXPECT_EQ(get(own, "/metrics", host).code, 200U) << host;
  }
  for (const std::string_view host :
       {"evil.example", "evil.example:6880", "127.0.0.1.evil.example", "localhost.evil.example:80",
        "10.0.0.1:6880", "[fe80::1]:1", "127.evil", "[::1"}) {
    EXPECT_EQ(get(own, "/metrics", host).code, 421U) << host;
  }
  Site open = site(/*is_local=*/false);
  EXPECT_EQ(get(open, "/metrics", "node7.cluster:6880").code, 200U);
}

}  // namespace
}  // namespace terrace::serve
