// The contract of object stores against a real server (s3_server_rig.h).
#include <fmt/format.h>

#include <atomic>

#include "contract/object_store_contract.h"
#include "terrace/testing/memory_log.h"
#include "terrace/transfer/backends/s3/s3_server_rig.h"

namespace terrace::transfer {
namespace {

class S3Place final : public ObjectPlace {
 public:
  explicit S3Place(bool signs_payload) : options_(real_server()) {
    static std::atomic<int> number{0};
    options_.prefix = fmt::format("contract/{}", number++);
    options_.signs_payload = signs_payload;
  }
  std::unique_ptr<ObjectStore> open(unsigned depth) override {
    options_.depth = depth;
    auto store = make_s3_store(options_, clock_, log_);
    if (!store) ADD_FAILURE() << store.error().text();
    return store ? *std::move(store) : nullptr;
  }

 private:
  S3Options options_;
  SystemClock clock_;
  testing::MemoryLog log_;
};

INSTANTIATE_TEST_SUITE_P(
    S3, ObjectStoreContract,
    ::testing::Values(
        ObjectPlaceMaker{"SignedPayload", [] { return std::make_unique<S3Place>(true); }},
        ObjectPlaceMaker{"UnsignedPayload", [] { return std::make_unique<S3Place>(false); }}),
    object_store_name);

class S3RealServerTest : public ::testing::Test {
 protected:
  // What a head of an object that is not there says.
  static Status ask(const S3Options& options) {
    const SystemClock clock;
    testing::MemoryLog log;
    const auto store = make_s3_store(options, clock, log);
    if (!store) return store.error();
    ObjectRequest request;
    request.name = "absent";
    if (Status status = (*store)->submit(request); !status.is_ok()) return status;
    std::vector<ObjectAnswer> answers;
    EXPECT_TRUE(testing::eventually([&] {
      (*store)->wait(milliseconds(50));
      (*store)->poll(answers);
      return !answers.empty();
    }));
    return answers.empty() ? Status() : answers.front().status;
  }
};

TEST_F(S3RealServerTest, KeysThatAreWrongAreRefused) {
  S3Options options = real_server();
  EXPECT_EQ(ask(options).code(), Code::kNotFound) << ask(options).text();
  options.credentials.secret_key += "x";
  EXPECT_EQ(ask(options).code(), Code::kRefused) << ask(options).text();
  options.credentials.key_id = "nobody";
  EXPECT_EQ(ask(options).code(), Code::kRefused) << ask(options).text();
}

TEST_F(S3RealServerTest, ACertificateThatNobodyVouchesForIsRefused) {
  S3Options options = real_server();
  if (options.ca_file.empty()) {  // Without TLS: its server does not answer to it.
    options.endpoint.insert(4, "s");
    EXPECT_EQ(ask(options).code(), Code::kUnavailable) << ask(options).text();
    return;
  }
  options.ca_file.clear();
  EXPECT_EQ(ask(options).code(), Code::kRefused) << ask(options).text();
  options.ca_file = "/nowhere/ca.pem";
  EXPECT_EQ(ask(options).code(), Code::kRefused) << ask(options).text();
  // The name counts, too: the certificate is for the address.
  options.ca_file = real_server().ca_file;
  options.endpoint.replace(options.endpoint.find("127.0.0.1"), 9, "localhost");
  EXPECT_EQ(ask(options).code(), Code::kRefused) << ask(options).text();
}

}  // namespace
}  // namespace terrace::transfer

int main(int argc, char** argv) { return terrace::transfer::run_with_real_server(argc, argv); }
