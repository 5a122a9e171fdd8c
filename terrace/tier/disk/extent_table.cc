#include <fcntl.h>

#include <algorithm>

#include "terrace/base/file.h"
#include "terrace/tier/disk/extent_table_internal.h"

namespace terrace::tier::disk {

Result<ExtentTable> ExtentTable::read(const std::string& path) {
  constexpr Bytes kLimit(kPageBytes + kMostExtents * kExtentRecordBytes);
  TERRACE_ASSIGN_OR_RETURN(const std::string content, read_file(path, kLimit));
  const auto bytes = std::as_bytes(std::span(content));
  if (bytes.size() < kPageBytes) {
    return fail(Code::kCorrupt, path + ": shorter than its header, so it was cut");
  }
  auto header = decode_volume(bytes.first<kPageBytes>());
  if (!header) return fail(header.error().code(), path + ": " + header.error().message());
  ExtentTable table;
  table.extent_bytes_ = header->extent_bytes;
  const std::size_t count = (bytes.size() - kPageBytes) / kExtentRecordBytes;
  table.records_.resize(count);
  for (std::uint32_t i = 0; i < count; ++i) {
    const auto source = bytes.subspan(offset(i)).first<kExtentRecordBytes>();
    if (const auto record = decode_extent(source, i)) {
      table.records_[i] = *record;
      table.highest_stamp_ = std::max(table.highest_stamp_, record->stamp);
    } else if (std::any_of(source.begin(), source.end(),
                           [](std::byte b) { return b != std::byte{0}; })) {
      ++table.damaged_;
    }
  }
  table.drop_broken_runs();
  return table;
}

const ExtentRecord& ExtentTable::operator[](std::uint32_t extent) const {
  static const ExtentRecord unclaimed;
  return extent < records_.size() ? records_[extent] : unclaimed;
}

std::uint32_t ExtentTable::used() const {
  for (std::uint32_t i = size(); i > 0; --i) {
    if (records_[i - 1].name_space != 0) return i;
  }
  return 0;
}

std::map<std::uint32_t, std::uint64_t> ExtentTable::extents_by_namespace() const {
  std::map<std::uint32_t, std::uint64_t> counts;
  for (const ExtentRecord& record : records_) {
    if (record.name_space != 0) ++counts[record.name_space];
  }
  return counts;
}

void ExtentTable::set(std::uint32_t extent, const ExtentRecord& record) {
  if (extent >= records_.size()) records_.resize(extent + 1);
  records_[extent] = record;
  highest_stamp_ = std::max(highest_stamp_, record.stamp);
}

std::vector<std::uint32_t> ExtentTable::shrink(std::uint32_t extents) {
  std::vector<std::uint32_t> changed;
  for (std::uint32_t i = 0; i < size(); ++i) {
    ExtentRecord& record = records_[i];
    if (record.name_space == 0) continue;
    if (i >= extents || record.first + record.count > extents) {
      record = {};
      changed.push_back(i);
    }
  }
  return changed;
}

void ExtentTable::drop_broken_runs() {
  std::vector<ExtentRecord> whole(records_.size());
  for (std::uint32_t i = 0; i < size(); ++i) {
    const ExtentRecord& record = records_[i];
    if (record.name_space == 0 || record.first != i || record.count == 0 ||
        record.count > size() - i) {
      continue;
    }
    const auto begin = records_.begin() + i;
    if (std::all_of(begin, begin + record.count, [&](const auto& r) { return r == record; })) {
      std::copy(begin, begin + record.count, whole.begin() + i);
    }
  }
  records_ = std::move(whole);
}

}  // namespace terrace::tier::disk
