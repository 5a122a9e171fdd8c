// What the store makes of answers: those that are right, and those that lie, stop or never come.
#include <fmt/format.h>
#include <gmock/gmock.h>

#include <atomic>

#include "terrace/transfer/backends/s3/s3_rig.h"

namespace terrace::transfer {
namespace {

constexpr std::string_view kDate = "Last-Modified: Sun, 06 Nov 1994 08:49:37 GMT\r\n";

std::string range_header(const std::string& range) {
  return fmt::format("Content-Range: bytes {}\r\n", range);
}

class S3AnswersTest : public S3Rig {
 protected:
  // Answers each request so.
  void serve_answer(int code, const std::string& headers, const std::string& body) {
    serve([=](const Peer& peer, const Seen&) { return peer.answer(code, headers, body); });
  }
  // Sends each time these bytes, then ends the connection.
  void serve_bytes(const std::string& bytes) {
    serve([=](const Peer& peer, const Seen&) { return peer.send(bytes) && false; });
  }
  Code get_ten() {
    const Code code = code_of(get(5, 10));
    EXPECT_TRUE(guards_stand());
    return code;
  }
};

TEST_F(S3AnswersTest, ARangeComesIntoItsPieces) {
  serve_answer(206, range_header("5-14/100"), "0123456789");
  EXPECT_EQ(get_ten(), Code::kOk) << last_text_;
  EXPECT_EQ(got(), "0123456789");
}

// A copy is answered with 200 before it is done.
TEST_F(S3AnswersTest, ATouchThatFailsInItsBodyHasFailed) {
  serve_answer(200, "", error_body("SlowDown"));
  EXPECT_EQ(code_of(request(ObjectOp::kTouch, "a/b")), Code::kUnavailable) << last_text_;
  serve_answer(200, "", error_body("InternalError"));
  EXPECT_EQ(code_of(request(ObjectOp::kTouch, "a/b")), Code::kUnavailable) << last_text_;
  serve_answer(404, "", error_body("NoSuchKey"));
  EXPECT_EQ(code_of(request(ObjectOp::kTouch, "a/b")), Code::kNotFound) << last_text_;
  serve_answer(403, "", error_body("AccessDenied"));
  EXPECT_EQ(code_of(request(ObjectOp::kTouch, "a/b")), Code::kRefused) << last_text_;
  serve_answer(501, "", error_body("NotImplemented"));
  EXPECT_EQ(code_of(request(ObjectOp::kTouch, "a/b")), Code::kIo) << last_text_;
}

TEST_F(S3AnswersTest, ARangeInPartsIsCounted) {
  const std::string head =
      "HTTP/1.1 206 X\r\nTransfer-Encoding: chunked\r\n" + range_header("5-14/100") + "\r\n";
  serve_bytes(head + "4\r\n0123\r\n6\r\n456789\r\n0\r\nTrailer: x\r\n\r\n");
  EXPECT_EQ(get_ten(), Code::kOk) << last_text_;
  EXPECT_EQ(got(), "0123456789");
  serve_bytes(head + "4\r\n0123\r\n0\r\n\r\n");
  EXPECT_EQ(get_ten(), Code::kUnavailable) << last_text_;
  serve_bytes(head + "10\r\n0123456789abcdef\r\n0\r\n\r\n");
  EXPECT_EQ(get_ten(), Code::kIo) << last_text_;
  serve_bytes(head + "zz\r\n0123");
  EXPECT_NE(get_ten(), Code::kOk) << last_text_;
}

TEST_F(S3AnswersTest, WhatIsNoAnswerToTheRangeSaysNothingOfTheObject) {
  const std::string ten = "0123456789";
  serve_answer(200, "", std::string(100, 'x'));
  EXPECT_EQ(get_ten(), Code::kIo) << last_text_;
  EXPECT_THAT(last_text_, ::testing::HasSubstr("answered 200 to a range"));
  serve_answer(200, range_header("5-14/100"), ten);
  EXPECT_EQ(get_ten(), Code::kIo) << last_text_;
  serve_answer(204, "", "");
  EXPECT_EQ(get_ten(), Code::kIo) << last_text_;
  for (const char* range : {"0-9/100", "5-15/100", "5-13/100", "5-14", "15-14/100", "x", ""}) {
    serve_answer(206, range_header(range), ten);
    EXPECT_EQ(get_ten(), Code::kIo) << range << last_text_;
  }
  serve_answer(206, "", ten);
  EXPECT_EQ(get_ten(), Code::kIo) << last_text_;
  EXPECT_EQ(got(), std::string(10, '\xa5'));  // Of none of these a byte was taken.
}

TEST_F(S3AnswersTest, AnObjectThatEndsWithinTheRangeIsCorrupt) {
  for (const char* range : {"5-13/14", "5-5/6"}) {
    serve_answer(206, range_header(range), "012345678");
    EXPECT_EQ(get_ten(), Code::kCorrupt) << range << last_text_;
    EXPECT_THAT(last_text_, ::testing::HasSubstr("the object ends at byte"));
  }
  for (const char* range : {"5-13/15", "5-13/*", "5-14/14", "4-13/14", "5-4/5", "5-/14", "5-0/0"}) {
    serve_answer(206, range_header(range), "012345678");
    EXPECT_EQ(get_ten(), Code::kIo) << range << last_text_;
  }
  serve_answer(416, "", error_body("InvalidRange"));
  EXPECT_EQ(get_ten(), Code::kCorrupt) << last_text_;
}

TEST_F(S3AnswersTest, WrongLengthsSayNothingOfTheObject) {
  serve_answer(206, range_header("5-14/100"), "012345678");
  EXPECT_EQ(get_ten(), Code::kIo) << last_text_;
  serve_answer(206, range_header("5-14/100"), "0123456789a");
  EXPECT_EQ(get_ten(), Code::kIo) << last_text_;
  serve_bytes("HTTP/1.1 206 X\r\nContent-Length: 10\r\nContent-Length: 11\r\n" +
              range_header("5-14/100") + "\r\n0123456789a");
  EXPECT_EQ(get_ten(), Code::kIo) << last_text_;
  for (const char* length : {"-1", "0x0a", "99999999999999999999999", "ten"}) {
    serve_bytes(fmt::format("HTTP/1.1 206 X\r\nContent-Length: {}\r\n{}\r\n0123456789", length,
                            range_header("5-14/100")));
    EXPECT_NE(get_ten(), Code::kOk) << length << last_text_;
  }
  // Without a length, until the connection ends.
  serve_bytes("HTTP/1.1 206 X\r\n" + range_header("5-14/100") + "\r\n01234");
  EXPECT_EQ(get_ten(), Code::kUnavailable) << last_text_;
}

TEST_F(S3AnswersTest, AConnectionThatEndsIsUnavailable) {
  const std::string half = "HTTP/1.1 206 X\r\nContent-Length: 10\r\n" + range_header("5-14/100");
  serve_bytes(half + "\r\n01234");
  EXPECT_EQ(get_ten(), Code::kUnavailable) << last_text_;
  serve_bytes("");
  EXPECT_EQ(get_ten(), Code::kUnavailable) << last_text_;
  serve([](const Peer& peer, const Seen&) { return peer.reset(), false; });
  EXPECT_EQ(get_ten(), Code::kUnavailable) << last_text_;
  EXPECT_EQ(code_of(put(std::string(3'000'000, 'x'))), Code::kUnavailable) << last_text_;
  serve([=](const Peer& peer, const Seen&) {
    return peer.send(half + "\r\n") && (peer.reset(), false);
  });
  EXPECT_EQ(get_ten(), Code::kUnavailable) << last_text_;
  server_.reset();
  EXPECT_EQ(get_ten(), Code::kUnavailable) << last_text_;
}

TEST_F(S3AnswersTest, WhatIsNoHttpIsTheStoresFault) {
  serve_bytes("\x16\x03\x01 garbage\r\n\r\n");
  EXPECT_EQ(get_ten(), Code::kIo) << last_text_;
  serve_bytes("HTTP/1.1 abc\r\n\r\n");
  EXPECT_NE(get_ten(), Code::kOk) << last_text_;
}

TEST_F(S3AnswersTest, HeadersThatDoNotEndAreTheStoresFault) {
  serve([](const Peer& peer, const Seen&) {
    if (!peer.send("HTTP/1.1 206 X\r\n")) return false;
    while (peer.send("x-more: " + std::string(1000, 'x') + "\r\n")) {
    }
    return false;
  });
  EXPECT_EQ(get_ten(), Code::kIo) << last_text_;
  serve([](const Peer& peer, const Seen&) {
    if (!peer.send("HTTP/1.1 206 X\r\nx-long: ")) return false;
    while (peer.send(std::string(10'000, 'x'))) {
    }
    return false;
  });
  EXPECT_EQ(get_ten(), Code::kIo) << last_text_;
}

TEST_F(S3AnswersTest, AnErrorThatDoesNotEndIsReadNoFurtherThanNeeded) {
  serve([](const Peer& peer, const Seen&) {
    if (!peer.send("HTTP/1.1 503 X\r\nRetry-After: 4\r\n\r\n<Error><Code>SlowDown</Code>"))
      return false;
    while (peer.send(std::string(10'000, ' '))) {
    }
    return false;
  });
  const ObjectAnswer answer = run(get(5, 10));
  EXPECT_EQ(answer.status.code(), Code::kUnavailable) << answer.status.text();
  EXPECT_NE(answer.status.message().find("SlowDown"), std::string::npos);
  EXPECT_EQ(answer.retry_after, seconds(4));
}

TEST_F(S3AnswersTest, AStoreThatIsBusySaysForHowLong) {
  for (const int code : {429, 500, 502, 503, 504, 408}) {
    serve_answer(code, "Retry-After: 7\r\n", error_body("Whatever"));
    const ObjectAnswer answer = run(get(5, 10));
    EXPECT_EQ(answer.status.code(), Code::kUnavailable) << answer.status.text();
    EXPECT_EQ(answer.retry_after, seconds(7)) << code;
  }
  serve_answer(400, "", error_body("SlowDown"));
  EXPECT_EQ(code_of(get(5, 10)), Code::kUnavailable) << last_text_;
  for (const char* value : {"", "soon", "-5", "Sun, 06 Nov 1994 08:49:37 GMT"}) {
    serve_answer(503, fmt::format("Retry-After: {}\r\n", value), "");
    EXPECT_EQ(run(get(5, 10)).retry_after, Nanoseconds(0)) << value;
  }
  serve_answer(503, "Retry-After: 99999999\r\n", "");
  EXPECT_EQ(run(get(5, 10)).retry_after, seconds(3600));
}

TEST_F(S3AnswersTest, CodesMeanWhatTheInterfaceSays) {
  const auto code = [this](int http, const std::string& error, ObjectRequest made) {
    serve_answer(http, "", error.empty() ? "" : error_body(error));
    return code_of(std::move(made));
  };
  EXPECT_EQ(code(404, "NoSuchKey", get(5, 10)), Code::kNotFound);
  EXPECT_EQ(code(404, "", request(ObjectOp::kHead, "a")), Code::kNotFound);
  EXPECT_EQ(code(404, "NoSuchBucket", get(5, 10)), Code::kIo);
  EXPECT_EQ(code(404, "", put("x")), Code::kIo);
  EXPECT_EQ(code(404, "NoSuchBucket", request(ObjectOp::kList, "")), Code::kIo);
  EXPECT_EQ(code(404, "NoSuchKey", request(ObjectOp::kRemove, "a")), Code::kOk);
  EXPECT_EQ(code(404, "NoSuchBucket", request(ObjectOp::kRemove, "a")), Code::kIo);
  EXPECT_EQ(code(204, "", request(ObjectOp::kRemove, "a")), Code::kOk);
  EXPECT_EQ(code(403, "AccessDenied", get(5, 10)), Code::kRefused);
  EXPECT_NE(last_text_.find("403 AccessDenied"), std::string::npos) << last_text_;
  EXPECT_EQ(code(403, "", request(ObjectOp::kHead, "a")), Code::kRefused);
  EXPECT_EQ(code(507, "", put("x")), Code::kExhausted);
  EXPECT_EQ(code(400, "QuotaExceeded", put("x")), Code::kExhausted);
  EXPECT_EQ(code(409, "ConditionalRequestConflict", put("x")), Code::kUnavailable);
  EXPECT_EQ(code(400, "BadDigest", put("x")), Code::kCorrupt);
  EXPECT_EQ(code(416, "InvalidRange", get(5, 10)), Code::kCorrupt);
  EXPECT_EQ(code(413, "EntityTooLarge", put("x")), Code::kIo);
  EXPECT_EQ(code(418, "", get(5, 10)), Code::kIo);
}

TEST_F(S3AnswersTest, AClockThatIsWrongIsNamed) {
  serve_answer(403, "", error_body("RequestTimeTooSkewed"));
  EXPECT_EQ(code_of(get(5, 10)), Code::kRefused);
  EXPECT_NE(last_text_.find("clock"), std::string::npos) << last_text_;
}

TEST_F(S3AnswersTest, RedirectsAreNotFollowed) {
  testing::HttpScript other([](const Peer& peer, const Seen&) { return peer.answer(200, "", ""); });
  for (const int code : {301, 302, 307, 308}) {
    serve_answer(code,
                 fmt::format("Location: {}/x\r\nx-amz-bucket-region: eu-west-1\r\n", other.url()),
                 error_body("PermanentRedirect"));
    EXPECT_EQ(code_of(get(5, 10)), Code::kIo) << last_text_;
    EXPECT_NE(last_text_.find("region eu-west-1"), std::string::npos) << last_text_;
    EXPECT_EQ(code_of(put("x")), Code::kIo) << last_text_;
  }
  EXPECT_EQ(other.connections(), 0);
}

TEST_F(S3AnswersTest, AHeadNeedsLengthAndDate) {
  serve([](const Peer& peer, const Seen&) {
    return peer.send(fmt::format("HTTP/1.1 200 X\r\nContent-Length: 1234\r\n{}\r\n", kDate));
  });
  const ObjectAnswer answer = run(request(ObjectOp::kHead, "a/b"));
  ASSERT_TRUE(answer.status.is_ok()) << answer.status.text();
  EXPECT_EQ(answer.info.name, "a/b");
  EXPECT_EQ(answer.info.bytes, 1234U);
  EXPECT_EQ(answer.info.modified_seconds, 784111777);
  serve_answer(200, "", "");
  EXPECT_EQ(code_of(request(ObjectOp::kHead, "a")), Code::kIo);
  serve_bytes(fmt::format("HTTP/1.1 200 X\r\n{}\r\n", kDate));
  EXPECT_EQ(code_of(request(ObjectOp::kHead, "a")), Code::kIo);
}

// A deadline ends the transfer: the connection is gone, and nothing touches the memory any more.
TEST_F(S3AnswersTest, ADribbleEndsAtTheDeadline) {
  std::atomic<bool> is_gone{false};
  serve([&](const Peer& peer, const Seen&) {
    if (peer.send("HTTP/1.1 206 X\r\nContent-Length: 1000000\r\n" +
                  range_header("5-1000004/9999999") + "\r\n")) {
      peer.dribble("x");
    }
    is_gone = peer.is_gone(60'000);
    return false;
  });
  ObjectRequest made = get(5, 1'000'000);
  made.deadline = clock_.now() + milliseconds(150);
  EXPECT_EQ(code_of(made), Code::kDeadline) << last_text_;
  EXPECT_TRUE(testing::eventually([&] { return is_gone.load(); }));
  EXPECT_TRUE(guards_stand());
}

TEST_F(S3AnswersTest, ClosingGivesUpWhatIsUnderWay) {
  std::atomic<bool> is_asked{false};
  std::atomic<bool> is_gone{false};
  serve([&](const Peer& peer, const Seen&) {
    is_asked = true;
    is_gone = peer.is_gone(60'000);
    return false;
  });
  ASSERT_TRUE(store_->submit(get(5, 1'000'000)).is_ok());
  ASSERT_TRUE(testing::eventually([&] { return is_asked.load(); }));
  EXPECT_TRUE(store_->close(testing::kPatience));
  memory_.clear();
  memory_.shrink_to_fit();
  store_.reset();
  EXPECT_TRUE(testing::eventually([&] { return is_gone.load(); }));
}

TEST_F(S3AnswersTest, AServerThatSaysNothingEndsAtTheDeadlineAndTheNextRequestGoesOn) {
  std::atomic<int> count{0};
  serve([&](const Peer& peer, const Seen&) {
    if (count++ > 0) return peer.answer(206, range_header("5-14/100"), "0123456789");
    return !peer.is_gone(60'000);
  });
  ObjectRequest made = get(5, 10);
  made.deadline = clock_.now() + milliseconds(50);
  EXPECT_EQ(code_of(made), Code::kDeadline) << last_text_;
  EXPECT_EQ(get_ten(), Code::kOk) << last_text_;
}

TEST_F(S3AnswersTest, AStoreThatStallsIsUnavailable) {
  options_.stall_limit = seconds(1);
  serve([](const Peer& peer, const Seen&) { return !peer.is_gone(60'000); });
  EXPECT_EQ(get_ten(), Code::kUnavailable) << last_text_;
}

class S3ListTest : public S3AnswersTest {
 protected:
  static std::string object(const std::string& name) {
    return "<Contents><Key>" + name +
           "</Key><Size>3</Size>"
           "<LastModified>2009-10-12T17:50:30.000Z</LastModified></Contents>";
  }
  void serve_list(const std::string& inside) {
    serve_answer(200, "", "<ListBucketResult>" + inside + "</ListBucketResult>");
  }
  static std::string next(const std::string& token) {
    return "<IsTruncated>true</IsTruncated><NextContinuationToken>" + token +
           "</NextContinuationToken>";
  }
};

TEST_F(S3ListTest, NamesComeWithoutThePrefixAndStrangersAreLeftOut) {
  serve_list(next("to/ken=") + object("team/kv/a/b") + object("team/kv/Strange name") +
             object("team/kv/a/") + object("team/kv/a/../b") + object("team/kv/c"));
  const ObjectAnswer answer = run(request(ObjectOp::kList, ""));
  ASSERT_TRUE(answer.status.is_ok()) << answer.status.text();
  ASSERT_EQ(answer.found.size(), 2U);
  EXPECT_EQ(answer.found[0].name, "a/b");
  EXPECT_EQ(answer.found[1].name, "c");
  EXPECT_EQ(answer.next, "to/ken=");
  ObjectRequest more = request(ObjectOp::kList, "a/");
  more.after = "to/ken&x=1";
  EXPECT_EQ(code_of(more), Code::kIo);  // "c" does not begin so.
  const auto seen = server_->seen();
  EXPECT_EQ(seen.at(0).target,
            "/bucket/?encoding-type=url&list-type=2&max-keys=1000&prefix=team%2Fkv%2F");
  EXPECT_EQ(seen.at(1).target,
            "/bucket/?continuation-token=to%2Fken%26x%3D1&encoding-type=url&list-type=2&"
            "max-keys=1000&prefix=team%2Fkv%2Fa%2F");
}

TEST_F(S3ListTest, ListingsThatLieAreTheStoresFault) {
  serve_list(object("team/other"));
  EXPECT_EQ(code_of(request(ObjectOp::kList, "")), Code::kIo) << last_text_;
  serve_list("<IsTruncated>true</IsTruncated>");
  EXPECT_EQ(code_of(request(ObjectOp::kList, "")), Code::kIo) << last_text_;
  serve_list(next("same"));
  ObjectRequest again = request(ObjectOp::kList, "");
  again.after = "same";
  EXPECT_EQ(code_of(again), Code::kIo) << last_text_;
  serve_answer(200, "", "<html>garbage");
  EXPECT_EQ(code_of(request(ObjectOp::kList, "")), Code::kIo) << last_text_;
  serve_answer(200, "", "");
  EXPECT_EQ(code_of(request(ObjectOp::kList, "")), Code::kIo) << last_text_;
  serve([](const Peer& peer, const Seen&) {
    if (!peer.send("HTTP/1.1 200 X\r\n\r\n<ListBucketResult>")) return false;
    while (peer.send(std::string(10'000, ' '))) {
    }
    return false;
  });
  EXPECT_EQ(code_of(request(ObjectOp::kList, "")), Code::kIo) << last_text_;
}

TEST_F(S3ListTest, AListedObjectThatIsGoneIsNotFound) {
  serve([](const Peer& peer, const Seen& seen) {
    if (seen.target.starts_with("/bucket/?")) {
      return peer.answer(200, "",
                         "<ListBucketResult>" + object("team/kv/a/b") + "</ListBucketResult>");
    }
    return peer.answer(404, "", error_body("NoSuchKey"));
  });
  EXPECT_EQ(run(request(ObjectOp::kList, "")).found.size(), 1U);
  EXPECT_EQ(get_ten(), Code::kNotFound);
  for (const Counter& errors : store_->counters().errors) EXPECT_EQ(errors.value(), 0U);
}

}  // namespace
}  // namespace terrace::transfer
