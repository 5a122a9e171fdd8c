// A store that talks to a scripted server, for tests.
// Threading: tests only.
#pragma once

#include <gtest/gtest.h>

#include <memory>
#include <optional>

#include "terrace/testing/eventually.h"
#include "terrace/testing/memory_log.h"
#include "terrace/transfer/backends/s3/http_script_rig.h"
#include "terrace/transfer/backends/s3/s3_store.h"

namespace terrace::transfer {

class S3Rig : public ::testing::Test {
 protected:
  using Peer = testing::HttpPeer;
  using Seen = testing::SeenRequest;
  static constexpr std::byte kGuard{0xa5};

  // Each request of any connection is answered by `answer`.
  void serve(testing::HttpScript::Answer answer) {
    store_.reset();
    server_ = std::make_unique<testing::HttpScript>(std::move(answer));
    options_.endpoint = server_->url();
    open();
  }
  void open() {
    auto store = make_s3_store(options_, clock_, log_);
    ASSERT_TRUE(store.has_value()) << store.error().text();
    store_ = *std::move(store);
  }

  static ObjectRequest request(ObjectOp op, std::string name) {
    ObjectRequest made;
    made.op = op;
    made.name = std::move(name);
    return made;
  }
  // A get of `length` bytes into two pieces with guards around each.
  ObjectRequest get(std::uint64_t offset, std::size_t length) {
    memory_.assign(length + 48, kGuard);
    first_ = length / 3;
    ObjectRequest made = request(ObjectOp::kGet, "a/b");
    made.offset = offset;
    made.pieces = {{memory_.data() + 16, first_}, {memory_.data() + 32 + first_, length - first_}};
    return made;
  }
  [[nodiscard]] std::string got() const {
    const auto* bytes = reinterpret_cast<const char*>(memory_.data());
    return std::string(bytes + 16, first_) +
           std::string(bytes + 32 + first_, memory_.size() - 48 - first_);
  }
  [[nodiscard]] bool guards_stand() const {
    for (std::size_t i = 0; i < 16; ++i) {
      if (memory_[i] != kGuard || memory_[16 + first_ + i] != kGuard ||
          memory_[memory_.size() - 16 + i] != kGuard) {
        return false;
      }
    }
    return true;
  }
  ObjectRequest put(std::string content) {
    content_ = std::move(content);
    auto* bytes = reinterpret_cast<std::byte*>(content_.data());
    const std::size_t half = content_.size() / 2;
    ObjectRequest made = request(ObjectOp::kPut, "a/b");
    made.pieces = {{bytes, half}, {bytes + half, content_.size() - half}};
    return made;
  }

  ObjectAnswer run(ObjectRequest made) {
    std::vector<ObjectAnswer> answers;
    ObjectAnswer refused;
    refused.status = store_->submit(std::move(made));
    if (!refused.status.is_ok()) return refused;
    EXPECT_TRUE(testing::eventually([&] {
      store_->wait(milliseconds(20));
      store_->poll(answers);
      return !answers.empty();
    }));
    EXPECT_EQ(answers.size(), 1U);
    EXPECT_EQ(store_->in_flight(), 0U);
    // Whatever happens, secrets stay ours.
    const std::string told = answers.at(0).status.message() + log_.text();
    EXPECT_EQ(told.find(options_.credentials.secret_key), std::string::npos) << told;
    EXPECT_EQ(told.find("Signature="), std::string::npos) << told;
    if (!options_.credentials.session_token.empty()) {
      EXPECT_EQ(told.find(options_.credentials.session_token), std::string::npos) << told;
    }
    return answers.at(0);
  }
  Code code_of(ObjectRequest made) {
    const ObjectAnswer answer = run(std::move(made));
    last_text_ = answer.status.text();
    return answer.status.code();
  }

  static std::string error_body(const std::string& code) {
    return "<Error><Code>" + code + "</Code><Message>m</Message></Error>";
  }

  SystemClock clock_;
  testing::MemoryLog log_;
  S3Options options_ = [] {
    S3Options options;
    options.bucket = "bucket";
    options.prefix = "team/kv";
    options.credentials = {"KEYID", "the-secret", "the-token"};
    options.depth = 8;
    return options;
  }();
  std::vector<std::byte> memory_;
  std::size_t first_ = 0;
  std::string content_;
  std::string last_text_;
  std::unique_ptr<testing::HttpScript> server_;
  std::unique_ptr<ObjectStore> store_;
};

}  // namespace terrace::transfer
