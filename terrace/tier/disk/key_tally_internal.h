// Counts a namespace's blocks by the keys that they are encrypted with. Records say 15 bits of a
// key's id; a frame says all of it.
// Threading: thread-compatible.  Waits: file I/O where it says so.  Memory: one entry a key.
// Source: docs/formats/encryption.md.
#pragma once

#include <map>
#include <memory>
#include <optional>
#include <string>

#include "terrace/block/key_ring.h"
#include "terrace/tier/disk/extent_table_internal.h"
#include "terrace/tier/disk/format_internal.h"
#include "terrace/tier/key_use.h"

namespace terrace::tier::disk {

class KeyTally {
 public:
  // `ring`: the keys at hand; null = none.
  explicit KeyTally(std::shared_ptr<const KeyRing> ring) : ring_(std::move(ring)) {}

  void add(const SlotRecord& record);
  // A block whose record was added before.
  void add_opened(std::uint16_t tag) { ++uses_[tag].opened; }
  // What a whole frame says; the first one counts.
  void name(const KeyId& id);
  // Reads header pages of `directory`/`name` until each key has its name. Waits for them.
  void read_names(const std::string& directory, const std::string& name, std::uint32_t number,
                  const ExtentTable& table);
  [[nodiscard]] KeyUses take() &&;

 private:
  [[nodiscard]] bool is_named() const;

  std::shared_ptr<const KeyRing> ring_;
  std::uint64_t plain_blocks_ = 0;
  std::map<std::uint16_t, KeyUse> uses_;  // By tag.
};

}  // namespace terrace::tier::disk
