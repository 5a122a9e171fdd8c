// Which blocks lie in the owner directories under other namespaces: never offered, but the answer
// to "why did this miss after I changed the model?". A Bloom filter over their sequence hashes (B.
// Bloom, 1970; double hashing after Kirsch and Mitzenmacher, 2006), so an answer may be wrong about
// one block in fifty: it decides nothing. Threading: read() once, by one thread; may_hold() by any,
// also meanwhile (then: no). Waits: read() for file I/O.  Memory: one to two bytes per slot of
// those namespaces, at most 16 MiB.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "terrace/block/sequence_hash.h"

namespace terrace::tier::disk {

class ForeignBlocks {
 public:
  // Takes in what all namespaces but that of the two digests have in these owner directories. Gives
  // up, knowing nothing, when `is_stopped`.
  void read(const std::vector<std::string>& directories, const std::string& content_digest,
            const std::string& layout_digest, const std::function<bool()>& is_stopped);
  [[nodiscard]] bool may_hold(const SequenceHash& hash) const;

 private:
  using Words = std::vector<std::uint64_t>;
  std::unique_ptr<const Words> kept_;
  std::atomic<const Words*> words_{nullptr};  // Null until read() is through.
};

}  // namespace terrace::tier::disk
