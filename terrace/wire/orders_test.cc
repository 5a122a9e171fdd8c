#include "terrace/wire/orders.h"

#include <gtest/gtest.h>

#include "terrace/base/check.h"
#include "terrace/base/rng.h"
#include "terrace/testing/vectors.h"
#include "terrace/wire/bytes_internal.h"
#include "terrace/wire/xxhash_internal.h"

namespace terrace::wire {
namespace {

std::span<const std::byte> bytes_of(const std::string& text) {
  return std::as_bytes(std::span(text.data(), text.size()));
}

SlotRef slot(std::uint32_t index, std::uint32_t generation) {
  return {SlotIndex(index), Generation(generation)};
}

Orders orders_example() {
  Orders orders;
  orders.owner = 0x1122334455667788ULL;
  orders.step = StepId(7);
  orders.canary_slot = 3;
  orders.loads.push_back({.slot = slot(1, 2),
                          .group = GroupId(0),
                          .device_block = 9,
                          .is_void = false,
                          .checksums = {{0xAAAAAAAAAAAAAAAAULL}, {0xBBBBBBBBBBBBBBBBULL}}});
  orders.loads.push_back({.slot = slot(4, 5),
                          .group = GroupId(1),
                          .device_block = 10,
                          .is_void = true,
                          .checksums = {}});
  orders.saves.push_back({.slot = slot(6, 7), .group = GroupId(1), .device_block = 11});
  return orders;
}

Report report_example() {
  Report report;
  report.owner = 0x1122334455667788ULL;
  report.epoch = Epoch(5);
  report.rank = RankId(1);
  report.step = StepId(7);
  report.canary = CanaryResult::kPassed;
  report.load_ns = 100;
  report.load_bytes = 200;
  report.save_ns = 300;
  report.save_bytes = 400;
  report.saves.push_back(
      {.slot = slot(6, 7), .group = GroupId(1), .is_filled = true, .checksum = {0xCCULL}});
  report.failures.push_back({.slot = slot(4, 5), .group = GroupId(1), .device_block = 10});
  return report;
}

template <typename T>
Code code_of(const Result<T>& result) {
  return result.has_value() ? Code::kOk : result.error().code();
}
Code orders_code(const std::string& bytes) { return code_of(decode_orders(bytes_of(bytes))); }
Code report_code(const std::string& bytes) { return code_of(decode_report(bytes_of(bytes))); }

// Replaces the closing check, as a writer with other ideas of the content would have made it.
std::string sealed(std::string bytes) {
  bytes.resize(bytes.size() - 8);
  put(bytes, xxh3_64(bytes_of(bytes)));
  return bytes;
}

TEST(OrdersTest, GoldenBytesAreThoseOfTheFormatDocument) {
  EXPECT_EQ(testing::to_hex(encode(orders_example())),
            "544f5244"
            "0100"
            "0000"
            "8877665544332211"
            "0700000000000000"
            "03000000"
            "02000000"
            "01000000"
            "01000000"
            "02000000"
            "0000"
            "00"
            "02"
            "09000000"
            "aaaaaaaaaaaaaaaa"
            "bbbbbbbbbbbbbbbb"
            "04000000"
            "05000000"
            "0100"
            "01"
            "00"
            "0a000000"
            "06000000"
            "07000000"
            "0100"
            "0000"
            "0b000000"
            "88db1ba0a1170800");
  EXPECT_EQ(testing::to_hex(encode(report_example())),
            "54524550"
            "0100"
            "0100"
            "8877665544332211"
            "0500000000000000"
            "0700000000000000"
            "6400000000000000"
            "c800000000000000"
            "2c01000000000000"
            "9001000000000000"
            "01000000"
            "01000000"
            "01000000"
            "06000000"
            "07000000"
            "0100"
            "01"
            "00"
            "cc00000000000000"
            "04000000"
            "05000000"
            "0100"
            "0000"
            "0a000000"
            "65cd38356f60ef90");
}

TEST(OrdersTest, GoldenOrdersReadBack) {
  const auto orders = decode_orders(bytes_of(encode(orders_example())));
  ASSERT_TRUE(orders.has_value());
  EXPECT_EQ(*orders, orders_example());
  const auto report = decode_report(bytes_of(encode(report_example())));
  ASSERT_TRUE(report.has_value());
  EXPECT_EQ(*report, report_example());
}

Orders random_orders(Rng& rng) {
  Orders orders;
  orders.owner = rng.next();
  orders.step = StepId(rng.next());
  orders.canary_slot = static_cast<std::uint32_t>(rng.next());
  const auto small = [&] { return static_cast<std::uint32_t>(rng.next()); };
  const auto group = [&] { return GroupId(static_cast<std::uint16_t>(rng.next())); };
  for (std::uint64_t i = rng.below(6); i > 0; --i) {
    LoadOrder load{slot(small(), small()), group(), small(), rng.chance(50), {}};
    for (std::uint64_t k = rng.below(65); k > 0; --k) load.checksums.push_back({rng.next()});
    orders.loads.push_back(load);
  }
  for (std::uint64_t i = rng.below(6); i > 0; --i) {
    orders.saves.push_back({slot(small(), small()), group(), small()});
  }
  return orders;
}

Report random_report(Rng& rng) {
  const auto small = [&] { return static_cast<std::uint32_t>(rng.next()); };
  const auto half = [&] { return static_cast<std::uint16_t>(rng.next()); };
  Report report{rng.next(),
                Epoch(rng.next()),
                RankId(half()),
                StepId(rng.next()),
                static_cast<CanaryResult>(rng.below(3)),
                rng.next(),
                rng.next(),
                rng.next(),
                rng.next(),
                {},
                {}};
  for (std::uint64_t i = rng.below(6); i > 0; --i) {
    report.saves.push_back({slot(small(), small()), GroupId(half()), rng.chance(50), {rng.next()}});
    report.failures.push_back({slot(small(), small()), GroupId(half()), small()});
  }
  return report;
}

TEST(OrdersTest, RoundTripsAnyValues) {
  const std::uint64_t seed = 3;
  SCOPED_TRACE(seed);
  Rng rng(seed);
  for (int round = 0; round < 2000; ++round) {
    const Orders orders = random_orders(rng);
    const auto read_orders = decode_orders(bytes_of(encode(orders)));
    ASSERT_TRUE(read_orders.has_value()) << read_orders.error().text();
    ASSERT_EQ(*read_orders, orders);
    const Report report = random_report(rng);
    const auto read_report = decode_report(bytes_of(encode(report)));
    ASSERT_TRUE(read_report.has_value()) << read_report.error().text();
    ASSERT_EQ(*read_report, report);
  }
}

TEST(OrdersTest, EveryTruncationIsInvalid) {
  const std::string orders = encode(orders_example());
  const std::string report = encode(report_example());
  for (std::size_t kept = 0; kept < orders.size(); ++kept) {
    ASSERT_EQ(orders_code(orders.substr(0, kept)), Code::kInvalid) << kept;
  }
  for (std::size_t kept = 0; kept < report.size(); ++kept) {
    ASSERT_EQ(report_code(report.substr(0, kept)), Code::kInvalid) << kept;
  }
}

TEST(OrdersTest, TruncationsThatSomebodySealedAgainAreInvalid) {
  const std::string orders = encode(orders_example());
  const std::string report = encode(report_example());
  for (std::size_t kept = 16; kept < orders.size(); ++kept) {
    ASSERT_EQ(orders_code(sealed(orders.substr(0, kept))), Code::kInvalid) << kept;
  }
  for (std::size_t kept = 16; kept < report.size(); ++kept) {
    ASSERT_EQ(report_code(sealed(report.substr(0, kept))), Code::kInvalid) << kept;
  }
  EXPECT_EQ(orders_code(sealed(orders + std::string(1, '\0'))), Code::kInvalid);
  EXPECT_EQ(report_code(sealed(report + std::string(1, '\0'))), Code::kInvalid);
}

TEST(OrdersTest, EveryBitFlipIsSeen) {
  std::string orders = encode(orders_example());
  std::string report = encode(report_example());
  const auto flip_all = [](std::string& bytes, Code (*code)(const std::string&)) {
    for (std::size_t bit = 0; bit < bytes.size() * 8; ++bit) {
      const auto mask = static_cast<char>(1U << (bit % 8));
      bytes[bit / 8] = static_cast<char>(bytes[bit / 8] ^ mask);
      const bool is_version = bit / 8 == 4 || bit / 8 == 5;
      ASSERT_EQ(code(bytes), is_version ? Code::kRefused : Code::kInvalid) << "bit " << bit;
      bytes[bit / 8] = static_cast<char>(bytes[bit / 8] ^ mask);
    }
  };
  flip_all(orders, orders_code);
  flip_all(report, report_code);
}

TEST(OrdersTest, AnotherVersionIsRefusedAndNamed) {
  std::string orders = encode(orders_example());
  orders[4] = 2;
  const auto decoded = decode_orders(bytes_of(sealed(orders)));
  ASSERT_FALSE(decoded.has_value());
  EXPECT_EQ(decoded.error().text(), "refused: orders: version 2, this is 1");
}

TEST(OrdersTest, OrdersAndReportsAreNotTakenForEachOther) {
  EXPECT_EQ(orders_code(encode(report_example())), Code::kInvalid);
  EXPECT_EQ(report_code(encode(orders_example())), Code::kInvalid);
}

TEST(OrdersTest, HostileCountsAreInvalidWithoutAnAllocationOfTheirSize) {
  // Offsets of the 32-bit counts; a true count of 2^32 - 1 would need hundreds of gigabytes.
  for (const std::size_t at : {28UL, 32UL}) {
    std::string orders = encode(orders_example());
    orders.replace(at, 4, "\xff\xff\xff\xff");
    EXPECT_EQ(orders_code(sealed(orders)), Code::kInvalid) << at;
  }
  for (const std::size_t at : {68UL, 72UL}) {
    std::string report = encode(report_example());
    report.replace(at, 4, "\xff\xff\xff\xff");
    EXPECT_EQ(report_code(sealed(report)), Code::kInvalid) << at;
  }
}

TEST(OrdersTest, ValuesOutsideTheirRangeAreInvalid) {
  const auto with = [](std::string bytes, std::size_t at, char value) {
    bytes[at] = value;
    return sealed(bytes);
  };
  const std::string orders = encode(orders_example());
  EXPECT_EQ(orders_code(with(orders, 6, 1)), Code::kInvalid);    // Reserved.
  EXPECT_EQ(orders_code(with(orders, 46, 2)), Code::kInvalid);   // is_void is 0 or 1.
  EXPECT_EQ(orders_code(with(orders, 47, 65)), Code::kInvalid);  // 64 ranks at most.
  const std::string report = encode(report_example());
  EXPECT_EQ(report_code(with(report, 64, 3)), Code::kInvalid);  // No such canary result.
  EXPECT_EQ(report_code(with(report, 86, 2)), Code::kInvalid);  // is_filled is 0 or 1.
}

TEST(OrdersTest, MoreChecksumsThanRanksCanBeAreABreach) {
  Orders orders = orders_example();
  orders.loads[0].checksums.resize(65);
  EXPECT_THROW((void)encode(orders), base::Breach);
}

TEST(OrdersTest, EmptyOrdersAreSmall) {
  EXPECT_EQ(encode(Orders()).size(), 44U);
  EXPECT_EQ(encode(Report()).size(), 84U);
}

TEST(OrdersTest, ReportsInARowComeApart) {
  Report later = report_example();
  later.step = StepId(8);
  later.saves.clear();
  const std::string bytes = encode(report_example()) + encode(Report()) + encode(later);
  const auto reports = decode_reports(bytes_of(bytes));
  ASSERT_TRUE(reports.has_value()) << reports.error().text();
  ASSERT_EQ(reports->size(), 3U);
  EXPECT_EQ(encode((*reports)[0]), encode(report_example()));
  EXPECT_EQ(encode((*reports)[2]), encode(later));
  EXPECT_TRUE(decode_reports({}).value().empty());
}

TEST(OrdersTest, OneBadReportInARowMakesAllInvalid) {
  const std::string one = encode(report_example());
  const std::string two = one + one;
  for (std::size_t length = one.size() + 1; length < two.size(); ++length) {
    EXPECT_EQ(code_of(decode_reports(bytes_of(two).first(length))), Code::kInvalid) << length;
  }
  std::string damaged = two;
  damaged[10] = static_cast<char>(damaged[10] ^ 1);
  EXPECT_EQ(code_of(decode_reports(bytes_of(damaged))), Code::kInvalid);
  std::string newer = two;
  newer[one.size() + 4] = 9;
  EXPECT_EQ(code_of(decode_reports(bytes_of(newer))), Code::kRefused);
}

}  // namespace
}  // namespace terrace::wire
