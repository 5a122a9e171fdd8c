#include "terrace/tier/disk/verify.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <deque>
#include <memory>
#include <optional>

#include "terrace/base/file.h"
#include "terrace/tier/crypt/frame_crypt.h"
#include "terrace/tier/disk/frame_check_internal.h"
#include "terrace/tier/disk/key_tally_internal.h"
#include "terrace/tier/disk/learned_keeper_internal.h"
#include "terrace/tier/disk/owner_directory_internal.h"
#include "terrace/tier/disk/owner_files_internal.h"
#include "terrace/tier/disk/shape_finder_internal.h"

namespace terrace::tier {

namespace {
using disk::ExtentTable;
using disk::KeyTally;
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
  OwnerVerifier(std::string directory, const std::function<void(const VerifyProgress&)>& progress,
                std::shared_ptr<const KeyRing> keys)
      : progress_(progress), keys_(std::move(keys)) {
    owner_.directory = std::move(directory);
  }

  VerifiedOwner run() {
    if (is_in_use() || !owner_.problem.empty()) return std::move(owner_);
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
      verify(facts.namespaces[i], owner_.namespaces[i], tallies_[i]);
      owner_.namespaces[i].encryption = std::move(tallies_[i]).take();
    }
    if (!owner_.is_in_use) (void)is_in_use();
    if (owner_.is_in_use) owner_.namespaces.clear();  // An engine may have written under the reads.
    return std::move(owner_);
  }

 private:
  // Of one namespace, while it is verified.
  struct Reading {
    const RunGeometry& shape;
    FrameCrypt& crypt;
    KeyTally& tally;
  };

  bool is_in_use() {
    const auto is_locked = disk::DirectoryLock::is_locked(owner_.directory);
    owner_.is_in_use = is_locked && *is_locked;
    if (!is_locked) {  // Another user's engine may be writing under the reads.
      owner_.problem = fmt::format(
          "whether an engine has it cannot be told, so it was not read: {}; verify it as that "
          "engine's user",
          is_locked.error().message());
    }
    return owner_.is_in_use;
  }

  void count(const disk::DirectoryFacts& facts) {
    for (const disk::NamespaceFacts& held : facts.namespaces) {
      VerifiedNamespace found;
      found.number = held.number;
      found.content_digest = held.content_digest;
      found.layout_digest = held.layout_digest;
      if (!held.text_problem.empty()) found.problem = "fingerprint.txt: " + held.text_problem;
      KeyTally& tally = tallies_.emplace_back(keys_);
      const auto scan = disk::scan_meta(
          owner_.directory, held.directory, held.number, table_,
          [&](const SealedSlot& sealed) {
            ++found.sealed_blocks;
            tally.add(sealed.record);
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
        if (scan->missing > 0) {
          if (!found.problem.empty()) found.problem += "; ";
          found.problem += fmt::format(
              "slots.meta was cut, it lacks {} records: what blocks they named are misses",
              scan->missing);
        }
      }
      // One half alone may be torn: a crash does that.
      const auto learned = disk::look_at_learned(owner_.directory + "/" + held.directory);
      if (learned.number == 0 && !learned.damage.empty()) {
        add(found, {.file = owner_.directory + "/" + held.directory + "/learned.meta",
                    .reason = learned.damage + ": eviction learns anew"});
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

  void verify(const disk::NamespaceFacts& held, VerifiedNamespace& found, KeyTally& tally) {
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
    FrameCrypt::Options options;
    options.crypt.ring = keys_;
    options.crypt.accepts_plain = true;
    options.content_digest = wanted.content_digest;
    options.layout_digest = wanted.layout_digest;
    const auto crypt = FrameCrypt::create(std::move(options));
    if (!crypt) {
      found.unread_blocks = found.sealed_blocks;
      blocks_ += found.sealed_blocks;
      found.problem = crypt.error().message();
      return;
    }
    const Reading reading{*shape, **crypt, tally};
    std::uint64_t seen = 0;
    (void)disk::scan_meta(owner_.directory, held.directory, held.number, table_,
                          [&](const SealedSlot& sealed) {
                            if (++seen % kBlocksPerLook == 0 && is_in_use()) return false;
                            ++blocks_;
                            verify_block(reading, sealed, wanted, found);
                            progress_({owner_.directory, blocks_, std::max(of_, blocks_)});
                            return true;
                          });
  }

  void verify_block(const Reading& reading, const SealedSlot& sealed, wire::FrameHeader wanted,
                    VerifiedNamespace& found) {
    const RunGeometry& shape = reading.shape;
    const std::uint16_t group = sealed.record.group;
    if (group >= shape.frame_bytes.size() || shape.frame_bytes[group] == 0) {
      ++found.unread_blocks;
      return;
    }
    wanted.hash = sealed.record.hash;
    wanted.group = GroupId(group);
    wanted.generation = Generation(sealed.record.generation);
    wanted.era = sealed.era;
    wanted.payload_bytes = shape.payload_bytes[group];
    bool is_good = true;
    std::uint16_t opened = 0;
    for (std::uint16_t rank = 0; rank < shape.ranks; ++rank) {
      wanted.rank = RankId(rank);
      const std::uint64_t offset = shape.offset(group, sealed.slot, rank);
      const auto status =
          verify_frame(reading, {offset, shape.frame_bytes[group]}, sealed.record, wanted, found);
      if (status.is_ok()) ++opened;
      // Without its key all that can be said of a frame was said, and it was right.
      if (status.is_ok() || status.code() == Code::kRefused) continue;
      is_good = false;
      add(found, {.file = owner_.directory + "/0.slots",
                  .offset = offset,
                  .key = sealed.record.hash.hex(),
                  .group = group,
                  .rank = rank,
                  .reason = status.message()});
    }
    ++(is_good ? found.good_blocks : found.damaged_blocks);
    if (sealed.record.key_tag && opened == shape.ranks) {
      reading.tally.add_opened(*sealed.record.key_tag);
    }
  }

  struct Range {
    std::uint64_t offset = 0;
    std::uint64_t bytes = 0;
  };

  // Errors: kRefused = whole, and its key is not at hand; else it is damaged.
  Status verify_frame(const Reading& reading, Range range, const disk::SlotRecord& record,
                      const wire::FrameHeader& wanted, VerifiedNamespace& found) {
    const auto frame = read_frame(range, found);
    if (!frame) return frame.error();
    auto header = disk::read_checked(*frame, wanted);
    if (!header) return {Code::kCorrupt, header.error().message()};
    const bool is_encrypted = header->codec == wire::FrameCodec::kAes256Gcm;
    if (is_encrypted != record.key_tag.has_value() ||
        (is_encrypted && header->seal.key.tag() != *record.key_tag)) {
      return {Code::kCorrupt, is_encrypted ? "the frame is encrypted with a key that its record "
                                             "does not name"
                                           : "its record says that it is encrypted, it is not"};
    }
    if (!is_encrypted) return {};
    reading.tally.name(header->seal.key);
    TERRACE_RETURN_IF_ERROR(reading.crypt.check(*header));
    return open(reading.crypt, *header,
                frame->subspan(wire::kFrameHeaderBytes, header->payload_bytes));
  }

  Status open(FrameCrypt& crypt, wire::FrameHeader& header, std::span<std::byte> payload) {
    Status opened;
    crypt.post_open(0, header, payload, false, opened);
    tokens_.clear();
    crypt.take_done(tokens_);
    return opened;
  }

  Result<std::span<std::byte>> read_frame(Range range, VerifiedNamespace& found) {
    const std::span<std::byte> frame = memory_.of(range.bytes);
    if (frame.size() < range.bytes) return fail(Code::kExhausted, "no memory for a frame");
    std::size_t done = 0;
    while (done < range.bytes) {
      const ssize_t got = ::pread(data_.get(), frame.data() + done, range.bytes - done,
                                  static_cast<off_t>(range.offset + done));
      if (got < 0 && errno == EINTR) continue;
      if (got < 0) return fail(Status::from_errno(errno, "pread", owner_.directory + "/0.slots"));
      if (got == 0) break;
      done += static_cast<std::size_t>(got);
    }
    found.bytes += done;
    return frame.first(done);
  }

  const std::function<void(const VerifyProgress&)>& progress_;
  VerifiedOwner owner_;
  ExtentTable table_;
  UniqueFd data_;
  FrameMemory memory_;
  const std::shared_ptr<const KeyRing> keys_;
  std::deque<KeyTally> tallies_;       // [namespace]
  std::vector<std::uint64_t> tokens_;  // Of one job at a time.
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
    const std::string& path, const std::function<void(const VerifyProgress&)>& progress,
    const std::shared_ptr<const KeyRing>& keys) {
  TERRACE_ASSIGN_OR_RETURN(const auto directories, disk::find_owner_directories(path));
  std::vector<VerifiedOwner> owners;
  owners.reserve(directories.size());
  for (const std::string& directory : directories) {
    owners.push_back(OwnerVerifier(directory, progress, keys).run());
  }
  return owners;
}

}  // namespace terrace::tier
