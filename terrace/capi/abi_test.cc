#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <terrace/terrace.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "terrace/testing/eventually.h"
#include "terrace/testing/left_thread.h"
#include "terrace/testing/scratch_directory.h"

namespace {
constexpr std::string_view kStuckFile = "/stuck.safetensors";
std::atomic<bool> is_stuck{false};
std::atomic<int> stuck_calls{0};
}  // namespace

// In the place of the C library's, for the shared library too: a file system that does not answer
// when asked for one file, as one over a network can.
extern "C" [[gnu::visibility("default")]] int stat_or_wait(const char* path,
                                                           struct stat* facts) noexcept
    __asm__("stat");
extern "C" int stat_or_wait(const char* path, struct stat* facts) noexcept {
  if (std::string_view(path).ends_with(kStuckFile)) {
    ++stuck_calls;
    (void)terrace::testing::eventually([] { return !is_stuck.load(); });
  }
  return ::fstatat(AT_FDCWD, path, facts, 0);
}

namespace {

std::string run(const std::string& command) {
  std::string output;
  FILE* pipe = ::popen(command.c_str(), "r");
  if (pipe == nullptr) return output;
  char buffer[4096];
  while (std::fgets(buffer, sizeof buffer, pipe) != nullptr) output += buffer;
  ::pclose(pipe);
  return output;
}

std::set<std::string> lines_of(const std::string& text) {
  std::set<std::string> lines;
  std::size_t start = 0;
  for (std::size_t end = text.find('\n'); end != std::string::npos; end = text.find('\n', start)) {
    if (end > start) lines.insert(text.substr(start, end - start));
    start = end + 1;
  }
  return lines;
}

// An engine of one rank in a folder of its own.
class AbiEngineTest : public testing::Test {
 protected:
  AbiEngineTest() {
    settings_ = R"({"host.size":"16MiB","attach.directory":")" + scratch_.path() + R"(/attach"})";
    owner_options_.struct_size = sizeof owner_options_;
    owner_options_.block_tokens = 16;
    owner_options_.rank_count = 1;
    owner_options_.group_count = 1;
    owner_options_.groups = &layout_;
    owner_options_.engine_id = "abi";
    owner_options_.settings_json = settings_.c_str();
    owner_options_.fingerprint = "content.model=x\n";
    owner_options_.can_store = 1;
    owner_options_.can_load = 1;
  }
  const terrace::testing::ScratchDirectory scratch_;
  std::string settings_;
  const uint64_t pieces_[1] = {4096};
  const terrace_group_layout layout_ = {sizeof layout_, 1, pieces_, 0, 0, 0};
  terrace_owner_options owner_options_ = {};
};

TEST(AbiTest, LibraryShowsExactlyTheListedSymbols) {
  std::ifstream file(TERRACE_EXPORTS);
  const std::string text((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
  const auto exported = lines_of(
      run("nm -D --defined-only " TERRACE_LIBRARY_PATH " | awk '{print $3}' | cut -d@ -f1"));
  EXPECT_EQ(exported, lines_of(text));
}

TEST(AbiTest, HeaderCompilesAsC11) {
  const std::string command =
      "printf '#include \"" TERRACE_HEADER
      "\"\\nint main(void){return 0;}\\n' | "
      "cc -std=c11 -pedantic -Wall -Wextra -Werror -x c -fsyntax-only - 2>&1 && echo compiled";
  EXPECT_EQ(run(command), "compiled\n");
}

TEST(AbiTest, NeedsNoGlibcSymbolNewerThan2_34AndNoForeignLibrary) {
  const auto versions =
      lines_of(run("objdump -T " TERRACE_LIBRARY_PATH " | grep -o 'GLIBC_2\\.[0-9]*' | sort -u"));
  for (const std::string& version : versions) {
    EXPECT_LE(std::atoi(version.substr(version.rfind('.') + 1).c_str()), 34) << version;
  }
  EXPECT_FALSE(versions.empty());
  const auto needed =
      lines_of(run("objdump -p " TERRACE_LIBRARY_PATH " | awk '/NEEDED/{print $2}'"));
  const std::set<std::string> allowed{"libc.so.6", "libm.so.6", "libgcc_s.so.1",
                                      "ld-linux-x86-64.so.2"};
  for (const std::string& library : needed) {
    if (library.starts_with("libasan") || library.starts_with("libubsan") ||
        library.starts_with("libtsan")) {
      continue;  // Sanitizer builds are never shipped.
    }
    EXPECT_TRUE(allowed.contains(library)) << library;
  }
}

TEST(AbiTest, NullHandlesAndNullPointersAreCodesNotCrashes) {
  terrace_owner* owner = nullptr;
  EXPECT_EQ(terrace_open_owner(nullptr, &owner), TERRACE_INVALID);
  EXPECT_EQ(terrace_build_orders(nullptr, nullptr), TERRACE_INVALID);
  EXPECT_EQ(terrace_end_request(nullptr, 1, nullptr), TERRACE_INVALID);
  EXPECT_EQ(terrace_run_saves(nullptr, nullptr, 0), TERRACE_INVALID);
  terrace_close_owner(nullptr, 0);
  terrace_close_worker(nullptr, 0);
  EXPECT_EQ(terrace_hash_sequence(0, nullptr, 0, nullptr, 0, nullptr), TERRACE_INVALID);
  EXPECT_NE(std::string(terrace_last_error()), "");
}

TEST_F(AbiEngineTest, ThreadThatClosingLeavesBehindKeepsWhatItUses) {
  // Opening hangs where it looks at the weights.
  std::ofstream(scratch_.path() + std::string(kStuckFile)) << "no weights";
  is_stuck.store(true);
  const std::string directory = scratch_.path();
  owner_options_.model_directory = directory.c_str();
  terrace_owner* owner = nullptr;
  ASSERT_EQ(terrace_open_owner(&owner_options_, &owner), TERRACE_OK) << terrace_last_error();
  ASSERT_TRUE(terrace::testing::eventually([] { return stuck_calls.load() > 0; }));
  terrace_close_owner(owner, 0);
  ASSERT_TRUE(terrace::testing::has_thread("terrace-open"));
  const auto soil = terrace::testing::soil_freed_memory();
  is_stuck.store(false);  // Lets it go on: it finds no weights and says so.
  EXPECT_TRUE(
      terrace::testing::eventually([] { return !terrace::testing::has_thread("terrace-open"); }));
}

TEST_F(AbiEngineTest, AForkedChildHasNoEventDescriptor) {
  terrace_owner* owner = nullptr;
  ASSERT_EQ(terrace_open_owner(&owner_options_, &owner), TERRACE_OK) << terrace_last_error();
  EXPECT_GE(terrace_owner_event_fd(owner), 0);
  const pid_t child = ::fork();
  if (child == 0) ::_exit(terrace_owner_event_fd(owner) == -1 ? 0 : 1);
  int status = -1;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  EXPECT_EQ(status, 0);
  terrace_close_owner(owner, 0);
}

TEST_F(AbiEngineTest, NullArraysWithACountAreInvalid) {
  terrace_owner* owner = nullptr;
  ASSERT_EQ(terrace_open_owner(&owner_options_, &owner), TERRACE_OK) << terrace_last_error();
  const std::array<uint32_t, 16> tokens = {};
  terrace_request_options options = {};
  options.struct_size = sizeof options;
  options.token_count = tokens.size();
  terrace_request request = 0;
  EXPECT_EQ(terrace_begin_request(owner, &options, &request), TERRACE_INVALID);
  options.tokens = tokens.data();
  options.extra_key_count = 1;
  EXPECT_EQ(terrace_begin_request(owner, &options, &request), TERRACE_INVALID);
  options.extra_key_count = 0;
  ASSERT_EQ(terrace_begin_request(owner, &options, &request), TERRACE_OK);

  const uint64_t counts[1] = {1};
  const uint32_t* const no_table[1] = {nullptr};
  EXPECT_EQ(terrace_accept_load(owner, request, 0, 16, no_table, counts), TERRACE_INVALID);
  EXPECT_EQ(terrace_accept_load(owner, request, 0, 16, nullptr, counts), TERRACE_INVALID);
  EXPECT_EQ(terrace_accept_load(owner, request, 0, 16, no_table, nullptr), TERRACE_INVALID);
  const uint32_t* const table[1] = {tokens.data()};
  terrace_progress progress = {};
  progress.struct_size = sizeof progress;
  progress.request = request;
  progress.block_counts = counts;
  progress.blocks = no_table;
  EXPECT_EQ(terrace_advance_request(owner, &progress), TERRACE_INVALID);
  progress.blocks = table;
  progress.new_token_count = 16;
  EXPECT_EQ(terrace_advance_request(owner, &progress), TERRACE_INVALID);
  progress.new_token_count = 0;
  progress.alias_count = 1;
  EXPECT_EQ(terrace_advance_request(owner, &progress), TERRACE_INVALID);
  progress.alias_count = 0;
  EXPECT_EQ(terrace_advance_request(owner, &progress), TERRACE_OK) << terrace_last_error();
  EXPECT_EQ(terrace_take_report(owner, nullptr, 64), TERRACE_INVALID);
  terrace_close_owner(owner, 0);
}

TEST(AbiTest, WrongSettingIsNamedAndTheNearestSuggested) {
  const uint64_t pieces[1] = {4096};
  const terrace_group_layout group = {sizeof group, 1, pieces, 0, 0, 0};
  terrace_owner_options options = {};
  options.struct_size = sizeof options;
  options.block_tokens = 16;
  options.rank_count = 1;
  options.group_count = 1;
  options.groups = &group;
  options.engine_id = "abi-test";
  options.fingerprint = "content.model=x\n";
  options.settings_json = R"({"host.sise":"1GiB"})";
  terrace_owner* owner = nullptr;
  EXPECT_EQ(terrace_open_owner(&options, &owner), TERRACE_INVALID);
  EXPECT_EQ(owner, nullptr);
  const std::string text = terrace_last_error();
  EXPECT_NE(text.find("host.sise"), std::string::npos) << text;
  EXPECT_NE(text.find("host.size"), std::string::npos) << text;
  options.struct_size = 8;
  EXPECT_EQ(terrace_open_owner(&options, &owner), TERRACE_INVALID);
}

}  // namespace
