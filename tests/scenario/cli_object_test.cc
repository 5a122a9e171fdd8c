// `terrace object gc` on a real directory, as people start it.
#include <fcntl.h>
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "scenario/cli_run.h"
#include "terrace/base/clock.h"
#include "terrace/testing/crypt.h"
#include "terrace/testing/eventually.h"
#include "terrace/testing/scratch_directory.h"
#include "terrace/transfer/backends/dir/dir_store.h"
#include "terrace/transfer/backends/s3/http_script_rig.h"

namespace terrace {
namespace {

namespace fs = std::filesystem;
using scenario::Ran;
using scenario::terrace_command;
using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;

constexpr std::int64_t kDay = 86'400;

class CliObjectTest : public ::testing::Test {
 protected:
  CliObjectTest() {
    fs::create_directory(root());
    transfer::DirStoreOptions options;
    options.path = root();
    auto made = transfer::make_dir_store(options);
    EXPECT_TRUE(made.has_value());
    store_ = *std::move(made);
  }
  [[nodiscard]] std::string root() const { return scratch_.path() + "/store"; }
  // The object's file; empty when there is none.
  [[nodiscard]] std::string path_of(const std::string& name) const {
    const std::string leaf = fs::path(name).filename();
    for (const auto& entry : fs::recursive_directory_iterator(root())) {
      if (entry.path().filename() == leaf) return entry.path();
    }
    return {};
  }
  static std::string name_of(int number) {
    return fmt::format("v1/{:032x}/g0/n16/00/{:032x}.pack", 5, number);
  }
  // A pack of 1 MiB that nobody has used for so long.
  void add(const std::string& name, std::int64_t age) {
    std::vector<std::byte> bytes(1U << 20U);
    transfer::ObjectRequest request;
    request.op = transfer::ObjectOp::kPut;
    request.name = name;
    request.pieces = {{bytes.data(), bytes.size()}};
    ASSERT_TRUE(store_->submit(std::move(request)).is_ok());
    std::vector<transfer::ObjectAnswer> answers;
    ASSERT_TRUE(testing::eventually([&] {
      store_->wait(milliseconds(50));
      store_->poll(answers);
      return !answers.empty();
    }));
    ASSERT_EQ(answers[0].status.text(), Status().text());
    const timespec then{static_cast<time_t>(SystemClock().wall_seconds() - age), 0};
    const timespec both[2] = {then, then};
    ASSERT_EQ(::utimensat(AT_FDCWD, path_of(name).c_str(), both, 0), 0);
  }
  void add_ten() {
    for (int i = 0; i < 10; ++i) add(name_of(i), i * kDay + 100);
  }
  [[nodiscard]] int left() const {
    int count = 0;
    for (int i = 0; i < 10; ++i) count += path_of(name_of(i)).empty() ? 0 : 1;
    return count;
  }
  [[nodiscard]] Ran gc(const std::string& arguments) const {
    return terrace_command("object gc " + arguments, "HOME=/home/u TERRACE_OBJECT_PATH=" + root());
  }

  testing::ScratchDirectory scratch_;
  std::unique_ptr<transfer::ObjectStore> store_;
};

TEST_F(CliObjectTest, RemovesWhatTheSettingsLeaveNoRoomFor) {
  add_ten();
  add("v1/notes", 1000 * kDay);
  const Ran old = gc("--set object.max_age=144h");
  EXPECT_EQ(old.code, 0) << old.error;
  EXPECT_THAT(old.out, AllOf(HasSubstr(root() + ": 10 packs, 160 blocks, 10MiB"),
                             HasSubstr("not used for 144h: 4 packs"), HasSubstr("removed: 4 packs"),
                             HasSubstr("other objects, left alone: 1")));
  EXPECT_EQ(left(), 6);
  EXPECT_NE(path_of(name_of(0)), "");
  EXPECT_EQ(path_of(name_of(9)), "");
  EXPECT_NE(path_of("v1/notes"), "");
  const Ran much = gc("--set object.size=2MiB --json");
  EXPECT_EQ(much.code, 0) << much.error;
  const auto json = nlohmann::json::parse(much.out);
  EXPECT_EQ(json["found"]["packs"], 6);
  EXPECT_EQ(json["too_many"]["packs"], 4);
  EXPECT_EQ(json["removed"], 4);
  EXPECT_EQ(json["error"], nullptr);
  EXPECT_NE(path_of(name_of(1)), "");
  EXPECT_EQ(left(), 2);
}

TEST_F(CliObjectTest, ADryRunAndOneWithoutABoundChangeNothing) {
  add_ten();
  const auto entries = [&] {
    return std::distance(fs::recursive_directory_iterator(root()),
                         fs::recursive_directory_iterator());
  };
  const auto before = entries();
  const Ran dry = gc("--dry-run --set object.max_age=144h --set object.size=2MiB");
  EXPECT_EQ(dry.code, 0) << dry.error;
  EXPECT_THAT(dry.out, AllOf(HasSubstr("4 packs"), HasSubstr("would be removed: 8 packs")));
  const Ran none = gc("");
  EXPECT_EQ(none.code, 0) << none.error;
  EXPECT_THAT(none.out, AllOf(HasSubstr("no bound is set"), HasSubstr("removed: 0 packs")));
  EXPECT_EQ(entries(), before);
}

TEST_F(CliObjectTest, PacksAreToldByTheKeyThatTheyNeed) {
  const std::string mine = testing::id_of('1');
  const std::string others = testing::id_of('2');
  add(name_of(0), 100);
  for (int i = 1; i < 3; ++i) {
    add(fmt::format("v1/{:032x}/g0/n16k{}/00/{:032x}.pack", 5, mine, i), 100);
  }
  add(fmt::format("v1/{:032x}/g0/n16k{}/00/{:032x}.pack", 5, others, 3), 100);
  const Ran none = gc("");
  EXPECT_THAT(none.out,
              AllOf(HasSubstr("not encrypted: 1 packs"),
                    HasSubstr("encrypted with key " + mine + ", not at hand: 2 packs"),
                    HasSubstr("encrypted with key " + others + ", not at hand: 1 packs")));
  const Ran ran =
      terrace_command("object gc --json", "HOME=/home/u TERRACE_OBJECT_PATH=" + root() +
                                              " TERRACE_ENCRYPTION_KEY=" + std::string(64, '1'));
  const auto keys = nlohmann::json::parse(ran.out)["keys"];
  ASSERT_EQ(keys.size(), 3U);
  for (const auto& key : keys) {
    EXPECT_EQ(key["at_hand"], key["id"] == mine);
    EXPECT_EQ(key["packs"], key["id"] == mine ? 2 : 1);
  }
  const Ran bad = gc("--set encryption.key_file=/nonexistent/key");
  EXPECT_EQ(bad.code, 1);
  EXPECT_THAT(bad.error, HasSubstr("no keys: "));
  EXPECT_THAT(bad.out, HasSubstr("4 packs"));
}

TEST_F(CliObjectTest, WhatItCannotDoIsSaid) {
  const Ran nowhere = terrace_command("object gc", "HOME=/home/u");
  EXPECT_EQ(nowhere.code, 2);
  EXPECT_THAT(nowhere.error, HasSubstr("give object.path"));
  const Ran gone = terrace_command("object gc", "HOME=/home/u TERRACE_OBJECT_PATH=/nonexistent/kv");
  EXPECT_EQ(gone.code, 1);
  EXPECT_THAT(gone.error, AllOf(HasSubstr("object.path: "), HasSubstr("/nonexistent/kv")));
  const Ran wrong = gc("--set object.max_age=6x");
  EXPECT_EQ(wrong.code, 1);
  EXPECT_THAT(wrong.error, HasSubstr("object.max_age"));
  EXPECT_EQ(gc("--set object.max_age").code, 2);
  EXPECT_EQ(gc("--rate 0").code, 2);
  EXPECT_EQ(gc("--rate -1").code, 2);
  EXPECT_EQ(terrace_command("object", "HOME=/home/u").code, 2);
  EXPECT_EQ(terrace_command("object gx", "HOME=/home/u").code, 2);
}

// Else whatever is mounted there later would be hidden behind a folder that says it is the store.
TEST_F(CliObjectTest, AFolderThatNobodyHasPutAnythingIntoStaysAsItIs) {
  const std::string empty = scratch_.path() + "/empty";
  fs::create_directory(empty);
  for (const char* words : {"object gc --dry-run", "object gc --set object.max_age=1h"}) {
    const Ran ran = terrace_command(words, "HOME=/home/u TERRACE_OBJECT_PATH=" + empty);
    EXPECT_EQ(ran.code, 1) << words;
    EXPECT_THAT(ran.error, AllOf(HasSubstr("object.path: " + empty), HasSubstr("not mounted")));
    EXPECT_TRUE(fs::is_empty(empty)) << words;
  }
}

TEST_F(CliObjectTest, AStoreThatDoesNotAnswerIsNotToldAsAnEmptyOne) {
  const std::string bucket =
      "HOME=/home/u TERRACE_OBJECT_ENABLED=true TERRACE_OBJECT_BUCKET=kv-cache "
      "TERRACE_OBJECT_ACCESS_KEY=a TERRACE_OBJECT_SECRET_KEY=b "
      "TERRACE_OBJECT_ENDPOINT=http://127.0.0.1:1";
  for (const char* words : {"object gc --dry-run", "object gc --set object.max_age=1h"}) {
    const Ran ran = terrace_command(words, bucket);
    EXPECT_EQ(ran.code, 1);
    EXPECT_THAT(ran.out, AllOf(HasSubstr("not counted to the end"), Not(HasSubstr("no bound")),
                               Not(HasSubstr("removed: "))));
    EXPECT_THAT(ran.error, HasSubstr("Couldn't connect"));
  }
  const Ran region = terrace_command("object gc --set object.region=a/b", bucket);
  EXPECT_EQ(region.code, 1);
  EXPECT_THAT(region.error, HasSubstr("object.region: "));
}

// Each page names the other one as its next.
TEST_F(CliObjectTest, ABucketWhoseListingsDoNotEndIsNamed) {
  const testing::HttpScript server([](const testing::HttpPeer& peer, const auto& seen) {
    const bool is_even = seen.target.find("continuation-token=odd") != std::string::npos;
    return peer.answer(200, "",
                       fmt::format("<ListBucketResult><Contents><Key>kv/{}</Key><Size>3</Size>"
                                   "<LastModified>2009-10-12T17:50:30.000Z</LastModified>"
                                   "</Contents><IsTruncated>true</IsTruncated>"
                                   "<NextContinuationToken>{}</NextContinuationToken>"
                                   "</ListBucketResult>",
                                   name_of(is_even ? 2 : 1), is_even ? "even" : "odd"));
  });
  const Ran ran = terrace_command(
      "object gc --dry-run --rate 1000 --set object.prefix=kv",
      "HOME=/home/u TERRACE_OBJECT_ENABLED=true TERRACE_OBJECT_BUCKET=kv-cache "
      "TERRACE_OBJECT_ACCESS_KEY=a TERRACE_OBJECT_SECRET_KEY=b TERRACE_OBJECT_ENDPOINT=" +
          server.url());
  EXPECT_EQ(ran.code, 1);
  EXPECT_THAT(ran.out, HasSubstr("not counted to the end"));
  EXPECT_THAT(ran.error, AllOf(HasSubstr("kv-cache"), HasSubstr(std::to_string(server.port())),
                               HasSubstr("list v1/: "), HasSubstr("round in a circle")));
  EXPECT_LT(server.seen().size(), 10U);
}

}  // namespace
}  // namespace terrace
