// What every object store must do. A store's test instantiates it, plain and under a fault
// decorator that injects nothing:
//   INSTANTIATE_TEST_SUITE_P(Dir, ObjectStoreContract, ::testing::Values(...), object_store_name);
// Threading: tests only.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "terrace/base/rng.h"
#include "terrace/testing/eventually.h"
#include "terrace/transfer/object_store.h"

namespace terrace::transfer {

// One place that is empty at first, which several stores open as several nodes would.
class ObjectPlace {
 public:
  virtual ~ObjectPlace() = default;
  virtual std::unique_ptr<ObjectStore> open(unsigned depth) = 0;
};

struct ObjectPlaceMaker {
  std::string name;
  std::function<std::unique_ptr<ObjectPlace>()> make;
};

inline void PrintTo(const ObjectPlaceMaker& maker, std::ostream* out) { *out << maker.name; }

inline std::string object_store_name(const ::testing::TestParamInfo<ObjectPlaceMaker>& info) {
  return info.param.name;
}

class ObjectStoreContract : public ::testing::TestWithParam<ObjectPlaceMaker> {
 protected:
  using Content = std::vector<std::byte>;

  void SetUp() override {
    place_ = GetParam().make();
    ASSERT_NE(place_, nullptr);
    store_ = place_->open(16);
    ASSERT_NE(store_, nullptr);
  }

  static Content content(std::size_t bytes, std::uint64_t seed) {
    Content made(bytes);
    Rng rng(seed);
    for (std::byte& byte : made) byte = static_cast<std::byte>(rng.next());
    return made;
  }
  static ObjectRequest request(ObjectOp op, std::string name) {
    ObjectRequest made;
    made.op = op;
    made.name = std::move(name);
    return made;
  }
  static ObjectRequest put_request(std::string name, Content& bytes) {
    ObjectRequest made = request(ObjectOp::kPut, std::move(name));
    made.pieces = {{bytes.data(), bytes.size()}};
    return made;
  }
  static ObjectRequest get_request(std::string name, std::uint64_t offset, Content& bytes) {
    ObjectRequest made = put_request(std::move(name), bytes);
    made.op = ObjectOp::kGet;
    made.offset = offset;
    return made;
  }

  static std::vector<ObjectAnswer> drain(ObjectStore& store) {
    std::vector<ObjectAnswer> answers;
    store.wait(milliseconds(50));
    store.poll(answers);
    return answers;
  }
  // Submits one request and waits for its answer.
  ObjectAnswer run(ObjectStore& store, ObjectRequest made) {
    made.token = ++token_;
    ObjectAnswer answer;
    answer.status = store.submit(std::move(made));
    if (!answer.status.is_ok()) return answer;
    EXPECT_TRUE(testing::eventually([&] {
      for (ObjectAnswer& one : drain(store)) {
        EXPECT_EQ(one.token, token_);
        answer = std::move(one);
        return true;
      }
      return false;
    }));
    return answer;
  }
  ObjectAnswer put(const std::string& name, Content bytes) {
    return run(*store_, put_request(name, bytes));
  }
  // The whole object; empty when it is not there.
  Content get(ObjectStore& store, const std::string& name) {
    const ObjectAnswer head = run(store, request(ObjectOp::kHead, name));
    if (!head.status.is_ok()) return {};
    Content bytes(head.info.bytes);
    EXPECT_EQ(run(store, get_request(name, 0, bytes)).status.text(), Status().text());
    return bytes;
  }
  std::map<std::string, int> list(ObjectStore& store, const std::string& start) {
    std::map<std::string, int> names;
    ObjectRequest page = request(ObjectOp::kList, start);
    for (int pages = 0; pages < 100; ++pages) {
      const ObjectAnswer answer = run(store, page);
      EXPECT_EQ(answer.status.text(), Status().text());
      EXPECT_LE(answer.found.size(), kMostListed);
      for (const ObjectInfo& info : answer.found) ++names[info.name];
      if (answer.next.empty()) return names;
      page.after = answer.next;
    }
    ADD_FAILURE() << "a listing that does not end";
    return names;
  }

  std::unique_ptr<ObjectPlace> place_;
  std::unique_ptr<ObjectStore> store_;
  std::uint64_t token_ = 0;
};

TEST_P(ObjectStoreContract, ReadsBackWhatWasPutWholeAndInRangesOverSeveralPieces) {
  const Content bytes = content((3U << 20U) + 5, 1);
  const ObjectAnswer answer = put("a/b/whole.pack", bytes);
  ASSERT_EQ(answer.status.text(), Status().text());
  EXPECT_FALSE(answer.was_there);
  EXPECT_EQ(get(*store_, "a/b/whole.pack"), bytes);

  Content first(4096);
  Content second((1U << 20U) + 1);
  ObjectRequest range = get_request("a/b/whole.pack", 4097, first);
  range.pieces.push_back({second.data(), second.size()});
  ASSERT_EQ(run(*store_, range).status.text(), Status().text());
  EXPECT_TRUE(std::equal(first.begin(), first.end(), bytes.begin() + 4097));
  EXPECT_TRUE(std::equal(second.begin(), second.end(), bytes.begin() + 4097 + 4096));
}

// Who shows what arrives at all.
class ArrivalsSeen final : public Arrivals {
 public:
  explicit ArrivalsSeen(std::vector<MemoryPiece> pieces) : pieces_(std::move(pieces)) {}
  void on_bytes(std::uint64_t from, std::uint64_t to) override {
    if (from == 0) seen.clear();
    is_in_order = is_in_order && from == seen.size() && to > from;
    std::uint64_t at = 0;
    for (const MemoryPiece& piece : pieces_) {
      for (std::size_t i = 0; i < piece.bytes; ++i, ++at) {
        if (at >= from && at < to) seen.push_back(piece.data[i]);
      }
    }
  }
  std::vector<std::byte> seen;  // As it lay in memory at that time.
  bool is_in_order = true;

 private:
  std::vector<MemoryPiece> pieces_;
};

TEST_P(ObjectStoreContract, WhatArrivesIsShownWholeAndInOrderOrNotAtAll) {
  const Content bytes = content(700'001, 5);
  ASSERT_TRUE(put("a/b", bytes).status.is_ok());
  Content first(4096);
  Content second(600'000);
  ObjectRequest made = request(ObjectOp::kGet, "a/b");
  made.offset = 1000;
  made.pieces = {{first.data(), first.size()}, {second.data(), second.size()}};
  ArrivalsSeen seen(made.pieces);
  made.arrivals = &seen;
  ASSERT_TRUE(run(*store_, made).status.is_ok());
  EXPECT_TRUE(seen.is_in_order);
  if (store_->shows_arrivals()) {
    ASSERT_EQ(seen.seen.size(), first.size() + second.size());
    EXPECT_TRUE(std::equal(seen.seen.begin(), seen.seen.end(), bytes.begin() + 1000));
  } else {
    EXPECT_TRUE(seen.seen.empty());
  }
}

TEST_P(ObjectStoreContract, PutsSeveralPiecesAsOneObject) {
  Content first = content(100, 2);
  Content second = content(70'000, 3);
  ObjectRequest both = put_request("pieces", first);
  both.pieces.push_back({second.data(), second.size()});
  ASSERT_EQ(run(*store_, both).status.text(), Status().text());
  Content whole = first;
  whole.insert(whole.end(), second.begin(), second.end());
  EXPECT_EQ(get(*store_, "pieces"), whole);
}

TEST_P(ObjectStoreContract, WhatIsNotThereIsNotFoundAndNoError) {
  Content bytes(10);
  EXPECT_EQ(run(*store_, request(ObjectOp::kHead, "absent")).status.code(), Code::kNotFound);
  EXPECT_EQ(run(*store_, get_request("absent", 0, bytes)).status.code(), Code::kNotFound);
  EXPECT_EQ(run(*store_, request(ObjectOp::kHead, "no/such/folder")).status.code(),
            Code::kNotFound);
  EXPECT_TRUE(run(*store_, request(ObjectOp::kRemove, "absent")).status.is_ok());
  EXPECT_TRUE(list(*store_, "").empty());
  for (const Counter& errors : store_->counters().errors) EXPECT_EQ(errors.value(), 0U);
}

TEST_P(ObjectStoreContract, TheFirstOfTwoPutsStays) {
  const Content first = content(5000, 4);
  ASSERT_FALSE(put("name", first).was_there);
  const auto moved = store_->counters().bytes[static_cast<std::size_t>(ObjectOp::kPut)].value();
  const ObjectAnswer again = put("name", content(7000, 5));
  ASSERT_EQ(again.status.text(), Status().text());
  EXPECT_TRUE(again.was_there);
  EXPECT_EQ(get(*store_, "name"), first);
  EXPECT_EQ(store_->counters().bytes[static_cast<std::size_t>(ObjectOp::kPut)].value(), moved);
}

TEST_P(ObjectStoreContract, OfTwoNodesThatPutAtOnceOneWinsAndBothReadItsBytes) {
  const auto other = place_->open(16);
  for (std::uint64_t round = 0; round < 20; ++round) {
    const std::string name = "race/" + std::to_string(round);
    Content ours = content(300'000, 2 * round);
    Content theirs = content(300'000, 2 * round + 1);
    ASSERT_TRUE(store_->submit(put_request(name, ours)).is_ok());
    ASSERT_TRUE(other->submit(put_request(name, theirs)).is_ok());
    std::vector<ObjectAnswer> answers;
    ASSERT_TRUE(testing::eventually([&] {
      store_->poll(answers);
      other->poll(answers);
      return answers.size() == 2;
    }));
    int winners = 0;
    for (const ObjectAnswer& answer : answers) {
      ASSERT_EQ(answer.status.text(), Status().text());
      winners += answer.was_there ? 0 : 1;
    }
    EXPECT_EQ(winners, 1);
    const Content seen = get(*store_, name);
    EXPECT_TRUE(seen == ours || seen == theirs);
    EXPECT_EQ(get(*other, name), seen);
  }
}

TEST_P(ObjectStoreContract, ARangeBeyondTheEndIsCorrupt) {
  ASSERT_TRUE(put("short", content(1000, 6)).status.is_ok());
  Content bytes(600);
  EXPECT_EQ(run(*store_, get_request("short", 500, bytes)).status.code(), Code::kCorrupt);
  EXPECT_EQ(run(*store_, get_request("short", 1000, bytes)).status.code(), Code::kCorrupt);
  EXPECT_EQ(run(*store_, get_request("short", 1ULL << 40U, bytes)).status.code(), Code::kCorrupt);
  EXPECT_EQ(run(*store_, get_request("short", 400, bytes)).status.text(), Status().text());
}

TEST_P(ObjectStoreContract, AHeadTellsLengthAndAge) {
  const std::int64_t before = SystemClock().wall_seconds();
  ASSERT_TRUE(put("dated", content(1234, 7)).status.is_ok());
  const ObjectAnswer head = run(*store_, request(ObjectOp::kHead, "dated"));
  ASSERT_EQ(head.status.text(), Status().text());
  EXPECT_EQ(head.info.name, "dated");
  EXPECT_EQ(head.info.bytes, 1234U);
  EXPECT_NEAR(static_cast<double>(head.info.modified_seconds), static_cast<double>(before), 120);
}

TEST_P(ObjectStoreContract, ListsEachNameOnceOverPagesAndOnlyWhatBeginsSo) {
  constexpr int kNames = 1100;  // More than a page.
  std::vector<Content> contents(kNames, Content(1));
  std::size_t answered = 0;
  const auto collect = [&] {
    for (const ObjectAnswer& answer : drain(*store_)) {
      EXPECT_EQ(answer.status.text(), Status().text());
      ++answered;
    }
  };
  for (int i = 0; i < kNames; ++i) {
    const ObjectRequest one = put_request("many/" + std::to_string(i) + "/x", contents.at(i));
    while (!store_->submit(one).is_ok()) collect();
  }
  ASSERT_TRUE(testing::eventually([&] { return collect(), answered == kNames; }));
  ASSERT_TRUE(put("others", content(10, 8)).status.is_ok());
  const auto all = list(*store_, "");
  EXPECT_EQ(all.size(), kNames + 1U);
  for (const auto& [name, times] : all) EXPECT_EQ(times, 1) << name;
  EXPECT_EQ(list(*store_, "many/").size(), static_cast<std::size_t>(kNames));
  EXPECT_EQ(list(*store_, "many/109").size(), 11U);  // 109 and 1090 … 1099.
  EXPECT_EQ(list(*store_, "man").size(), static_cast<std::size_t>(kNames));
  EXPECT_TRUE(list(*store_, "many/none/").empty());
}

TEST_P(ObjectStoreContract, WhatIsRemovedIsGoneForAllAndMayBePutAgain) {
  const auto other = place_->open(16);
  ASSERT_TRUE(put("gone/x", content(100, 9)).status.is_ok());
  EXPECT_EQ(get(*other, "gone/x").size(), 100U);
  ASSERT_TRUE(run(*store_, request(ObjectOp::kRemove, "gone/x")).status.is_ok());
  EXPECT_EQ(run(*other, request(ObjectOp::kHead, "gone/x")).status.code(), Code::kNotFound);
  EXPECT_TRUE(list(*other, "gone/").empty());
  const Content fresh = content(200, 10);
  EXPECT_FALSE(put("gone/x", fresh).was_there);
  EXPECT_EQ(get(*other, "gone/x"), fresh);
}

TEST_P(ObjectStoreContract, ATouchedObjectKeepsItsContentAndAnAbsentOneStaysAway) {
  const Content bytes = content(50'000, 21);
  ASSERT_TRUE(put("touched/x", bytes).status.is_ok());
  const ObjectAnswer before = run(*store_, request(ObjectOp::kHead, "touched/x"));
  EXPECT_EQ(run(*store_, request(ObjectOp::kTouch, "touched/x")).status.text(), Status().text());
  const auto other = place_->open(16);
  const ObjectAnswer after = run(*other, request(ObjectOp::kHead, "touched/x"));
  EXPECT_GE(after.info.modified_seconds, before.info.modified_seconds);
  EXPECT_EQ(get(*other, "touched/x"), bytes);
  EXPECT_EQ(run(*store_, request(ObjectOp::kTouch, "touched/none")).status.code(), Code::kNotFound);
  EXPECT_EQ(list(*other, "touched/").size(), 1U);
}

TEST_P(ObjectStoreContract, EachRequestIsAnsweredOnceWithItsOwnToken) {
  std::vector<Content> contents;
  for (std::uint64_t i = 0; i < 16; ++i) contents.push_back(content(100'000, i));
  for (std::uint64_t i = 0; i < 16; ++i) {
    ObjectRequest one = put_request("tokens/" + std::to_string(i), contents.at(i));
    one.token = 1000 + i;
    ASSERT_TRUE(store_->submit(std::move(one)).is_ok());
  }
  EXPECT_EQ(store_->in_flight(), 16U);
  EXPECT_EQ(store_->submit(request(ObjectOp::kHead, "x")).code(), Code::kExhausted);
  std::map<std::uint64_t, int> seen;
  ASSERT_TRUE(testing::eventually([&] {
    for (const ObjectAnswer& answer : drain(*store_)) ++seen[answer.token];
    return seen.size() == 16;
  }));
  for (const auto& [token, times] : seen) EXPECT_EQ(times, 1) << token;
  EXPECT_EQ(store_->in_flight(), 0U);
  EXPECT_TRUE(drain(*store_).empty());
  for (std::uint64_t i = 0; i < 16; ++i) {
    EXPECT_EQ(get(*store_, "tokens/" + std::to_string(i)), contents.at(i));
  }
}

TEST_P(ObjectStoreContract, NamesThatAreNoneAreRefusedAndReachNothing) {
  Content bytes(10);
  const std::vector<std::string> names = {"",
                                          "/",
                                          "/a",
                                          "a/",
                                          "a//b",
                                          "..",
                                          "a/../b",
                                          ".",
                                          "a/./b",
                                          "A",
                                          "a b",
                                          "a\n",
                                          "ä",
                                          std::string("a\0b", 3),
                                          "a?",
                                          "a%2e",
                                          "a\\b",
                                          "*",
                                          std::string(513, 'a'),
                                          std::string(201, 'a')};
  for (const std::string& name : names) {
    EXPECT_EQ(store_->submit(put_request(name, bytes)).code(), Code::kInvalid) << name;
    EXPECT_EQ(store_->submit(request(ObjectOp::kRemove, name)).code(), Code::kInvalid) << name;
  }
  EXPECT_EQ(store_->submit(request(ObjectOp::kPut, "no-pieces")).code(), Code::kInvalid);
  EXPECT_EQ(store_->in_flight(), 0U);
  EXPECT_TRUE(list(*store_, "").empty());
  const std::string longest = std::string(200, 'a') + "/" + std::string(200, 'b');
  ASSERT_EQ(put(longest, bytes).status.text(), Status().text());
  EXPECT_EQ(get(*store_, longest).size(), 10U);
}

TEST_P(ObjectStoreContract, ADeadlineThatIsOverIsToldAndLeavesNothingHalfVisible) {
  Content bytes = content(4U << 20U, 11);
  ObjectRequest late = put_request("late", bytes);
  late.deadline = SystemClock().now() - Nanoseconds(1);
  EXPECT_EQ(run(*store_, late).status.code(), Code::kDeadline);
  ObjectRequest get_late = get_request("late", 0, bytes);
  get_late.deadline = late.deadline;
  EXPECT_EQ(run(*store_, get_late).status.code(), Code::kDeadline);
  const Content whole = content(1000, 12);
  ASSERT_TRUE(put("late", whole).status.is_ok());
  const Content seen = get(*store_, "late");
  EXPECT_TRUE(seen == whole || seen == content(4U << 20U, 11));
}

TEST_P(ObjectStoreContract, TheListenerIsToldOfWhatHasFinished) {
  const auto other = place_->open(16);
  std::atomic<int> told{0};
  other->set_listener([&told] { told.fetch_add(1); });
  for (int i = 0; i < 5; ++i) {
    EXPECT_EQ(run(*other, request(ObjectOp::kHead, "absent")).status.code(), Code::kNotFound);
    EXPECT_TRUE(testing::eventually([&] { return told.load() > i; }));
  }
}

TEST_P(ObjectStoreContract, AfterClosingWhatWasUnderWayIsThereWholeOrNotAtAll) {
  std::vector<Content> contents;
  for (std::uint64_t i = 0; i < 16; ++i) contents.push_back(content(300'000, i));
  for (std::uint64_t i = 0; i < 16; ++i) {
    const std::string name = "closing/" + std::to_string(i);
    ASSERT_TRUE(store_->submit(put_request(name, contents.at(i))).is_ok());
  }
  ASSERT_TRUE(store_->close(testing::kPatience));
  for (Content& bytes : contents) bytes.assign(bytes.size(), std::byte{0});  // As if it were freed.
  store_.reset();
  const auto other = place_->open(16);
  for (const auto& [name, times] : list(*other, "closing/")) {
    const std::uint64_t number = std::stoul(name.substr(name.find('/') + 1));
    EXPECT_EQ(get(*other, name), content(300'000, number)) << name;
  }
}

TEST_P(ObjectStoreContract, WakeEndsAWait) {
  store_->wake();
  store_->wait(seconds(600));
  SUCCEED();
}

TEST_P(ObjectStoreContract, ClosingWithRequestsUnderWayIsClean) {
  Content bytes = content(1U << 20U, 13);
  {
    const auto other = place_->open(16);
    for (int i = 0; i < 8; ++i) {
      ASSERT_TRUE(other->submit(put_request("open/" + std::to_string(i), bytes)).is_ok());
    }
  }
  for (const auto& [name, times] : list(*store_, "open/")) EXPECT_EQ(get(*store_, name), bytes);
}

}  // namespace terrace::transfer
