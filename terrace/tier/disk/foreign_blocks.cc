#include <sys/stat.h>

#include <algorithm>
#include <bit>

#include "terrace/tier/disk/foreign_blocks_internal.h"
#include "terrace/tier/disk/meta_scan_internal.h"
#include "terrace/tier/disk/owner_directory_internal.h"

namespace terrace::tier::disk {

namespace {

constexpr std::uint64_t kBitsPerBlock = 8;
constexpr std::uint64_t kFewestBits = 1U << 10U;
constexpr std::uint64_t kMostBits = 1U << 27U;  // 16 MiB
constexpr unsigned kProbes = 4;

// The hash is a digest: its halves are as good as two independent hashes.
template <typename Visit>
void each_bit(const SequenceHash& hash, std::uint64_t bits, Visit&& visit) {
  for (unsigned i = 0; i < kProbes; ++i) visit((hash.low + i * (hash.high | 1)) & (bits - 1));
}

struct Source {
  std::string directory;
  std::string name;
  std::uint32_t number = 0;
};

// How many records a slots.meta has room for.
std::uint64_t records_of(const std::string& path) {
  struct stat file{};
  return ::stat(path.c_str(), &file) == 0
             ? static_cast<std::uint64_t>(file.st_size) / kSlotRecordBytes
             : 0;
}

}  // namespace

void ForeignBlocks::read(const std::vector<std::string>& directories,
                         const std::string& content_digest, const std::string& layout_digest,
                         const std::function<bool()>& is_stopped) {
  std::vector<Source> sources;
  std::uint64_t records = 0;
  for (const std::string& directory : directories) {
    for (const NamespaceFacts& held : judge(directory).namespaces) {
      if (held.content_digest == content_digest && held.layout_digest == layout_digest) continue;
      sources.push_back({directory, held.directory, held.number});
      records += records_of(directory + "/" + held.directory + "/slots.meta");
    }
  }
  if (records == 0) return;
  const std::uint64_t bits =
      std::clamp(std::bit_ceil(records * kBitsPerBlock), kFewestBits, kMostBits);
  auto words = std::make_unique<Words>(bits / 64);
  for (const Source& source : sources) {
    const auto table = ExtentTable::read(source.directory + "/extents.meta");
    if (!table) continue;
    (void)scan_meta(
        source.directory, source.name, source.number, *table, [&](const SealedSlot& sealed) {
          each_bit(sealed.record.hash, bits,
                   [&](std::uint64_t bit) { (*words)[bit / 64] |= 1ULL << (bit % 64); });
          return !is_stopped();
        });
  }
  if (is_stopped()) return;
  kept_ = std::move(words);
  words_.store(kept_.get(), std::memory_order_release);
}

bool ForeignBlocks::may_hold(const SequenceHash& hash) const {
  const Words* words = words_.load(std::memory_order_acquire);
  if (words == nullptr) return false;
  bool has_all = true;
  each_bit(hash, words->size() * 64, [&](std::uint64_t bit) {
    has_all = has_all && ((*words)[bit / 64] >> (bit % 64) & 1U) != 0;
  });
  return has_all;
}

}  // namespace terrace::tier::disk
