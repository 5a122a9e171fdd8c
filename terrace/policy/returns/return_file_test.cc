// Counts as bytes against docs/formats/vectors/learned.tsv, which a second implementation made from
// the document alone: what it wrote is read, and what we count and write is what it says.
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <map>
#include <string>
#include <vector>

#include "terrace/policy/returns/return_model.h"
#include "terrace/testing/keys.h"
#include "terrace/testing/vectors.h"

namespace terrace::policy {
namespace {

using Row = std::vector<std::string>;
using Counts = std::map<std::size_t, float>;  // By cell; zeros are left out.
struct Class {
  Counts returns;
  Counts not_yet;
  friend bool operator==(const Class&, const Class&) = default;
};
using Classes = std::map<std::string, Class>;  // By path: kind.value, one below the other.

constexpr std::size_t kCells = 46;

// Those of one kind. None is a failure: a kind that was renamed must not pass for want of rows.
std::vector<Row> rows_of(std::string_view kind) {
  std::vector<Row> rows = testing::read_vectors("learned.tsv");
  std::erase_if(rows, [&](const Row& row) { return row[0] != kind; });
  EXPECT_FALSE(rows.empty()) << kind;
  return rows;
}

// Of a column, without classes of zeros alone.
Classes classes_in(const std::string& column) {
  const auto counts_in = [](const std::string& text) {
    Counts counts;
    for (const std::string& one : testing::split(text, ',')) {
      const auto parts = testing::split(one, '=');
      counts[std::stoul(parts[0])] = std::stof(parts[1]);
    }
    return counts;
  };
  Classes classes;
  for (const std::string& text : testing::split(column, ';')) {
    auto parts = testing::split(text, '|');
    parts.resize(3);
    classes[parts[0]] = {counts_in(parts[1]), counts_in(parts[2])};
  }
  std::erase_if(classes, [](const auto& one) { return one.second == Class(); });
  return classes;
}

// Of a payload that is known to be whole, without classes of zeros alone.
Classes classes_of(const std::string& bytes) {
  struct Bytes {
    std::uint32_t parent;
    std::uint32_t name;
    std::array<float, kCells> returns;
    std::array<float, kCells> not_yet;
  };
  EXPECT_EQ((bytes.size() - 12) % sizeof(Bytes), 0U);
  const auto counts_in = [](const std::array<float, kCells>& cells) {
    Counts counts;
    for (std::size_t cell = 0; cell < kCells; ++cell) {
      if (cells[cell] != 0) counts[cell] = cells[cell];
    }
    return counts;
  };
  Classes classes;
  std::vector<std::string> paths;
  for (std::size_t at = 12; at + sizeof(Bytes) <= bytes.size(); at += sizeof(Bytes)) {
    Bytes one;
    std::memcpy(&one, bytes.data() + at, sizeof one);
    const std::string own = std::to_string(one.name >> 8U) + "." + std::to_string(one.name & 0xFFU);
    const bool is_below_first = one.parent == 0;
    paths.push_back(paths.empty()    ? "all"
                    : is_below_first ? own
                                     : paths.at(one.parent) + "/" + own);
    classes[paths.back()] = {counts_in(one.returns), counts_in(one.not_yet)};
  }
  std::erase_if(classes, [](const auto& one) { return one.second == Class(); });
  return classes;
}

// Without those of kinds that the document does not have.
Classes known(Classes classes) {
  std::erase_if(classes, [](const auto& one) {
    if (one.first == "all") return false;
    return std::ranges::any_of(testing::split(one.first, '/'), [](const std::string& part) {
      const std::uint64_t kind = std::stoull(part);
      return kind < 1 || kind > 6;
    });
  });
  return classes;
}

Hints hints_of(std::uint64_t promise) {
  Hints hints;
  hints.is_over = promise == kPromiseOver;
  hints.is_tool_call = promise == kPromiseToolCall;
  if (promise >= kPromiseReturn) {
    hints.returns_in = seconds(promise + 1 == kPromiseCount ? 1025 : 1);
    for (Promise of = kPromiseReturn; of < promise && promise + 1 < kPromiseCount; ++of) {
      hints.returns_in = hints.returns_in * 4;
    }
  }
  return hints;
}

void serve(ReturnModel& model, const std::string& request) {
  const auto column = testing::split(request, ',');
  const auto number = [&](std::size_t at) { return std::stoull(column.at(at)); };
  const auto time = [&](std::size_t at) { return time_of(std::stoull(column.at(at))); };
  std::vector<SequenceHash> blocks;
  blocks.reserve(number(2));
  for (std::uint64_t i = 0; i < number(2); ++i) {
    blocks.push_back(testing::hash(number(0) << 20U | i));
  }
  const Hints hints = hints_of(number(6));
  const Visit visit = model.arrive(blocks, time(1), hints);
  model.leave(visit, blocks, blocks.size(), number(4), static_cast<Ending>(number(5)), time(3),
              hints);
}

TEST(ReturnFileTest, WhatTheSecondImplementationWroteIsRead) {
  for (const Row& row : rows_of("payload")) {
    SCOPED_TRACE(row[1]);
    const std::string bytes = testing::from_hex(row[2]);
    EXPECT_EQ(classes_of(bytes), classes_in(row[1])) << "as this test reads it";
    const auto model = ReturnModel::create().value();
    ASSERT_TRUE(model->load(bytes).is_ok());
    EXPECT_EQ(classes_of(model->save()), known(classes_in(row[1])));
  }
}

TEST(ReturnFileTest, WhatTheSecondImplementationRefusesIsRefused) {
  for (const Row& row : rows_of("refused")) {
    const auto model = ReturnModel::create().value();
    const std::string bytes = row.size() > 2 ? testing::from_hex(row[2]) : "";
    EXPECT_EQ(model->load(bytes).code(), Code::kInvalid) << row[1];
  }
}

TEST(ReturnFileTest, RequestsCountAsTheSecondImplementationCountsThem) {
  for (const Row& row : rows_of("history")) {
    SCOPED_TRACE(row[1]);
    const auto model = ReturnModel::create().value();
    for (const std::string& request : testing::split(row[1], ';')) serve(*model, request);
    EXPECT_EQ(classes_of(model->save()), classes_in(row[2]));
  }
}

}  // namespace
}  // namespace terrace::policy
