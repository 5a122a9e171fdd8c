// A dir store in a scratch directory, for tests: one call per request, and system calls that fail
// as a test says. Tests only. Threading: thread-compatible; the script is thread-safe.
#pragma once

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <filesystem>
#include <fstream>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "terrace/base/file.h"
#include "terrace/base/mutex.h"
#include "terrace/base/rng.h"
#include "terrace/testing/eventually.h"
#include "terrace/testing/small_disk.h"
#include "terrace/transfer/backends/dir/dir_store_internal.h"
#include "terrace/transfer/backends/dir/names_internal.h"

namespace terrace::transfer::dir {

// Which calls fail, and what was called.
class Script {
 public:
  struct Fault {
    int error = 0;
    bool is_done = false;          // The call does its work, and the answer is lost.
    int skip = 0;                  // Calls of this name that succeed before.
    int count = 1;                 // < 0: for ever.
    std::function<void()> then{};  // Runs instead of failing, when error is 0.
  };
  void fail(const std::string& call, Fault fault) {
    const MutexLock lock(mutex_);
    faults_[call] = std::move(fault);
  }
  void clear() {
    const MutexLock lock(mutex_);
    faults_.clear();
    calls_.clear();
  }
  [[nodiscard]] std::vector<std::string> calls() const {
    const MutexLock lock(mutex_);
    return calls_;
  }
  Fault pass(const std::string& call) {
    const MutexLock lock(mutex_);
    calls_.push_back(call);
    const auto found = faults_.find(call);
    if (found == faults_.end() || found->second.count == 0) return {};
    if (found->second.skip-- > 0) return {};
    if (found->second.count > 0) --found->second.count;
    return found->second;
  }

 private:
  mutable Mutex mutex_;
  std::map<std::string, Fault> faults_ TERRACE_GUARDED_BY(mutex_);
  std::vector<std::string> calls_ TERRACE_GUARDED_BY(mutex_);
};

class ScriptedCalls final : public FileCalls {
 public:
  explicit ScriptedCalls(Script& script) : script_(script) {}
  int open_root(const char* path) override {
    return run<int>("open_root", [&] { return FileCalls::open_root(path); });
  }
  int open_below(int folder, const char* path, int flags, mode_t mode) override {
    const char* const call = (flags & O_CREAT) != 0 ? "create" : "open_below";
    return run<int>(call, [&] { return FileCalls::open_below(folder, path, flags, mode); });
  }
  int facts_of(int file, struct stat* facts) override {
    return run<int>("facts_of", [&] { return FileCalls::facts_of(file, facts); });
  }
  int facts_at(int folder, const char* name, struct stat* facts) override {
    return run<int>("facts_at", [&] { return FileCalls::facts_at(folder, name, facts); });
  }
  ssize_t read_at(int file, const iovec* pieces, int count, std::uint64_t offset) override {
    return run<ssize_t>("read_at", [&] { return FileCalls::read_at(file, pieces, count, offset); });
  }
  ssize_t read_cached(int file, const iovec* pieces, int count, std::uint64_t offset) override {
    return run<ssize_t>("read_cached",
                        [&] { return FileCalls::read_cached(file, pieces, count, offset); });
  }
  ssize_t write_at(int file, const iovec* pieces, int count, std::uint64_t offset) override {
    return run<ssize_t>("write_at",
                        [&] { return FileCalls::write_at(file, pieces, count, offset); });
  }
  int sync_data(int file) override {
    return run<int>("sync_data", [&] { return FileCalls::sync_data(file); });
  }
  int sync_folder(int folder) override {
    return run<int>("sync_folder", [&] { return FileCalls::sync_folder(folder); });
  }
  int set_mode(int file, mode_t mode) override {
    return run<int>("set_mode", [&] { return FileCalls::set_mode(file, mode); });
  }
  int make_folder(int folder, const char* name, mode_t mode) override {
    return run<int>("make_folder", [&] { return FileCalls::make_folder(folder, name, mode); });
  }
  int link(int folder, const char* from, const char* to) override {
    return run<int>("link", [&] { return FileCalls::link(folder, from, to); });
  }
  int rename_new(int folder, const char* from, const char* to) override {
    return run<int>("rename_new", [&] { return FileCalls::rename_new(folder, from, to); });
  }
  int rename_over(int folder, const char* from, const char* to) override {
    return run<int>("rename_over", [&] { return FileCalls::rename_over(folder, from, to); });
  }
  int remove(int folder, const char* name) override {
    return run<int>("remove", [&] { return FileCalls::remove(folder, name); });
  }
  int remove_folder(int folder, const char* name) override {
    return run<int>("remove_folder", [&] { return FileCalls::remove_folder(folder, name); });
  }
  int begin_reading(int file, std::uint64_t offset, std::uint64_t bytes) override {
    return run<int>("begin_reading", [&] { return FileCalls::begin_reading(file, offset, bytes); });
  }
  int reads_exactly(int file) override {
    return run<int>("reads_exactly", [&] { return FileCalls::reads_exactly(file); });
  }
  int touch(int file) override {
    return run<int>("touch", [&] { return FileCalls::touch(file); });
  }

 private:
  template <typename Value>
  Value run(const char* call, const std::function<Value()>& body) {
    const Script::Fault fault = script_.pass(call);
    if (fault.then) fault.then();
    if (fault.error == 0) return body();
    if (fault.is_done) (void)body();
    errno = fault.error;
    return -1;
  }
  Script& script_;
};

class DirTest : public ::testing::Test {
 protected:
  using Content = std::vector<std::byte>;
  DirTest() {
    options_.path = scratch_.path() + "/root";
    options_.depth = 64;
    options_.threads = 2;
    std::filesystem::create_directory(options_.path);
  }
  // A store beside ours; `script` and ours are shared.
  Result<std::unique_ptr<ObjectStore>> make() {
    return make_store(options_, std::make_unique<ScriptedCalls>(script_));
  }
  void open() {
    auto made = make();
    ASSERT_TRUE(made.has_value()) << made.error().message();
    store_ = *std::move(made);
  }
  // In a child: the parent's store has no threads there that could be joined.
  void take_over(std::unique_ptr<ObjectStore> fresh) {
    [[maybe_unused]] ObjectStore* const parents = store_.release();
    store_ = std::move(fresh);
  }
  static Content content(std::size_t bytes, std::uint64_t seed = 1) {
    Content made(bytes);
    Rng rng(seed);
    for (std::byte& byte : made) byte = static_cast<std::byte>(rng.next());
    return made;
  }
  ObjectRequest request(ObjectOp op, std::string name) {
    ObjectRequest made;
    made.token = ++token_;
    made.op = op;
    made.name = std::move(name);
    return made;
  }
  ObjectAnswer run(ObjectRequest made) {
    ObjectAnswer answer;
    answer.status = store_->submit(std::move(made));
    if (!answer.status.is_ok()) return answer;
    std::vector<ObjectAnswer> answers;
    EXPECT_TRUE(testing::eventually([&] {
      store_->wait(milliseconds(50));
      store_->poll(answers);
      return !answers.empty();
    }));
    return answers.empty() ? answer : std::move(answers[0]);
  }
  ObjectAnswer put(const std::string& name, Content bytes, Nanoseconds deadline = kNoDeadline) {
    ObjectRequest made = request(ObjectOp::kPut, name);
    made.pieces = {{bytes.data(), bytes.size()}};
    made.deadline = deadline;
    return run(std::move(made));
  }
  ObjectAnswer head(const std::string& name) { return run(request(ObjectOp::kHead, name)); }
  ObjectAnswer remove(const std::string& name) { return run(request(ObjectOp::kRemove, name)); }
  ObjectAnswer touch(const std::string& name) { return run(request(ObjectOp::kTouch, name)); }
  ObjectAnswer get(const std::string& name, Content& bytes, std::uint64_t offset = 0) {
    ObjectRequest made = request(ObjectOp::kGet, name);
    made.offset = offset;
    made.pieces = {{bytes.data(), bytes.size()}};
    return run(std::move(made));
  }
  // Empty when it is not there, or broken.
  Content get_all(const std::string& name) {
    const ObjectAnswer answer = head(name);
    Content bytes(answer.status.is_ok() ? answer.info.bytes : 0);
    if (bytes.empty() || !get(name, bytes).status.is_ok()) return {};
    return bytes;
  }
  std::vector<std::string> list(const std::string& start = {}) {
    std::vector<std::string> names;
    ObjectRequest page = request(ObjectOp::kList, start);
    for (int pages = 0; pages < 100; ++pages) {
      const ObjectAnswer answer = run(page);
      EXPECT_EQ(answer.status.text(), Status().text());
      for (const ObjectInfo& info : answer.found) names.push_back(info.name);
      if (answer.next.empty()) return names;
      page.after = answer.next;
    }
    ADD_FAILURE() << "a listing that does not end";
    return names;
  }
  [[nodiscard]] const std::string& root() const { return options_.path; }
  [[nodiscard]] std::string path_of(const std::string& name) const {
    return root() + "/" + place_of(name).path();
  }
  // Files of unfinished puts, anywhere.
  [[nodiscard]] std::vector<std::string> leftovers() const {
    std::vector<std::string> found;
    for (const auto& entry : std::filesystem::recursive_directory_iterator(root())) {
      if (is_leftover(entry.path().filename().string())) found.push_back(entry.path().string());
    }
    return found;
  }
  static void write_text(const std::string& path, const std::string& text) {
    std::filesystem::create_directories(std::filesystem::path(path).parent_path());
    std::ofstream(path, std::ios::binary) << text;
  }
  static std::string read_text(const std::string& path) {
    std::ifstream file(path, std::ios::binary);
    return {std::istreambuf_iterator<char>(file), {}};
  }
  static void make_old(const std::string& path, std::int64_t seconds_ago) {
    const timespec then{static_cast<time_t>(SystemClock().wall_seconds() - seconds_ago), 0};
    const timespec both[2] = {then, then};
    ASSERT_EQ(::utimensat(AT_FDCWD, path.c_str(), both, AT_SYMLINK_NOFOLLOW), 0) << path;
  }

  testing::ScratchDirectory scratch_;
  DirStoreOptions options_;
  Script script_;
  std::unique_ptr<ObjectStore> store_;
  std::uint64_t token_ = 0;
};

}  // namespace terrace::transfer::dir
