// Test support: collectors over one place in memory, and packs of any age to lie there.
// Threading: tests only.
#pragma once

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "terrace/testing/fake_clock.h"
#include "terrace/testing/memory_object_store.h"
#include "terrace/tier/object/collector.h"
#include "terrace/wire/pack.h"

namespace terrace::tier {

inline constexpr std::int64_t kDay = 86'400;
inline constexpr std::uint64_t kPackBytes = 1000;

class CollectorRig : public ::testing::Test {
 protected:
  CollectorRig() {
    place_->wall_seconds = [this] { return clock_.wall_seconds(); };
    options_.requests_per_second = 1'000'000;
  }
  static std::string name_of(std::uint64_t number, std::uint32_t blocks = 16) {
    return fmt::format("v1/{:032x}/g0/n{}/00/{:032x}.pack", number % 3, blocks, number);
  }
  void add(const std::string& name, std::int64_t age, std::uint64_t bytes = kPackBytes) {
    place_->objects[name].resize(bytes);
    place_->modified[name] = clock_.wall_seconds() - age;
  }
  std::set<std::string> left() const {
    std::set<std::string> names;
    for (const auto& [name, bytes] : place_->objects) {
      if (!name.starts_with(wire::kTurns)) names.insert(name);
    }
    return names;
  }
  // One turn: what may be asked is asked, and what was asked is answered.
  void turn(Collector& collector, transfer::ObjectStore& store) {
    while (auto request = collector.next()) {
      ASSERT_TRUE(store.submit(*std::move(request)).is_ok());
    }
    std::vector<transfer::ObjectAnswer> answers;
    store.poll(answers);
    for (const auto& answer : answers) collector.take(answer);
    clock_.advance(milliseconds(1));
  }
  CollectReport run(Collector& collector) {
    testing::MemoryObjectStore store(place_, 8);
    for (int i = 0; i < 100'000 && !(collector.is_over() && collector.is_idle()); ++i) {
      turn(collector, store);
    }
    EXPECT_TRUE(collector.is_over() && collector.is_idle());
    return collector.report();
  }
  CollectReport run() {
    Collector collector(options_, clock_);
    return run(collector);
  }
  std::size_t asked(const std::string& op) const {
    return static_cast<std::size_t>(std::ranges::count_if(
        place_->asked, [&](const std::string& text) { return text.starts_with(op + " "); }));
  }

  std::shared_ptr<testing::MemoryPlace> place_ = std::make_shared<testing::MemoryPlace>();
  testing::FakeClock clock_;
  Collector::Options options_;
};

}  // namespace terrace::tier
