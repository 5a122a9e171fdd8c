// A fault thrown inside each C function: it comes out as a code, poisons where the caller has a
// handle, and is never seen by the caller's process. The table is complete or the test fails.
#include <gtest/gtest.h>
#include <terrace/terrace.h>

#include <algorithm>
#include <array>
#include <fstream>
#include <functional>
#include <new>
#include <set>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

#include "terrace/base/check.h"
#include "terrace/base/sync_point.h"
#include "terrace/testing/scratch_directory.h"

namespace {
thread_local std::function<void()> fault;  // Of this thread's next call.
thread_local int faults_thrown = 0;
}  // namespace

namespace terrace::base {
void pass_fault_point() {
  if (!fault) return;
  ++faults_thrown;
  std::exchange(fault, {})();
}
}  // namespace terrace::base

namespace terrace::capi {
namespace {

constexpr std::uint64_t kPiece = 512;
constexpr std::uint64_t kBlocks = 8;

// An owner and a worker, and room for whatever a call answers.
class Engine {
 public:
  Engine() {
    owner_options.struct_size = sizeof owner_options;
    owner_options.block_tokens = 16;
    owner_options.rank_count = 1;
    owner_options.group_count = 1;
    owner_options.groups = &layout_;
    owner_options.engine_id = "faults";
    owner_options.settings_json = settings_.c_str();
    owner_options.can_store = 1;
    owner_options.can_load = 1;
    EXPECT_EQ(terrace_open_owner(&owner_options, &owner), TERRACE_OK) << terrace_last_error();
    worker_options = {sizeof worker_options, 0, 1, 16, 1, 0, &regions_, "faults",
                      settings_.c_str()};
    EXPECT_EQ(terrace_open_worker(&worker_options, &worker), TERRACE_OK) << terrace_last_error();
    request_options.struct_size = sizeof request_options;
    request_options.tokens = tokens.data();
    request_options.token_count = tokens.size();
    EXPECT_EQ(terrace_begin_request(owner, &request_options, &request), TERRACE_OK);
    hints.struct_size = sizeof hints;
    progress.struct_size = sizeof progress;
    progress.request = request;
    progress.blocks = tables;
    progress.block_counts = counts;
  }
  Engine(const Engine&) = delete;
  Engine& operator=(const Engine&) = delete;
  ~Engine() {
    terrace_close_owner(owner, 0);
    terrace_close_worker(worker, 0);
    terrace_close_owner(other_owner, 0);
    terrace_close_worker(other_worker, 0);
  }
  [[nodiscard]] bool is_owner_poisoned() { return is_poisoned(terrace_read_status(owner, &text)); }
  [[nodiscard]] bool is_worker_poisoned() {
    return is_poisoned(terrace_read_worker_status(worker, &text));
  }

  terrace_owner* owner = nullptr;
  terrace_worker* worker = nullptr;
  terrace_owner* other_owner = nullptr;
  terrace_worker* other_worker = nullptr;
  terrace_owner_options owner_options = {};
  terrace_worker_options worker_options = {};
  terrace_request_options request_options = {};
  terrace_progress progress = {};
  terrace_hints hints = {};
  terrace_request request = 0;
  std::array<std::uint32_t, 32> tokens = {};
  const std::uint32_t* const tables[1] = {tokens.data()};
  const std::uint64_t counts[1] = {1};
  std::uint64_t number = 0;
  std::array<std::uint32_t, kBlocks> failed = {};
  std::array<std::uint8_t, 64> bytes = {};
  std::array<char, 65> digest = {};
  terrace_bytes text = {};

 private:
  [[nodiscard]] bool is_poisoned(terrace_code code) const {
    EXPECT_EQ(code, TERRACE_OK) << terrace_last_error();
    return std::string_view(reinterpret_cast<const char*>(text.data), text.length)
               .find("\"poisoned\":true") != std::string_view::npos;
  }
  const testing::ScratchDirectory scratch_;
  const std::string settings_ =
      R"({"host.size":"1MiB","admin.enabled":false,"attach.directory":")" + scratch_.path() +
      R"("})";
  const std::uint64_t pieces_[1] = {kPiece};
  const terrace_group_layout layout_ = {sizeof layout_, 1, pieces_, 0, 0, 0};
  std::vector<std::uint8_t> memory_ = std::vector<std::uint8_t>(kPiece * kBlocks);
  const terrace_region region_ = {sizeof region_, 0, memory_.data(), kPiece, kPiece};
  const terrace_group_regions regions_ = {sizeof regions_, 1, &region_, kBlocks, 0, 1};
};

enum class Handle { kNone, kOwner, kWorker };
enum class Answer { kCode, kNothing, kZero, kMinusOne, kFacts };

struct Function {
  std::string name;
  Handle handle;
  Answer answer;  // What it says of a fault; kFacts: there is nothing in it that could be thrown.
  std::function<std::int64_t(Engine&)> call;
};

std::vector<Function> functions_without_handle() {
  using E = Engine;
  constexpr Handle kNone = Handle::kNone;
  return {
      {"terrace_abi_version", kNone, Answer::kFacts, [](E&) { return terrace_abi_version(); }},
      {"terrace_version", kNone, Answer::kFacts, [](E&) { return *terrace_version(); }},
      {"terrace_last_error", kNone, Answer::kFacts, [](E&) { return *terrace_last_error(); }},
      {"terrace_hash_sequence", kNone, Answer::kCode,
       [](E& e) {
         return terrace_hash_sequence(16, e.tokens.data(), 16, nullptr, 0, e.bytes.data());
       }},
      {"terrace_checksum_bytes", kNone, Answer::kZero,
       [](E& e) {
         return static_cast<std::int64_t>(terrace_checksum_bytes(e.bytes.data(), e.bytes.size()));
       }},
      {"terrace_digest_weights", kNone, Answer::kCode,
       [](E& e) { return terrace_digest_weights("/nowhere", e.digest.data()); }},
      {"terrace_open_owner", kNone, Answer::kCode,
       [](E& e) { return terrace_open_owner(&e.owner_options, &e.other_owner); }},
      {"terrace_open_worker", kNone, Answer::kCode,
       [](E& e) { return terrace_open_worker(&e.worker_options, &e.other_worker); }},
  };
}

std::vector<Function> functions_of_an_owner() {
  using E = Engine;
  constexpr Handle kOwner = Handle::kOwner;
  constexpr Answer kCode = Answer::kCode;
  return {
      {"terrace_close_owner", Handle::kNone, Answer::kNothing,
       [](E& e) {
         terrace_close_owner(e.owner, 0);
         return 0;
       }},
      {"terrace_owner_event_fd", Handle::kNone, Answer::kMinusOne,
       [](E& e) { return terrace_owner_event_fd(e.owner); }},
      {"terrace_begin_request", kOwner, kCode,
       [](E& e) { return terrace_begin_request(e.owner, &e.request_options, &e.number); }},
      {"terrace_poll_request", kOwner, kCode,
       [](E& e) { return terrace_poll_request(e.owner, e.request, 0, 32, &e.number); }},
      {"terrace_accept_load", kOwner, kCode,
       [](E& e) { return terrace_accept_load(e.owner, e.request, 0, 0, e.tables, e.counts); }},
      {"terrace_advance_request", kOwner, kCode,
       [](E& e) { return terrace_advance_request(e.owner, &e.progress); }},
      {"terrace_build_orders", kOwner, kCode,
       [](E& e) { return terrace_build_orders(e.owner, &e.text); }},
      {"terrace_take_report", kOwner, kCode,
       [](E& e) { return terrace_take_report(e.owner, e.bytes.data(), e.bytes.size()); }},
      {"terrace_taint_steps", kOwner, kCode, [](E& e) { return terrace_taint_steps(e.owner); }},
      {"terrace_end_request", kOwner, kCode,
       [](E& e) { return terrace_end_request(e.owner, e.request, &e.text); }},
      {"terrace_hint_request", kOwner, kCode,
       [](E& e) { return terrace_hint_request(e.owner, e.request, &e.hints); }},
      {"terrace_finish_request", kOwner, kCode,
       [](E& e) { return terrace_finish_request(e.owner, e.request, nullptr, &e.text); }},
      {"terrace_take_events", kOwner, kCode,
       [](E& e) { return terrace_take_events(e.owner, &e.text); }},
      {"terrace_read_status", kOwner, kCode,
       [](E& e) { return terrace_read_status(e.owner, &e.text); }},
      {"terrace_read_metrics", kOwner, kCode,
       [](E& e) { return terrace_read_metrics(e.owner, &e.text); }},
      {"terrace_read_log", kOwner, kCode, [](E& e) { return terrace_read_log(e.owner, &e.text); }},
      {"terrace_reset_owner", kOwner, kCode, [](E& e) { return terrace_reset_owner(e.owner); }},
  };
}

std::vector<Function> functions_of_a_worker() {
  using E = Engine;
  constexpr Handle kWorker = Handle::kWorker;
  constexpr Answer kCode = Answer::kCode;
  return {
      {"terrace_close_worker", Handle::kNone, Answer::kNothing,
       [](E& e) {
         terrace_close_worker(e.worker, 0);
         return 0;
       }},
      {"terrace_run_canary", kWorker, kCode,
       [](E& e) { return terrace_run_canary(e.worker, e.bytes.data(), e.bytes.size()); }},
      {"terrace_run_loads", kWorker, kCode,
       [](E& e) {
         return terrace_run_loads(e.worker, e.bytes.data(), e.bytes.size(), e.failed.data(),
                                  e.failed.size(), &e.number);
       }},
      {"terrace_run_saves", kWorker, kCode,
       [](E& e) { return terrace_run_saves(e.worker, e.bytes.data(), e.bytes.size()); }},
      {"terrace_build_report", kWorker, kCode,
       [](E& e) { return terrace_build_report(e.worker, &e.text); }},
      {"terrace_read_worker_status", kWorker, kCode,
       [](E& e) { return terrace_read_worker_status(e.worker, &e.text); }},
      {"terrace_read_worker_log", kWorker, kCode,
       [](E& e) { return terrace_read_worker_log(e.worker, &e.text); }},
  };
}

std::vector<Function> all_functions() {
  std::vector<Function> all = functions_without_handle();
  for (const auto& more : {functions_of_an_owner(), functions_of_a_worker()}) {
    all.insert(all.end(), more.begin(), more.end());
  }
  return all;
}

struct Fault {
  std::string name;
  terrace_code code;
  std::string text;  // In terrace_last_error().
  std::function<void()> raise;
};

std::vector<Fault> all_faults() {
  return {{"breach", TERRACE_INTERNAL, "deliberate", [] { throw base::Breach("deliberate"); }},
          {"memory_breach", TERRACE_INTERNAL, "no memory", [] { throw base::MemoryBreach(); }},
          {"foreign", TERRACE_INTERNAL, "foreign", [] { throw std::runtime_error("foreign"); }},
          {"no_exception", TERRACE_INTERNAL, "no exception of ours", [] { throw 7; }},
          {"no_memory", TERRACE_EXHAUSTED, "out of memory", [] { throw std::bad_alloc(); }}};
}

TEST(FaultTableTest, NamesEachExportedFunctionOnce) {
  std::ifstream file(TERRACE_EXPORTS);
  std::multiset<std::string> exported;
  for (std::string line; std::getline(file, line);) exported.insert(line);
  std::multiset<std::string> listed;
  for (const Function& function : all_functions()) listed.insert(function.name);
  EXPECT_EQ(listed, exported);
  EXPECT_FALSE(exported.empty());
}

class FaultTest : public ::testing::TestWithParam<Function> {};

TEST_P(FaultTest, ComesOutAsACodeAndPoisonsWhatItBroke) {
  const Function& function = GetParam();
  for (const Fault& thrown : all_faults()) {
    SCOPED_TRACE(thrown.name);
    Engine engine;
    faults_thrown = 0;
    fault = thrown.raise;
    const std::int64_t answer = function.call(engine);
    fault = {};
    if (function.answer == Answer::kFacts) {
      EXPECT_EQ(faults_thrown, 0);
      continue;
    }
    ASSERT_EQ(faults_thrown, 1);
    if (function.answer == Answer::kCode) {
      EXPECT_EQ(answer, thrown.code);
    } else {
      EXPECT_EQ(answer, function.answer == Answer::kMinusOne ? -1 : 0);
    }
    EXPECT_NE(std::string(terrace_last_error()).find(thrown.text), std::string::npos)
        << terrace_last_error();
    EXPECT_EQ(engine.other_owner, nullptr);
    EXPECT_EQ(engine.other_worker, nullptr);
    const bool poisons = thrown.code == TERRACE_INTERNAL;
    EXPECT_EQ(engine.is_owner_poisoned(), poisons && function.handle == Handle::kOwner);
    EXPECT_EQ(engine.is_worker_poisoned(), poisons && function.handle == Handle::kWorker);
  }
}

INSTANTIATE_TEST_SUITE_P(Functions, FaultTest, ::testing::ValuesIn(all_functions()),
                         [](const auto& of) { return of.param.name; });

// A poisoned owner is a cache that only misses; the engine's calls go on.
TEST(PoisonedTest, OwnerMissesAndEndsRequestsAndAPoisonedWorkerFailsLoads) {
  Engine engine;
  fault = [] { throw base::Breach("deliberate"); };
  ASSERT_EQ(terrace_read_log(engine.owner, &engine.text), TERRACE_INTERNAL);
  terrace_request other = 0;
  EXPECT_EQ(terrace_begin_request(engine.owner, &engine.request_options, &other), TERRACE_OK);
  std::uint64_t external = 1;
  EXPECT_EQ(terrace_poll_request(engine.owner, other, 0, 32, &external), TERRACE_OK);
  EXPECT_EQ(external, 0U);
  EXPECT_EQ(terrace_end_request(engine.owner, other, nullptr), TERRACE_OK);
  fault = [] { throw base::Breach("deliberate"); };
  ASSERT_EQ(terrace_build_report(engine.worker, &engine.text), TERRACE_INTERNAL);
  EXPECT_EQ(terrace_run_saves(engine.worker, engine.bytes.data(), 0), TERRACE_INTERNAL);
  EXPECT_EQ(terrace_build_report(engine.worker, &engine.text), TERRACE_OK);
}

}  // namespace
}  // namespace terrace::capi
