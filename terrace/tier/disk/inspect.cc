#include "terrace/tier/disk/inspect.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>

#include "terrace/tier/disk/extent_table_internal.h"
#include "terrace/tier/disk/owner_directory_internal.h"

namespace terrace::tier {

namespace {
using disk::ExtentTable;

std::string_view name_of(disk::DirectoryState state) {
  switch (state) {
    case disk::DirectoryState::kEmpty:
      return "empty";
    case disk::DirectoryState::kUsable:
      return "usable";
    case disk::DirectoryState::kNewer:
      return "newer";
    case disk::DirectoryState::kForeign:
      return "foreign";
  }
  return "unknown";
}

// Short at the end of the file.
std::size_t read_at(int file, std::span<std::byte> target, std::uint64_t offset) {
  std::size_t done = 0;
  while (done < target.size()) {
    const ssize_t got = ::pread(file, target.data() + done, target.size() - done,
                                static_cast<off_t>(offset + done));
    if (got <= 0) break;
    done += static_cast<std::size_t>(got);
  }
  return done;
}

std::optional<disk::MetaHeader> read_header(int file) {
  std::optional<disk::MetaHeader> best;
  for (std::size_t copy = 0; copy < disk::kMetaHeaderCopies; ++copy) {
    std::array<std::byte, disk::kPageBytes> page{};
    (void)read_at(file, page, copy * disk::kPageBytes);
    const auto header = disk::decode_meta(page);
    if (header && (!best || header->epoch > best->epoch)) best = header;
  }
  return best;
}

void count_run(int file, const disk::MetaHeader& header, std::uint32_t run, std::uint64_t stamp,
               InspectedNamespace& facts) {
  const std::uint64_t first = static_cast<std::uint64_t>(run) * header.run_slots * header.groups;
  std::vector<std::byte> records(static_cast<std::size_t>(header.run_slots) * header.groups *
                                 disk::kSlotRecordBytes);
  const std::size_t got =
      read_at(file, records, disk::kRecordsOffset + first * disk::kSlotRecordBytes);
  for (std::size_t at = 0; at + disk::kSlotRecordBytes <= got; at += disk::kSlotRecordBytes) {
    const auto slot =
        static_cast<std::uint32_t>((first + at / disk::kSlotRecordBytes) / header.groups);
    const auto decoded = disk::decode_slot(
        std::span<const std::byte>(records).subspan(at).first<disk::kSlotRecordBytes>(), slot);
    if (decoded.check == disk::RecordCheck::kDamaged) ++facts.damaged;
    if (decoded.check == disk::RecordCheck::kGood &&
        decoded.record.state == disk::RecordState::kSealed && decoded.record.stamp == stamp &&
        decoded.record.epoch == header.epoch && decoded.record.name_space == facts.number) {
      ++facts.sealed;
    }
  }
}

void count_slots(const std::string& directory, const ExtentTable& table, InspectedNamespace& facts,
                 const std::string& name) {
  const auto file = open_file(directory + "/" + name + "/slots.meta", O_RDONLY);
  if (!file) return;
  const auto header = read_header(file->get());
  if (!header || header->run_extents == 0 || header->run_slots > (1U << 24U) ||
      header->groups > 1024) {
    return;
  }
  facts.epoch = header->epoch;
  for (std::uint32_t extent = 0; extent < table.size();) {
    const disk::ExtentRecord& record = table[extent];
    if (record.name_space != facts.number || record.count != header->run_extents ||
        extent % header->run_extents != 0) {
      ++extent;
      continue;
    }
    facts.slots += static_cast<std::uint64_t>(header->run_slots) * header->groups;
    count_run(file->get(), *header, extent / header->run_extents, record.stamp, facts);
    extent += record.count;
  }
}

InspectedOwner inspect_owner(const std::string& directory) {
  InspectedOwner owner;
  owner.directory = directory;
  const disk::DirectoryFacts facts = disk::judge(directory);
  owner.state = name_of(facts.state);
  owner.problem = facts.reason;
  const auto is_locked = disk::DirectoryLock::is_locked(directory);
  owner.is_locked = is_locked && *is_locked;
  if (facts.state != disk::DirectoryState::kUsable) return owner;
  owner.extent_bytes = facts.extent_bytes;
  struct stat file{};
  if (::stat((directory + "/0.slots").c_str(), &file) == 0) {
    owner.file_bytes = static_cast<std::uint64_t>(file.st_size);
  }
  const auto table = ExtentTable::read(directory + "/extents.meta");
  for (const disk::NamespaceFacts& held : facts.namespaces) {
    InspectedNamespace found;
    found.number = held.number;
    found.fingerprint = held.text;
    found.content_digest = held.content_digest;
    found.layout_digest = held.layout_digest;
    found.used_seconds = held.used_seconds;
    found.bytes = held.extents * facts.extent_bytes;
    if (table) count_slots(directory, *table, found, held.directory);
    owner.namespaces.push_back(std::move(found));
  }
  return owner;
}
}  // namespace

Result<std::vector<InspectedOwner>> inspect_directory(const std::string& path) {
  TERRACE_ASSIGN_OR_RETURN(const auto directories, disk::list_owner_directories(path));
  std::vector<InspectedOwner> owners;
  for (const std::string& directory : directories) owners.push_back(inspect_owner(directory));
  return owners;
}

}  // namespace terrace::tier
