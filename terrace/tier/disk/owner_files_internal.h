// The files that Terrace writes in an owner directory: found without following a link, told from
// everything else that lies there. For tools that remove or copy them.
// Threading: thread-safe.  Waits: file I/O.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "terrace/base/file.h"
#include "terrace/base/status.h"

namespace terrace::tier::disk {

// `given` as in disk.paths: the owner directories below it, sorted. One of them: itself. Errors:
// kIo.
[[nodiscard]] Result<std::vector<std::string>> find_owner_directories(const std::string& given);

// Those of a namespace. The first one removed ends what counts in it, the last says whose it is.
inline constexpr std::array<std::string_view, 6> kNamespaceFiles{
    "slots.meta", "learned.meta",        "used.txt.tmp",
    "used.txt",   "fingerprint.txt.tmp", "fingerprint.txt"};

struct OwnedFile {
  std::string name;           // From the directory on, such as "ns-0001/slots.meta".
  std::uint64_t size = 0;     // Its length,
  std::uint64_t on_disk = 0;  // and what it takes of the medium.
};

// In the order in which they can be removed: what is left at any moment is a directory that an
// engine can open.
struct OwnerFiles {
  std::vector<OwnedFile> files;
  std::vector<std::string> namespaces;  // "ns-0001"
  std::vector<std::string> foreign;     // Not Terrace's: other names, links, folders.
  bool has_extents = false;             // extents.meta is there.
  [[nodiscard]] std::uint64_t on_disk() const;
};
[[nodiscard]] Result<OwnerFiles> list_owner_files(int directory, const std::string& path);

// The directory itself, no link to one. Errors: kIo; kInvalid = it is a link or no directory.
[[nodiscard]] Result<UniqueFd> open_owner_directory(const std::string& path);
// `path` still leads to the folder that is open, so a lock that was taken by `path` since lies in
// it: somebody may have renamed it meanwhile, and another one made a new one.
[[nodiscard]] bool is_still_at(int folder, const std::string& path);
// A folder in it. Errors: as above.
[[nodiscard]] Result<UniqueFd> open_folder(int directory, const std::string& name,
                                           const std::string& path);
// The folder that `name` lies in, such as "ns-0001", and the rest of the name. The folder is a copy
// of `directory` itself where there is none.
struct Place {
  UniqueFd folder;
  std::string name;
};
[[nodiscard]] Result<Place> place_of(int directory, const std::string& name,
                                     const std::string& path);
// unlink, never through a link; gone already is as good. Errors: kIo.
[[nodiscard]] Status remove_file(int directory, const std::string& name, const std::string& path);
[[nodiscard]] Status sync_folder(int directory, const std::string& path);

// What a move leaves until it is done (move.h): notes in the directory and in its copy, the copy's
// name until it is whole, and the end of the directory's name once it is.
inline constexpr const char* kMovedFrom = "moved-from.txt";
inline constexpr const char* kMovingTo = "moving-to.txt";
inline constexpr const char* kIncoming = "terrace-incoming-";
inline constexpr const char* kLeaving = ".moving";
// Directories of both kinds below `given`, or that of `given` itself, sorted.
[[nodiscard]] Result<std::vector<std::string>> find_leftovers(const std::string& given);

}  // namespace terrace::tier::disk
