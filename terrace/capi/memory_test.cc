// Each allocation of each call is refused once: the call fails alone or the owner is poisoned, the
// process lives, and no engine block ever has other bytes than its tokens say.
#include <gtest/gtest.h>
#include <signal.h>
#include <terrace/terrace.h>

#include <array>
#include <cstdlib>
#include <cstring>
#include <new>
#include <string>
#include <string_view>
#include <vector>

#include "terrace/testing/eventually.h"
#include "terrace/testing/scratch_directory.h"

namespace {
thread_local int allocations_left = -1;  // Of this thread, before one is refused; -1 = no limit.
}  // namespace

// Not inlined: the compiler would see free() meet another operator new than this one.
[[gnu::noinline]] void* operator new(std::size_t bytes) {
  if (allocations_left >= 0) {
    const bool is_refused = allocations_left == 0;
    --allocations_left;
    if (is_refused) throw std::bad_alloc();
  }
  if (void* const memory = std::malloc(bytes == 0 ? 1 : bytes); memory != nullptr) return memory;
  throw std::bad_alloc();
}
[[gnu::noinline]] void operator delete(void* memory) noexcept { std::free(memory); }
[[gnu::noinline]] void operator delete(void* memory, std::size_t) noexcept { std::free(memory); }

namespace terrace::capi {
namespace {

constexpr std::uint32_t kBlockTokens = 16;
constexpr std::uint32_t kDeviceBlocks = 16;
constexpr std::uint64_t kPiece = 512;

// What both kinds of test open an owner with. The options point into it and into `settings`.
class OwnerOptions {
 public:
  explicit OwnerOptions(const std::string& settings) {
    options_.struct_size = sizeof options_;
    options_.block_tokens = kBlockTokens;
    options_.rank_count = 1;
    options_.group_count = 1;
    options_.groups = &layout_;
    options_.engine_id = "memory";
    options_.settings_json = settings.c_str();
    options_.can_store = 1;
    options_.can_load = 1;
  }
  OwnerOptions(const OwnerOptions&) = delete;
  OwnerOptions& operator=(const OwnerOptions&) = delete;
  [[nodiscard]] const terrace_owner_options* get() const { return &options_; }

 private:
  const std::uint64_t pieces_[1] = {kPiece};
  const terrace_group_layout layout_ = {sizeof layout_, 1, pieces_, 0, 0, 0};
  terrace_owner_options options_ = {};
};

// An engine of one rank; one call of its choice finds no memory at one of its allocations.
class Engine {
 public:
  Engine() {
    settings_ = R"({"host.size":"1MiB","events.enabled":true,"planner.enabled":false,)"
                R"("attach.directory":")" +
                scratch_.path() + R"("})";
    const OwnerOptions options(settings_);
    EXPECT_EQ(terrace_open_owner(options.get(), &owner_), TERRACE_OK) << terrace_last_error();
    const terrace_region region = {sizeof region, 0, memory_.data(), kPiece, kPiece};
    const terrace_group_regions group = {sizeof group, 1, &region, kDeviceBlocks, 0, 1};
    const terrace_worker_options mine = {sizeof mine, 0,      1,        kBlockTokens,     1,
                                         0,           &group, "memory", settings_.c_str()};
    EXPECT_EQ(terrace_open_worker(&mine, &worker_), TERRACE_OK) << terrace_last_error();
  }
  Engine(const Engine&) = delete;
  Engine& operator=(const Engine&) = delete;
  ~Engine() {
    terrace_close_owner(owner_, 0);
    terrace_close_worker(worker_, 0);
  }

  // The next call of `function` finds no memory at its allocation number `number`.
  void refuse(std::string_view function, int number) {
    refused_ = function;
    number_ = number;
  }
  [[nodiscard]] bool has_refused() const { return has_refused_; }
  [[nodiscard]] terrace_code refused_code() const { return code_; }
  [[nodiscard]] bool is_poisoned() {
    terrace_bytes text = {};
    EXPECT_EQ(terrace_read_status(owner_, &text), TERRACE_OK);
    return std::string_view(reinterpret_cast<const char*>(text.data), text.length)
               .find("\"poisoned\":true") != std::string_view::npos;
  }

  // A whole request of `blocks` blocks; returns how many came from the cache. Whatever it leaves in
  // its device blocks is right, or the test fails.
  std::uint64_t run(std::uint32_t seed, std::uint32_t blocks) {
    std::vector<std::uint32_t> tokens(std::size_t{blocks} * kBlockTokens);
    for (std::size_t i = 0; i < tokens.size(); ++i)
      tokens[i] = seed * 1000 + static_cast<std::uint32_t>(i);
    terrace_request_options options = {};
    options.struct_size = sizeof options;
    options.tokens = tokens.data();
    options.token_count = tokens.size() - kBlockTokens;  // The last block comes with progress.
    const std::uint8_t salt = 1;
    const terrace_extra_key key = {sizeof key, 1, &salt, 1, 0, 0};
    options.extra_keys = &key;
    options.extra_key_count = 1;
    terrace_request request = 0;
    if (call("begin", [&] { return terrace_begin_request(owner_, &options, &request); }) != 0) {
      return 0;
    }
    const std::uint64_t external = look_up(request) / kBlockTokens;
    std::vector<std::uint32_t> table(blocks);
    for (std::uint32_t i = 0; i < blocks; ++i) table[i] = 1 + i;
    std::memset(memory_.data(), 0xEE, memory_.size());
    const std::uint32_t* const tables[] = {table.data()};
    const std::uint64_t counts[] = {blocks};
    const bool is_accepted =
        call("accept", [&] {
          return terrace_accept_load(owner_, request, 0, external * kBlockTokens, tables, counts);
        }) == TERRACE_OK;
    terrace_progress progress = {};
    progress.struct_size = sizeof progress;
    progress.request = request;
    progress.computed_tokens = tokens.size();
    progress.new_tokens = tokens.data() + options.token_count;
    progress.new_token_count = kBlockTokens;
    progress.blocks = tables;
    progress.block_counts = counts;
    // As an engine that knows: what it computes on blocks that were not accepted is not told.
    const auto advance = [&] { return terrace_advance_request(owner_, &progress); };
    if (is_accepted) (void)call("advance", advance);
    const std::uint64_t loaded = step(seed, external, blocks) && is_accepted ? external : 0;
    for (std::uint32_t i = 0; i < loaded; ++i) EXPECT_TRUE(has_content(seed, i)) << i;
    if (loaded < external) {  // Computed anew, and told again.
      for (std::uint32_t i = 0; i < blocks; ++i) compute(seed, i, true);
      progress.new_token_count = 0;
      (void)terrace_advance_request(owner_, &progress);
      (void)step(seed, 0, 0);
    }
    terrace_bytes text = {};
    (void)call("end", [&] { return terrace_end_request(owner_, request, &text); });
    (void)call("events", [&] { return terrace_take_events(owner_, &text); });
    (void)call("status", [&] { return terrace_read_status(owner_, &text); });
    (void)call("metrics", [&] { return terrace_read_metrics(owner_, &text); });
    (void)call("log", [&] { return terrace_read_log(owner_, &text); });
    return loaded;
  }

 private:
  template <typename Call>
  terrace_code call(std::string_view function, Call&& make) {
    if (function != refused_) return make();
    refused_ = {};
    allocations_left = number_;
    code_ = make();
    has_refused_ = allocations_left < 0;
    allocations_left = -1;
    return code_;
  }
  std::uint64_t look_up(terrace_request request) {
    std::uint64_t external = 0;
    EXPECT_TRUE(testing::eventually([&] {
      const auto poll = [&] {
        return terrace_poll_request(owner_, request, 0, UINT32_MAX, &external);
      };
      const bool is_answered = call("poll", poll) != TERRACE_UNAVAILABLE;
      if (!is_answered) (void)step(0, 0, 0);
      return is_answered;
    }));
    return external;
  }
  // Computes blocks [first, end) after the step's loads; false when one of those failed.
  bool step(std::uint32_t seed, std::uint64_t first, std::uint32_t end) {
    terrace_bytes orders = {};
    std::uint64_t failed_count = 0;
    std::array<std::uint32_t, kDeviceBlocks> failed = {};
    bool is_loaded =
        call("orders", [&] { return terrace_build_orders(owner_, &orders); }) == TERRACE_OK;
    if (!is_loaded) orders = {};
    if (orders.length > 0) {
      (void)call("canary", [&] { return terrace_run_canary(worker_, orders.data, orders.length); });
      is_loaded = call("loads", [&] {
                    return terrace_run_loads(worker_, orders.data, orders.length, failed.data(),
                                             failed.size(), &failed_count);
                  }) == TERRACE_OK;
    }
    is_loaded = is_loaded && failed_count == 0;
    for (auto i = static_cast<std::uint32_t>(first); i < end; ++i) compute(seed, i, is_loaded);
    if (orders.length > 0) {
      (void)call("saves", [&] { return terrace_run_saves(worker_, orders.data, orders.length); });
    }
    terrace_bytes report = {};
    if (call("report", [&] { return terrace_build_report(worker_, &report); }) == TERRACE_OK) {
      (void)call("take", [&] { return terrace_take_report(owner_, report.data, report.length); });
    }
    return is_loaded;
  }
  // What stands on blocks that were not loaded is wrong, too.
  void compute(std::uint32_t seed, std::uint32_t block, bool is_right) {
    std::memset(place(block), is_right ? content(seed, block) : 0xEE, kPiece);
  }
  bool has_content(std::uint32_t seed, std::uint32_t block) {
    for (std::uint64_t i = 0; i < kPiece; ++i) {
      if (place(block)[i] != content(seed, block)) return false;
    }
    return true;
  }
  std::uint8_t* place(std::uint32_t block) { return memory_.data() + (1 + block) * kPiece; }
  static std::uint8_t content(std::uint32_t seed, std::uint32_t block) {
    return static_cast<std::uint8_t>(seed * 16 + block + 1);
  }

  const testing::ScratchDirectory scratch_;
  std::string settings_;
  std::vector<std::uint8_t> memory_ = std::vector<std::uint8_t>(kPiece * kDeviceBlocks);
  terrace_owner* owner_ = nullptr;
  terrace_worker* worker_ = nullptr;
  std::string_view refused_;
  int number_ = 0;
  bool has_refused_ = false;
  terrace_code code_ = TERRACE_OK;
};

class MemoryTest : public ::testing::TestWithParam<const char*> {};

TEST_P(MemoryTest, EachAllocationOfACallMayBeRefused) {
  constexpr int kMost = 60;
  for (int number = 0; number < kMost; ++number) {
    SCOPED_TRACE(number);
    Engine engine;
    ASSERT_EQ(engine.run(1, 2), 0U);
    engine.refuse(GetParam(), number);
    (void)engine.run(1, 4);  // Loads two blocks and stores two more.
    if (!engine.has_refused()) return;
    EXPECT_NE(engine.refused_code(), TERRACE_OK);
    EXPECT_EQ(engine.is_poisoned(), engine.refused_code() == TERRACE_INTERNAL);
    (void)engine.run(1, 4);
    (void)engine.run(2, 3);
    EXPECT_EQ(engine.run(2, 3), engine.is_poisoned() ? 0U : 2U);  // Its prompt's blocks.
    if (HasFailure()) return;
  }
  FAIL() << "more than " << kMost << " allocations";
}

INSTANTIATE_TEST_SUITE_P(Calls, MemoryTest,
                         ::testing::Values("begin", "poll", "accept", "advance", "orders", "loads",
                                           "saves", "report", "take", "end", "events", "log"));

// Before anything changes, want of memory is no reason to do without the cache.
class FirstAllocationTest : public ::testing::TestWithParam<const char*> {};

TEST_P(FirstAllocationTest, FailsTheCallAlone) {
  Engine engine;
  ASSERT_EQ(engine.run(1, 2), 0U);
  engine.refuse(GetParam(), 0);
  (void)engine.run(1, 4);
  ASSERT_TRUE(engine.has_refused());
  EXPECT_EQ(engine.refused_code(), TERRACE_EXHAUSTED);
  EXPECT_FALSE(engine.is_poisoned());
}

INSTANTIATE_TEST_SUITE_P(Calls, FirstAllocationTest,
                         ::testing::Values("begin", "accept", "advance", "loads", "saves", "take",
                                           "status", "metrics"));

TEST(OpeningMemoryTest, WhoeverFindsNoMemoryToOpenOpensNothingAndCanTryAgain) {
  const testing::ScratchDirectory scratch;
  const std::string settings =
      R"({"host.size":"1MiB","attach.directory":")" + scratch.path() + R"("})";
  const OwnerOptions options(settings);
  sigset_t before = {};
  pthread_sigmask(SIG_SETMASK, nullptr, &before);
  terrace_owner* owner = nullptr;
  int refused = 0;
  for (;; ++refused) {
    allocations_left = refused;
    const terrace_code code = terrace_open_owner(options.get(), &owner);
    const bool is_over = allocations_left >= 0;
    allocations_left = -1;
    if (is_over) break;
    ASSERT_EQ(code, TERRACE_EXHAUSTED) << refused << ": " << terrace_last_error();
    ASSERT_EQ(owner, nullptr);
    sigset_t after = {};
    pthread_sigmask(SIG_SETMASK, nullptr, &after);
    ASSERT_EQ(std::memcmp(&before, &after, sizeof before), 0) << refused;
  }
  EXPECT_NE(owner, nullptr);
  EXPECT_GT(refused, 20);
  terrace_close_owner(owner, 0);
}

}  // namespace
}  // namespace terrace::capi
