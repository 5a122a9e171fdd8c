#include "terrace/tier/disk/inspect.h"

#include <sys/stat.h>

#include "terrace/tier/disk/key_tally_internal.h"
#include "terrace/tier/disk/learned_keeper_internal.h"
#include "terrace/tier/disk/meta_scan_internal.h"
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

void count_slots(const std::string& directory, const ExtentTable& table, const std::string& name,
                 const std::shared_ptr<const KeyRing>& keys, InspectedNamespace& facts) {
  disk::KeyTally tally(keys);
  const auto scan =
      disk::scan_meta(directory, name, facts.number, table, [&](const disk::SealedSlot& sealed) {
        ++facts.sealed;
        tally.add(sealed.record);
        return true;
      });
  if (!scan) return;
  tally.read_names(directory, name, facts.number, table);
  facts.encryption = std::move(tally).take();
  facts.slots = scan->slots;
  facts.damaged = scan->damaged;
  facts.epoch = scan->epoch;
  facts.era = scan->era;
}

InspectedOwner inspect_owner(const std::string& directory,
                             const std::shared_ptr<const KeyRing>& keys) {
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
    found.fingerprint_problem = held.text_problem;
    found.content_digest = held.content_digest;
    found.layout_digest = held.layout_digest;
    found.used_seconds = held.used_seconds;
    found.bytes = held.extents * facts.extent_bytes;
    found.learned_bytes = disk::look_at_learned(directory + "/" + held.directory).bytes.size();
    if (table) count_slots(directory, *table, held.directory, keys, found);
    owner.namespaces.push_back(std::move(found));
  }
  return owner;
}
}  // namespace

Result<std::vector<InspectedOwner>> inspect_directory(const std::string& path,
                                                      const std::shared_ptr<const KeyRing>& keys) {
  TERRACE_ASSIGN_OR_RETURN(const auto directories, disk::list_owner_directories(path));
  std::vector<InspectedOwner> owners;
  owners.reserve(directories.size());
  for (const std::string& directory : directories) {
    owners.push_back(inspect_owner(directory, keys));
  }
  return owners;
}

}  // namespace terrace::tier
