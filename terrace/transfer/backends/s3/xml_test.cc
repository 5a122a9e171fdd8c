#include <gtest/gtest.h>

#include "terrace/base/rng.h"
#include "terrace/transfer/backends/s3/xml_internal.h"

namespace terrace::transfer::s3 {
namespace {

std::string object(const std::string& name) {
  return "<Contents><Key>" + name +
         "</Key><LastModified>2009-10-12T17:50:30.000Z</LastModified><ETag>&quot;x&quot;</ETag>"
         "<Size>434234</Size><Owner><ID>1</ID></Owner></Contents>";
}
std::string listing(const std::string& inside) {
  return "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n"
         "<ListBucketResult xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\"><Name>b</Name>" +
         inside + "</ListBucketResult>";
}
Code code_of(const std::string& xml) {
  const auto page = parse_list(xml);
  return page ? Code::kOk : page.error().code();
}

TEST(S3XmlTest, APageHasNamesLengthsDatesAndWhereItGoesOn) {
  const auto page =
      parse_list(listing("<EncodingType>url</EncodingType><IsTruncated>true</IsTruncated>"
                         "<NextContinuationToken>1ue&#x2F;G+=</NextContinuationToken><Prefix/>" +
                         object("a/b%2Fc") + "\n  " + object("x+y%26&amp;z")));
  ASSERT_TRUE(page.has_value()) << page.error().text();
  ASSERT_EQ(page->found.size(), 2U);
  EXPECT_EQ(page->found[0].name, "a/b/c");
  EXPECT_EQ(page->found[0].bytes, 434234U);
  EXPECT_EQ(page->found[0].modified_seconds, 1255369830);
  EXPECT_EQ(page->found[1].name, "x y&&z");
  EXPECT_EQ(page->next, "1ue/G+=");
}

TEST(S3XmlTest, NamesAreDecodedOnlyWhereTheAnswerSaysSo) {
  const auto page = parse_list(listing("<IsTruncated>false</IsTruncated>" + object("a%2Fb+c")));
  ASSERT_TRUE(page.has_value());
  EXPECT_EQ(page->found[0].name, "a%2Fb+c");
  EXPECT_TRUE(page->next.empty());
}

TEST(S3XmlTest, ThePageAfterTheLastIsNone) {
  const auto page = parse_list(
      listing("<IsTruncated>false</IsTruncated><NextContinuationToken>x</NextContinuationToken>"));
  ASSERT_TRUE(page.has_value());
  EXPECT_TRUE(page->next.empty());
}

TEST(S3XmlTest, AnswersThatAreNoListingAreCorrupt) {
  const std::string good = listing(object("a"));
  ASSERT_EQ(code_of(good), Code::kOk);
  for (std::size_t cut = 0; cut + 1 < good.size(); ++cut) {
    EXPECT_EQ(code_of(good.substr(0, cut)), Code::kCorrupt) << cut;
  }
  const std::vector<std::string> bad = {
      "",
      "garbage",
      "<html><body>502</body></html>",
      good + good,
      good + "x",
      listing("<IsTruncated>perhaps</IsTruncated>"),
      listing("<IsTruncated>true</IsTruncated>"),
      listing("<Contents><Key>a</Key></Contents>"),
      listing("<Contents></Contents>"),
      listing("<Contents><Key>a</Key></Contents2>"),
      listing("<Contents><Key>a</Contents></Key>"),
      listing("</ListBucketResult><ListBucketResult>"),
      listing("<EncodingType>url</EncodingType>" + object("a%2")),
      listing("<EncodingType>url</EncodingType>" + object("a%zz")),
      listing("<Contents><Key>a</Key><Size>-1</Size></Contents>"),
      listing("<Contents><Key>a</Key><Size>99999999999999999999</Size></Contents>"),
      listing("<Contents><LastModified>yesterday</LastModified></Contents>"),
      listing("<Contents><LastModified>2009-13-12T17:50:30.000Z</LastModified></Contents>"),
      listing("<!-- x -->"),
      listing("<![CDATA[x]]>"),
      listing("<?php ?>"),
      listing("&xxe;"),
      listing("&#0;"),
      listing("&#128;"),
      listing("&#xFFFFFFFF;"),
      listing("&"),
      listing("<a b=\"<\""),
      listing("<a <b>>"),
      listing("<>"),
      listing("</>"),
      listing("<\xff>"),
      "<!DOCTYPE x [<!ENTITY a \"b\">]>" + good,
      "<!DOCTYPE x SYSTEM \"file:///etc/passwd\">" + good,
  };
  for (const std::string& xml : bad) EXPECT_EQ(code_of(xml), Code::kCorrupt) << xml;
}

TEST(S3XmlTest, WhatIsTooMuchIsCorrupt) {
  std::string many;
  for (int i = 0; i < 1000; ++i) many += object("n");
  EXPECT_EQ(code_of(listing(many)), Code::kOk);
  EXPECT_EQ(code_of(listing(many + object("n"))), Code::kCorrupt);
  EXPECT_EQ(code_of(listing(object(std::string(4096, 'a')))), Code::kOk);
  EXPECT_EQ(code_of(listing(object(std::string(4097, 'a')))), Code::kCorrupt);
  EXPECT_EQ(code_of(listing("<a x='" + std::string(600, 'a') + "'/>")), Code::kCorrupt);
  std::string deep;
  for (int i = 0; i < 100'000; ++i) deep += "<a>";
  EXPECT_EQ(code_of(listing(deep)), Code::kCorrupt);
}

// Whatever bytes come, the answer is a page or an error.
TEST(S3XmlTest, DamagedAnswersDoNoHarm) {
  const std::string good = listing(
      "<EncodingType>url</EncodingType><IsTruncated>true</IsTruncated>"
      "<NextContinuationToken>t</NextContinuationToken>" +
      object("a/%2Fb") + object("&lt;"));
  Rng rng(7);
  for (int round = 0; round < 20'000; ++round) {
    std::string damaged = good;
    for (std::uint64_t i = 0; i <= rng.next() % 4; ++i) {
      damaged[rng.next() % damaged.size()] = static_cast<char>(rng.next());
    }
    const auto page = parse_list(damaged);
    EXPECT_TRUE(page || page.error().code() == Code::kCorrupt);
    (void)parse_error(damaged);
  }
}

TEST(S3XmlTest, AnErrorHasACodeAndAMessage) {
  const ErrorText error = parse_error(
      "<?xml version=\"1.0\"?><Error><Code>SlowDown</Code><Message>Reduce &amp; wait\n\x01"
      "</Message><RequestId>4</RequestId></Error>");
  EXPECT_EQ(error.code, "SlowDown");
  EXPECT_EQ(error.message, "Reduce & wait??");
  EXPECT_EQ(parse_error("<html>").code, "");
  EXPECT_EQ(parse_error("<Error><Code>a b;\"</Code></Error>").code, "");
}

TEST(S3XmlTest, DatesOfHeaders) {
  EXPECT_EQ(parse_http_date("Sun, 06 Nov 1994 08:49:37 GMT").value(), 784111777);
  for (const char* text : {"", "Sun, 06 Nov 1994 08:49:37", "Sun, 06 Foo 1994 08:49:37 GMT",
                           "Sun, 06 Nov 1994 25:49:37 GMT", "Sunday, 06-Nov-94 08:49:37 GMT"}) {
    EXPECT_FALSE(parse_http_date(text).has_value()) << text;
  }
}

}  // namespace
}  // namespace terrace::transfer::s3
