// A namespace that was found to lie, written down for its later owners: a small file, in each of
// some directories, that somebody has to take away before anything of it is served again.
// Threading: the opening thread reads, the I/O thread writes.  Waits: for files. Errors: a file
// that is there and cannot be read counts as a quarantine. Source:
// docs/adr/0036-a-share-of-hits-is-checked.md.
#pragma once

#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "terrace/base/status.h"
#include "terrace/manager/options.h"
#include "terrace/tier/first_look.h"

namespace terrace::manager {

// The files' paths; none where the options name no directory for them.
[[nodiscard]] std::vector<std::string> quarantine_paths(const ShadowOptions& options,
                                                        const Fingerprint& fingerprint);
// What an earlier owner wrote there; nothing = it wrote nothing.
[[nodiscard]] std::optional<std::string> read_quarantine(const std::string& path);
struct FoundQuarantine {
  std::string text;
  std::vector<std::string> paths;  // That have it.
};
[[nodiscard]] std::optional<FoundQuarantine> find_quarantine(std::span<const std::string> paths);
// On the medium when it returns ok. Errors: of the file.
[[nodiscard]] Status write_quarantine(const std::string& path, std::string_view reason);
inline constexpr Nanoseconds kMarkLimit = seconds(2);
// In each of them that takes it within `limit`, each by a hand of its own, as the file server of
// one may hang; one that does so is left to that hand. Without hands in turn, and without limit.
// Those that took it. Errors: none did; the quarantine then ends with the process.
[[nodiscard]] Result<std::vector<std::string>> write_quarantines(std::span<const std::string> paths,
                                                                 std::string_view reason,
                                                                 const tier::MakeHand& make_hand,
                                                                 Nanoseconds limit = kMarkLimit);

}  // namespace terrace::manager
