// How much of everything a disk tier has, and what several volumes have of it: enough for each to
// go on beside others that hang. Threading: thread-safe, plain functions.  Waits: never.
#pragma once

#include <cstddef>
#include <memory>

#include "terrace/tier/disk/disk_tier.h"

namespace terrace::tier::disk {

// Raises what is too little for as many volumes as there are paths. One alone has what was asked
// for.
void divide(DiskTier::Options& options);
// Everything that can be under way at once, so that a push is never refused.
[[nodiscard]] std::size_t queue_capacity(const DiskTier::Options& options, std::size_t volumes);
// Header pages, so that no frame waits for another's, wherever that hangs: 1 MiB at a depth of 16.
[[nodiscard]] std::size_t pages_of(const transfer::Backend& backend);
// Errors: as FrameCrypt::create().
[[nodiscard]] Result<std::unique_ptr<FrameCrypt>> make_crypt(const DiskTier::Options& options,
                                                             transfer::Backend& backend,
                                                             std::size_t volumes);

// Errors: kInvalid, and which of them.
[[nodiscard]] Status check_options(const DiskTier::Options& options);

}  // namespace terrace::tier::disk
