// What lies in a disk directory, as text and JSON: owners, namespaces in clear text, and which
// fields keep namespaces from matching each other or a given fingerprint. Threading: pure
// functions.  Waits: never.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "terrace/block/fingerprint.h"
#include "terrace/tier/disk/inspect.h"

namespace terrace::cli {

struct PathReport {
  std::string path;
  std::vector<tier::InspectedOwner> owners;
  std::vector<std::string> leftovers{};  // Directories of a move that has not ended.
};

// What to say of one of them.
[[nodiscard]] std::string leftover_text(const std::string& directory);

// True when `wanted` is given and no namespace has both its digests.
[[nodiscard]] bool is_match_missing(const std::vector<PathReport>& reports,
                                    const Fingerprint& wanted);
// True when an owner directory would not be used, or something in it is damaged or cut.
[[nodiscard]] bool has_problem(const std::vector<PathReport>& reports);

struct InspectView {
  std::optional<Fingerprint> wanted;  // Compared with what is there, if given.
  bool has_keys = false;              // Some are at hand.
};
[[nodiscard]] std::string inspect_text(const std::vector<PathReport>& reports,
                                       const InspectView& view);
[[nodiscard]] std::string inspect_json(const std::vector<PathReport>& reports,
                                       const InspectView& view);

}  // namespace terrace::cli
