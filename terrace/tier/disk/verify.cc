#include "terrace/tier/disk/verify.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <memory>
#include <optional>

#include "terrace/base/file.h"
#include "terrace/tier/disk/frame_check_internal.h"
#include "terrace/tier/disk/owner_directory_internal.h"
#include "terrace/tier/disk/owner_files_internal.h"
#include "terrace/tier/disk/shape_finder_internal.h"

namespace terrace::tier {

namespace {
using disk::ExtentTable;
using disk::RunGeometry;
using disk::SealedSlot;

// Between two looks whether an engine has come.
constexpr std::uint64_t kBlocksPerLook = 256;

// Past the page cache where that goes: what is verified is the medium.
Result<UniqueFd> open_slots(const std::string& path) {
  auto file = open_regular_file(path, O_RDONLY | O_NOFOLLOW | O_DIRECT);
  if (file) return file;
  return open_regular_file(path, O_RDONLY | O_NOFOLLOW);
}

class FrameMemory {
 public:
  [[nodiscard]] std::span<std::byte> of(std::size_t bytes) {
    if (bytes > size_) {
      memory_.reset(static_cast<std::byte*>(std::aligned_alloc(disk::kPageBytes, bytes)));
      size_ = memory_ == nullptr ? 0 : bytes;
    }
    return {memory_.get(), std::min(bytes, size_)};
  }

 private:
  struct Free {
    void operator()(std::byte* memory) const { std::free(memory); }
  };
  std::unique_ptr<std::byte, Free> memory_;
  std::size_t size_ = 0;
};

class OwnerVerifier {
 public:
  OwnerVerifier(std::string directory, const std::function<void(const VerifyProgress&)>& progress)
      : progress_(progress) {
    owner_.directory = std::move(directory);
  }

  VerifiedOwner run() {
    if (is_in_use()) return std::move(owner_);
    const disk::DirectoryFacts facts = disk::judge(owner_.directory);
    owner_.problem = facts.reason;
    if (facts.state != disk::DirectoryState::kUsable) return std::move(owner_);
    auto table = ExtentTable::read(owner_.directory + "/extents.meta");
    const std::string slots = owner_.directory + "/0.slots";
    auto data = open_slots(slots);
    if (!table || !data) {
      owner_.problem = (!table ? table.error() : data.error()).message();
      return std::move(owner_);
    }
    table_ = *std::move(table);
    data_ = *std::move(data);
    owner_.damaged_extents = table_.damaged();
    count(facts);
    for (std::size_t i = 0; i < facts.namespaces.size() && !owner_.is_in_use; ++i) {
      verify(facts.namespaces[i], owner_.namespaces[i]);
    }
    if (!owner_.is_in_use) (void)is_in_use();
    if (owner_.is_in_use) owner_.namespaces.clear();  // An engine may have written under the reads.
    return std::move(owner_);
  }

 private:
  bool is_in_use() {
    const auto is_locked = disk::DirectoryLock::is_locked(owner_.directory);
    owner_.is_in_use = is_locked && *is_locked;
    return owner_.is_in_use;
  }

  void count(const disk::DirectoryFacts& facts) {
    for (const disk::NamespaceFacts& held : facts.namespaces) {
      VerifiedNamespace found;
      found.number = held.number;
      found.content_digest = held.content_digest;
      found.layout_digest = held.layout_digest;
      if (!held.text_problem.empty()) found.problem = "fingerprint.txt: " + held.text_problem;
      const auto scan = disk::scan_meta(
          owner_.directory, held.directory, held.number, table_,
          [&](const SealedSlot&) {
            ++found.sealed_blocks;
            return true;
          },
          [&](std::uint64_t offset) {
            add(found, {.file = meta_path(held),
                        .offset = offset,
                        .reason = "the record's "
                                  "checksum does "
                                  "not match"});
          });
      if (!scan) {
        found.problem = "slots.meta is missing or its header is damaged: its blocks are misses";
      } else {
        found.damaged_records = scan->damaged;
      }
      of_ += found.sealed_blocks;
      owner_.namespaces.push_back(std::move(found));
    }
  }

  [[nodiscard]] std::string meta_path(const disk::NamespaceFacts& held) const {
    return fmt::format("{}/{}/slots.meta", owner_.directory, held.directory);
  }

  static void add(VerifiedNamespace& found, Damage damage) {
    if (found.damage.size() < kMostDamage) {
      found.damage.push_back(std::move(damage));
    } else {
      ++found.damage_left_out;
    }
  }

  void verify(const disk::NamespaceFacts& held, VerifiedNamespace& found) {
    if (found.sealed_blocks == 0) return;
    const auto shape =
        disk::find_shape(owner_.directory, held.directory, held.number, table_, data_.get());
    if (!shape || held.content_digest.empty()) {
      found.unread_blocks = found.sealed_blocks;
      blocks_ += found.sealed_blocks;
      found.problem =
          "too few frames are whole to say where the others lie or whose they are: its blocks are "
          "misses until their space is needed";
      return;
    }
    wire::FrameHeader wanted;
    wanted.content_digest = disk::digest_bytes(held.content_digest);
    wanted.layout_digest = disk::digest_bytes(held.layout_digest);
    std::uint64_t seen = 0;
    (void)disk::scan_meta(owner_.directory, held.directory, held.number, table_,
                          [&](const SealedSlot& sealed) {
                            if (++seen % kBlocksPerLook == 0 && is_in_use()) return false;
                            ++blocks_;
                            verify_block(*shape, sealed, wanted, found);
                            progress_({owner_.directory, blocks_, std::max(of_, blocks_)});
                            return true;
                          });
  }

  void verify_block(const RunGeometry& shape, const SealedSlot& sealed, wire::FrameHeader wanted,
                    VerifiedNamespace& found) {
    const std::uint16_t group = sealed.record.group;
    if (group >= shape.frame_bytes.size() || shape.frame_bytes[group] == 0) {
      ++found.unread_blocks;
      return;
    }
    wanted.hash = sealed.record.hash;
    wanted.group = GroupId(group);
    wanted.generation = Generation(sealed.record.generation);
    wanted.payload_bytes = shape.payload_bytes[group];
    bool is_good = true;
    for (std::uint16_t rank = 0; rank < shape.ranks; ++rank) {
      wanted.rank = RankId(rank);
      const std::uint64_t offset = shape.offset(group, sealed.slot, rank);
      const Status status = read_frame(offset, shape.frame_bytes[group], wanted, found);
      if (status.is_ok()) continue;
      is_good = false;
      add(found, {.file = owner_.directory + "/0.slots",
                  .offset = offset,
                  .key = sealed.record.hash.hex(),
                  .group = group,
                  .rank = rank,
                  .reason = status.message()});
    }
    ++(is_good ? found.good_blocks : found.damaged_blocks);
  }

  Status read_frame(std::uint64_t offset, std::uint64_t bytes, const wire::FrameHeader& wanted,
                    VerifiedNamespace& found) {
    const std::span<std::byte> frame = memory_.of(bytes);
    if (frame.size() < bytes) return {Code::kExhausted, "no memory for a frame"};
    std::size_t done = 0;
    while (done < bytes) {
      const ssize_t got = ::pread(data_.get(), frame.data() + done, bytes - done,
                                  static_cast<off_t>(offset + done));
      if (got < 0 && errno == EINTR) continue;
      if (got < 0) return Status::from_errno(errno, "pread", owner_.directory + "/0.slots");
      if (got == 0) break;
      done += static_cast<std::size_t>(got);
    }
    found.bytes += done;
    return disk::check_frame(frame.first(done), wanted);
  }

  const std::function<void(const VerifyProgress&)>& progress_;
  VerifiedOwner owner_;
  ExtentTable table_;
  UniqueFd data_;
  FrameMemory memory_;
  std::uint64_t blocks_ = 0;
  std::uint64_t of_ = 0;
};
}  // namespace

bool VerifiedOwner::is_good() const {
  if (is_in_use || !problem.empty() || damaged_extents > 0) return false;
  return std::ranges::all_of(namespaces, [](const VerifiedNamespace& one) {
    return one.problem.empty() && one.damage.empty() && one.unread_blocks == 0;
  });
}

Result<std::vector<VerifiedOwner>> verify_directory(
    const std::string& path, const std::function<void(const VerifyProgress&)>& progress) {
  TERRACE_ASSIGN_OR_RETURN(const auto directories, disk::find_owner_directories(path));
  std::vector<VerifiedOwner> owners;
  owners.reserve(directories.size());
  for (const std::string& directory : directories) {
    owners.push_back(OwnerVerifier(directory, progress).run());
  }
  return owners;
}

}  // namespace terrace::tier
