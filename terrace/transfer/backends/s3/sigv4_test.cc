// Expected values are published by AWS: those named "s3" in "Authenticating Requests: Using the
// Authorization Header" of the S3 API reference (sig-v4-header-based-auth), the others in the
// Signature Version 4 test suite (aws-sig-v4-test-suite, Apache-2.0).
#include <gtest/gtest.h>

#include "terrace/transfer/backends/s3/digest_internal.h"
#include "terrace/transfer/backends/s3/sigv4_internal.h"

namespace terrace::transfer::s3 {
namespace {

constexpr std::string_view kEmptyHash =
    "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

struct Vector {
  std::string name;
  SigningInput input;
  std::string canonical_hash;  // Empty: not published.
  std::string signature;
};

void PrintTo(const Vector& vector, std::ostream* out) { *out << vector.name; }
std::string vector_name(const ::testing::TestParamInfo<Vector>& info) { return info.param.name; }

SigningInput s3_input(std::string method, std::string path, std::vector<TextPair> query,
                      std::vector<TextPair> more,
                      const std::string& hash = std::string(kEmptyHash)) {
  SigningInput input{std::move(method), std::move(path), std::move(query), std::move(more), hash};
  input.headers.emplace_back("x-amz-content-sha256", hash);
  input.headers.emplace_back("Host", "examplebucket.s3.amazonaws.com");
  input.headers.emplace_back("x-amz-date", "20130524T000000Z");
  return input;
}

SigningInput suite_input(std::string method, std::string path, std::vector<TextPair> query,
                         std::vector<TextPair> more) {
  SigningInput input{std::move(method), std::move(path), std::move(query), std::move(more),
                     std::string(kEmptyHash)};
  input.headers.emplace_back("X-Amz-Date", "20150830T123600Z");
  input.headers.emplace_back("Host", "example.amazonaws.com");
  return input;
}

std::string signature_of(const std::string& header) {
  return header.substr(header.find("Signature=") + 10);
}

class S3ExampleTest : public ::testing::TestWithParam<Vector> {};

TEST_P(S3ExampleTest, IsSignedAsPublished) {
  const SigningScope scope{"20130524T000000Z", "us-east-1"};
  const S3Credentials example{"AKIAIOSFODNN7EXAMPLE", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
                              ""};
  const Vector& vector = GetParam();
  EXPECT_EQ(sha256_hex(canonical_request(vector.input)), vector.canonical_hash);
  const std::string header = authorization(vector.input, scope, example);
  EXPECT_EQ(signature_of(header), vector.signature);
  EXPECT_TRUE(
      header.starts_with("AWS4-HMAC-SHA256 Credential=AKIAIOSFODNN7EXAMPLE/20130524/"
                         "us-east-1/s3/aws4_request, SignedHeaders="))
      << header;
}

INSTANTIATE_TEST_SUITE_P(
    Published, S3ExampleTest,
    ::testing::Values(Vector{"s3_get_range",
                             s3_input("GET", "/test.txt", {}, {{"Range", "bytes=0-9"}}),
                             "7344ae5b7ee6c3e7e6b0fe0640412a37625d1fbfff95c48bbb2dc43964946972",
                             "f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41"},
                      Vector{"s3_put",
                             s3_input("PUT", "/test$file.text", {},
                                      {{"Date", "Fri, 24 May 2013 00:00:00 GMT"},
                                       {"x-amz-storage-class", "REDUCED_REDUNDANCY"}},
                                      sha256_hex("Welcome to Amazon S3.")),
                             "9e0e90d9c76de8fa5b200d8c849cd5b8dc7a3be3951ddb7f6a76b4158342019d",
                             "98ad721746da40c64f1a55b78f14c238d841ea1380cd77a1b5971af0ece108bd"},
                      Vector{"s3_lifecycle", s3_input("GET", "/", {{"lifecycle", ""}}, {}),
                             "9766c798316ff2757b517bc739a67f6213b4ab36dd5da2f94eaebf79c77395ca",
                             "fea454ca298b7da1c68078a5d1bdbfbbe0d65c699e0f91ac7a200a0136783543"},
                      Vector{"s3_list",
                             s3_input("GET", "/", {{"prefix", "J"}, {"max-keys", "2"}}, {}),
                             "df57d21db20da04d7fa30298dd4488ba3a2b47ca3a489c74750e0f1e7df1b9b7",
                             "34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7"}),
    vector_name);

class SignatureSuiteTest : public ::testing::TestWithParam<Vector> {};

TEST_P(SignatureSuiteTest, IsSignedAsPublished) {
  const SigningScope scope{"20150830T123600Z", "us-east-1", "service"};
  const S3Credentials example{"AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY", ""};
  EXPECT_EQ(signature_of(authorization(GetParam().input, scope, example)), GetParam().signature)
      << canonical_request(GetParam().input);
}

const std::string kUnreserved =
    "-._~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

INSTANTIATE_TEST_SUITE_P(
    Published, SignatureSuiteTest,
    ::testing::Values(
        Vector{"get_vanilla", suite_input("GET", "/", {}, {}), "",
               "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31"},
        Vector{"get_vanilla_query_order_key_case",
               suite_input("GET", "/", {{"Param2", "value2"}, {"Param1", "value1"}}, {}), "",
               "b97d918cfa904a5beff61c982a1b6f458b799221646efd99d3219ec94cdf2500"},
        Vector{"get_vanilla_query_unreserved",
               suite_input("GET", "/", {{kUnreserved, kUnreserved}}, {}), "",
               "9c3e54bfcdf0b19771a7f523ee5669cdf59bc7cc0884027167c21bb143a40197"},
        Vector{"post_vanilla_query", suite_input("POST", "/", {{"Param1", "value1"}}, {}), "",
               "28038455d6de14eafc1f9222cf5aa6f1a96197d7deb8263271d420d138af7f11"},
        Vector{"get_utf8", suite_input("GET", "/\xe1\x88\xb4", {}, {}), "",
               "8318018e0b0f223aa2bbf98705b62bb787dc9c0e678f255a891fd03141be5d85"},
        Vector{"get_space", suite_input("GET", "/example space/", {}, {}), "",
               "652487583200325589f1fba4c7e578f72c47cb61beeca81406b39ddec1366741"},
        Vector{"get_header_value_trim",
               suite_input("GET", "/", {},
                           {{"My-Header1", " value1"}, {"My-Header2", " \"a   b   c\""}}),
               "", "acc3ed3afb60bb290fc8d2dd0098b9911fcaa05412b367055dee359757a9c736"},
        Vector{"get_header_key_duplicate",
               suite_input(
                   "GET", "/", {},
                   {{"My-Header1", "value2"}, {"My-Header1", "value2"}, {"My-Header1", "value1"}}),
               "", "c9d5ea9f3f72853aea855b47ea873832890dbdd183b4468f858259531a5138ea"},
        Vector{"post_sts_header_before",
               suite_input("POST", "/", {},
                           {{"X-Amz-Security-Token",
                             "AQoDYXdzEPT//////////"
                             "wEXAMPLEtc764bNrC9SAPBSM22wDOk4x4HIZ8j4FZTwdQWLWsKWHGBuFqwAeMicRXmxf"
                             "pSPfIeoIYRqTflfKD8YUuwthAx7mSEI/qkPpKPi/"
                             "kMcGdQrmGdeehM4IC1NtBmUpp2wUE8phUZampKsburEDy0KPkyQDYwT7WZ0wq5VSXDvp"
                             "75YU9HFvlRd8Tx6q6fE8YQcHNVXAkiY9q6d+xo0rKwT38xVqr7ZD0u0iPPkUL64lIZbq"
                             "BAz+scqKmlzm8FDrypNC9Yjc8fPOLn9FX9KSYvKTr4rvx3iSIlTJabIQwj2ICCR/"
                             "oLxBA=="}}),
               "", "85d96828115b5dc0cfc3bd16ad9e210dd772bbebba041836c64533a82be05ead"}),
    vector_name);

TEST(SigV4Test, DatesAreInUniversalTime) {
  EXPECT_EQ(amz_date(1369353600), "20130524T000000Z");
  EXPECT_EQ(amz_date(1440938160), "20150830T123600Z");
  EXPECT_EQ(amz_date(951827696), "20000229T123456Z");
}

// RFC 4231, cases 1, 2 and 6 (a key longer than a block).
TEST(DigestTest, HmacIsAsPublished) {
  const auto mac = [](std::string_view key, std::string_view message) {
    return hex(
        hmac_sha256({reinterpret_cast<const unsigned char*>(key.data()), key.size()}, message));
  };
  EXPECT_EQ(mac(std::string(20, '\x0b'), "Hi There"),
            "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7");
  EXPECT_EQ(mac("Jefe", "what do ya want for nothing?"),
            "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843");
  EXPECT_EQ(mac(std::string(131, '\xaa'), "Test Using Larger Than Block-Size Key - Hash Key First"),
            "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54");
}

// RFC 3720, B.4, and the check value of the polynomial; in one piece and in two.
TEST(DigestTest, Crc32cIsAsPublished) {
  const auto sum = [](std::string_view text, std::size_t cut) {
    const auto bytes = std::as_bytes(std::span(text));
    return crc32c(crc32c(0, bytes.first(cut)), bytes.subspan(cut));
  };
  EXPECT_EQ(sum("123456789", 0), 0xe3069283U);
  EXPECT_EQ(sum("123456789", 4), 0xe3069283U);
  EXPECT_EQ(sum(std::string(32, '\0'), 9), 0x8a9136aaU);
  EXPECT_EQ(sum(std::string(32, '\xff'), 31), 0x62a8ab43U);
  EXPECT_EQ(crc32c_base64(0xe3069283U), "4waSgw==");
  EXPECT_EQ(crc32c_base64(0), "AAAAAA==");
}

}  // namespace
}  // namespace terrace::transfer::s3
