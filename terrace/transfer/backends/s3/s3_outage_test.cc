// A real server that is killed under load and comes back. tests/integration/s3 kills it when this
// says "under load", and starts it again when this says "away".
#include <fmt/format.h>

#include <set>

#include "terrace/base/rng.h"
#include "terrace/testing/eventually.h"
#include "terrace/testing/memory_log.h"
#include "terrace/transfer/backends/s3/s3_server_rig.h"

namespace terrace::transfer {
namespace {

constexpr std::size_t kBytes = 1U << 20U;
constexpr unsigned kDepth = 8;

void say(const char* line) {
  (void)std::puts(line);
  (void)std::fflush(stdout);
}

class S3OutageTest : public ::testing::Test {
 protected:
  void SetUp() override {
    S3Options options = real_server();
    options.prefix = "outage";
    options.depth = kDepth;
    auto store = make_s3_store(options, clock_, log_);
    ASSERT_TRUE(store.has_value()) << store.error().text();
    store_ = *std::move(store);
    Rng rng(1);
    for (auto& memory : memory_) {
      memory.resize(kBytes);
      for (std::byte& byte : memory) byte = static_cast<std::byte>(rng.next());
    }
    read_.resize(kDepth, std::vector<std::byte>(kBytes));
  }

  // Puts of ever new names; each object that was put is read back and compared.
  void send(unsigned place) {
    ObjectRequest request;
    request.token = place;
    request.deadline = clock_.now() + seconds(2);
    if (reads_[place]) {
      request.op = ObjectOp::kGet;
      request.pieces = {{read_[place].data(), kBytes}};
    } else {
      names_[place] = fmt::format("{}", number_++);
      request.op = ObjectOp::kPut;
      request.pieces = {{memory_[place].data(), kBytes}};
    }
    request.name = names_[place];
    ASSERT_TRUE(store_->submit(request).is_ok());
  }

  void take(const ObjectAnswer& answer) {
    const auto place = static_cast<unsigned>(answer.token);
    const Code code = answer.status.code();
    if (answer.status.is_ok()) {
      ++ok_in_a_row_;
      EXPECT_TRUE(!reads_[place] || read_[place] == memory_[place]);
      reads_[place] = !reads_[place];
    } else {
      ok_in_a_row_ = 0;
      ++failures_;
      // A put whose answer got lost may have been done, in part it never is: a get tells.
      EXPECT_TRUE(code == Code::kUnavailable || code == Code::kDeadline || code == Code::kNotFound)
          << answer.status.text();
      EXPECT_TRUE(code != Code::kNotFound || reads_[place]) << answer.status.text();
      reads_[place] = false;
    }
    EXPECT_LE(answer.status.message().size(), 600U);
  }

  // Keeps all places busy until `is_enough`.
  void load_until(const std::function<bool()>& is_enough) {
    EXPECT_TRUE(testing::eventually([&] {
      for (unsigned place = 0; place < kDepth; ++place) {
        if (busy_.insert(place).second) send(place);
      }
      store_->wait(milliseconds(100));
      std::vector<ObjectAnswer> answers;
      store_->poll(answers);
      for (const ObjectAnswer& answer : answers) {
        take(answer);
        busy_.erase(static_cast<unsigned>(answer.token));
      }
      return is_enough();
    }));
  }

  SystemClock clock_;
  testing::MemoryLog log_;
  std::array<std::vector<std::byte>, kDepth> memory_;
  std::vector<std::vector<std::byte>> read_;
  std::unique_ptr<ObjectStore> store_;  // Ends before its requests' memory.
  std::array<bool, kDepth> reads_{};
  std::array<std::string, kDepth> names_;
  std::set<unsigned> busy_;
  int number_ = 0;
  int ok_in_a_row_ = 0;
  int failures_ = 0;
};

TEST_F(S3OutageTest, RequestsEndWhileTheServerIsAwayAndWorkOnceItIsBack) {
  load_until([&] { return ok_in_a_row_ >= 32; });
  say("under load");
  load_until([&] { return failures_ >= 2 * static_cast<int>(kDepth); });
  say("away");
  load_until([&] { return ok_in_a_row_ >= 64; });
}

}  // namespace
}  // namespace terrace::transfer

int main(int argc, char** argv) { return terrace::transfer::run_with_real_server(argc, argv); }
