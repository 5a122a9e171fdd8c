#include "terrace/wire/orders.h"

#include <fmt/format.h>

#include <string_view>

#include "terrace/base/check.h"
#include "terrace/wire/bytes_internal.h"
#include "terrace/wire/xxhash_internal.h"

namespace terrace::wire {
namespace {

// docs/formats/orders.md.
constexpr std::string_view kOrdersMagic = "TORD";
constexpr std::string_view kReportMagic = "TREP";
constexpr std::uint16_t kVersion = 1;
constexpr std::size_t kHeadBytes = 8;   // Magic, version, two bytes of the message's own.
constexpr std::size_t kCheckBytes = 8;  // XXH3-64 of all before it.
constexpr std::size_t kLoadBytes = 16;  // Without checksums.
constexpr std::size_t kSaveBytes = 16;
constexpr std::size_t kSaveReportBytes = 20;
constexpr std::size_t kFailureBytes = 16;
constexpr std::size_t kReportHeadBytes = 76;  // All before the lists.
constexpr std::size_t kMaxChecksums = 64;     // Ranks.

void put_slot(std::string& out, const SlotRef& slot, GroupId group) {
  put(out, slot.index.value());
  put(out, slot.generation.value());
  put(out, group.value());
}

SlotRef take_slot(Reader& reader) {
  const auto index = reader.take_as<SlotIndex>();
  return {index, reader.take_as<Generation>()};
}

bool take_flag(Reader& reader) {
  const auto flag = reader.take<std::uint8_t>();
  if (flag > 1) reader.mark_bad();
  return flag == 1;
}

template <typename T>
void expect_zero(Reader& reader) {
  if (reader.take<T>() != 0) reader.mark_bad();
}

void put_check(std::string& out) {
  put(out, xxh3_64(std::as_bytes(std::span(out.data(), out.size()))));
}

// The message between head and check, once both hold.
Result<std::span<const std::byte>> open(std::span<const std::byte> bytes, std::string_view magic,
                                        std::string_view what) {
  if (bytes.size() < kHeadBytes + kCheckBytes ||
      std::memcmp(bytes.data(), magic.data(), magic.size()) != 0) {
    return fail(Code::kInvalid, fmt::format("{}: cut, or no {} at all", what, what));
  }
  Reader head(bytes.subspan(magic.size()));
  const auto version = head.take<std::uint16_t>();
  if (version != kVersion) {
    return fail(Code::kRefused, fmt::format("{}: version {}, this is {}", what, version, kVersion));
  }
  const auto body = bytes.first(bytes.size() - kCheckBytes);
  if (Reader(bytes.last(kCheckBytes)).take<std::uint64_t>() != xxh3_64(body)) {
    return fail(Code::kInvalid, fmt::format("{}: cut or damaged", what));
  }
  return body.subspan(magic.size() + sizeof(kVersion));
}

Status closing(const Reader& reader, std::string_view what) {
  if (reader.is_ok() && reader.is_at_end()) return {};
  return {Code::kInvalid, fmt::format("{}: inconsistent", what)};
}

LoadOrder take_load(Reader& reader) {
  LoadOrder load;
  load.slot = take_slot(reader);
  load.group = reader.take_as<GroupId>();
  load.is_void = take_flag(reader);
  const auto count = reader.take<std::uint8_t>();
  load.device_block = reader.take<std::uint32_t>();
  if (count > kMaxChecksums || !reader.has_room_for(count, sizeof(std::uint64_t))) {
    reader.mark_bad();
    return load;
  }
  load.checksums.reserve(count);
  for (unsigned i = 0; i < count; ++i) load.checksums.push_back({reader.take<std::uint64_t>()});
  return load;
}

SaveOrder take_save(Reader& reader) {
  SaveOrder save;
  save.slot = take_slot(reader);
  save.group = reader.take_as<GroupId>();
  expect_zero<std::uint16_t>(reader);
  save.device_block = reader.take<std::uint32_t>();
  return save;
}

SaveReport take_save_report(Reader& reader) {
  SaveReport save;
  save.slot = take_slot(reader);
  save.group = reader.take_as<GroupId>();
  save.is_filled = take_flag(reader);
  expect_zero<std::uint8_t>(reader);
  save.checksum.value = reader.take<std::uint64_t>();
  return save;
}

LoadFailure take_failure(Reader& reader) {
  LoadFailure failure;
  failure.slot = take_slot(reader);
  failure.group = reader.take_as<GroupId>();
  expect_zero<std::uint16_t>(reader);
  failure.device_block = reader.take<std::uint32_t>();
  return failure;
}

// `count` items of at least `item_bytes`; nothing is allocated for a count that cannot be true.
template <typename T>
std::vector<T> take_list(Reader& reader, std::uint32_t count, std::size_t item_bytes,
                         T (*take_one)(Reader&)) {
  std::vector<T> list;
  if (!reader.has_room_for(count, item_bytes)) {
    reader.mark_bad();
    return list;
  }
  list.reserve(count);
  for (std::uint32_t i = 0; i < count && reader.is_ok(); ++i) list.push_back(take_one(reader));
  return list;
}

}  // namespace

std::string encode(const Orders& orders) {
  std::string out(kOrdersMagic);
  put(out, kVersion);
  put(out, std::uint16_t{0});
  put(out, orders.owner);
  put(out, orders.step.value());
  put(out, orders.canary_slot);
  put(out, static_cast<std::uint32_t>(orders.loads.size()));
  put(out, static_cast<std::uint32_t>(orders.saves.size()));
  for (const LoadOrder& load : orders.loads) {
    TERRACE_CHECK(load.checksums.size() <= kMaxChecksums);
    put_slot(out, load.slot, load.group);
    put(out, static_cast<std::uint8_t>(load.is_void));
    put(out, static_cast<std::uint8_t>(load.checksums.size()));
    put(out, load.device_block);
    for (const Checksum& checksum : load.checksums) put(out, checksum.value);
  }
  for (const SaveOrder& save : orders.saves) {
    put_slot(out, save.slot, save.group);
    put(out, std::uint16_t{0});
    put(out, save.device_block);
  }
  put_check(out);
  return out;
}

Result<Orders> decode_orders(std::span<const std::byte> bytes) {
  TERRACE_ASSIGN_OR_RETURN(const auto body, open(bytes, kOrdersMagic, "orders"));
  Reader reader(body);
  Orders orders;
  expect_zero<std::uint16_t>(reader);
  orders.owner = reader.take<std::uint64_t>();
  orders.step = reader.take_as<StepId>();
  orders.canary_slot = reader.take<std::uint32_t>();
  const auto loads = reader.take<std::uint32_t>();
  const auto saves = reader.take<std::uint32_t>();
  orders.loads = take_list<LoadOrder>(reader, loads, kLoadBytes, take_load);
  orders.saves = take_list<SaveOrder>(reader, saves, kSaveBytes, take_save);
  TERRACE_RETURN_IF_ERROR(closing(reader, "orders"));
  return orders;
}

std::string encode(const Report& report) {
  std::string out(kReportMagic);
  put(out, kVersion);
  put(out, report.rank.value());
  put(out, report.owner);
  put(out, report.epoch.value());
  put(out, report.step.value());
  put(out, report.load_ns);
  put(out, report.load_bytes);
  put(out, report.save_ns);
  put(out, report.save_bytes);
  put(out, static_cast<std::uint32_t>(report.canary));
  put(out, static_cast<std::uint32_t>(report.saves.size()));
  put(out, static_cast<std::uint32_t>(report.failures.size()));
  for (const SaveReport& save : report.saves) {
    put_slot(out, save.slot, save.group);
    put(out, static_cast<std::uint8_t>(save.is_filled));
    put(out, std::uint8_t{0});
    put(out, save.checksum.value);
  }
  for (const LoadFailure& failure : report.failures) {
    put_slot(out, failure.slot, failure.group);
    put(out, std::uint16_t{0});
    put(out, failure.device_block);
  }
  put_check(out);
  return out;
}

Result<Report> decode_report(std::span<const std::byte> bytes) {
  TERRACE_ASSIGN_OR_RETURN(const auto body, open(bytes, kReportMagic, "report"));
  Reader reader(body);
  Report report;
  report.rank = reader.take_as<RankId>();
  report.owner = reader.take<std::uint64_t>();
  report.epoch = reader.take_as<Epoch>();
  report.step = reader.take_as<StepId>();
  report.load_ns = reader.take<std::uint64_t>();
  report.load_bytes = reader.take<std::uint64_t>();
  report.save_ns = reader.take<std::uint64_t>();
  report.save_bytes = reader.take<std::uint64_t>();
  const auto canary = reader.take<std::uint32_t>();
  const auto saves = reader.take<std::uint32_t>();
  const auto failures = reader.take<std::uint32_t>();
  if (canary > static_cast<std::uint32_t>(CanaryResult::kFailed)) reader.mark_bad();
  report.canary = static_cast<CanaryResult>(canary);
  report.saves = take_list<SaveReport>(reader, saves, kSaveReportBytes, take_save_report);
  report.failures = take_list<LoadFailure>(reader, failures, kFailureBytes, take_failure);
  TERRACE_RETURN_IF_ERROR(closing(reader, "report"));
  return report;
}

Result<std::vector<Report>> decode_reports(std::span<const std::byte> bytes) {
  std::vector<Report> reports;
  while (!bytes.empty()) {
    // The two counts before the lists say how long the report is; decode_report checks them.
    if (bytes.size() < kReportHeadBytes) return fail(Code::kInvalid, "report: cut");
    Reader counts(bytes.subspan(kReportHeadBytes - 2 * sizeof(std::uint32_t)));
    const std::uint64_t saves = counts.take<std::uint32_t>();
    const std::uint64_t failures = counts.take<std::uint32_t>();
    const std::uint64_t length =
        kReportHeadBytes + saves * kSaveReportBytes + failures * kFailureBytes + kCheckBytes;
    if (length > bytes.size()) {
      auto whole = decode_report(bytes);  // For the reason: another version, or cut.
      return fail(whole.has_value() ? Status(Code::kInvalid, "report: cut") : whole.error());
    }
    TERRACE_ASSIGN_OR_RETURN(Report report, decode_report(bytes.first(length)));
    reports.push_back(std::move(report));
    bytes = bytes.subspan(length);
  }
  return reports;
}

}  // namespace terrace::wire
