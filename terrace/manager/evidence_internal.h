// Both versions of a block that differs, kept for people to look at.
// Threading: the I/O thread.  Waits: for files.  Bounds: kMostEvidence blocks in the directory, the
// oldest go.
#pragma once

#include <cstddef>
#include <span>
#include <string>

#include "terrace/manager/options.h"
#include "terrace/manager/shadows_internal.h"

namespace terrace::manager {

inline constexpr std::size_t kMostEvidence = 8;

// NAME.stored and NAME.computed, the shard of the rank where they differ, and NAME.json, what they
// are. Returns where that is, or why it is nowhere.
[[nodiscard]] std::string keep_evidence(const Options& options, const CompareJob& job,
                                        const Compared& found, std::span<const std::byte> stored,
                                        std::span<const std::byte> computed);

}  // namespace terrace::manager
