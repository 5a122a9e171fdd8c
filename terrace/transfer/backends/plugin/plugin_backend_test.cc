#include "terrace/transfer/backends/plugin/plugin_backend.h"

#include <gmock/gmock.h>

#include <array>
#include <fstream>

#include "contract/backend_contract.h"
#include "terrace/transfer/backends/fault/fault_backend.h"
#include "terrace/transfer/backends/plugin/plugin_library_internal.h"

namespace terrace::transfer {
namespace {

using ::testing::HasSubstr;

std::unique_ptr<Backend> plain(const Backend::Options& options) {
  Backend::Options full = options;
  full.library = TERRACE_PLUGIN_EXAMPLE;
  auto backend = make_plugin_backend(full);
  if (!backend) ADD_FAILURE() << backend.error().message();
  return backend ? *std::move(backend) : nullptr;
}
std::unique_ptr<Backend> decorated(const Backend::Options& options) {
  auto inner = plain(options);
  return inner ? std::make_unique<FaultBackend>(std::move(inner), 1) : nullptr;
}

INSTANTIATE_TEST_SUITE_P(Plugin, BackendContract,
                         ::testing::Values(BackendMaker{"Plain", plain},
                                           BackendMaker{"UnderFaultDecorator", decorated}),
                         backend_name);

TEST(PluginBackendTest, KeepsWhatPluginsMustKeepBeyondTheContract) {
  ASSERT_GE(library_checks().size(), 2U);
  for (const BackendCheck& check : library_checks()) {
    const testing::ScratchDirectory scratch;
    const CheckPlace place{
        .make = [](const Backend::Options& options) -> Result<std::unique_ptr<Backend>> {
          return plain(options);
        },
        .directory = scratch.path()};
    EXPECT_EQ(run_backend_check(check, place).text(), Status().text()) << check.name;
  }
}

TEST(PluginBackendTest, IsCalledAsThePluginCallsItself) { EXPECT_EQ(plain({})->name(), "example"); }

// ---- Broken promises ---------------------------------------------------------------------------

class BrokenPluginTest : public ::testing::Test {
 protected:
  static constexpr Nanoseconds kPatience = milliseconds(50);
  void SetUp() override {
    const auto file = open_file(scratch_.path() + "/file", O_RDWR | O_CREAT);
    ASSERT_TRUE(file.has_value());
    number_ = ::dup(file->get());
    file_ = UniqueFd(number_);
    ASSERT_EQ(::ftruncate(number_, 4096), 0);
  }
  void load(const char* library) {
    auto backend = make_plugin_backend({.depth = 4, .library = library, .patience = kPatience});
    ASSERT_TRUE(backend.has_value()) << backend.error().message();
    backend_ = *std::move(backend);
  }
  Status submit(IoOp op, std::uint64_t token) {
    Transfer transfer;
    transfer.token = token;
    transfer.op = op;
    transfer.file = number_;
    transfer.pieces[0] = {memory_.data(), memory_.size()};
    transfer.piece_count = 1;
    return backend_->submit(transfer);
  }
  // All that comes until the plug-in is not used any more.
  std::vector<Completion> until_refused() {
    std::vector<Completion> done;
    EXPECT_TRUE(testing::eventually([&] {
      backend_->wait(milliseconds(20));
      backend_->poll(done);
      return submit(IoOp::kRead, 99).code() == Code::kIo;
    }));
    return done;
  }
  void drain(std::vector<Completion>& done, std::size_t count) {
    EXPECT_TRUE(testing::eventually([&] {
      backend_->wait(milliseconds(20));
      backend_->poll(done);
      return done.size() >= count;
    }));
  }

  const testing::ScratchDirectory scratch_;
  UniqueFd file_;
  int number_ = -1;
  std::array<std::byte, 512> memory_{};
  std::unique_ptr<Backend> backend_;
};

TEST_F(BrokenPluginTest, ALostCompletionBecomesAnErrorOnceThePluginHasEnded) {
  load(TERRACE_PLUGIN_LOSES);
  ASSERT_TRUE(submit(IoOp::kWrite, 1).is_ok());
  std::vector<Completion> done;
  drain(done, 1);
  ASSERT_EQ(done.size(), 1U);
  EXPECT_EQ(done[0].token, 1U);
  EXPECT_EQ(done[0].status.code(), Code::kIo);
  EXPECT_THAT(done[0].status.message(), HasSubstr("no completion for 50 ms"));
  EXPECT_EQ(backend_->in_flight(), 0U);
  const Status status = submit(IoOp::kRead, 2);
  EXPECT_EQ(status.code(), Code::kIo);
  EXPECT_THAT(status.message(), HasSubstr("the backend broken broke its contract"));
  EXPECT_EQ(backend_->in_flight(), 0U);
}

TEST_F(BrokenPluginTest, ASecondCompletionIsNobodysAndEndsIt) {
  load(TERRACE_PLUGIN_TWICE);
  ASSERT_TRUE(submit(IoOp::kRead, 1).is_ok());
  std::vector<Completion> done;
  drain(done, 1);
  EXPECT_EQ(done.size(), 1U);
  EXPECT_EQ(done[0].token, 1U);
  EXPECT_TRUE(done[0].status.is_ok());
  for (const Completion& completion : until_refused()) EXPECT_NE(completion.token, 1U);
  EXPECT_THAT(submit(IoOp::kRead, 2).message(), HasSubstr("was not in flight"));
}

// Its memory may still be written to: nobody gets it back, and the engine goes on.
TEST_F(BrokenPluginTest, WhileThePluginDoesNotEndItsTransfersDoNotComplete) {
  load(TERRACE_PLUGIN_NEVER_ENDS);
  ASSERT_TRUE(submit(IoOp::kWrite, 1).is_ok());
  std::vector<Completion> done = until_refused();
  for (int i = 0; i < 5; ++i) {
    backend_->wait(milliseconds(20));
    backend_->poll(done);
  }
  for (const Completion& completion : done) EXPECT_NE(completion.token, 1U);
  EXPECT_GE(backend_->in_flight(), 1U);
  backend_.reset();  // Ends, although the plug-in does not.
}

// ---- What is loaded ----------------------------------------------------------------------------

void expect_refused(const std::string& path, Code code, const std::string& words) {
  const auto backend = make_plugin_backend({.library = path});
  ASSERT_FALSE(backend.has_value()) << path;
  EXPECT_EQ(backend.error().code(), code) << backend.error().message();
  EXPECT_THAT(backend.error().message(), HasSubstr(path));
  EXPECT_THAT(backend.error().message(), HasSubstr(words));
}

TEST(PluginLibraryTest, WhatIsNoLibraryOfThisUsersIsRefusedByName) {
  const testing::ScratchDirectory scratch;
  const std::string text = scratch.path() + "/text";
  std::ofstream(text) << "no library";
  const std::string open_to_all = scratch.path() + "/open";
  std::ofstream(open_to_all) << "nor this";
  ASSERT_EQ(::chmod(open_to_all.c_str(), 0666), 0);
  const std::string pipe = scratch.path() + "/pipe";
  ASSERT_EQ(::mkfifo(pipe.c_str(), 0600), 0);
  expect_refused(scratch.path() + "/nothing.so", Code::kInvalid, "ENOENT");
  expect_refused("relative.so", Code::kInvalid, "absolute path");
  expect_refused(scratch.path(), Code::kInvalid, "regular file");
  expect_refused(pipe, Code::kInvalid, "regular file");
  expect_refused(text, Code::kInvalid, "file too short");
  expect_refused(open_to_all, Code::kRefused, "everybody may write");
}

TEST(PluginLibraryTest, NoDepthOrNoThreadsIsRefused) {
  EXPECT_EQ(make_plugin_backend({.depth = 0, .library = TERRACE_PLUGIN_EXAMPLE}).error().code(),
            Code::kInvalid);
  EXPECT_EQ(make_plugin_backend({.threads = 0, .library = TERRACE_PLUGIN_EXAMPLE}).error().code(),
            Code::kInvalid);
}

class TableTest : public ::testing::Test {
 protected:
  // Whatever is wrong with it, a table is only read.
  static std::int32_t never_open(const terrace_backend_options*, terrace_backend**, char*,
                                 std::uint32_t) {
    return 1;
  }
  static std::int32_t never_submit(terrace_backend*, const terrace_backend_transfer*) { return 1; }
  static std::int32_t never_poll(terrace_backend*, terrace_backend_completion*, std::uint32_t) {
    return 0;
  }
  static void never_close(terrace_backend*) {}

  void expect_refused(Code code, const std::string& words) const {
    const auto library = plugin::check_table(&table_, "/x.so");
    ASSERT_FALSE(library.has_value()) << words;
    EXPECT_EQ(library.error().code(), code);
    EXPECT_THAT(library.error().message(), HasSubstr("/x.so"));
    EXPECT_THAT(library.error().message(), HasSubstr(words));
  }

  terrace_backend_table table_{TERRACE_BACKEND_ABI,
                               sizeof(terrace_backend_table),
                               sizeof(terrace_backend_transfer),
                               sizeof(terrace_backend_completion),
                               "fine",
                               never_open,
                               never_submit,
                               never_poll,
                               never_close,
                               nullptr};
};

TEST_F(TableTest, AWholeTableIsTakenAndSoIsALongerOne) {
  EXPECT_EQ(plugin::check_table(&table_, "/x.so")->name, "fine");
  table_.struct_size += 16;
  EXPECT_TRUE(plugin::check_table(&table_, "/x.so").has_value());
}

TEST_F(TableTest, NoTableOrAnotherVersionIsRefused) {
  EXPECT_EQ(plugin::check_table(nullptr, "/x.so").error().code(), Code::kInvalid);
  table_.abi_version = TERRACE_BACKEND_ABI + 1;
  expect_refused(Code::kRefused, "version 2");
  table_.abi_version = 0;
  expect_refused(Code::kRefused, "version 0");
}

TEST_F(TableTest, OtherSizesAreRefusedWithBothSides) {
  const terrace_backend_table whole = table_;
  table_.struct_size -= 1;
  expect_refused(Code::kRefused, "compile it with this Terrace's include/terrace/backend.h");
  table_ = whole;
  table_.transfer_size += 8;
  expect_refused(Code::kRefused, "112");
  table_ = whole;
  table_.completion_size -= 8;
  expect_refused(Code::kRefused, "16");
}

TEST_F(TableTest, EachFunctionIsMissed) {
  const terrace_backend_table whole = table_;
  table_.open = nullptr;
  expect_refused(Code::kInvalid, "no open()");
  table_ = whole;
  table_.submit = nullptr;
  expect_refused(Code::kInvalid, "no submit()");
  table_ = whole;
  table_.poll = nullptr;
  expect_refused(Code::kInvalid, "no poll()");
  table_ = whole;
  table_.close = nullptr;
  expect_refused(Code::kInvalid, "no close()");
}

TEST_F(TableTest, WhatIsNoNameIsRefused) {
  const std::string endless(1000, 'a');
  for (const char* name : {static_cast<const char*>(nullptr), "", "two words", "new\nline",
                           "K\xc3\xa4se", endless.c_str()}) {
    table_.name = name;
    expect_refused(Code::kInvalid, "name is not");
  }
}

}  // namespace
}  // namespace terrace::transfer
