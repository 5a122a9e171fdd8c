// What the store sends, over which connections, with which keys; and what it refuses to start with.
#include <fcntl.h>
#include <fmt/format.h>

#include <atomic>
#include <cstdlib>
#include <filesystem>
#include <fstream>

#include "terrace/testing/scratch_directory.h"
#include "terrace/transfer/backends/s3/credentials_internal.h"
#include "terrace/transfer/backends/s3/curl_library_internal.h"
#include "terrace/transfer/backends/s3/digest_internal.h"
#include "terrace/transfer/backends/s3/s3_rig.h"

namespace terrace::transfer {
namespace {

const std::string kHead =
    "Content-Range: bytes 5-14/100\r\nLast-Modified: Sun, 06 Nov 1994 08:49:37 GMT\r\n";
const std::string kTen = "0123456789";

class S3RequestsTest : public S3Rig {
 protected:
  // Gets and heads as an object of 100 bytes has it, puts and the rest with 200.
  static bool answer_well(const Peer& peer, const Seen& seen) {
    if (seen.method == "GET") return peer.answer(206, kHead, kTen);
    if (seen.method == "HEAD") {
      return peer.send("HTTP/1.1 200 X\r\nContent-Length: 100\r\n" + kHead + "\r\n");
    }
    return peer.answer(200, "", "");
  }
};

TEST_F(S3RequestsTest, APutSendsItsBytesOnceWithSumsAndOnlyIfAbsent) {
  serve(answer_well);
  const std::string content(3'000'001, 'q');
  const ObjectAnswer answer = run(put(content));
  ASSERT_TRUE(answer.status.is_ok()) << answer.status.text();
  EXPECT_FALSE(answer.was_there);
  ASSERT_EQ(server_->seen().size(), 1U);
  const Seen seen = server_->seen().at(0);
  EXPECT_EQ(seen.method, "PUT");
  EXPECT_EQ(seen.target, "/bucket/team/kv/a/b");
  EXPECT_TRUE(seen.body == content);
  EXPECT_EQ(seen.header("content-length"), "3000001");
  EXPECT_EQ(seen.header("if-none-match"), "*");
  EXPECT_EQ(seen.header("x-amz-content-sha256"), s3::sha256_hex(content));
  EXPECT_EQ(seen.header("x-amz-checksum-crc32c"),
            s3::crc32c_base64(s3::crc32c(0, std::as_bytes(std::span(content)))));
  EXPECT_EQ(seen.header("x-amz-security-token"), "the-token");
  EXPECT_EQ(seen.header("transfer-encoding"), "");
  EXPECT_EQ(seen.header("expect"), "100-continue");
  EXPECT_NE(seen.header("authorization").find("Credential=KEYID/"), std::string::npos);
  EXPECT_NE(seen.header("authorization")
                .find("SignedHeaders=host;if-none-match;x-amz-checksum-crc32c;x-amz-content-sha256;"
                      "x-amz-date;x-amz-security-token"),
            std::string::npos)
      << seen.header("authorization");
}

TEST_F(S3RequestsTest, WithoutASignedPayloadTheSumStays) {
  options_.signs_payload = false;
  serve(answer_well);
  ASSERT_EQ(code_of(put("abc")), Code::kOk);
  EXPECT_EQ(server_->seen().at(0).header("x-amz-content-sha256"), "UNSIGNED-PAYLOAD");
  EXPECT_EQ(server_->seen().at(0).header("x-amz-checksum-crc32c"), "Nks/tw==");
}

TEST_F(S3RequestsTest, ATouchIsACopyOntoItselfWithoutContent) {
  serve([](const Peer& peer, const Seen&) {
    return peer.answer(200, "", "<CopyObjectResult><ETag>\"x\"</ETag></CopyObjectResult>");
  });
  const ObjectAnswer answer = run(request(ObjectOp::kTouch, "a/b"));
  ASSERT_TRUE(answer.status.is_ok()) << answer.status.text();
  const Seen seen = server_->seen().at(0);
  EXPECT_EQ(seen.method, "PUT");
  EXPECT_EQ(seen.target, "/bucket/team/kv/a/b");
  EXPECT_EQ(seen.header("x-amz-copy-source"), "/bucket/team/kv/a/b");
  EXPECT_EQ(seen.header("x-amz-metadata-directive"), "REPLACE");
  EXPECT_EQ(seen.header("content-type"), "application/octet-stream");
  EXPECT_EQ(seen.header("content-length"), "0");
  EXPECT_EQ(seen.header("if-none-match"), "");
  EXPECT_NE(seen.header("authorization").find("x-amz-copy-source;x-amz-date"), std::string::npos);
}

TEST_F(S3RequestsTest, AnObjectThatIsThereStays) {
  serve([](const Peer& peer, const Seen&) {
    return peer.answer(412, "", error_body("PreconditionFailed"));
  });
  const ObjectAnswer answer = run(put("abc"));
  EXPECT_TRUE(answer.status.is_ok()) << answer.status.text();
  EXPECT_TRUE(answer.was_there);
}

TEST_F(S3RequestsTest, AStoreWithoutConditionsIsAskedFirstAndThatIsSaidOnce) {
  for (const int code : {501, 400}) {
    std::atomic<bool> is_there{false};
    serve([&](const Peer& peer, const Seen& seen) {
      if (!seen.header("if-none-match").empty()) {
        return peer.answer(code, "", error_body("NotImplemented"));
      }
      if (seen.method == "HEAD" && !is_there) return peer.send("HTTP/1.1 404 X\r\n\r\n") && false;
      return answer_well(peer, seen);
    });
    EXPECT_FALSE(run(put("abc")).was_there);
    EXPECT_FALSE(run(put("abc")).was_there);
    is_there = true;
    EXPECT_TRUE(run(put("abc")).was_there);
    std::string methods;
    for (const Seen& seen : server_->seen()) methods += seen.method + " ";
    EXPECT_EQ(methods, "PUT HEAD PUT HEAD PUT HEAD ");
  }
  EXPECT_EQ(log_.count("no_conditional_put"), 2U);  // Once for each of the two stores.
}

TEST_F(S3RequestsTest, APutThatIsRefusedForAnotherReasonChangesNothing) {
  std::atomic<bool> is_bad{true};
  serve([&](const Peer& peer, const Seen& seen) {
    if (seen.method == "HEAD") return peer.send("HTTP/1.1 404 X\r\n\r\n") && false;
    if (is_bad) return peer.answer(400, "", error_body("InvalidRequest"));
    return answer_well(peer, seen);
  });
  EXPECT_EQ(code_of(put("abc")), Code::kIo) << last_text_;
  is_bad = false;
  EXPECT_EQ(code_of(put("abc")), Code::kOk) << last_text_;
  EXPECT_EQ(server_->seen().back().header("if-none-match"), "*");
  EXPECT_EQ(log_.text(), "");
}

TEST_F(S3RequestsTest, RequestsOneAfterAnotherShareAConnection) {
  serve(answer_well);
  for (int i = 0; i < 10; ++i) {
    EXPECT_EQ(code_of(get(5, 10)), Code::kOk) << last_text_;
    EXPECT_EQ(code_of(put("abc")), Code::kOk) << last_text_;
    EXPECT_EQ(code_of(request(ObjectOp::kHead, "a")), Code::kOk) << last_text_;
    EXPECT_EQ(code_of(request(ObjectOp::kRemove, "a")), Code::kOk) << last_text_;
  }
  EXPECT_EQ(server_->connections(), 1);
}

// The server closes what it said it would keep: nobody notices.
TEST_F(S3RequestsTest, AConnectionClosedBetweenRequestsIsMadeAnew) {
  serve([](const Peer& peer, const Seen& seen) { return answer_well(peer, seen) && false; });
  const std::string content(2'000'000, 'z');
  for (int i = 0; i < 5; ++i) {
    EXPECT_EQ(code_of(get(5, 10)), Code::kOk) << last_text_;
    EXPECT_EQ(code_of(put(content)), Code::kOk) << last_text_;
  }
  for (const Seen& seen : server_->seen())
    EXPECT_TRUE(seen.method == "GET" || seen.body == content);
}

// Closed at the very moment of the next request: its bytes are sent again from the start.
TEST_F(S3RequestsTest, ARequestIntoAClosedConnectionIsSentAgain) {
  for (const bool resets : {true, false}) {
    serve([&](const Peer& peer, const Seen& seen) {
      if (seen.method != "PUT" || seen.connection > 0) return answer_well(peer, seen);
      if (resets) peer.reset();
      return false;
    });
    ASSERT_EQ(code_of(get(5, 10)), Code::kOk) << last_text_;
    EXPECT_EQ(code_of(put("abcdef")), Code::kOk) << last_text_;
    EXPECT_EQ(server_->seen().back().body, "abcdef");
    EXPECT_EQ(server_->seen().size(), 3U);
  }
}

// A new connection that ends so is the store's fault, and told.
TEST_F(S3RequestsTest, ARequestIntoANewConnectionIsNotSentAgain) {
  serve([](const Peer& peer, const Seen&) { return peer.reset(), false; });
  EXPECT_EQ(code_of(put("abcdef")), Code::kUnavailable) << last_text_;
  EXPECT_EQ(server_->seen().size(), 1U);
}

TEST_F(S3RequestsTest, AtMostDepthConnectionsAreOpen) {
  std::atomic<int> open{0};
  std::atomic<int> most{0};
  serve([&](const Peer& peer, const Seen& seen) {
    const int now = ++open;
    for (int seen_most = most; now > seen_most && !most.compare_exchange_weak(seen_most, now);) {
    }
    const bool goes_on = answer_well(peer, seen);
    --open;
    return goes_on;
  });
  std::vector<std::array<std::byte, 10>> memory(8);
  int answered = 0;
  for (int sent = 0; answered < 100;) {
    std::vector<ObjectAnswer> answers;
    for (; sent < 100 && store_->in_flight() < 8; ++sent) {
      ObjectRequest made = request(ObjectOp::kGet, "a");
      made.offset = 5;
      made.pieces = {{memory[sent % 8].data(), 10}};
      ASSERT_TRUE(store_->submit(made).is_ok());
    }
    store_->wait(seconds(1));
    store_->poll(answers);
    for (const ObjectAnswer& answer : answers) EXPECT_TRUE(answer.status.is_ok());
    answered += static_cast<int>(answers.size());
  }
  EXPECT_LE(server_->connections(), 8);
  EXPECT_LE(most.load(), 8);
}

// The bucket in front of the host, and a proxy that is asked for; the environment's is not.
TEST_F(S3RequestsTest, ABucketMayStandInFrontOfTheHost) {
  testing::HttpScript proxy(answer_well);
  ASSERT_EQ(::setenv("http_proxy", "http://127.0.0.1:9", 1), 0);
  ASSERT_EQ(::setenv("all_proxy", "http://127.0.0.1:9", 1), 0);
  serve(answer_well);
  EXPECT_EQ(code_of(get(5, 10)), Code::kOk) << last_text_;
  store_.reset();
  options_.endpoint = "http://s3.example.com:80";
  options_.uses_path_style = false;
  options_.proxy = proxy.url();
  open();
  EXPECT_EQ(store_->place(), "s3://bucket/team/kv at http://s3.example.com");
  EXPECT_EQ(code_of(get(5, 10)), Code::kOk) << last_text_;
  EXPECT_EQ(proxy.seen().at(0).target, "http://bucket.s3.example.com/team/kv/a/b");
  EXPECT_EQ(proxy.seen().at(0).header("host"), "bucket.s3.example.com");
  ASSERT_EQ(::unsetenv("http_proxy"), 0);
  ASSERT_EQ(::unsetenv("all_proxy"), 0);
}

// What the engine starts meanwhile inherits no connection.
TEST_F(S3RequestsTest, ConnectionsAreClosedOnExec) {
  serve(answer_well);
  ASSERT_EQ(code_of(get(5, 10)), Code::kOk);  // And is kept.
  int found = 0;
  for (const auto& entry : std::filesystem::directory_iterator("/proc/self/fd")) {
    const int file = std::stoi(entry.path().filename());
    sockaddr_in address{};
    socklen_t length = sizeof address;
    if (::getpeername(file, reinterpret_cast<sockaddr*>(&address), &length) != 0) continue;
    if (address.sin_family != AF_INET || ntohs(address.sin_port) != server_->port()) continue;
    ++found;
    EXPECT_NE(::fcntl(file, F_GETFD) & FD_CLOEXEC, 0);
  }
  EXPECT_EQ(found, 1);
}

class S3CredentialsTest : public S3RequestsTest {
 protected:
  void SetUp() override { options_.credentials_file = scratch_.path() + "/credentials"; }
  void write(const std::string& key, const std::string& token) {
    const std::string part = options_.credentials_file + ".part";
    std::ofstream(part) << "# ours\n[other]\naws_access_key_id=NO\n\n[default]\n"
                        << "aws_access_key_id = " << key
                        << "\r\naws_secret_access_key= the-secret\n"
                        << "aws_session_token =" << token << "\n";
    std::filesystem::rename(part, options_.credentials_file);
  }
  void use_file() {
    options_.credentials = {};
    options_.credentials.secret_key = "the-secret";  // Only so that the rig looks for it.
  }
  static bool has_key(const Seen& seen, const std::string& key) {
    return seen.header("authorization").find("Credential=" + key + "/") != std::string::npos;
  }
  testing::ScratchDirectory scratch_;
};

TEST_F(S3CredentialsTest, TheFileIsReadAgainWhenItChanged) {
  use_file();
  write("FIRST", "t1");
  serve(answer_well);
  EXPECT_EQ(code_of(get(5, 10)), Code::kOk) << last_text_;
  EXPECT_TRUE(has_key(server_->seen().back(), "FIRST"));
  EXPECT_EQ(server_->seen().back().header("x-amz-security-token"), "t1");
  write("SECOND", "");
  EXPECT_EQ(code_of(get(5, 10)), Code::kOk) << last_text_;
  EXPECT_TRUE(has_key(server_->seen().back(), "SECOND"));
  EXPECT_EQ(server_->seen().back().header("x-amz-security-token"), "");
  std::filesystem::remove(options_.credentials_file);  // Those from before still hold.
  EXPECT_EQ(code_of(get(5, 10)), Code::kOk) << last_text_;
  EXPECT_TRUE(has_key(server_->seen().back(), "SECOND"));
}

TEST_F(S3CredentialsTest, KeysThatExpiredAreReadAgainAndTheRequestRepeatedOnce) {
  for (const auto& [code, error] :
       {std::pair(400, "ExpiredToken"), std::pair(403, "AccessDenied")}) {
    use_file();
    write("OLD", "t1");
    serve([this, http = code, reason = error](const Peer& peer, const Seen& seen) {
      if (!has_key(seen, "OLD")) return answer_well(peer, seen);
      write("NEW", "t2");  // While the request was under way.
      return peer.answer(http, "", error_body(reason));
    });
    EXPECT_EQ(code_of(put("abc")), Code::kOk) << last_text_;
    EXPECT_EQ(server_->seen().size(), 2U);
    EXPECT_EQ(server_->seen().back().body, "abc");
    EXPECT_EQ(server_->seen().back().header("x-amz-security-token"), "t2");
  }
}

// As AWS tells an expired session token to a HEAD.
TEST_F(S3CredentialsTest, AHeadThatIsABadRequestForNoReasonMayHaveKeysThatExpired) {
  use_file();
  write("OLD", "t1");
  serve([this](const Peer& peer, const Seen& seen) {
    if (!has_key(seen, "OLD")) return peer.answer(404, "", "");
    write("NEW", "t2");
    return peer.answer(400, "", "");
  });
  EXPECT_EQ(code_of(request(ObjectOp::kHead, "a/b")), Code::kNotFound) << last_text_;
  EXPECT_EQ(server_->seen().size(), 2U);
  serve([](const Peer& peer, const Seen&) { return peer.answer(400, "", ""); });
  EXPECT_EQ(code_of(request(ObjectOp::kHead, "a/b")), Code::kRefused);
  EXPECT_NE(last_text_.find("perhaps expired credentials"), std::string::npos) << last_text_;
  EXPECT_NE(code_of(get(5, 10)), Code::kRefused) << "this one would say why";
}

TEST_F(S3CredentialsTest, KeysThatStayRefusedAreNotTriedForever) {
  use_file();
  write("OLD", "");
  std::atomic<int> number{0};
  serve([&](const Peer& peer, const Seen&) {
    write(fmt::format("KEY{}", ++number), "");
    return peer.answer(403, "", error_body("InvalidAccessKeyId"));
  });
  EXPECT_EQ(code_of(get(5, 10)), Code::kRefused);
  EXPECT_EQ(server_->seen().size(), 2U);
  options_.credentials = {"KEYID", "the-secret", ""};  // Of the options: there are no others.
  serve([](const Peer& peer, const Seen&) { return peer.answer(403, "", ""); });
  EXPECT_EQ(code_of(get(5, 10)), Code::kRefused);
  EXPECT_EQ(server_->seen().size(), 1U);
}

TEST_F(S3CredentialsTest, FilesWithoutKeysAreRefusedWithTheReason) {
  const auto text_of = [](std::string_view file, std::string_view profile) {
    const auto found = s3::parse_credentials(file, profile);
    return found ? found->key_id : found.error().text();
  };
  const std::string good = "[p]\naws_access_key_id=A\naws_secret_access_key=secret";
  EXPECT_EQ(text_of(good, "p"), "A");
  EXPECT_EQ(text_of("[ p ] \r\n aws_access_key_id\t= A\naws_secret_access_key = s=x", "p"), "A");
  for (const std::string& bad : {std::string(), std::string("[p]"), good.substr(4),
                                 "[q]" + good.substr(3), std::string("[p]\naws_access_key_id=A"),
                                 "[p]\naws_access_key_id=A\n[q]\n" + good.substr(24),
                                 good + "\r\nx-header: 1\naws_session_token=a b", good + "\x01"}) {
    const std::string text = text_of(bad, "p");
    EXPECT_NE(text.find("refused: s3 credentials"), std::string::npos) << bad << " -> " << text;
    EXPECT_EQ(text.find("=secret"), std::string::npos);
  }
  use_file();
  options_.endpoint = "http://127.0.0.1:1";
  EXPECT_EQ(make_s3_store(options_, clock_, log_).error().code(), Code::kRefused);
  options_.credentials_file = scratch_.path();  // A folder.
  EXPECT_EQ(make_s3_store(options_, clock_, log_).error().code(), Code::kRefused);
  options_.credentials_file.clear();
  EXPECT_EQ(make_s3_store(options_, clock_, log_).error().code(), Code::kRefused);
}

TEST_F(S3RequestsTest, OptionsThatMakeNoSenseAreNamed) {
  options_.endpoint = "http://127.0.0.1:1";
  ASSERT_TRUE(make_s3_store(options_, clock_, log_).has_value());
  const auto text_of = [this](const std::function<void(S3Options&)>& change) {
    S3Options changed = options_;
    change(changed);
    const auto store = make_s3_store(changed, clock_, log_);
    return store ? "ok" : store.error().text();
  };
  for (const char* endpoint :
       {"", "s3.example.com", "ftp://host", "http://", "http://a b", "http://user:pw@host",
        "http://host:port", "http://host:", "http://host/path", "http://host:123456",
        "http://host\r\nX: y", "http://[::1", "http://host?x"}) {
    const std::string text = text_of([&](S3Options& options) { options.endpoint = endpoint; });
    EXPECT_TRUE(text.starts_with("invalid: s3 endpoint")) << endpoint << " -> " << text;
    EXPECT_EQ(text.find("pw"), std::string::npos) << text;
  }
  for (const char* endpoint :
       {"https://host", "http://HOST:9000/", "http://[::1]:9000", "http://[::1]"}) {
    EXPECT_EQ(text_of([&](S3Options& options) { options.endpoint = endpoint; }), "ok") << endpoint;
  }
  for (const char* bucket : {"", "ab", "Bucket", "a/b", "a?b", "bu cket"}) {
    const std::string text = text_of([&](S3Options& options) { options.bucket = bucket; });
    EXPECT_TRUE(text.starts_with("invalid: s3 bucket")) << text;
  }
  EXPECT_TRUE(text_of([](S3Options& o) { o.prefix = "a/"; }).starts_with("invalid: s3 prefix"));
  EXPECT_TRUE(text_of([](S3Options& o) { o.region = "eu\n"; }).starts_with("invalid: s3 region"));
  EXPECT_EQ(text_of([](S3Options& o) { o.region = "RegionOne"; }), "ok");
  EXPECT_EQ(text_of([](S3Options& o) { o.region = "us_east"; }), "ok");
  EXPECT_TRUE(text_of([](S3Options& o) { o.depth = 0; }).starts_with("invalid: s3 depth"));
  EXPECT_EQ(text_of([](S3Options& o) { o.prefix = ""; }), "ok");
}

TEST(CurlLibraryTest, ALibcurlThatIsMissingOrTooOldNamesThePackage) {
  const auto absent = s3::open_curl("libcurl-absent.so.4");
  ASSERT_FALSE(absent.has_value());
  EXPECT_EQ(absent.error().code(), Code::kUnavailable);
  EXPECT_NE(absent.error().message().find("libcurl4"), std::string::npos) << absent.error().text();
  const auto other = s3::open_curl("libm.so.6");
  ASSERT_FALSE(other.has_value());
  EXPECT_NE(other.error().message().find("curl_global_init"), std::string::npos);

  curl_version_info_data facts{};
  facts.version = "7.67.0";
  facts.version_num = 0x074300;
  facts.features = CURL_VERSION_SSL;
  EXPECT_EQ(s3::check_curl(facts, false).code(), Code::kUnavailable);
  EXPECT_NE(s3::check_curl(facts, false).message().find("7.67.0"), std::string::npos);
  facts.version_num = s3::kOldestCurl;
  EXPECT_TRUE(s3::check_curl(facts, true).is_ok());
  facts.features = 0;
  EXPECT_TRUE(s3::check_curl(facts, false).is_ok());
  EXPECT_EQ(s3::check_curl(facts, true).code(), Code::kUnavailable);
}

}  // namespace
}  // namespace terrace::transfer
