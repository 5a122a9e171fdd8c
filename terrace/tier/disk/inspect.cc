#include "terrace/tier/disk/inspect.h"

#include <fmt/format.h>
#include <sys/stat.h>

#include "terrace/tier/disk/key_tally_internal.h"
#include "terrace/tier/disk/learned_keeper_internal.h"
#include "terrace/tier/disk/meta_scan_internal.h"
#include "terrace/tier/disk/owner_directory_internal.h"
#include "terrace/tier/disk/owner_files_internal.h"

namespace terrace::tier {

namespace {
using disk::ExtentTable;
using Progress = std::function<void(const InspectProgress&)>;

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

std::uint64_t slot_file_bytes(const std::string& directory) {
  struct stat file{};
  if (::stat((directory + "/0.slots").c_str(), &file) != 0) return 0;
  return static_cast<std::uint64_t>(file.st_size);
}

// As an owner counts at its start: a run whose end lies behind that of the slot file is lost.
void count_slots(const InspectedOwner& owner, const ExtentTable& table, const std::string& name,
                 const std::shared_ptr<const KeyRing>& keys, const Progress& progress,
                 InspectedNamespace& facts) {
  const auto visit_run = [&](std::uint32_t extent) {
    if (progress) progress({owner.directory + "/" + name, extent, table.size()});
  };
  const std::string& directory = owner.directory;
  disk::KeyTally tally(keys);
  std::uint64_t held = owner.file_bytes;
  std::uint64_t asked = held;
  std::uint64_t cut_off = 0;
  const auto scan = disk::scan_meta(
      directory, name, facts.number, table,
      [&](const disk::SealedSlot& sealed) {
        const std::uint64_t extents =
            std::uint64_t{sealed.first_extent} + table[sealed.first_extent].count;
        const std::uint64_t end = extents * owner.extent_bytes;
        if (end > asked) {  // An owner that lives may have given it more meanwhile.
          asked = end;
          held = slot_file_bytes(directory);
        }
        if (end > held) {
          ++cut_off;
          return true;
        }
        ++facts.sealed;
        tally.add(sealed.record);
        return true;
      },
      {}, visit_run);
  if (!scan) {
    if (facts.bytes > 0) {
      facts.problem = "slots.meta is missing or its header is damaged: its blocks are misses";
    }
    return;
  }
  if (cut_off > 0) {
    facts.problem = fmt::format("0.slots was cut: {} blocks behind its end are misses", cut_off);
  } else if (scan->missing > 0) {
    facts.problem =
        fmt::format("slots.meta was cut, it lacks {} records: what blocks they named are misses",
                    scan->missing);
  }
  tally.read_names(directory, name, facts.number, table);
  facts.encryption = std::move(tally).take();
  facts.slots = scan->slots;
  facts.damaged = scan->damaged;
  facts.epoch = scan->epoch;
  facts.era = scan->era;
}

InspectedOwner inspect_owner(const std::string& directory,
                             const std::shared_ptr<const KeyRing>& keys, const Progress& progress) {
  InspectedOwner owner;
  owner.directory = directory;
  const disk::DirectoryFacts facts = disk::judge(directory);
  owner.state = name_of(facts.state);
  owner.problem = facts.reason;
  const auto is_locked = disk::DirectoryLock::is_locked(directory);
  owner.is_locked = is_locked && *is_locked;
  if (!is_locked) owner.lock_problem = is_locked.error().message();
  if (facts.state != disk::DirectoryState::kUsable) return owner;
  owner.extent_bytes = facts.extent_bytes;
  owner.file_bytes = slot_file_bytes(directory);
  const auto table = ExtentTable::read(directory + "/extents.meta");
  if (table) owner.damaged_extents = table->damaged();
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
    if (table) count_slots(owner, *table, held.directory, keys, progress, found);
    owner.namespaces.push_back(std::move(found));
  }
  return owner;
}
}  // namespace

Result<std::vector<InspectedOwner>> inspect_directory(const std::string& path,
                                                      const std::shared_ptr<const KeyRing>& keys,
                                                      const Progress& progress) {
  TERRACE_ASSIGN_OR_RETURN(const auto directories, disk::find_owner_directories(path));
  std::vector<InspectedOwner> owners;
  owners.reserve(directories.size());
  for (const std::string& directory : directories) {
    owners.push_back(inspect_owner(directory, keys, progress));
  }
  return owners;
}

Result<std::vector<std::string>> inspect_leftovers(const std::string& path) {
  return disk::find_leftovers(path);
}

}  // namespace terrace::tier
